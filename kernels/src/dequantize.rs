//! Blocks back to `f32`: the scalar reference of every format the engine can read.
//!
//! Each function below is given exactly one block and exactly the elements it holds. A block's
//! layout is drawn above its function; numbers are little endian, `d` is an IEEE half.

use half::{bf16, f16};

use crate::format::{Format, QK, QK_K};

/// Why blocks could not be turned into numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DequantizeError {
    /// There is no code for this format.
    #[error("tensors of type {0} cannot be read")]
    Unsupported(Format),
    /// The bytes are not what the number of elements needs.
    #[error("{elements} elements of type {format} do not fit {bytes} bytes")]
    Length {
        /// The format of the blocks.
        format: Format,
        /// Elements that were asked for.
        elements: usize,
        /// Bytes that were given.
        bytes: usize,
    },
}

/// One block in, its elements out. The lengths are those of the format.
type Block = fn(&[u8], &mut [f32]);

/// Writes the elements that `blocks` hold to `out`, which must be exactly as long as they are.
pub fn dequantize(format: Format, blocks: &[u8], out: &mut [f32]) -> Result<(), DequantizeError> {
    let block = block_function(format).ok_or(DequantizeError::Unsupported(format))?;
    if format.bytes(out.len() as u64) != Some(blocks.len() as u64) {
        let (elements, bytes) = (out.len(), blocks.len());
        return Err(DequantizeError::Length { format, elements, bytes });
    }
    let blocks = blocks.chunks_exact(format.bytes_per_block());
    for (input, output) in blocks.zip(out.chunks_exact_mut(format.elements_per_block())) {
        block(input, output);
    }
    Ok(())
}

/// Whether [`dequantize`] has code for `format`.
pub fn can_dequantize(format: Format) -> bool {
    block_function(format).is_some()
}

fn block_function(format: Format) -> Option<Block> {
    Some(match format {
        Format::F32 => f32_block,
        Format::F16 => f16_block,
        Format::BF16 => bf16_block,
        Format::Q4_0 => q4_0,
        Format::Q4_1 => q4_1,
        Format::Q5_0 => q5_0,
        Format::Q5_1 => q5_1,
        Format::Q8_0 => q8_0,
        Format::Q2_K => q2_k,
        Format::Q3_K => q3_k,
        Format::Q4_K => q4_k,
        Format::Q5_K => q5_k,
        Format::Q6_K => q6_k,
        Format::IQ4_NL => iq4_nl,
        Format::IQ4_XS => iq4_xs,
        Format::MXFP4 => mxfp4,
        _ => return None,
    })
}

/// The half-precision number at byte `at`.
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn f32_block(block: &[u8], out: &mut [f32]) {
    out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
}

fn f16_block(block: &[u8], out: &mut [f32]) {
    out[0] = half_at(block, 0);
}

fn bf16_block(block: &[u8], out: &mut [f32]) {
    out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32();
}

/// Splits bytes of two 4-bit numbers: the low ones are the first half, the high ones the second.
fn nibbles(quants: &[u8], mut put: impl FnMut(usize, u8)) {
    for (index, &pair) in quants.iter().enumerate() {
        put(index, pair & 0x0f);
        put(index + quants.len(), pair >> 4);
    }
}

/// `d | 16 bytes of nibbles`; an element is `d * (q - 8)`.
fn q4_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    nibbles(&block[2..], |index, q| out[index] = (i32::from(q) - 8) as f32 * d);
}

/// `d | m | 16 bytes of nibbles`; an element is `d * q + m`.
fn q4_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    nibbles(&block[4..], |index, q| out[index] = f32::from(q) * d + m);
}

/// The fifth bit of element `index` from the 32-bit mask at byte `at`, moved to its place.
fn fifth_bit(block: &[u8], at: usize, index: usize) -> u8 {
    (block[at + index / 8] >> (index % 8) & 1) << 4
}

/// `d | 32 high bits | 16 bytes of nibbles`; an element is `d * (q - 16)`.
fn q5_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    nibbles(&block[6..], |index, low| {
        let q = low | fifth_bit(block, 2, index);
        out[index] = (i32::from(q) - 16) as f32 * d;
    });
}

/// `d | m | 32 high bits | 16 bytes of nibbles`; an element is `d * q + m`.
fn q5_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    nibbles(&block[8..], |index, low| {
        let q = low | fifth_bit(block, 4, index);
        out[index] = f32::from(q) * d + m;
    });
}

/// `d | 32 signed bytes`; an element is `d * q`.
fn q8_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (element, &q) in out.iter_mut().zip(&block[2..]) {
        *element = f32::from(q as i8) * d;
    }
}

/// `16 scales (low nibble) and minimums (high nibble) | 64 bytes of 2-bit | d | dmin`.
///
/// Each half of the super-block uses 32 bytes four times, two bits further each time, and every 16
/// elements have a scale of their own.
fn q2_k(block: &[u8], out: &mut [f32]) {
    let (scales, quants) = block[..80].split_at(QK_K / 16);
    let (d, dmin) = (half_at(block, 80), half_at(block, 82));
    for (group, elements) in out.chunks_exact_mut(16).enumerate() {
        let scale = d * f32::from(scales[group] & 0x0f);
        let minimum = dmin * f32::from(scales[group] >> 4);
        let (start, shift) = two_bit_place(group);
        for (element, &packed) in elements.iter_mut().zip(&quants[start..]) {
            *element = scale * f32::from(packed >> shift & 3) - minimum;
        }
    }
}

/// Where the 2-bit parts of 16-element group `group` lie: first byte and shift.
pub(crate) fn two_bit_place(group: usize) -> (usize, usize) {
    let (half, within) = (group / 8, group % 8);
    (half * 32 + within % 2 * 16, within / 2 * 2)
}

/// `32 bytes of high bits | 64 bytes of 2-bit | 12 bytes of 6-bit scales | d`.
///
/// A set high bit means "do not subtract 4"; a scale is stored plus 32.
fn q3_k(block: &[u8], out: &mut [f32]) {
    let (high, rest) = block.split_at(QK_K / 8);
    let (quants, rest) = rest.split_at(QK_K / 4);
    let d = half_at(rest, 12);
    for (group, elements) in out.chunks_exact_mut(16).enumerate() {
        let scale = d * (i32::from(q3_k_scale(rest, group)) - 32) as f32;
        let (start, shift) = two_bit_place(group);
        for (index, element) in elements.iter_mut().enumerate() {
            let low = i32::from(quants[start + index] >> shift & 3);
            let set = high[(start + index) % 32] >> (group / 2) & 1;
            *element = scale * (low - if set == 1 { 0 } else { 4 }) as f32;
        }
    }
}

/// The 6-bit scale of group `group`: four bits from the first eight bytes, two from the last four.
fn q3_k_scale(scales: &[u8], group: usize) -> u8 {
    let low = scales[group % 8] >> (group / 8 * 4) & 0x0f;
    let high = scales[8 + group % 4] >> (group / 4 * 2) & 3;
    low | high << 4
}

/// The 6-bit scale and minimum of 32-element group `group` in the 12 bytes of `Q4_K` and `Q5_K`.
fn scale_and_minimum(packed: &[u8], group: usize) -> (f32, f32) {
    let (scale, minimum) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        (low & 0x0f | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4)
    };
    (f32::from(scale), f32::from(minimum))
}

/// The nibble of element `index` (of 32) in group `group`: two groups share 32 bytes.
fn group_nibble(quants: &[u8], group: usize, index: usize) -> u8 {
    quants[group / 2 * 32 + index] >> (group % 2 * 4) & 0x0f
}

/// `d | dmin | 12 bytes of 6-bit scales and minimums | 128 bytes of nibbles`.
fn q4_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    for (group, elements) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scale_and_minimum(&block[4..16], group);
        let (scale, minimum) = (d * scale, dmin * minimum);
        for (index, element) in elements.iter_mut().enumerate() {
            let q = group_nibble(&block[16..], group, index);
            *element = scale * f32::from(q) - minimum;
        }
    }
}

/// `d | dmin | 12 bytes of scales and minimums | 32 bytes of fifth bits | 128 bytes of nibbles`.
fn q5_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (high, quants) = block[16..].split_at(QK_K / 8);
    for (group, elements) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scale_and_minimum(&block[4..16], group);
        let (scale, minimum) = (d * scale, dmin * minimum);
        for (index, element) in elements.iter_mut().enumerate() {
            let q = group_nibble(quants, group, index) | (high[index] >> group & 1) << 4;
            *element = scale * f32::from(q) - minimum;
        }
    }
}

/// `128 bytes of low nibbles | 64 bytes of upper bit pairs | 16 signed scales | d`.
///
/// Within each half of 128 elements, the four runs of 32 take: low nibbles of the first 32 bytes,
/// low nibbles of the next 32, then the high nibbles of both; run `r` has bit pair `r`.
fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, rest) = block.split_at(QK_K / 2);
    let (high, rest) = rest.split_at(QK_K / 4);
    let (scales, d) = (&rest[..QK_K / 16], half_at(rest, QK_K / 16));
    for (run, elements) in out.chunks_exact_mut(32).enumerate() {
        let (half, run) = (run / 4, run % 4);
        let (low, high) = (&low[half * 64 + run % 2 * 32..], &high[half * 32..]);
        for (index, element) in elements.iter_mut().enumerate() {
            let q = low[index] >> (run / 2 * 4) & 0x0f | (high[index] >> (run * 2) & 3) << 4;
            let scale = f32::from(scales[half * 8 + run * 2 + index / 16] as i8);
            *element = d * scale * (i32::from(q) - 32) as f32;
        }
    }
}

/// What the 4-bit codes of `IQ4_NL` and `IQ4_XS` stand for.
pub(crate) const UNEVEN_STEPS: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// `d | 16 bytes of nibbles`; an element is `d * step[q]`.
fn iq4_nl(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    nibbles(&block[2..], |index, q| out[index] = d * f32::from(UNEVEN_STEPS[usize::from(q)]));
}

/// `d | 16 bits of upper scale bits | 4 bytes of lower scale nibbles | 128 bytes of nibbles`.
fn iq4_xs(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    let upper = u16::from_le_bytes([block[2], block[3]]);
    for (group, elements) in out.chunks_exact_mut(QK).enumerate() {
        let low = block[4 + group / 2] >> (group % 2 * 4) & 0x0f;
        let scale = u16::from(low) | (upper >> (group * 2) & 3) << 4;
        let scale = d * (i32::from(scale) - 32) as f32;
        let quants = &block[8 + group * 16..8 + group * 16 + 16];
        nibbles(quants, |index, q| {
            elements[index] = scale * f32::from(UNEVEN_STEPS[usize::from(q)]);
        });
    }
}

/// Twice what the 4-bit codes of `MXFP4` stand for: a sign, two bits of exponent, one of mantissa.
pub(crate) const E2M1_TWICE: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of what a shared exponent stands for: `2^(exponent - 128)`; 255 is no number.
///
/// The source of both is the OCP Microscaling Formats (MX) Specification, version 1.0.
#[inline(always)]
pub(crate) fn e8m0_half(exponent: u8) -> f32 {
    match exponent {
        // The two smallest are below the normal range of f32.
        0 | 1 => f32::from_bits(0x0020_0000 << exponent),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(exponent - 1) << 23),
    }
}

/// `shared exponent | 16 bytes of nibbles`; an element is `2^(exponent - 127)` times its number.
fn mxfp4(block: &[u8], out: &mut [f32]) {
    let half = e8m0_half(block[0]);
    nibbles(&block[1..], |index, q| out[index] = half * f32::from(E2M1_TWICE[usize::from(q)]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers(format: Format, blocks: &[u8]) -> Vec<f32> {
        let count = blocks.len() / format.bytes_per_block() * format.elements_per_block();
        let mut out = vec![0.0; count];
        dequantize(format, blocks, &mut out).expect("whole blocks");
        out
    }

    /// A half-precision 1.0, little endian.
    const ONE: [u8; 2] = [0x00, 0x3c];

    #[test]
    fn plain_numbers_are_themselves() {
        assert_eq!(numbers(Format::F32, &1.5f32.to_le_bytes()), [1.5]);
        assert_eq!(numbers(Format::F16, &ONE), [1.0]);
        assert_eq!(numbers(Format::BF16, &[0x80, 0x3f, 0x00, 0xc0]), [1.0, -2.0]);
    }

    #[test]
    fn low_nibbles_are_the_first_half() {
        let mut block = ONE.to_vec();
        block.extend([0xf0; 16]);
        let out = numbers(Format::Q4_0, &block);
        assert_eq!((out[0], out[15], out[16], out[31]), (-8.0, -8.0, 7.0, 7.0));
        let out = numbers(Format::IQ4_NL, &block);
        assert_eq!((out[0], out[31]), (-127.0, 113.0));
    }

    #[test]
    fn a_minimum_is_added_in_q4_1_and_subtracted_in_q4_k() {
        let mut block = [ONE, ONE].concat();
        block.extend([0x21; 16]);
        let out = numbers(Format::Q4_1, &block);
        assert_eq!((out[0], out[16]), (2.0, 3.0));

        let mut block = [ONE, ONE].concat();
        block.extend([1, 1, 1, 1, 2, 2, 2, 2, 0x21, 0x21, 0x21, 0x21]);
        block.extend([0x53; 128]);
        let out = numbers(Format::Q4_K, &block);
        // Groups 0 to 3 have scale 1 and minimum 2, groups 4 to 7 scale 1 and minimum 2 as well,
        // packed the other way.
        assert_eq!((out[0], out[32], out[128], out[160]), (1.0, 3.0, 1.0, 3.0));
    }

    #[test]
    fn the_fifth_bit_is_worth_sixteen() {
        let mut block = ONE.to_vec();
        block.extend([0b0000_0001, 0, 0, 0b1000_0000]);
        block.extend([0; 16]);
        let out = numbers(Format::Q5_0, &block);
        assert_eq!((out[0], out[1], out[30], out[31]), (0.0, -16.0, -16.0, 0.0));
    }

    #[test]
    fn a_shared_exponent_is_a_power_of_two() {
        let all = [0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe];
        let block = |exponent| [&[exponent], &all[..], &all[..]].concat();
        let ones = numbers(Format::MXFP4, &block(127));
        assert_eq!(ones[..8], [0.0, 1.0, 2.0, 4.0, 0.0, -1.0, -2.0, -4.0]);
        assert_eq!(ones[16..24], [0.5, 1.5, 3.0, 6.0, -0.5, -1.5, -3.0, -6.0]);
        for exponent in [0, 1, 2, 100, 254] {
            let scale = 2f64.powi(i32::from(exponent) - 127);
            let expected: Vec<f32> = ones.iter().map(|&x| (f64::from(x) * scale) as f32).collect();
            assert_eq!(numbers(Format::MXFP4, &block(exponent)), expected, "exponent {exponent}");
        }
        assert!(numbers(Format::MXFP4, &block(255)).iter().all(|x| x.is_nan()));
    }

    #[test]
    fn formats_without_code_and_odd_lengths_are_errors() {
        let mut out = [0.0; 256];
        let error = dequantize(Format::IQ1_S, &[0; 50], &mut out).unwrap_err();
        assert_eq!(error.to_string(), "tensors of type IQ1_S cannot be read");
        let error = dequantize(Format::Q4_0, &[0; 17], &mut out[..32]).unwrap_err();
        assert_eq!(error.to_string(), "32 elements of type Q4_0 do not fit 17 bytes");
        assert!(dequantize(Format::Q4_K, &[0; 144], &mut out[..32]).is_err());
    }

    proptest! {
        /// No pattern of bits is out of range of any table.
        #[test]
        fn any_block_can_be_read(seed in proptest::collection::vec(any::<u8>(), 292)) {
            for &format in Format::ALL.iter().filter(|format| can_dequantize(**format)) {
                let out = numbers(format, &seed[..format.bytes_per_block()]);
                prop_assert_eq!(out.len(), format.elements_per_block());
            }
        }
    }
}
