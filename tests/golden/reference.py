"""The families in plain double precision, from their papers' formulas: one token after another,
nothing fused, nothing fast. For families.py, which checks it against llama.cpp."""

import math
import pathlib
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from header import Header  # noqa: E402

# Pairs of a head's elements that a rotation mixes: neighbours, or one of each half.
ADJACENT = {"llama"}


class Model:
    """An F32 model file with its keys by their names without the architecture's."""

    def __init__(self, path):
        header, data = Header(path), numpy.fromfile(path, numpy.uint8)
        self.architecture = header.keys["general.architecture"]
        prefix = self.architecture + "."
        self.keys = {key[len(prefix):]: value for key, value in header.keys.items() if key.startswith(prefix)}
        self.tensors = {
            tensor.name: data[tensor.start:tensor.start + tensor.bytes].view("<f4").reshape(tensor.shape[::-1]).astype(float)
            for tensor in header.tensors
        }
        self.embedding, self.blocks = self.keys["embedding_length"], self.keys["block_count"]
        self.heads, self.heads_kv = self.keys["attention.head_count"], self.keys["attention.head_count_kv"]
        self.head = self.keys.get("attention.key_length", self.embedding // self.heads)
        self.gemma = self.architecture == "gemma3"

    def local(self, block):
        """Five of six blocks of gemma3 look near only, with positions of their own."""
        return self.gemma and block % 6 < 5

    def window(self, block):
        """How many tokens a block sees, with the token itself; None for all."""
        return self.keys.get("attention.sliding_window") if self.local(block) or not self.gemma else None

    def norm(self, x, name):
        scale = 1 / numpy.sqrt((x * x).mean(-1, keepdims=True) + self.keys["attention.layer_norm_rms_epsilon"])
        return x * scale * self.tensors[name + ".weight"] if name + ".weight" in self.tensors else x

    def linear(self, x, name):
        return x @ self.tensors[name + ".weight"].T + self.tensors.get(name + ".bias", 0)

    def frequencies(self, block, context):
        """Radians a position of each pair, and what rotated vectors are multiplied with."""
        pairs, keys = numpy.arange(self.head // 2), self.keys
        if self.local(block):
            return 10_000.0 ** (-2 * pairs / self.head), 1.0
        base, factor = keys["rope.freq_base"], keys.get("rope.scaling.factor", 1.0)
        original = keys.get("rope.scaling.original_context_length", keys["context_length"])
        whole, size = base ** (-2 * pairs / self.head), keys.get("rope.scaling.attn_factor", 1.0)
        longer = "long" if context > original else "short"
        for name in ["rope_freqs.weight", f"rope_factors_{longer}.weight"]:
            whole = whole / self.tensors.get(name, 1.0)
        if keys.get("rope.scaling.type") != "yarn":
            return whole / factor, size
        # Pairs that turn more than 32 times within the original context keep their frequency, those
        # that turn less than once are stretched, between them it goes linearly over pairs.
        def pair_of(turns):
            return self.head * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))
        low, high = max(0, math.floor(pair_of(32))), min(self.head - 1, math.ceil(pair_of(1)))
        kept = 1 - numpy.clip((pairs - low) / max(0.001, high - low), 0, 1)
        return whole / factor * (1 - kept) + whole * kept, size * (1 + 0.1 * math.log(factor))

    def rotate(self, x, block, context):
        """x: [token][head][element]; the token's place is its position."""
        radians, size = self.frequencies(block, context)
        angles = numpy.arange(len(x))[:, None, None] * radians
        cos, sin, out = numpy.cos(angles) * size, numpy.sin(angles) * size, numpy.empty_like(x)
        half = self.head // 2
        first, second = (slice(0, None, 2), slice(1, None, 2)) if self.architecture in ADJACENT else (slice(0, half), slice(half, None))
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., first] * sin + x[..., second] * cos
        return out

    def attention(self, x, block, context):
        name = f"blk.{block}."
        if name + "attn_qkv.weight" in self.tensors:
            cuts = [self.heads * self.head, (self.heads + self.heads_kv) * self.head]
            parts = numpy.split(self.linear(x, name + "attn_qkv"), cuts, axis=-1)
        else:
            parts = [self.linear(x, name + part) for part in ("attn_q", "attn_k", "attn_v")]
        q, k, v = (part.reshape(len(x), -1, self.head) for part in parts)
        q = self.rotate(self.norm(q, name + "attn_q_norm"), block, context)
        k = self.rotate(self.norm(k, name + "attn_k_norm"), block, context)
        k, v = (numpy.repeat(part, self.heads // self.heads_kv, axis=1) for part in (k, v))
        scores = numpy.einsum("qhd,khd->hqk", q, k) / math.sqrt(self.head)
        back = numpy.arange(len(x))[:, None] - numpy.arange(len(x))
        seen = (back >= 0) & (back < (self.window(block) or len(x)))
        scores = numpy.where(seen, scores, -numpy.inf)
        weights = numpy.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return self.linear(numpy.einsum("hqk,khd->qhd", weights, v).reshape(len(x), -1), name + "attn_output")

    def feed_forward(self, x, block):
        name = f"blk.{block}."
        if self.architecture == "phi3":
            gate, up = numpy.split(self.linear(x, name + "ffn_up"), 2, axis=-1)
        else:
            gate, up = self.linear(x, name + "ffn_gate"), self.linear(x, name + "ffn_up")
        gate = gelu(gate) if self.gemma else gate / (1 + numpy.exp(-gate))
        return self.linear(gate * up, name + "ffn_down")

    def logits(self, tokens, context):
        """[token][vocabulary], for a model loaded with room for `context` tokens."""
        x = self.tensors["token_embd.weight"][tokens]
        if self.gemma:
            x = x * math.sqrt(self.embedding)
        for block in range(self.blocks):
            name = f"blk.{block}."
            y = self.attention(self.norm(x, name + "attn_norm"), block, context)
            x = x + self.norm(y, name + "post_attention_norm")
            y = self.feed_forward(self.norm(x, name + "ffn_norm"), block)
            x = x + self.norm(y, name + "post_ffw_norm")
        output = "output" if "output.weight" in self.tensors else "token_embd"
        return self.linear(self.norm(x, "output_norm"), output)


def gelu(x):
    """The approximation by a hyperbolic tangent, which gemma was trained with."""
    return 0.5 * x * (1 + numpy.tanh(math.sqrt(2 / math.pi) * x * (1 + 0.044715 * x * x)))

