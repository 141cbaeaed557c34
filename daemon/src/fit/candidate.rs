//! A variant of a model, as far as planning is concerned.

use dsk_daemon_engine::Demand;
use dsk_daemon_engine::demand::{MERGE_BYTES, TOKEN_BYTES};
use dsk_daemon_engine::gguf::{Gguf, GgufError};
use dsk_daemon_engine::model::ModelError;
use dsk_modelfiles::library::{Experts, Shape, Size, Variant};

use super::speed::Measured;

/// Quantizations by quality, best first. From [`COARSE`] on, a model's answers change noticeably.
const BY_QUALITY: &[&str] = &[
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_L", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_L",
    "Q4_K_M", "Q4_1", "Q4_K_S", "IQ4_NL", "IQ4_XS", "Q4_0", "MXFP4", "Q3_K_XL", "Q3_K_L", "Q3_K_M",
    "IQ3_M", "Q3_K_S", "IQ3_S", "IQ3_XS", "IQ3_XXS", "Q2_K_L", "Q2_K", "Q2_K_S", "IQ2_M", "IQ2_S",
    "IQ2_XS", "IQ2_XXS", "TQ2_0", "TQ1_0", "IQ1_M", "IQ1_S",
];
/// The first with less than four bits a weight.
const COARSE: &str = "Q3_K_XL";
/// The best that is taken unasked: nobody can tell the answers of more from its.
const ENOUGH: &str = "Q8_0";
/// Half precision, where the variant's name says nothing.
const UNKNOWN: usize = usize::MAX;

/// One variant: what it takes, and what is known of it.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its quantization: `Q4_K_M`.
    pub label: String,
    /// The size of its file.
    pub file_bytes: u64,
    /// What it takes.
    pub demand: Demand,
    /// `demand` follows from the file's header, and not from what is commonly known of the model.
    pub exact: bool,
    /// What was seen on this machine, in RAM.
    pub measured: Option<Measured>,
}

/// Why a file is no candidate.
#[derive(Debug, thiserror::Error)]
pub enum CandidateError {
    /// Its header cannot be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// It is a model that this version cannot run.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Its place among the quantizations, from 0, the best; `None` for a name that is none.
pub fn quality(label: &str) -> Option<usize> {
    BY_QUALITY.iter().position(|name| name.eq_ignore_ascii_case(label))
}

impl Candidate {
    /// Of a model's files, mostly one, or of their beginnings, as long as those hold the whole headers.
    pub fn from_headers(
        label: &str,
        headers: Vec<Vec<u8>>,
        file_bytes: u64,
    ) -> Result<Candidate, CandidateError> {
        let parts = headers.into_iter().map(Gguf::parse_header);
        let gguf = Gguf::join(parts.collect::<Result<_, _>>()?)?;
        Candidate::from_gguf(label, &gguf, file_bytes)
    }

    /// Of an open file.
    pub fn from_gguf(
        label: &str,
        gguf: &Gguf,
        file_bytes: u64,
    ) -> Result<Candidate, CandidateError> {
        let (label, demand) = (label.to_owned(), Demand::of(gguf)?);
        Ok(Candidate { label, file_bytes, demand, exact: true, measured: None })
    }

    /// Of a model of the library, before anything of it was fetched: weights by the size of the file,
    /// which is known to about a hundredth; the rest by the model's shape.
    pub fn from_catalog(size: &Size, variant: &Variant) -> Candidate {
        let demand = demand(&size.shape, variant.bytes, size.parameters);
        let (label, file_bytes) = (variant.quant.clone(), variant.bytes);
        Candidate { label, file_bytes, demand, exact: false, measured: None }
    }

    fn rank(&self) -> usize {
        quality(&self.label).unwrap_or(UNKNOWN)
    }

    /// The order in which variants are tried, highest first: from [`ENOUGH`] down; those that are
    /// better and larger only after all others.
    pub(super) fn preference(&self) -> (bool, std::cmp::Reverse<usize>, u64) {
        let enough = quality(ENOUGH).unwrap_or(0);
        (self.rank() >= enough, std::cmp::Reverse(self.rank()), self.file_bytes)
    }

    /// Less than four bits a weight.
    pub(super) fn is_coarse(&self) -> bool {
        let coarse = quality(COARSE).unwrap_or(UNKNOWN);
        self.rank() >= coarse && self.rank() != UNKNOWN
    }
}

/// The demand of a model of that shape whose weights are in a file of so many bytes.
fn demand(shape: &Shape, file_bytes: u64, parameters: u64) -> Demand {
    let layers = u64::from(shape.layers).max(1);
    let share = |elements: u64| scaled(file_bytes, elements, parameters);
    let embedding = share(shape.embedding_table());
    let head = if shape.tied { 0 } else { embedding };
    let layer = file_bytes.saturating_sub(embedding + head) / layers;
    let (kv_heads, key, value) = match &shape.latent {
        // One vector a token, shared by all heads, from which both are made.
        Some(latent) => (1, u64::from(latent.kv_rank + latent.rotary), 0),
        None => (u64::from(shape.kv_heads), u64::from(shape.head), u64::from(shape.head)),
    };
    let heads = u64::from(shape.heads);
    let group = heads / u64::from(shape.kv_heads).max(1);
    let vocabulary = u64::from(shape.vocabulary);
    Demand {
        architecture: shape.architecture.clone(),
        layers: vec![layer; layers as usize],
        experts: share(experts(shape)),
        active: active(shape),
        embedding,
        head,
        vectors: layers * u64::from(shape.embedding) * 2 * 4,
        context_max: shape.context,
        kv_heads,
        key_length: key,
        value_length: value,
        row: row(shape),
        partial: group * (u64::from(shape.head) + 2),
        vocabulary,
        // Byte-level vocabularies have about one merge for each token.
        tokenizer: vocabulary * (TOKEN_BYTES + MERGE_BYTES),
        parameters: shape.experts.as_ref().map_or(parameters, |experts| experts.active_parameters),
    }
}

/// Buffers of a token: the stream, queries, keys and values, what attention gives, and inputs in 8 bits.
fn row(shape: &Shape) -> u64 {
    let (width, head) = (u64::from(shape.embedding), u64::from(shape.head));
    let attended = u64::from(shape.heads) * head;
    let projected = attended + 2 * u64::from(shape.kv_heads) * head;
    let floats = width + projected + attended;
    // A byte a number, and scales and sums of blocks of 32 or 256 of them.
    let inputs = width + attended + u64::from(shape.feed_forward);
    4 * floats + inputs + inputs / 6
}

/// Weights of the experts of a layer: three matrices each.
fn experts(shape: &Shape) -> u64 {
    let one = |width: u32| 3 * u64::from(width) * u64::from(shape.embedding);
    shape.experts.as_ref().map_or(0, |all| u64::from(all.count) * one(all.feed_forward))
}

/// The share of them that one token uses.
fn active(shape: &Shape) -> f64 {
    let share = |all: &Experts| f64::from(all.used) / f64::from(all.count.max(1));
    shape.experts.as_ref().map_or(1.0, share)
}

/// `bytes * part / whole`.
fn scaled(bytes: u64, part: u64, whole: u64) -> u64 {
    let scaled = u128::from(bytes) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}
