//! Hyper-parameters: read, and checked against each other and against what can be computed.

use std::fmt;

use super::{ModelError, tensors};
use crate::gguf::Gguf;

/// Layers of a model; the deepest real ones have about 130.
const BLOCKS_MAX: u32 = 1024;
/// Numbers per token between layers.
const EMBEDDING_MAX: u32 = 1 << 17;
/// Numbers per token inside a layer's feed-forward part.
const FEED_FORWARD_MAX: u32 = 1 << 20;
/// Attention heads of a layer.
const HEADS_MAX: u32 = 4096;
/// Tokens of context that a file may claim.
const CONTEXT_MAX: u32 = 1 << 24;

/// The families of models that are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Llama and Mistral, and models of the same structure.
    Llama,
    /// Qwen 2 and 2.5, and the DeepSeek-R1 distillations of them: biases on queries, keys, values.
    Qwen2,
}

impl Architecture {
    const ALL: [Architecture; 2] = [Architecture::Llama, Architecture::Qwen2];

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Qwen2 => "qwen2",
        }
    }

    pub(crate) fn names() -> Vec<&'static str> {
        Architecture::ALL.iter().map(|architecture| architecture.name()).collect()
    }

    fn named(name: &str) -> Option<Architecture> {
        Architecture::ALL.into_iter().find(|architecture| architecture.name() == name)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The hyper-parameters of a model that can be computed: all in range, consistent with each other
/// and with every tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// The family.
    pub architecture: Architecture,
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
    /// Numbers of one head; even.
    pub head_length: u32,
    /// The base of the rotary embedding's wavelengths.
    pub rope_freq_base: f32,
    /// Added to variances before roots are taken.
    pub rms_epsilon: f32,
    /// Tokens: rows of the embedding.
    pub vocab_size: u32,
    /// Whether the output matrix is the embedding itself.
    pub tied_output: bool,
}

impl Header {
    /// Reads and checks hyper-parameters and the table of tensors; the data may be missing.
    pub fn read(gguf: &Gguf) -> Result<Header, ModelError> {
        whole_model(gguf)?;
        let found = gguf.need_str("general.architecture")?;
        let architecture = Architecture::named(found)
            .ok_or_else(|| ModelError::Architecture { found: found.to_owned() })?;
        let keys = Keys { gguf, architecture };
        keys.refuse_features()?;
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
        Some(count) if count > 1 => {
            Err(ModelError::NotAModel(format!("it is one of {count} parts; join them first")))
        }
        _ => Ok(()),
    }
}

/// Reads keys below the architecture's name.
struct Keys<'a> {
    gguf: &'a Gguf,
    architecture: Architecture,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn wrong(&self, name: &str, problem: impl Into<String>) -> ModelError {
        ModelError::HyperParameter { key: self.key(name), problem: problem.into() }
    }

    fn optional(&self, name: &str) -> Result<Option<u32>, ModelError> {
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
    fn positive(&self, name: &str, default: Option<f32>) -> Result<f32, ModelError> {
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
        Ok(Header {
            architecture: self.architecture,
            block_count: self.count("block_count", BLOCKS_MAX)?,
            context_length: self.count("context_length", CONTEXT_MAX)?,
            embedding_length,
            feed_forward_length: self.count("feed_forward_length", FEED_FORWARD_MAX)?,
            head_count,
            head_count_kv,
            head_length: self.head_length(embedding_length, head_count)?,
            rope_freq_base: self.positive("rope.freq_base", Some(10_000.0))?,
            rms_epsilon: self.positive("attention.layer_norm_rms_epsilon", None)?,
            vocab_size: self.vocab_size()?,
            tied_output: self.gguf.tensor("output.weight").is_none(),
        })
    }

    /// The size of a head: the executors take it from the embedding, and rotate all of it.
    fn head_length(&self, embedding_length: u32, head_count: u32) -> Result<u32, ModelError> {
        let length = embedding_length / head_count;
        if length * head_count != embedding_length || !length.is_multiple_of(2) {
            let problem =
                format!("{head_count} heads do not share {embedding_length} numbers evenly");
            return Err(self.wrong("attention.head_count", problem));
        }
        for name in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
            if let Some(found) = self.optional(name)?
                && found != length
            {
                let detail = format!("{} is {found}, a head has {length}", self.key(name));
                return Err(ModelError::Feature { feature: "heads of another size", detail });
            }
        }
        Ok(length)
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
        if let Some(kind) = self.gguf.get_str(&self.key("rope.scaling.type"))?
            && kind != "none"
        {
            let detail = format!("{} = {kind:?}", self.key("rope.scaling.type"));
            return refuse("a scaled rotary embedding", detail);
        }
        if self.gguf.tensor("rope_freqs.weight").is_some() {
            return refuse("a scaled rotary embedding", "tensor rope_freqs.weight".to_owned());
        }
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
const NEUTRAL_NUMBERS: [(&str, f32, &str); 7] = [
    ("rope.scale_linear", 1.0, "a scaled rotary embedding"),
    ("rope.scaling.factor", 1.0, "a scaled rotary embedding"),
    ("rope.scaling.attn_factor", 1.0, "a scaled rotary embedding"),
    ("attn_logit_softcapping", 0.0, "capped attention scores"),
    ("final_logit_softcapping", 0.0, "capped logits"),
    ("attention.max_alibi_bias", 0.0, "attention with linear biases"),
    ("attention.clamp_kqv", 0.0, "clamped queries, keys and values"),
];

/// Counts that must be zero.
const REFUSED_COUNTS: [(&str, &str); 3] = [
    ("expert_count", "a mixture of experts"),
    ("attention.sliding_window", "a sliding attention window"),
    ("expert_used_count", "a mixture of experts"),
];
