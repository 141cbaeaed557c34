//! Bits of packed weights to bytes.

use crate::arch::Simd;
use crate::dequantize::UNEVEN_STEPS;

/// What the 4-bit codes of `IQ4_NL` and `IQ4_XS` stand for, as bytes.
pub(super) const UNEVEN_BYTES: [u8; 16] = {
    let mut bytes = [0; 16];
    let mut at = 0;
    while at < 16 {
        bytes[at] = UNEVEN_STEPS[at].cast_unsigned();
        at += 1;
    }
    bytes
};

/// What the 4-bit floats of `MXFP4` stand for, doubled and plus [`MXFP4_OFFSET`].
///
/// One sign bit, two of exponent, one of mantissa (OCP Microscaling Formats, 5.3.3).
pub(super) const MXFP4_STEPS: [u8; 16] =
    [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];
/// What is added to make them unsigned.
pub(super) const MXFP4_OFFSET: i16 = 12;

/// The low (0) or high (1) nibbles.
#[inline(always)]
pub(super) fn nibbles<V: Simd>(v: V, packed: V::I, high: usize) -> V::I {
    let bits = if high == 1 { v.shift_right(packed, 4) } else { packed };
    v.and(bits, v.splat4([15; 4]))
}

/// Pair `pair` (0 to 3) of the bits of every byte.
#[inline(always)]
pub(super) fn bit_pairs<V: Simd>(v: V, packed: V::I, pair: usize) -> V::I {
    let bits = if pair > 0 { v.shift_right(packed, 2 * pair as u32) } else { packed };
    v.and(bits, v.splat4([3; 4]))
}

/// Bits `from ..` of every byte, as many as `mask` has ones, moved to where the mask has them.
#[inline(always)]
pub(super) fn moved<V: Simd>(v: V, packed: V::I, from: usize, mask: u8) -> V::I {
    let to = mask.trailing_zeros() as usize;
    let bits = if from > to {
        v.shift_right(packed, (from - to) as u32)
    } else if from < to {
        v.shift_left(packed, (to - from) as u32)
    } else {
        packed
    };
    v.and(bits, v.splat4([mask; 4]))
}
