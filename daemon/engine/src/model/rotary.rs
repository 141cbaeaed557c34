//! The rotary embedding that a file asks for.
//!
//! Keys and meanings are those of GGUF: `rope.scaling.*`, the older `rope.scale_linear`, and tensors
//! of factors that divide the frequencies (`rope_freqs.weight`, Llama 3.1; `rope_factors_long` and
//! `_short`, Phi 3).

use super::ModelError;
use super::header::Keys;

/// The rotary embedding of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotary {
    /// Numbers of a head that are rotated, its first ones; even.
    pub dimensions: u32,
    /// The base of the wavelengths.
    pub base: f32,
    /// How the wavelengths are stretched for contexts longer than the first training's.
    pub stretch: Stretch,
    /// What rotated queries and keys are multiplied by, each.
    pub magnitude: f32,
}

/// How wavelengths are stretched.
#[derive(Debug, Clone, PartialEq)]
pub enum Stretch {
    /// Not at all.
    None,
    /// All alike, by `factor`.
    Linear {
        /// How much longer they become.
        factor: f32,
    },
    /// YaRN: long ones by `factor`, short ones not, a ramp between.
    Yarn {
        /// How much longer the long ones become.
        factor: f32,
        /// Tokens of context of the first training.
        original_context: u32,
        /// Where the ramp begins, in turns over the original context.
        beta_fast: f32,
        /// Where it ends.
        beta_slow: f32,
    },
    /// Each by a number of the tensor `rope_freqs.weight`.
    Tensor,
    /// Each by a number of `rope_factors_long.weight` where the context is longer than
    /// `original_context`, else of `rope_factors_short.weight`.
    LongOrShort {
        /// Tokens of context of the first training.
        original_context: u32,
    },
}

/// Reads and checks the keys; `key_length` is the size of a head.
pub(super) fn read(keys: &Keys<'_>, key_length: u32) -> Result<Rotary, ModelError> {
    let dimensions = keys.optional("rope.dimension_count")?.unwrap_or(key_length);
    if dimensions == 0 || dimensions > key_length || !dimensions.is_multiple_of(2) {
        let problem = format!("{dimensions} of the {key_length} numbers of a head");
        return Err(keys.wrong("rope.dimension_count", problem));
    }
    // Another name, where layers with a window have a base of their own.
    let global = keys.positive("rope.global.freq_base", Some(10_000.0))?;
    Ok(Rotary {
        dimensions,
        base: keys.positive("rope.freq_base", Some(global))?,
        stretch: stretch(keys)?,
        magnitude: keys.positive("rope.scaling.attn_factor", Some(1.0))?,
    })
}

fn stretch(keys: &Keys<'_>) -> Result<Stretch, ModelError> {
    let tensors = ["rope_freqs.weight", "rope_factors_long.weight"];
    let [freqs, long] = tensors.map(|name| keys.gguf.tensor(name).is_some());
    let kind = keys.gguf.get_str(&keys.key("rope.scaling.type"))?;
    let factor = match keys.gguf.get_f32(&keys.key("rope.scaling.factor"))? {
        Some(0.0) | None => keys.positive("rope.scale_linear", Some(1.0))?,
        Some(_) => keys.positive("rope.scaling.factor", None)?,
    };
    match kind {
        Some("yarn") if freqs || long => Err(both(keys, tensors[usize::from(long)])),
        Some("yarn") => yarn(keys, factor),
        Some("linear" | "longrope") | None if long && factor != 1.0 => Err(both(keys, tensors[1])),
        Some("none" | "linear" | "longrope") | None if long => {
            Ok(Stretch::LongOrShort { original_context: original_context(keys)? })
        }
        Some("linear") | None if freqs && factor != 1.0 => Err(both(keys, tensors[0])),
        Some("linear" | "none") | None if freqs => Ok(Stretch::Tensor),
        Some("linear") | None if factor != 1.0 => Ok(Stretch::Linear { factor }),
        Some("linear" | "none") | None => Ok(Stretch::None),
        Some(other) => Err(ModelError::Feature {
            feature: "a rotary embedding of an unknown kind",
            detail: format!("{} = {other:?}", keys.key("rope.scaling.type")),
        }),
    }
}

fn both(keys: &Keys<'_>, tensor: &str) -> ModelError {
    ModelError::Feature {
        feature: "a rotary embedding stretched in two ways",
        detail: format!("tensor {tensor} and {}", keys.key("rope.scaling.type")),
    }
}

fn yarn(keys: &Keys<'_>, factor: f32) -> Result<Stretch, ModelError> {
    for (name, neutral) in
        [("rope.scaling.yarn_ext_factor", 1.0), ("rope.scaling.yarn_attn_factor", 1.0)]
    {
        let found = keys.gguf.get_f32(&keys.key(name))?.unwrap_or(neutral);
        if found != neutral {
            let detail = format!("{} = {found}", keys.key(name));
            return Err(ModelError::Feature { feature: "a variant of YaRN", detail });
        }
    }
    if factor < 1.0 {
        return Err(keys.wrong("rope.scaling.factor", format!("{factor} shortens the context")));
    }
    Ok(Stretch::Yarn {
        factor,
        original_context: original_context(keys)?,
        beta_fast: keys.positive("rope.scaling.yarn_beta_fast", Some(32.0))?,
        beta_slow: keys.positive("rope.scaling.yarn_beta_slow", Some(1.0))?,
    })
}

/// The context of the first training; that of the model where nothing is said.
fn original_context(keys: &Keys<'_>) -> Result<u32, ModelError> {
    match keys.optional("rope.scaling.original_context_length")? {
        Some(0) => Err(keys.wrong("rope.scaling.original_context_length", "it is 0")),
        Some(context) => Ok(context),
        None => Ok(keys.gguf.need_u32(&keys.key("context_length"))?),
    }
}
