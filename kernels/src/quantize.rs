//! `f32` to blocks: the scalar reference that writes every format the engine can read.
//!
//! Each block is fitted by least squares: a handful of scales is tried, each is improved for the
//! codes that it leads to, and the one that reproduces the numbers best is kept. No importance of
//! elements is taken into account. The same numbers always give the same bytes. The layouts are
//! drawn in [`crate::dequantize`].

use half::{bf16, f16};

use crate::dequantize::dequantize;
use crate::format::Format;

mod blocks;
mod fit;
mod super_blocks;
#[cfg(test)]
mod tests;

/// Why numbers could not be turned into blocks.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum QuantizeError {
    /// There is no code for this format.
    #[error("tensors of type {0} cannot be written")]
    Unsupported(Format),
    /// The bytes are not what the number of elements needs.
    #[error("{elements} elements of type {format} do not fit {bytes} bytes")]
    Length {
        /// The format of the blocks.
        format: Format,
        /// Elements that were given.
        elements: usize,
        /// Bytes that were given to write to.
        bytes: usize,
    },
    /// A number is infinite or none at all.
    #[error("element {index} is {value}, which is no finite number")]
    NotFinite {
        /// Which element.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// A number is finite, but over what the format's scales reach.
    #[error("element {index} is {value}, which is too large for type {format}")]
    TooLarge {
        /// The format of the blocks.
        format: Format,
        /// The element of the largest magnitude in its block.
        index: usize,
        /// What it is.
        value: f32,
    },
}

/// The elements of one block in, its bytes out. The lengths are those of the format.
type Block = fn(&[f32], &mut [u8]);

/// Writes the numbers of `x` as blocks of `format` to `out`, which must be exactly as long as they
/// need. After an error the contents of `out` mean nothing.
pub fn quantize(format: Format, x: &[f32], out: &mut [u8]) -> Result<(), QuantizeError> {
    let block = block_function(format).ok_or(QuantizeError::Unsupported(format))?;
    if format.bytes(x.len() as u64) != Some(out.len() as u64) {
        let (elements, bytes) = (x.len(), out.len());
        return Err(QuantizeError::Length { format, elements, bytes });
    }
    if let Some(index) = x.iter().position(|value| !value.is_finite()) {
        return Err(QuantizeError::NotFinite { index, value: x[index] });
    }
    let elements = format.elements_per_block();
    let mut check = vec![0.0; elements];
    let blocks = out.chunks_exact_mut(format.bytes_per_block());
    for (at, (input, output)) in x.chunks_exact(elements).zip(blocks).enumerate() {
        block(input, output);
        // A scale over the range of its type is infinite, and so is what is read back.
        let read = dequantize(format, output, &mut check);
        if read.is_err() || check.iter().any(|value| !value.is_finite()) {
            let index = at * elements + largest(input);
            return Err(QuantizeError::TooLarge { format, index, value: x[index] });
        }
    }
    Ok(())
}

/// Whether [`quantize`] has code for `format`.
pub fn can_quantize(format: Format) -> bool {
    block_function(format).is_some()
}

fn block_function(format: Format) -> Option<Block> {
    Some(match format {
        Format::F32 => |x, out| out.copy_from_slice(&x[0].to_le_bytes()),
        Format::F16 => |x, out| out.copy_from_slice(&f16::from_f32(x[0]).to_le_bytes()),
        Format::BF16 => |x, out| out.copy_from_slice(&bf16::from_f32(x[0]).to_le_bytes()),
        Format::Q4_0 => blocks::q4_0,
        Format::Q4_1 => blocks::q4_1,
        Format::Q5_0 => blocks::q5_0,
        Format::Q5_1 => blocks::q5_1,
        Format::Q8_0 => blocks::q8_0,
        Format::IQ4_NL => blocks::iq4_nl,
        Format::MXFP4 => blocks::mxfp4,
        Format::Q2_K => super_blocks::q2_k,
        Format::Q3_K => super_blocks::q3_k,
        Format::Q4_K => super_blocks::q4_k,
        Format::Q5_K => super_blocks::q5_k,
        Format::Q6_K => super_blocks::q6_k,
        Format::IQ4_XS => super_blocks::iq4_xs,
        _ => return None,
    })
}

/// The index of the element of the largest magnitude; the last of equals.
fn largest(x: &[f32]) -> usize {
    let by_magnitude = |&a: &usize, &b: &usize| x[a].abs().total_cmp(&x[b].abs());
    (0..x.len()).max_by(by_magnitude).unwrap_or(0)
}
