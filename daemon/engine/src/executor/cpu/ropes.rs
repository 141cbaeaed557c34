//! The rotary embeddings of a model, from what its header asks for.

use dsk_kernels::rope::{Rope, Scaling};

use super::load::vector;
use crate::arch::Windowed;
use crate::executor::ExecutorError;
use crate::gguf::Gguf;
use crate::model::{Header, Stretch};

/// One rope, or two where layers with a window rotate differently.
pub(super) fn ropes(
    gguf: &Gguf,
    header: &Header,
    context: usize,
) -> Result<Vec<Rope>, ExecutorError> {
    let rotary = &header.rotary;
    let dimensions = rotary.dimensions as usize;
    let pairing = header.architecture.pairing;
    let scaling = scaling(gguf, header, context)?;
    let main = Rope::new(dimensions, rotary.base, pairing, scaling);
    let main = main.with_magnitude(rotary.magnitude);
    Ok(match header.architecture.windowed {
        Windowed::AllBut { rope_base, .. } if header.window.is_some() => {
            let local = Rope::new(dimensions, rope_base, pairing, Scaling::None);
            vec![main, local]
        }
        _ => vec![main],
    })
}

fn scaling(gguf: &Gguf, header: &Header, context: usize) -> Result<Scaling, ExecutorError> {
    Ok(match header.rotary.stretch {
        Stretch::None => Scaling::None,
        Stretch::Linear { factor } => Scaling::Linear { factor },
        Stretch::Yarn { factor, original_context, beta_fast, beta_slow } => {
            Scaling::Yarn { factor, original_context, attention_factor: 1.0, beta_fast, beta_slow }
        }
        Stretch::Tensor => Scaling::Factors(factors(gguf, "rope_freqs.weight")?),
        Stretch::LongOrShort { original_context } => {
            let long = context > original_context as usize;
            let name = if long { "rope_factors_long.weight" } else { "rope_factors_short.weight" };
            Scaling::Factors(factors(gguf, name)?)
        }
    })
}

/// Factors that frequencies are divided by: none may be zero.
fn factors(gguf: &Gguf, name: &str) -> Result<Vec<f32>, ExecutorError> {
    let factors = vector(gguf, name)?;
    match factors.iter().position(|&factor| factor <= 0.0) {
        None => Ok(factors),
        Some(at) => Err(ExecutorError::Weights(format!(
            "tensor {name:?}: element {at} is {}, not a positive number",
            factors[at]
        ))),
    }
}
