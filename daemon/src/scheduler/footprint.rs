//! What a model will take in memory, from its file's header alone.
//!
//! An estimate, and only that: it decides who leaves before a load. The runner's own figures
//! replace it once the model is loaded.

use std::path::Path;

use dsk_daemon_engine::{gguf::Gguf, model::Summary};

use crate::models::ModelSpec;

/// The context of a load that names none; the engine's own default.
const CONTEXT_DEFAULT: u32 = 4096;
/// The runner itself: code, tokenizer, buffers.
const RUNNER_BYTES: u64 = 128 << 20;
/// Bytes of a value in the KV cache of the widest executor (f32).
const KV_VALUE_BYTES: u64 = 4;

/// The bytes a model takes, by what they depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// The weights as they lie in memory.
    pub(crate) weights: u64,
    /// One token of context.
    pub(crate) token: u64,
    /// The context the model was made for.
    pub(crate) context_max: u32,
}

impl Footprint {
    /// Reads the header. A file that cannot be read gets a footprint too: loading it is what gives
    /// the right error.
    pub(crate) fn of(spec: &ModelSpec) -> Footprint {
        let weights = spec.model_bytes;
        let unknown = Footprint { weights, token: 0, context_max: u32::MAX };
        summary(&spec.model_path).map_or(unknown, |summary| Footprint {
            weights,
            token: token_bytes(&summary),
            // 0: the file does not say.
            context_max: match summary.context_length {
                0 => u32::MAX,
                tokens => tokens,
            },
        })
    }

    /// All of it, for a context.
    pub(crate) fn bytes(&self, context: Option<u32>) -> u64 {
        let context = context.unwrap_or(CONTEXT_DEFAULT).min(self.context_max);
        let kv = self.token.saturating_mul(u64::from(context));
        self.weights.saturating_add(kv).saturating_add(RUNNER_BYTES)
    }
}

/// A key and a value of every layer and KV head.
fn token_bytes(summary: &Summary) -> u64 {
    let heads = u64::from(summary.head_count).max(1);
    let head = u64::from(summary.embedding_length) / heads;
    [2, u64::from(summary.block_count), u64::from(summary.head_count_kv), head, KV_VALUE_BYTES]
        .into_iter()
        .fold(1, u64::saturating_mul)
}

fn summary(path: &Path) -> Option<Summary> {
    Summary::read(&Gguf::open(path).ok()?).ok()
}

/// Bytes for people.
pub(super) fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_is_bounded_by_the_model() {
        let footprint = Footprint { weights: 1000, token: 10, context_max: 8192 };
        let bytes = |context| footprint.bytes(context) - RUNNER_BYTES;
        assert_eq!(bytes(None), 1000 + 40_960);
        assert_eq!(bytes(Some(100)), 2000);
        assert_eq!(bytes(Some(u32::MAX)), 1000 + 81_920);
        let huge = Footprint { token: u64::MAX, ..footprint };
        assert_eq!(huge.bytes(None), u64::MAX);
        assert_eq!(gibibytes(3 << 29), "1.5 GiB");
    }
}
