#!/usr/bin/env python3
"""Write models of full size whose weights are random, into target/models: what cannot be fetched.

    python3 tests/synthetic.py deepseek-r1-7b [llama-8b ...]

Speed and memory do not depend on what weights say. Every block is valid, its quants are uniform, and
its scales keep weights near a spread of 0.02 around zero, so that activations stay finite. The same
name always gives the same bytes. `deepseek-r1-7b` completes the real file, of which tests/models.py
fetches the beginning; the others have the shape of a known model, mixed formats as in Q4_K_M, and a
vocabulary of bytes and filler. Prints one absolute path a model.
"""

import fcntl
import pathlib
import random
import struct
import sys
import zlib

import models
from header import FORMATS, Header

# Blocks that repeat: a prime, so that rows of a matrix do not.
POOL = 4099
CHUNK = 1 << 24
HEAD = "deepseek-r1-7b-header"
F32, Q4_K, Q6_K = 0, 12, 14

# Format: half-precision fields of a block, as (offset, value); all other bytes are random.
# Where a block has an offset too, it takes away the mean of what is multiplied with the scale.
SCALES = {
    "Q4_0": [(0, 4.3e-3)],
    "Q4_1": [(0, 4.3e-3), (2, -7.5 * 4.3e-3)],
    "Q5_0": [(0, 2.2e-3)],
    "Q5_1": [(0, 2.2e-3), (2, -15.5 * 2.2e-3)],
    "Q8_0": [(0, 2.7e-4)],
    "Q2_K": [(80, 1.4e-3), (82, 1.5 * 1.4e-3)],
    "Q3_K": [(108, 4.7e-4)],
    "Q4_K": [(0, 7.8e-5), (2, 7.5 * 7.8e-5)],
    "Q5_K": [(0, 3.8e-5), (2, 15.5 * 3.8e-5)],
    "Q6_K": [(208, 6.2e-5)],
    "IQ4_NL": [(0, 2.9e-4)],
    "IQ4_XS": [(0, 1.5e-5)],
}
MXFP4_EXPONENT = 120
# Where Q6_K keeps 16 scales of a signed byte; a quarter of their range is what models use.
Q6_K_SCALES = slice(192, 208)

# name: architecture, blocks, embedding, heads, heads of keys, feed-forward, vocabulary, rotary base
SHAPES = {
    "qwen2.5-1.5b": ("qwen2", 28, 1536, 12, 2, 8960, 151936, 1e6),
    "qwen2.5-14b": ("qwen2", 48, 5120, 40, 8, 13824, 152064, 1e6),
    "qwen2.5-32b": ("qwen2", 64, 5120, 40, 8, 27648, 152064, 1e6),
    "llama-8b": ("llama", 32, 4096, 32, 8, 14336, 128256, 5e5),
    "llama-70b": ("llama", 80, 8192, 64, 8, 28672, 128256, 5e5),
}


def quantized_pool(name, size):
    """Valid blocks of a quantized format, one after another."""
    rng = random.Random(name)
    pool = bytearray(rng.randbytes(POOL * size))
    for start in range(0, len(pool), size):
        if name == "MXFP4":
            pool[start] = MXFP4_EXPONENT
        if name == "Q6_K":
            scales = pool[start:start + size][Q6_K_SCALES]
            pool[start + 192:start + 208] = bytes((byte & 63) - 32 & 255 for byte in scales)
        jitter = rng.uniform(0.75, 1.25)
        for offset, value in SCALES.get(name, []):
            struct.pack_into("<e", pool, start + offset, value * jitter)
    return bytes(pool)


def float_pool(name, centre, spread):
    """Numbers of a format without blocks."""
    rng = random.Random(name)
    values = [rng.uniform(centre - spread, centre + spread) for _ in range(POOL)]
    if name == "F16":
        return struct.pack(f"<{POOL}e", *values)
    singles = struct.pack(f"<{POOL}f", *values)
    return singles if name == "F32" else b"".join(singles[at + 2:at + 4] for at in range(0, len(singles), 4))


def pool_of(tensor, pools):
    """The bytes that a tensor repeats."""
    name, elements, size = FORMATS[tensor.kind]
    norm = tensor.name.endswith("norm.weight")
    if (name, norm) not in pools:
        spread = (1.0, 0.1) if norm else (0.0, 0.035)
        pools[name, norm] = float_pool(name, *spread) if elements == 1 else quantized_pool(name, size)
    return pools[name, norm]


def fill(out, header, have):
    """Writes every tensor of `header` from the byte `have` of the file on."""
    pools = {}
    for tensor in header.tensors:
        pool = pool_of(tensor, pools)
        _, _, size = FORMATS[tensor.kind]
        # Each tensor begins elsewhere in the pool, but at a block.
        begin = zlib.crc32(tensor.name.encode()) % POOL * size
        at = max(tensor.start, have)
        end = tensor.start + tensor.bytes
        if at >= end:
            continue
        turn = (begin + at - tensor.start) % len(pool)
        turned = memoryview((pool[turn:] + pool[:turn]) * max(1, CHUNK // len(pool)))
        out.seek(at)
        while at < end:
            at += out.write(turned[:end - at])
    out.truncate(-(-header.size // 32) * 32)


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(key, value):
    """A key whose type follows from the value's."""
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", 6, value)
    if isinstance(value, bool):
        return text(key) + struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return text(key) + struct.pack("<II", 4, value)
    strings = isinstance(value[0], str)
    body = b"".join(map(text, value)) if strings else struct.pack(f"<{len(value)}i", *value)
    return text(key) + struct.pack("<IIQ", 9, 8 if strings else 5, len(value)) + body


def vocabulary(size):
    """Bytes as byte-level BPE spells them, then filler."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    shifted = iter(range(0x100, 0x200))
    tokens = [chr(byte if byte in printable else next(shifted)) for byte in range(256)]
    return tokens + [f"<|filler_{at}|>" for at in range(256, size)], [1] * 256 + [3] * (size - 256)


def tensors_of(shape):
    """Names, extents and formats as llama.cpp's Q4_K_M has them."""
    architecture, blocks, embedding, heads, heads_kv, feed_forward, words, _ = shape
    keys = embedding // heads * heads_kv
    yield "token_embd.weight", [embedding, words], Q4_K
    for block in range(blocks):
        fine = block < blocks // 8 or block >= 7 * blocks // 8 or (block - blocks // 8) % 3 == 2
        finer = Q6_K if fine else Q4_K
        for name, extents, kind in [
            ("attn_norm.weight", [embedding], F32), ("attn_q.weight", [embedding, embedding], Q4_K),
            ("attn_k.weight", [embedding, keys], Q4_K), ("attn_v.weight", [embedding, keys], finer),
            ("attn_output.weight", [embedding, embedding], Q4_K), ("ffn_norm.weight", [embedding], F32),
            ("ffn_gate.weight", [embedding, feed_forward], Q4_K), ("ffn_up.weight", [embedding, feed_forward], Q4_K),
            ("ffn_down.weight", [feed_forward, embedding], finer),
        ]:
            yield f"blk.{block}.{name}", extents, kind
        if architecture == "qwen2":
            for name, extent in [("attn_q", embedding), ("attn_k", keys), ("attn_v", keys)]:
                yield f"blk.{block}.{name}.bias", [extent], F32
    yield "output_norm.weight", [embedding], F32
    yield "output.weight", [embedding, words], Q6_K


def header_of(name):
    """The bytes before the tensors of one of SHAPES."""
    architecture, blocks, embedding, heads, heads_kv, feed_forward, words, base = shape = SHAPES[name]
    tokens, kinds = vocabulary(words)
    keys = [entry(key, value) for key, value in [
        ("general.architecture", architecture), ("general.name", f"synthetic {name}"), ("general.file_type", 15),
        *((f"{architecture}.{key}", value) for key, value in [
            ("block_count", blocks), ("context_length", 32768), ("embedding_length", embedding),
            ("feed_forward_length", feed_forward), ("attention.head_count", heads),
            ("attention.head_count_kv", heads_kv), ("rope.dimension_count", embedding // heads),
            ("rope.freq_base", base), ("attention.layer_norm_rms_epsilon", 1e-5)]),
        ("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", "qwen2" if architecture == "qwen2" else "llama-bpe"),
        ("tokenizer.ggml.tokens", tokens), ("tokenizer.ggml.token_type", kinds), ("tokenizer.ggml.merges", ["a b"]),
        ("tokenizer.ggml.bos_token_id", 256), ("tokenizer.ggml.eos_token_id", 257), ("tokenizer.ggml.add_bos_token", False),
    ]]
    infos, offset = [], 0
    for tensor, extents, kind in tensors_of(shape):
        infos.append(text(tensor) + struct.pack(f"<I{len(extents)}QIQ", len(extents), *extents, kind, offset))
        _, elements, size = FORMATS[kind]
        count = extents[0] * (extents[1] if len(extents) > 1 else 1)
        offset += -(-(count // elements * size) // 32) * 32
    out = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(keys)) + b"".join(keys) + b"".join(infos)
    return out + bytes(-len(out) % 32)


def write(name):
    """The path of the model, written if it is not there."""
    models.CACHE.mkdir(parents=True, exist_ok=True)
    path = models.CACHE / f"synthetic-{name}.Q4_K_M.gguf"
    partial = path.with_suffix(".partial")
    head = models.fetch(HEAD).read_bytes() if name == "deepseek-r1-7b" else header_of(name)
    with open(models.CACHE / ".synthetic.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        proof, stamp = path.with_suffix(".ok"), f"{zlib.crc32(pathlib.Path(__file__).read_bytes())} {len(head)}"
        if path.exists() and proof.exists() and proof.read_text() == stamp:
            return path
        print(f"writing {path.name}", file=sys.stderr)
        with open(partial, "wb") as out:
            out.write(head)
            out.flush()
            fill(out, Header(partial), len(head))
        partial.rename(path)
        proof.write_text(stamp)
    return path


if __name__ == "__main__":
    names = sys.argv[1:]
    known = ["deepseek-r1-7b", *SHAPES]
    if not names or set(names) - set(known):
        sys.exit(f"usage: synthetic.py NAME...  where NAME is one of {', '.join(known)}")
    for name in names:
        print(write(name))
