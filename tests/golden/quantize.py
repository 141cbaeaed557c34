#!/usr/bin/env python3
"""Write quantize.json: what gguf-py makes of blocks, and how well it writes them.

    python3 tests/golden/quantize.py

Needs `gguf` (made with 0.19.0), which is an implementation of its own in numpy. "blocks" holds, by
type, pseudo-random blocks and the numbers in them, both as the hexadecimal digits of their bytes;
all of the numbers are finite. "errors" holds, for the types that gguf-py can write, the error of
its blocks for the numbers of `gaussian`: the root of the mean of the squared differences, divided
by the numbers' own. "first" are the first of those numbers, because the tests make them as well.
"""

import json
import pathlib

import numpy
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize, quantize

HERE = pathlib.Path(__file__).resolve().parent
READ = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4"]
WRITTEN = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4"]
# Numbers of every type in "blocks", and of the sample that errors are measured on.
NUMBERS = 768
SAMPLE = 16384


def splitmix(seed):
    """Pseudo-random numbers of 64 bits (Steele, Lea and Flood, 2014)."""
    mask = (1 << 64) - 1
    while True:
        seed = seed + 0x9E3779B97F4A7C15 & mask
        mixed = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9 & mask
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & mask
        yield mixed ^ mixed >> 31


def gaussian(count):
    """Nearly normal numbers that f32 holds exactly: each the sum of the quarters of three numbers."""
    rng = splitmix(1)
    for _ in range(count):
        total = sum(number >> shift & 0xFFFF for number in (next(rng), next(rng), next(rng)) for shift in (0, 16, 32, 48))
        yield (total - 6 * 0xFFFF) / 65536


def random_blocks(kind):
    """Pairs of a block and its numbers."""
    elements, size = GGML_QUANT_SIZES[kind]
    rng = splitmix(int(kind))
    left = NUMBERS // elements
    while left:
        block = b"".join(next(rng).to_bytes(8, "little") for _ in range(-(-size // 8)))[:size]
        numbers = dequantize(numpy.frombuffer(block, dtype=numpy.uint8).reshape(1, size), kind)
        if numpy.isfinite(numbers).all():
            left -= 1
            yield block, numbers


def blocks(kind):
    pairs = list(random_blocks(kind))
    return {"bytes": b"".join(block for block, _ in pairs).hex(), "values": b"".join(numbers.tobytes() for _, numbers in pairs).hex()}


def error(kind, sample):
    written = quantize(sample, kind).view(numpy.uint8)
    read = dequantize(written, kind).astype(numpy.float64)
    return float(numpy.sqrt(((read - sample) ** 2).sum() / (sample.astype(numpy.float64) ** 2).sum()))


def main():
    numpy.seterr(all="ignore")
    sample = numpy.array(list(gaussian(SAMPLE)), dtype=numpy.float32).reshape(-1, 256)
    golden = {
        "blocks": {name: blocks(GGMLQuantizationType[name]) for name in READ},
        "errors": {name: error(GGMLQuantizationType[name], sample) for name in WRITTEN},
        "first": [float(number) for number in sample[0, :4]],
    }
    (HERE / "quantize.json").write_text(json.dumps(golden, indent=0) + "\n")
    print(golden["errors"])


if __name__ == "__main__":
    main()
