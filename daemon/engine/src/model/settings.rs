//! Which settings of a file are understood. Everything below the family's name that is not listed here
//! is refused by its name: it may change what is computed.

use super::ModelError;
use super::header::Keys;
use crate::arch::Windowed;
use crate::gguf::Value;

/// Those that the header and the rotary embedding read.
const READ: [&str; 33] = [
    "attention.causal",
    "attention.clamp_kqv",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.max_alibi_bias",
    "attention.scale",
    "attention.sliding_window",
    "attention.value_length",
    "attn_logit_softcapping",
    "block_count",
    "context_length",
    "embedding_length",
    "embedding_scale",
    "expert_count",
    "expert_used_count",
    "feed_forward_length",
    "final_logit_softcapping",
    "logit_scale",
    "residual_scale",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.global.freq_base",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_ext_factor",
];

/// Those that change nothing in the families that are computed.
const INFORMATIVE: [&str; 4] =
    ["attention.layer_norm_epsilon", "rope.scaling.finetuned", "tensor_data_layout", "vocab_size"];

/// Refuses a setting that nobody reads.
pub(super) fn refuse_unknown(keys: &Keys<'_>) -> Result<(), ModelError> {
    let prefix = keys.key("");
    for (key, value) in keys.gguf.metadata() {
        let Some(name) = key.strip_prefix(&prefix) else { continue };
        let known = READ.contains(&name) || INFORMATIVE.contains(&name);
        if !known && !is_neutral(keys, name, value) {
            let feature = "a setting that is not known";
            return Err(ModelError::Feature { feature, detail: format!("{key} = {value:?}") });
        }
    }
    Ok(())
}

/// Whether a setting says what is computed anyway.
fn is_neutral(keys: &Keys<'_>, name: &str, value: Value<'_>) -> bool {
    let Windowed::AllBut { period, rope_base } = keys.architecture.windowed else { return false };
    match name {
        "rope.local.freq_base" | "rope.freq_base_swa" => value.as_f32() == Some(rope_base),
        "attention.sliding_window_pattern" => is_period(value, period),
        _ => false,
    }
}

/// Whether every `period`th layer, and no other, is without a window: a number, or one truth value a
/// layer.
fn is_period(value: Value<'_>, period: u32) -> bool {
    let Some(layers) = value.as_array() else {
        return value.as_u64() == Some(u64::from(period));
    };
    let mut layers = (1u32..).zip(layers.iter());
    layers.all(|(layer, windowed)| windowed.as_bool() == Some(!layer.is_multiple_of(period)))
}
