//! The shape of a model: what its header says of the computation, for planning before it is at hand.

use serde::Deserialize;

/// What the layers of a model are like. Widths and lengths are in elements.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// The family's name in a GGUF header, such as `qwen2`.
    pub architecture: String,
    /// Layers, one after the other.
    pub layers: u32,
    /// The width of a token's vector between layers.
    pub embedding: u32,
    /// The width inside the feed-forward part of a dense layer.
    pub feed_forward: u32,
    /// Heads of queries.
    pub heads: u32,
    /// Heads of keys and values, each shared by `heads / kv_heads` of queries.
    pub kv_heads: u32,
    /// The length of one head's query and key.
    pub head: u32,
    /// Tokens there are.
    pub vocabulary: u32,
    /// The longest context it was made for, in tokens.
    pub context: u32,
    /// Tokens are looked up in the matrix that also makes the logits, so that it is there once.
    #[serde(default)]
    pub tied: bool,
    /// Keys and values are kept compressed.
    #[serde(default)]
    pub latent: Option<Latent>,
    /// The feed-forward part of most layers is a choice among many.
    #[serde(default)]
    pub experts: Option<Experts>,
}

/// Attention over keys and values that are made anew from one compressed vector per token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latent {
    /// The length of the compressed query.
    pub query_rank: u32,
    /// The length of the compressed key and value, which is what the cache holds.
    pub kv_rank: u32,
    /// The part of each query and key that rotates; the cache holds one, shared by all heads.
    pub rotary: u32,
    /// The length of one head's value.
    pub value: u32,
}

/// A choice among feed-forward parts, made for each token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experts {
    /// How many there are in a layer.
    pub count: u32,
    /// How many of them a token is given to.
    pub used: u32,
    /// Further ones that every token is given to.
    pub shared: u32,
    /// The width inside one of them.
    pub feed_forward: u32,
    /// The first layers, which have a dense feed-forward part instead.
    pub dense_layers: u32,
    /// The weights that one token is multiplied with in the whole model.
    pub active_parameters: u64,
}

impl Shape {
    /// Elements that one token takes in one layer of the cache: its key and its value.
    pub fn kv_elements(&self) -> u64 {
        match &self.latent {
            Some(latent) => u64::from(latent.kv_rank) + u64::from(latent.rotary),
            None => 2 * u64::from(self.kv_heads) * u64::from(self.head),
        }
    }

    /// Elements of the table that tokens are looked up in.
    pub fn embedding_table(&self) -> u64 {
        u64::from(self.vocabulary) * u64::from(self.embedding)
    }
}
