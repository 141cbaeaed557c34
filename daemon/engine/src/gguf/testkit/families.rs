//! Tiny models of every family the engine has a plan for, to compare its logits with another
//! implementation's (`tests/golden/families.py`).
//!
//! All weights are F32, so that two implementations differ by rounding alone. Each family carries
//! what is peculiar to it: which halves a rotary embedding pairs, biases, norms of heads, windows,
//! fused tensors. Sizes are small and odd enough that confusing two of them shows.

use dsk_kernels::format::Format;

use super::{MARKS, MERGES, Random, TINY_CONTEXT, Writer, tiny_tokenizer};

/// Everything that tells one tiny model from another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    name: &'static str,
    architecture: &'static str,
    blocks: u32,
    embedding: u64,
    heads: u64,
    heads_kv: u64,
    head_length: u64,
    feed_forward: u64,
    context: u32,
    rope_base: f32,
    /// The output matrix is the embedding's.
    tied: bool,
    /// Biases of queries, keys and values.
    biases: bool,
    /// Norms of each head's queries and keys.
    head_norms: bool,
    /// Norms of what attention and feed-forward give, before it is added.
    post_norms: bool,
    /// One matrix for queries, keys and values, and one for gate and up.
    fused: bool,
    /// Tensors that divide rotary frequencies, by name.
    rope_factors: &'static [(&'static str, [f32; 8])],
    /// Numbers under the architecture's name, beyond those of every family.
    numbers: &'static [(&'static str, Number)],
    /// `rope.scaling.type`.
    rope_scaling: Option<&'static str>,
}

#[derive(Debug, Clone, Copy)]
enum Number {
    U32(u32),
    F32(f32),
}

use Number::{F32, U32};

pub(super) const TINY: Family = Family {
    name: "llama",
    architecture: "llama",
    blocks: 2,
    embedding: 64,
    heads: 4,
    heads_kv: 2,
    head_length: 16,
    feed_forward: 128,
    context: TINY_CONTEXT,
    rope_base: 10_000.0,
    tied: false,
    biases: false,
    head_norms: false,
    post_norms: false,
    fused: false,
    rope_factors: &[],
    numbers: &[],
    rope_scaling: None,
};

const QWEN2: Family =
    Family { name: "qwen2", architecture: "qwen2", feed_forward: 72, biases: true, ..TINY };

const GEMMA3: Family = Family {
    name: "gemma3",
    architecture: "gemma3",
    // Every sixth block sees everything, with another rotary base; the others see a window.
    blocks: 7,
    embedding: 48,
    heads: 2,
    heads_kv: 1,
    head_length: 32,
    feed_forward: 80,
    rope_base: 1_000_000.0,
    tied: true,
    head_norms: true,
    post_norms: true,
    numbers: &[("attention.sliding_window", U32(16))],
    ..TINY
};

const PHI3: Family =
    Family { name: "phi3", architecture: "phi3", feed_forward: 80, fused: true, ..TINY };

/// The families, in the order of the recorded logits.
const FAMILIES: [Family; 17] = [
    TINY,
    Family {
        name: "llama-3.1",
        rope_base: 500_000.0,
        tied: true,
        // What Llama 3.1's rule gives for a base of 500000 and heads of 16: full frequency down to
        // a wave of 2048 tokens, an eighth of it from 8192 on, between them a mixture.
        rope_factors: &[("rope_freqs.weight", [1.0, 1.0, 1.0, 1.0, 2.694_529_8, 8.0, 8.0, 8.0])],
        ..TINY
    },
    Family {
        name: "llama-linear",
        rope_scaling: Some("linear"),
        numbers: &[("rope.scaling.factor", F32(4.0))],
        ..TINY
    },
    Family {
        name: "llama-yarn",
        context: 8192,
        rope_scaling: Some("yarn"),
        numbers: &[
            ("rope.scaling.factor", F32(4.0)),
            ("rope.scaling.original_context_length", U32(2048)),
        ],
        ..TINY
    },
    // As Mistral Nemo: heads are not the embedding's share.
    Family { name: "mistral", head_length: 32, rope_base: 1_000_000.0, ..TINY },
    // As the first Mistral: every block sees a window.
    Family { name: "mistral-window", numbers: &[("attention.sliding_window", U32(16))], ..TINY },
    QWEN2,
    Family { name: "qwen2-tied", tied: true, ..QWEN2 },
    Family {
        name: "qwen2-yarn",
        context: 8192,
        rope_scaling: Some("yarn"),
        numbers: &[
            ("rope.scaling.factor", F32(4.0)),
            ("rope.scaling.original_context_length", U32(2048)),
        ],
        ..QWEN2
    },
    Family {
        name: "qwen3",
        architecture: "qwen3",
        head_length: 32,
        rope_base: 1_000_000.0,
        head_norms: true,
        ..TINY
    },
    Family {
        name: "qwen3-tied",
        architecture: "qwen3",
        head_length: 32,
        head_norms: true,
        tied: true,
        ..TINY
    },
    GEMMA3,
    // As from 4B on: the blocks that see everything stretch their positions, the others do not.
    Family {
        name: "gemma3-linear",
        rope_scaling: Some("linear"),
        numbers: &[("attention.sliding_window", U32(16)), ("rope.scaling.factor", F32(8.0))],
        ..GEMMA3
    },
    PHI3,
    Family { name: "phi3-tied", tied: true, heads_kv: 4, ..PHI3 },
    Family { name: "phi3-window", numbers: &[("attention.sliding_window", U32(16))], ..PHI3 },
    // As with 128k tokens: which factors hold depends on the context asked for.
    Family {
        name: "phi3-long",
        context: 1024,
        rope_factors: &[
            ("rope_factors_long.weight", [1.0, 1.1, 1.3, 2.0, 3.5, 5.0, 9.0, 16.0]),
            ("rope_factors_short.weight", [1.0, 1.02, 1.05, 1.1, 1.2, 1.4, 1.5, 1.7]),
        ],
        numbers: &[
            ("rope.scaling.original_context_length", U32(256)),
            ("rope.scaling.attn_factor", F32(1.1)),
        ],
        ..PHI3
    },
];

/// The names of the families.
pub fn names() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|family| family.name)
}

/// The file of the family called `name`, at most 0.8 MB; its weights depend on nothing but `seed`.
pub fn family(name: &str, seed: u64) -> Option<Vec<u8>> {
    Some(writer(name, seed)?.finish())
}

/// The same, still open for more keys.
pub fn writer(name: &str, seed: u64) -> Option<Writer> {
    let family = FAMILIES.iter().find(|family| family.name == name)?;
    Some(family.writer(family.architecture, seed))
}

impl Family {
    /// The file, still open for more keys and tensors. The architecture's name is free.
    pub(super) fn writer(&self, architecture: &str, seed: u64) -> Writer {
        let pre = if architecture == "llama" { "smollm" } else { "qwen2" };
        let writer = tiny_tokenizer(self.metadata(architecture), pre);
        let mut tensors = Tensors { writer, random: Random::new(seed) };
        self.tensors(&mut tensors);
        tensors.writer
    }

    pub(super) fn with_biases(self, biases: bool) -> Family {
        Family { biases, ..self }
    }

    fn metadata(&self, architecture: &str) -> Writer {
        let key = |name: &str| format!("{architecture}.{name}");
        let mut writer = Writer::new()
            .str("general.architecture", architecture)
            .str("general.type", "model")
            .str("general.name", "Tiny Test")
            .str("general.basename", "Tiny")
            .u32("general.file_type", 0)
            .u32(&key("block_count"), self.blocks)
            .u32(&key("context_length"), self.context)
            .u32(&key("embedding_length"), self.embedding as u32)
            .u32(&key("feed_forward_length"), self.feed_forward as u32)
            .u32(&key("attention.head_count"), self.heads as u32)
            .u32(&key("attention.head_count_kv"), self.heads_kv as u32)
            .u32(&key("rope.dimension_count"), self.head_length as u32)
            .f32(&key("rope.freq_base"), self.rope_base)
            .f32(&key("attention.layer_norm_rms_epsilon"), 1e-5);
        if self.head_length * self.heads != self.embedding {
            writer = writer
                .u32(&key("attention.key_length"), self.head_length as u32)
                .u32(&key("attention.value_length"), self.head_length as u32);
        }
        if let Some(kind) = self.rope_scaling {
            writer = writer.str(&key("rope.scaling.type"), kind);
        }
        self.numbers.iter().fold(writer, |writer, &(name, number)| match number {
            U32(value) => writer.u32(&key(name), value),
            F32(value) => writer.f32(&key(name), value),
        })
    }

    fn tensors(&self, out: &mut Tensors) {
        let vocabulary = (256 + MERGES.len() + MARKS.len()) as u64;
        out.random("token_embd.weight", &[self.embedding, vocabulary]);
        out.random("output_norm.weight", &[self.embedding]);
        if !self.tied {
            out.random("output.weight", &[self.embedding, vocabulary]);
        }
        for (name, factors) in self.rope_factors {
            out.given(name, factors);
        }
        for block in 0..self.blocks {
            self.attention(block, out);
            self.feed_forward(block, out);
            self.extras(block, out);
        }
    }

    fn attention(&self, block: u32, out: &mut Tensors) {
        let (queries, keys) = (self.heads * self.head_length, self.heads_kv * self.head_length);
        let mut layer = |name: &str, shape: &[u64]| out.random(&of_block(block, name), shape);
        layer("attn_norm.weight", &[self.embedding]);
        if self.fused {
            layer("attn_qkv.weight", &[self.embedding, queries + 2 * keys]);
        } else {
            layer("attn_q.weight", &[self.embedding, queries]);
            layer("attn_k.weight", &[self.embedding, keys]);
            layer("attn_v.weight", &[self.embedding, keys]);
        }
        layer("attn_output.weight", &[queries, self.embedding]);
    }

    fn feed_forward(&self, block: u32, out: &mut Tensors) {
        let mut layer = |name: &str, shape: &[u64]| out.random(&of_block(block, name), shape);
        layer("ffn_norm.weight", &[self.embedding]);
        if self.fused {
            layer("ffn_up.weight", &[self.embedding, 2 * self.feed_forward]);
        } else {
            layer("ffn_gate.weight", &[self.embedding, self.feed_forward]);
            layer("ffn_up.weight", &[self.embedding, self.feed_forward]);
        }
        layer("ffn_down.weight", &[self.feed_forward, self.embedding]);
    }

    fn extras(&self, block: u32, out: &mut Tensors) {
        let (queries, keys) = (self.heads * self.head_length, self.heads_kv * self.head_length);
        let mut layer = |name: &str, shape: &[u64]| out.random(&of_block(block, name), shape);
        if self.biases {
            layer("attn_q.bias", &[queries]);
            layer("attn_k.bias", &[keys]);
            layer("attn_v.bias", &[keys]);
        }
        if self.head_norms {
            layer("attn_q_norm.weight", &[self.head_length]);
            layer("attn_k_norm.weight", &[self.head_length]);
        }
        if self.post_norms {
            layer("post_attention_norm.weight", &[self.embedding]);
            layer("post_ffw_norm.weight", &[self.embedding]);
        }
    }
}

fn of_block(block: u32, name: &str) -> String {
    format!("blk.{block}.{name}")
}

/// A file that tensors are added to, in an order that fixes their random weights.
struct Tensors {
    writer: Writer,
    random: Random,
}

impl Tensors {
    fn random(&mut self, name: &str, shape: &[u64]) {
        let count = shape.iter().product();
        // Norms are around one; matrices keep the size of what passes through them.
        let data = match name.ends_with("norm.weight") {
            true => self.random.weights(count, 1.0, 0.1),
            false => self.random.weights(count, 0.0, (3.0 / shape[0] as f32).sqrt()),
        };
        self.add(name, shape, data);
    }

    fn given(&mut self, name: &str, values: &[f32]) {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.add(name, &[values.len() as u64], data);
    }

    fn add(&mut self, name: &str, shape: &[u64], data: Vec<u8>) {
        let writer = std::mem::take(&mut self.writer);
        self.writer = writer.tensor(name, shape, Format::F32.ggml_id(), data);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{family, names};

    /// FNV-1a of 64 bits.
    fn fnv1a(bytes: &[u8]) -> u64 {
        let mix = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix)
    }

    #[test]
    fn recorded_logits_are_those_of_these_files() {
        let recorded = include_str!("../../../../../tests/golden/families.json");
        let recorded: Value = serde_json::from_str(recorded).unwrap();
        let seed = recorded["seed"].as_u64().unwrap();
        let cases = recorded["cases"].as_array().unwrap();
        for case in cases {
            let name = case["family"].as_str().unwrap();
            let bytes = family(name, seed).unwrap();
            assert_eq!(case["bytes"], bytes.len(), "{name}");
            assert_eq!(case["fnv1a"], format!("{:016x}", fnv1a(&bytes)), "{name}");
        }
        for name in names() {
            assert!(cases.iter().any(|case| case["family"] == name), "{name} has no logits");
        }
    }
}
