#!/usr/bin/env python3
"""Write tokens-*.json: the ids that llama.cpp gives to every text of strings.json.

    python3 tests/golden/tokens.py [NAME...]

Needs `llama-cpp-python` (made with 0.3.36) and, for the SentencePiece vocabulary, `gguf`. Each
output holds, text by text, the ids with special tokens parsed and, where they differ, the ids
with special tokens as text; no begin-of-sequence token is added. It also lists the tokens that
end a generation.
"""

import ctypes
import json
import pathlib
import subprocess
import sys
import tempfile

import llama_cpp

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# name of the output: name of the model in tests/models.py
MODELS = {"smollm2": "smollm2", "qwen2.5-coder": "qwen2.5-coder", "deepseek-r1-qwen": "deepseek-r1-7b-header"}


def model_path(name):
    script = [sys.executable, str(ROOT / "tests" / "models.py"), name]
    return subprocess.run(script, check=True, capture_output=True, text=True).stdout.strip()


def header_of(path, folder):
    """The file without its tensors, because llama.cpp checks that all their data is there."""
    data = pathlib.Path(path).read_bytes()
    keys_start = 4 + 4 + 8 + 8
    version_and_magic, key_count = data[:8], data[16:24]
    end = end_of_metadata(data, keys_start, int.from_bytes(key_count, "little"))
    out = pathlib.Path(folder) / "header.gguf"
    body = version_and_magic + (0).to_bytes(8, "little") + key_count + data[keys_start:end]
    out.write_bytes(body + bytes(-len(body) % 32))
    return out


SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def end_of_metadata(data, at, count):
    def number(at, size):
        return int.from_bytes(data[at:at + size], "little")

    def value(kind, at):
        if kind == 8:
            return at + 8 + number(at, 8)
        if kind != 9:
            return at + SIZES[kind]
        element, length, at = number(at, 4), number(at + 4, 8), at + 12
        if element in SIZES:
            return at + length * SIZES[element]
        for _ in range(length):
            at = value(element, at)
        return at

    for _ in range(count):
        at += 8 + number(at, 8)
        at = value(number(at, 4), at + 4)
    return at


def tokenize(vocab, text, parse_special):
    raw = text.encode()
    capacity = len(raw) + 16
    ids = (llama_cpp.llama_token * capacity)()
    count = llama_cpp.llama_tokenize(vocab, raw, len(raw), ids, capacity, False, parse_special)
    assert count >= 0, text
    return list(ids[:count])


def golden(path, texts):
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    assert model, f"llama.cpp cannot load {path}"
    vocab = llama_cpp.llama_model_get_vocab(model)
    size = llama_cpp.llama_vocab_n_tokens(vocab)
    ends = [id for id in range(size) if llama_cpp.llama_vocab_is_eog(vocab, id)]
    rows = []
    for text in texts:
        parsed, plain = tokenize(vocab, text, True), tokenize(vocab, text, False)
        rows.append([parsed] if parsed == plain else [parsed, plain])
    llama_cpp.llama_model_free(model)
    return {"vocab_size": size, "ends": ends, "rows": rows}


def write(name, result):
    rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in result.pop("rows"))
    head = json.dumps(result, separators=(",", ":"))[:-1]
    (HERE / f"tokens-{name}.json").write_text(f'{head},"rows":[\n{rows}\n]}}\n')
    print(f"tokens-{name}.json: {rows.count(chr(10)) + 1} texts")


def main():
    texts = json.loads((HERE / "strings.json").read_text())
    names = sys.argv[1:] or [*MODELS, "sentencepiece"]
    silence = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silence, ctypes.c_void_p(0))
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            if name == "sentencepiece":
                write(name, golden(HERE / "sentencepiece.gguf", texts))
            else:
                write(name, golden(header_of(model_path(MODELS[name]), folder), texts))


if __name__ == "__main__":
    main()
