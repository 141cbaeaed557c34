//! What a model takes of a machine, as a function of how it is loaded: the numbers behind
//! [`crate::plan::Plan::bytes`], and all that a planner needs to know of a model it does not load.

use dsk_kernels::kv::{self, KvType};
use serde::{Deserialize, Serialize};

use crate::engine::KvFormat;
use crate::executor::Bytes;
use crate::gguf::Gguf;
use crate::model::{Header, ModelError};
use crate::plan::{LOGIT_ROWS, Limits, Plan};

/// What a runner takes before it has a model: its heap, stacks, the allocator's own. Measured.
const PROCESS_BYTES: u64 = 3 << 20;
/// Memory of one worker: scratch of kernels, the touched part of its stack. Measured.
const WORKER_BYTES: u64 = 320 << 10;

/// The sizes of a model from which follows what it takes. Bytes, unless another unit is named.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Demand {
    /// The family, such as `qwen2`.
    pub architecture: String,
    /// The matrices of each layer.
    pub layers: Vec<u64>,
    /// Of these, the part that lies in experts, in each layer; 0 where there are none.
    pub experts: u64,
    /// The share of its experts that one token uses.
    pub active: f64,
    /// The embedding.
    pub embedding: u64,
    /// The output matrix; 0 where the embedding is used again.
    pub head: u64,
    /// Norms and biases, as f32.
    pub vectors: u64,
    /// Tokens of context that the model was made for.
    pub context_max: u32,
    /// Heads of keys and values of a layer.
    pub kv_heads: u64,
    /// Numbers of a key.
    pub key_length: u64,
    /// Numbers of a value.
    pub value_length: u64,
    /// Buffers for each token of a step.
    pub row: u64,
    /// Numbers of a partial result of attention, of one head of keys.
    pub partial: u64,
    /// Rows of the embedding.
    pub vocabulary: u64,
    /// The tokenizer and the template, in memory.
    pub tokenizer: u64,
    /// Weights that one token is multiplied with, embedding aside.
    pub parameters: u64,
}

impl Demand {
    /// Of a model of which the header is known: a file, or its beginning.
    pub fn of(gguf: &Gguf) -> Result<Demand, ModelError> {
        let header = Header::read(gguf)?;
        let limits = Limits::new(header.context_length, 1, 1, KvFormat::F16);
        Ok(Plan::new(gguf, &header, limits)?.demand().clone())
    }

    /// What the model takes when it is loaded so. Saturating: sizes come from files.
    pub fn bytes(&self, limits: &Limits) -> Bytes {
        let spans = limits.context.div_ceil(dsk_kernels::attention::SPAN_TOKENS) as u64;
        let partials = product(&[limits.sequences as u64, self.kv_heads, spans, self.partial]);
        let logits = product(&[LOGIT_ROWS as u64, self.vocabulary]);
        let floats = logits.saturating_add(partials).saturating_mul(4);
        let workers = (limits.threads as u64).saturating_mul(WORKER_BYTES);
        Bytes {
            weights: self.weights(),
            kv: self.kv_bytes(limits),
            other: product(&[self.row, limits.step_tokens as u64])
                .saturating_add(floats)
                .saturating_add(workers),
            runtime: self.tokenizer.saturating_add(PROCESS_BYTES),
        }
    }

    /// All weights.
    pub fn weights(&self) -> u64 {
        let layers = self.layers.iter().fold(0, |sum: u64, &layer| sum.saturating_add(layer));
        [self.embedding, self.head, self.vectors]
            .iter()
            .fold(layers, |sum, &n| sum.saturating_add(n))
    }

    /// Keys and values of all layers.
    fn kv_bytes(&self, limits: &Limits) -> u64 {
        let layers = self.layers.len() as u64;
        product(&[layers, self.layer_kv(limits.kv, limits.context as u64, limits.sequences as u64)])
    }

    /// Keys and values of one layer, for contexts of whole blocks of tokens.
    fn layer_kv(&self, kv: KvType, context: u64, sequences: u64) -> u64 {
        let tile = kv::tile_bytes(kv, self.key_length as usize, self.value_length as usize) as u64;
        let blocks = context.div_ceil(kv::BLOCK_TOKENS as u64);
        product(&[self.kv_heads, sequences, blocks, tile])
    }

    /// What one layer keeps of so many contexts of so many tokens.
    pub fn layer_kv_bytes(&self, kv: KvFormat, context: u32, sequences: u64) -> u64 {
        self.layer_kv(kv.kernel_type(), u64::from(context), sequences)
    }

    /// The weights that are read for one token: those of the layers that it uses, and the output matrix.
    pub fn read_per_token(&self) -> u64 {
        let used = (self.experts as f64 * self.active) as u64;
        let layer = |&bytes: &u64| bytes.saturating_sub(self.experts).saturating_add(used);
        let layers = self.layers.iter().map(layer).fold(0, u64::saturating_add);
        let head = if self.head == 0 { self.embedding } else { self.head };
        layers.saturating_add(head)
    }
}

fn product(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |product: u64, &factor| product.saturating_mul(factor))
}

/// What a runner takes besides what its executor does.
pub(crate) fn runtime_bytes(gguf: &Gguf) -> u64 {
    tokenizer_bytes(gguf).saturating_add(PROCESS_BYTES)
}

/// What a tokenizer takes in memory, by what the file says of it. Measured on vocabularies of 49,000 and
/// 152,000 tokens: spellings twice, two maps of them, a map of merges, a search for special tokens.
pub(crate) fn tokenizer_bytes(gguf: &Gguf) -> u64 {
    let count = |key: &str| match gguf.get_array(key) {
        Ok(Some(array)) => array.len() as u64,
        _ => 0,
    };
    let tokens = count("tokenizer.ggml.tokens").saturating_mul(TOKEN_BYTES);
    tokens.saturating_add(count("tokenizer.ggml.merges").saturating_mul(MERGE_BYTES))
}

/// Memory of a token: its spelling in four places.
pub const TOKEN_BYTES: u64 = 170;
/// Memory of a merge.
pub const MERGE_BYTES: u64 = 60;
