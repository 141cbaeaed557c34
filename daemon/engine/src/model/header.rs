//! Hyper-parameters: read, and checked against each other and against what can be computed.

use super::{ModelError, rotary, settings, tensors};
use crate::arch::{self, Family, ScoreScale, Windowed};
use crate::gguf::Gguf;

pub use super::rotary::{Rotary, Stretch};

/// Layers of a model; the deepest real ones have about 130.
const BLOCKS_MAX: u32 = 1024;
/// Numbers per token between layers.
const EMBEDDING_MAX: u32 = 1 << 17;
/// Numbers per token inside a layer's feed-forward part.
const FEED_FORWARD_MAX: u32 = 1 << 20;
/// Attention heads of a layer.
const HEADS_MAX: u32 = 4096;
/// Numbers of a head.
const HEAD_LENGTH_MAX: u32 = 1024;
/// Tokens of context that a file may claim.
const CONTEXT_MAX: u32 = 1 << 24;

/// The hyper-parameters of a model that can be computed: all in range, consistent with each other
/// and with every tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// The family.
    pub architecture: &'static Family,
    /// Layers.
    pub block_count: u32,
    /// Tokens of context the model was trained for.
    pub context_length: u32,
    /// Numbers per token between layers.
    pub embedding_length: u32,
    /// Numbers per token inside the feed-forward part.
    pub feed_forward_length: u32,
    /// Attention heads.
    pub head_count: u32,
    /// Heads of keys and values; a divisor of `head_count`.
    pub head_count_kv: u32,
    /// Numbers of one head's query and key; even.
    pub key_length: u32,
    /// Numbers of one head's value; even.
    pub value_length: u32,
    /// What the scores of queries and keys are multiplied by.
    pub score_scale: f32,
    /// The bound of scores, by a hyperbolic tangent.
    pub score_cap: Option<f32>,
    /// The bound of logits, by a hyperbolic tangent.
    pub logit_cap: Option<f32>,
    /// Tokens that the layers with a window see, their own included.
    pub window: Option<u32>,
    /// The rotary embedding of layers without a window of their own kind.
    pub rotary: Rotary,
    /// Added to variances before roots are taken.
    pub rms_epsilon: f32,
    /// Tokens: rows of the embedding.
    pub vocab_size: u32,
    /// Whether the output matrix is the embedding itself.
    pub tied_output: bool,
}

impl Header {
    /// Whether layer `block` sees only the last [`Header::window`] tokens.
    pub fn is_windowed(&self, block: u32) -> bool {
        self.window.is_some()
            && match self.architecture.windowed {
                Windowed::All => true,
                Windowed::AllBut { period, .. } => !(block + 1).is_multiple_of(period),
            }
    }

    /// Reads and checks hyper-parameters and the table of tensors; the data may be missing.
    pub fn read(gguf: &Gguf) -> Result<Header, ModelError> {
        whole_model(gguf)?;
        let found = gguf.need_str("general.architecture")?;
        let architecture = arch::named(found)
            .ok_or_else(|| ModelError::Architecture { found: found.to_owned() })?;
        let keys = Keys { gguf, architecture };
        keys.refuse_features()?;
        settings::refuse_unknown(&keys)?;
        let header = keys.header()?;
        tensors::check(gguf, &header)?;
        Ok(header)
    }
}

/// A part of a model, an adapter or a projector is refused before anything else is said about it.
fn whole_model(gguf: &Gguf) -> Result<(), ModelError> {
    if let Some(kind) = gguf.get_str("general.type")?
        && kind != "model"
    {
        return Err(ModelError::NotAModel(format!("its type is {kind:?}")));
    }
    match gguf.get_u32("split.count")? {
        Some(count) if count > 1 && gguf.parts() != count as usize => {
            Err(ModelError::NotAModel(format!("it is one of {count} parts, and all are needed")))
        }
        _ => Ok(()),
    }
}

/// Reads keys below the architecture's name.
pub(super) struct Keys<'a> {
    pub(super) gguf: &'a Gguf,
    pub(super) architecture: &'static Family,
}

impl Keys<'_> {
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    pub(super) fn wrong(&self, name: &str, problem: impl Into<String>) -> ModelError {
        ModelError::HyperParameter { key: self.key(name), problem: problem.into() }
    }

    pub(super) fn optional(&self, name: &str) -> Result<Option<u32>, ModelError> {
        Ok(self.gguf.get_u32(&self.key(name))?)
    }

    /// A count from 1 to `max`.
    fn count(&self, name: &str, max: u32) -> Result<u32, ModelError> {
        let count = self.gguf.need_u32(&self.key(name))?;
        if (1..=max).contains(&count) {
            return Ok(count);
        }
        Err(self.wrong(name, format!("{count} is not between 1 and {max}")))
    }

    /// A number that can divide and be divided by.
    pub(super) fn positive(&self, name: &str, default: Option<f32>) -> Result<f32, ModelError> {
        let number = match (self.gguf.get_f32(&self.key(name))?, default) {
            (Some(number), _) | (None, Some(number)) => number,
            (None, None) => self.gguf.need_f32(&self.key(name))?,
        };
        if number.is_normal() && number > 0.0 {
            return Ok(number);
        }
        Err(self.wrong(name, format!("{number} is not a positive number")))
    }

    fn header(&self) -> Result<Header, ModelError> {
        let embedding_length = self.count("embedding_length", EMBEDDING_MAX)?;
        let head_count = self.count("attention.head_count", HEADS_MAX)?;
        let head_count_kv = match self.optional("attention.head_count_kv")? {
            Some(_) => self.count("attention.head_count_kv", HEADS_MAX)?,
            None => head_count,
        };
        if !head_count.is_multiple_of(head_count_kv) {
            let problem = format!("{head_count_kv} does not divide the {head_count} heads");
            return Err(self.wrong("attention.head_count_kv", problem));
        }
        let key_length = self.head_length("key", embedding_length, head_count)?;
        let value_length = self.head_length("value", embedding_length, head_count)?;
        let block_count = self.count("block_count", BLOCKS_MAX)?;
        Ok(Header {
            architecture: self.architecture,
            block_count,
            context_length: self.count("context_length", CONTEXT_MAX)?,
            embedding_length,
            feed_forward_length: self.count("feed_forward_length", FEED_FORWARD_MAX)?,
            head_count,
            head_count_kv,
            key_length,
            value_length,
            score_scale: self.score_scale(
                key_length,
                embedding_length / head_count,
                block_count,
            )?,
            score_cap: self.cap("attn_logit_softcapping")?,
            logit_cap: self.cap("final_logit_softcapping")?,
            window: self.optional("attention.sliding_window")?.filter(|&window| window > 0),
            rotary: rotary::read(self, key_length)?,
            rms_epsilon: self.positive("attention.layer_norm_rms_epsilon", None)?,
            vocab_size: self.vocab_size()?,
            tied_output: self.gguf.tensor("output.weight").is_none(),
        })
    }

    /// The size of a head's keys or values: a key of the file, or the head's share of the embedding.
    fn head_length(&self, of: &str, embedding: u32, heads: u32) -> Result<u32, ModelError> {
        let name = format!("attention.{of}_length");
        let length = match self.optional(&name)? {
            Some(_) => self.count(&name, HEAD_LENGTH_MAX)?,
            None if embedding.is_multiple_of(heads) => embedding / heads,
            None => {
                let problem = format!("{heads} heads do not share {embedding} numbers evenly");
                return Err(self.wrong("attention.head_count", problem));
            }
        };
        if length.is_multiple_of(2) && length <= HEAD_LENGTH_MAX {
            return Ok(length);
        }
        let problem = format!("{length} is odd or over {HEAD_LENGTH_MAX}");
        Err(self.wrong(&name, problem))
    }

    fn score_scale(&self, key: u32, share: u32, blocks: u32) -> Result<f32, ModelError> {
        let length = match self.architecture.score_scale {
            ScoreScale::EmbeddingPerHeadAt { layers } if layers == blocks => share,
            _ => key,
        };
        self.positive("attention.scale", Some(1.0 / (length as f32).sqrt()))
    }

    /// A bound; absent where the file says nothing or zero.
    fn cap(&self, name: &str) -> Result<Option<f32>, ModelError> {
        match self.gguf.get_f32(&self.key(name))? {
            None | Some(0.0) => Ok(None),
            Some(_) => self.positive(name, None).map(Some),
        }
    }

    /// The rows of the embedding; the tokenizer's list must be as long.
    fn vocab_size(&self) -> Result<u32, ModelError> {
        let key = "tokenizer.ggml.tokens";
        let tokens = self.gguf.get_array(key)?.map_or(0, |tokens| tokens.len());
        let embedding = self.gguf.need_tensor("token_embd.weight")?;
        let rows = embedding.shape.get(1).copied().unwrap_or(0);
        if rows != tokens as u64 {
            let problem = format!("{tokens} tokens for {rows} rows of the embedding");
            return Err(ModelError::HyperParameter { key: key.to_owned(), problem });
        }
        u32::try_from(rows).map_err(|_| self.wrong("vocab_size", format!("{rows} is too large")))
    }

    /// Refuses settings that change the computation in ways that are not implemented.
    fn refuse_features(&self) -> Result<(), ModelError> {
        let refuse = |feature, detail| Err(ModelError::Feature { feature, detail });
        for (name, neutral, feature) in NEUTRAL_NUMBERS {
            let found = self.gguf.get_f32(&self.key(name))?.unwrap_or(neutral);
            if found != neutral && found != 0.0 {
                return refuse(feature, format!("{} = {found}", self.key(name)));
            }
        }
        for (name, feature) in REFUSED_COUNTS {
            if let Some(count) = self.optional(name)?
                && count > 0
            {
                return refuse(feature, format!("{} = {count}", self.key(name)));
            }
        }
        if self.gguf.get_bool(&self.key("attention.causal"))? == Some(false) {
            return refuse("attention in both directions", self.key("attention.causal"));
        }
        Ok(())
    }
}

/// Numbers that change nothing at one value (or at zero), and are refused at any other.
const NEUTRAL_NUMBERS: [(&str, f32, &str); 5] = [
    ("embedding_scale", 1.0, "scaled embeddings"),
    ("residual_scale", 1.0, "scaled residuals"),
    ("logit_scale", 1.0, "scaled logits"),
    ("attention.max_alibi_bias", 0.0, "attention with linear biases"),
    ("attention.clamp_kqv", 0.0, "clamped queries, keys and values"),
];

/// Counts that must be zero.
const REFUSED_COUNTS: [(&str, &str); 2] =
    [("expert_count", "a mixture of experts"), ("expert_used_count", "a mixture of experts")];
