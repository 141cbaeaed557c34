#!/usr/bin/env python3
"""Write sentencepiece.gguf: a small SentencePiece vocabulary, for tokens.py and the engine's tests.

    python3 tests/golden/sentencepiece.py

No small real model of this family can be fetched, so the pieces are frequent substrings of the
texts in strings.json; scores fall with frequency and some are equal, so that ties are decided too.
"""

import collections
import json
import pathlib
import struct

HERE = pathlib.Path(__file__).resolve().parent
PIECES = 700
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def array(key, element, values, pack):
    body = struct.pack("<IQ", element, len(values)) + b"".join(pack(value) for value in values)
    return entry(key, ARRAY, body)


def vocabulary():
    """Tokens, scores, types."""
    rows = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    rows += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    counts = collections.Counter()
    for sample in json.loads((HERE / "strings.json").read_text()):
        for word in sample[:400].replace("\n", " ").split(" "):
            word = "▁" + word
            for length in range(1, 8):
                counts.update(word[at:at + length] for at in range(len(word) - length + 1))
    plain = [(piece, count) for piece, count in counts.items() if piece.isprintable() and not set("<[") & set(piece)]
    plain.sort(key=lambda pair: (-pair[1] * len(pair[0]), pair[0]))
    # Three pieces in a row share a score.
    rows += [(piece, -float(rank // 3 + 1), NORMAL) for rank, (piece, _) in enumerate(plain[:PIECES])]
    rows += [("<think>", 0.0, USER_DEFINED), ("</think>", 0.0, USER_DEFINED), ("[INST]", 0.0, CONTROL), ("[/INST]", 0.0, CONTROL)]
    return rows


def main():
    rows = vocabulary()
    metadata = [
        entry("general.architecture", STRING, text("llama")),
        entry("general.name", STRING, text("sentencepiece test vocabulary")),
        *(entry(f"llama.{name}", U32, struct.pack("<I", value)) for name, value in [
            ("block_count", 1), ("context_length", 64), ("embedding_length", 32), ("feed_forward_length", 32),
            ("attention.head_count", 1), ("rope.dimension_count", 32)]),
        entry("llama.attention.layer_norm_rms_epsilon", F32, struct.pack("<f", 1e-5)),
        entry("tokenizer.ggml.model", STRING, text("llama")),
        array("tokenizer.ggml.tokens", STRING, [row[0] for row in rows], text),
        array("tokenizer.ggml.scores", F32, [row[1] for row in rows], lambda value: struct.pack("<f", value)),
        array("tokenizer.ggml.token_type", I32, [row[2] for row in rows], lambda value: struct.pack("<i", value)),
        entry("tokenizer.ggml.bos_token_id", U32, struct.pack("<I", 1)),
        entry("tokenizer.ggml.eos_token_id", U32, struct.pack("<I", 2)),
        entry("tokenizer.ggml.unknown_token_id", U32, struct.pack("<I", 0)),
    ]
    out = b"GGUF" + struct.pack("<IQQ", 3, 0, len(metadata)) + b"".join(metadata)
    (HERE / "sentencepiece.gguf").write_bytes(out + bytes(-len(out) % 32))
    print(f"{len(rows)} tokens, {len(out)} bytes")


if __name__ == "__main__":
    main()
