//! The families of models that are computed, each described as data: which tensors a layer has, how
//! they are used, and which settings of a file bind it. Code never asks which family a model is of.
//!
//! All of them are decoders of one shape: embedding; layers of attention and a gated feed-forward
//! part, each behind an RMS norm and added to what went in; a last norm; an output matrix. What
//! differs is said by the fields of [`Family`].

use std::fmt;

use dsk_kernels::rope::Pairing;

mod gemma3;
mod llama;
mod phi3;
mod qwen2;
mod qwen3;

/// Every family.
const ALL: [&Family; 5] =
    [&gemma3::FAMILY, &llama::FAMILY, &phi3::FAMILY, &qwen2::FAMILY, &qwen3::FAMILY];

/// Whether a tensor is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Never,
    Optional,
    Always,
}

/// The function between the gate and the product with the other half of the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// x * sigmoid(x): SwiGLU.
    Silu,
    /// The tanh approximation of the Gaussian error unit: GeGLU.
    Gelu,
}

/// Which layers see only the last tokens, when a file names a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Windowed {
    /// All of them.
    All,
    /// All but each `period`th; the bounded ones rotate with `rope_base`, unscaled.
    AllBut { period: u32, rope_base: f32 },
}

/// How the scores of queries and keys are scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScoreScale {
    /// One over the root of a key's length.
    KeyLength,
    /// The same, but in models of `layers` layers the embedding shared by all heads counts.
    EmbeddingPerHeadAt { layers: u32 },
}

/// What a family is.
#[derive(Debug)]
pub struct Family {
    /// The name in files.
    pub(crate) name: &'static str,
    /// Which numbers of a head are rotated together.
    pub(crate) pairing: Pairing,
    /// Biases on queries, keys and values.
    pub(crate) qkv_bias: Presence,
    /// Biases on the other matrices of a layer.
    pub(crate) other_bias: Presence,
    /// Queries, keys and values come from one tensor, the gate and its partner from another.
    pub(crate) fused: bool,
    /// Norms of each head's query and key, before they are rotated.
    pub(crate) qk_norms: bool,
    /// Norms of what attention and the feed-forward part give, before it is added.
    pub(crate) post_norms: bool,
    /// Embeddings are multiplied by the root of their length.
    pub(crate) scaled_embedding: bool,
    pub(crate) gate: Gate,
    pub(crate) windowed: Windowed,
    pub(crate) score_scale: ScoreScale,
}

impl Family {
    /// The name in files.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl PartialEq for Family {
    fn eq(&self, other: &Family) -> bool {
        self.name == other.name
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The family called `name` in files.
pub(crate) fn named(name: &str) -> Option<&'static Family> {
    ALL.into_iter().find(|family| family.name == name)
}

/// The names of all of them.
pub(crate) fn names() -> Vec<&'static str> {
    ALL.map(Family::name).to_vec()
}
