#!/usr/bin/env python3
"""Logits of a tiny F32 model of every family, to compare our engine with.

    python3 tests/golden/families.py [--files FOLDER]

Needs `llama-cpp-python` (made with 0.3.36). The models come from the engine's test kit: its example
`families` writes them, unless a folder is given that it wrote before with the same seed. Writes
families.json beside this file: the seed, the tokens, and for each model the logits at some of the
positions. `context` is how many tokens there is room for; where a model has two sets of rotary
factors, that chooses. `bytes` and `fnv1a` (64 bits) tell whether the test kit still writes the same
file.

The logits are those of reference.py, in double precision. llama.cpp must agree with them to 1e-5 of
the largest, with keys and values in f32 and without flash attention, which would round to f16. Two
of its habits it cannot be asked to leave: gemma's GELU comes from a table of half precision (so 2e-3
must do), and the sliding window of llama and phi3 files is ignored (so those it does not check).
"""

import argparse
import ctypes
import json
import pathlib
import subprocess
import tempfile

import llama_cpp
import numpy
import reference

HERE = pathlib.Path(__file__).resolve().parent
SEED = 7
CONTEXT = 256
GGML_TYPE_F32 = 0
# Past a window of 16 and back to tokens seen before.
TOKENS = [(at * 89 + at * at * 13 + 5) % 300 for at in range(36)] + [5, 107, 235, 5]
POSITIONS = [0, 3, 15, 16, 17, 28, 39]
# How far llama.cpp may be from the reference, relative to the largest logit.
NEAR, NEAR_WITH_HALF_GELU = 1e-5, 2e-3


def write_models(folder):
    command = ["cargo", "run", "--quiet", "--example", "families", "--features", "dsk-daemon-engine/testkit"]
    subprocess.run([*command, "--", folder, str(SEED)], check=True, cwd=HERE)


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def logits(path, context):
    """llama.cpp's row for each of POSITIONS."""
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    assert model, f"llama.cpp refuses {path}"
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = context, 64, 64
    params.n_threads = params.n_threads_batch = 1
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.type_k = params.type_v = GGML_TYPE_F32
    ctx = llama_cpp.llama_init_from_model(model, params)
    assert ctx, f"no context for {path}"
    assert llama_cpp.llama_n_ctx(ctx) == context, "another context than asked for"
    batch = llama_cpp.llama_batch_init(len(TOKENS), 0, 1)
    batch.n_tokens = len(TOKENS)
    for at, token in enumerate(TOKENS):
        batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.seq_id[at][0] = token, at, 1, 0
        batch.logits[at] = True
    assert llama_cpp.llama_decode(ctx, batch) == 0, f"llama.cpp fails on {path}"
    size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    rows = [numpy.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(ctx, at), (size,)).copy() for at in POSITIONS]
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(ctx)
    llama_cpp.llama_model_free(model)
    assert numpy.isfinite(rows).all(), f"logits of {path} are not finite"
    return rows


def case(path, context):
    """What is recorded of a model, once llama.cpp agrees."""
    model = reference.Model(path)
    rows = model.logits(TOKENS, context)[POSITIONS]
    theirs = numpy.array(logits(path, context), float)
    gap = (numpy.abs(rows - theirs).max(-1) / numpy.abs(rows).max(-1)).max()
    ignored = not model.gemma and "attention.sliding_window" in model.keys
    print(f"{path.stem} {context}: llama.cpp is {gap:.1e} away" + " (it ignores the window)" * ignored)
    assert ignored or gap < (NEAR_WITH_HALF_GELU if model.gemma else NEAR), path.stem
    data = path.read_bytes()
    return {
        "family": path.stem, "context": context, "bytes": len(data), "fnv1a": fnv1a(data),
        # The shortest decimals that give the same single.
        "logits": [[float(str(value)) for value in row] for row in rows.astype(numpy.float32)],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", help="where the models lie already")
    given = parser.parse_args().files
    silence = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silence, ctypes.c_void_p(0))
    with tempfile.TemporaryDirectory() as scratch:
        if not given:
            write_models(scratch)
        lines = [
            json.dumps(case(path, context), separators=(",", ":"))
            for path in sorted(pathlib.Path(given or scratch).glob("*.gguf"))
            for context in ([CONTEXT, 2 * CONTEXT] if path.stem == "phi3-long" else [CONTEXT])
        ]
    head = json.dumps({"seed": SEED, "tokens": TOKENS, "positions": POSITIONS}, separators=(",", ":"))[:-1]
    (HERE / "families.json").write_text(head + ',"cases":[\n' + ",\n".join(lines) + "\n]}\n")


if __name__ == "__main__":
    main()
