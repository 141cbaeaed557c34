//! What a machine can run: `POST /api/dsk/fit`, and what a pull without bytes answers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::lenient::{is_false, null_as_default};

/// The body of `POST /api/dsk/fit`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct FitRequest {
    /// A family, a size of one, a local model or a name at a registry; all families when empty.
    #[serde(default, deserialize_with = "null_as_default")]
    pub model: String,
    /// Tokens of context; the planner's own target when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<u32>,
    /// How keys and values are kept: `f16`, `q8_0` or `f32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv: Option<String>,
    /// This quantization only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quant: Option<String>,
    /// Another machine than the daemon's, as `dsk fit --machine` reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Value>,
    /// Allow a registry without TLS.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_false")]
    pub insecure: bool,
}

/// The answer of `POST /api/dsk/fit`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FitResponse {
    /// The rows are the variants of one model.
    pub one_model: bool,
    /// Every variant that was looked at, models in order of size.
    pub rows: Vec<FitRow>,
    /// When nothing fits: a smaller size that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smaller: Option<String>,
}

/// How well a variant suits a machine, best first.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum FitVerdict {
    /// Wholly in the memory of GPUs.
    FullSpeed,
    /// Partly in the memory of GPUs.
    Partial,
    /// In RAM.
    RamOnly,
    /// Nowhere.
    #[default]
    DoesNotFit,
}

/// One variant on one machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FitRow {
    /// The model's name.
    pub model: String,
    /// The variant: `Q4_K_M`.
    pub quant: String,
    /// The size of its file.
    pub file_bytes: u64,
    /// It is in the store.
    pub local: bool,
    /// Its sizes are those of its header, and not of the library.
    pub exact: bool,
    /// It is the variant that a pull takes.
    pub chosen: bool,
    /// How well it suits.
    pub verdict: FitVerdict,
    /// Tokens of context.
    pub context: u32,
    /// How keys and values are kept.
    pub kv: String,
    /// What it takes in all, of all devices.
    pub memory_bytes: u64,
    /// What is missing where it does not fit, else 0.
    pub shortfall_bytes: u64,
    /// What to expect; absent where it does not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speeds: Option<FitSpeeds>,
    /// What lies where; empty where it does not fit.
    pub devices: Vec<FitShare>,
    /// Why, in words, the most important first.
    pub reasons: Vec<String>,
}

/// What to expect of a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FitSpeeds {
    /// Seconds from the file to a model that answers.
    pub load_seconds: f64,
    /// Tokens of a prompt a second.
    pub prefill_tps: f64,
    /// Tokens generated a second.
    pub decode_tps: f64,
    /// `measured`, `calibrated` or `estimated`.
    pub basis: String,
}

/// What one device takes, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FitShare {
    /// `cpu`, `gpu0`, ...
    pub device: String,
    /// Layers whose attention is computed there.
    pub layers: u32,
    /// Weights.
    pub weights: u64,
    /// Keys and values of the whole context.
    pub kv: u64,
    /// Buffers of a step.
    pub activations: u64,
    /// The process, the tokenizer, the driver's own.
    pub runtime: u64,
}

impl FitShare {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        let kinds = [self.kv, self.activations, self.runtime];
        kinds.into_iter().fold(self.weights, u64::saturating_add)
    }
}

/// The answer of `POST /api/pull` with `dry_run`: what would be pulled.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PullChoice {
    /// The name the model would get.
    pub model: String,
    /// What would be pulled of its repository: a tag or a digest.
    pub reference: String,
    /// The variant, where there is a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quant: Option<String>,
    /// The bytes of all its layers.
    pub bytes: u64,
    /// What its source offers, smallest first; empty where there is no choice.
    pub offered: Vec<Offered>,
    /// How it suits the machine, where there is a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<FitRow>,
    /// Which and why, a line each.
    pub lines: Vec<String>,
}

/// One variant at a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// The quantization.
    pub quant: String,
    /// The bytes of all its layers.
    pub bytes: u64,
}
