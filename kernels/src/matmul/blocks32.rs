//! Formats with blocks of 32: where a panel's block has what.

use super::Bytes;
use super::quants::{MXFP4_OFFSET, MXFP4_STEPS, UNEVEN_BYTES, moved, nibbles};
use crate::arch::{LANES, Simd};
use crate::dequantize::e8m0_half;
use crate::panel::ROWS;

/// A format of blocks of 32.
pub(super) trait Quants32 {
    /// Bytes of a panel's block.
    const BYTES: usize;
    /// Vectors (of four columns) whose products with activations can be summed in 16 bits.
    const LIMIT: usize;
    /// Whether the bytes are signed.
    const SIGNED: bool = false;
    /// What the unsigned bytes are larger by than the integers they stand for.
    const OFFSET: i16 = 0;
    /// Whether there are minimums.
    const MINIMUM: bool = false;

    /// Scales of the rows.
    fn scale<V: Simd>(v: V, block: &[u8]) -> V::F;
    /// Minimums of the rows, where there are any.
    #[inline(always)]
    fn minimum<V: Simd>(v: V, _block: &[u8]) -> V::F {
        v.splat_f32(0.0)
    }
    /// Vector `at` (0 to 7).
    fn vector<V: Simd>(v: V, block: &[u8], at: usize) -> V::I;
}

/// The vector at byte `start`.
#[inline(always)]
fn vector_at<V: Simd>(v: V, block: &[u8], start: usize) -> V::I {
    let bytes: &Bytes = block[start..].first_chunk().expect("a whole block");
    v.load(bytes)
}

/// 16 halves at byte `start`.
#[inline(always)]
fn halves_at<V: Simd>(v: V, block: &[u8], start: usize) -> V::F {
    v.load_f16(block[start..].first_chunk().expect("a whole block"))
}

/// Nibbles of a block: the low ones are the first half, the high ones the second.
#[inline(always)]
fn nibbles_at<V: Simd>(v: V, block: &[u8], start: usize, at: usize) -> V::I {
    nibbles(v, vector_at(v, block, start + at % 4 * 64), at / 4)
}

pub(super) struct Q4_0;

impl Quants32 for Q4_0 {
    const BYTES: usize = 18 * ROWS;
    const LIMIT: usize = 8;
    const MINIMUM: bool = true;

    #[inline(always)]
    fn scale<V: Simd>(v: V, block: &[u8]) -> V::F {
        halves_at(v, block, 0)
    }

    #[inline(always)]
    fn minimum<V: Simd>(v: V, block: &[u8]) -> V::F {
        v.mul_f32(halves_at(v, block, 0), v.splat_f32(-8.0))
    }

    #[inline(always)]
    fn vector<V: Simd>(v: V, block: &[u8], at: usize) -> V::I {
        nibbles_at(v, block, 2 * ROWS, at)
    }
}

pub(super) struct Q4_1;

impl Quants32 for Q4_1 {
    const BYTES: usize = 20 * ROWS;
    const LIMIT: usize = 8;
    const MINIMUM: bool = true;

    #[inline(always)]
    fn scale<V: Simd>(v: V, block: &[u8]) -> V::F {
        halves_at(v, block, 0)
    }

    #[inline(always)]
    fn minimum<V: Simd>(v: V, block: &[u8]) -> V::F {
        halves_at(v, block, 2 * ROWS)
    }

    #[inline(always)]
    fn vector<V: Simd>(v: V, block: &[u8], at: usize) -> V::I {
        nibbles_at(v, block, 4 * ROWS, at)
    }
}

pub(super) struct Q5_0;

impl Quants32 for Q5_0 {
    const BYTES: usize = 22 * ROWS;
    const LIMIT: usize = 4;
    const MINIMUM: bool = true;

    #[inline(always)]
    fn scale<V: Simd>(v: V, block: &[u8]) -> V::F {
        halves_at(v, block, 0)
    }

    #[inline(always)]
    fn minimum<V: Simd>(v: V, block: &[u8]) -> V::F {
        v.mul_f32(halves_at(v, block, 0), v.splat_f32(-16.0))
    }

    #[inline(always)]
    fn vector<V: Simd>(v: V, block: &[u8], at: usize) -> V::I {
        let fifth = moved(v, vector_at(v, block, 2 * ROWS), at, 0x10);
        v.or(nibbles_at(v, block, 6 * ROWS, at), fifth)
    }
}

pub(super) struct Q5_1;

impl Quants32 for Q5_1 {
    const BYTES: usize = 24 * ROWS;
    const LIMIT: usize = 4;
    const MINIMUM: bool = true;

    #[inline(always)]
    fn scale<V: Simd>(v: V, block: &[u8]) -> V::F {
        halves_at(v, block, 0)
    }

    #[inline(always)]
    fn minimum<V: Simd>(v: V, block: &[u8]) -> V::F {
        halves_at(v, block, 2 * ROWS)
    }

    #[inline(always)]
    fn vector<V: Simd>(v: V, block: &[u8], at: usize) -> V::I {
        let fifth = moved(v, vector_at(v, block, 4 * ROWS), at, 0x10);
        v.or(nibbles_at(v, block, 8 * ROWS, at), fifth)
    }
}

pub(super) struct Q8_0;

impl Quants32 for Q8_0 {
    const BYTES: usize = 34 * ROWS;
    const LIMIT: usize = 1;
    const SIGNED: bool = true;

    #[inline(always)]
    fn scale<V: Simd>(v: V, block: &[u8]) -> V::F {
        halves_at(v, block, 0)
    }

    #[inline(always)]
    fn vector<V: Simd>(v: V, block: &[u8], at: usize) -> V::I {
        v.signed(vector_at(v, block, 2 * ROWS + at * 64))
    }
}

pub(super) struct Iq4Nl;

impl Quants32 for Iq4Nl {
    const BYTES: usize = 18 * ROWS;
    const LIMIT: usize = 1;
    const SIGNED: bool = true;

    #[inline(always)]
    fn scale<V: Simd>(v: V, block: &[u8]) -> V::F {
        halves_at(v, block, 0)
    }

    #[inline(always)]
    fn vector<V: Simd>(v: V, block: &[u8], at: usize) -> V::I {
        v.signed(v.lookup(&UNEVEN_BYTES, nibbles_at(v, block, 2 * ROWS, at)))
    }
}

pub(super) struct Mxfp4;

impl Quants32 for Mxfp4 {
    const BYTES: usize = 17 * ROWS;
    const LIMIT: usize = 4;
    const OFFSET: i16 = MXFP4_OFFSET;

    /// The scale is a power of two; halved, because the steps are doubled.
    #[inline(always)]
    fn scale<V: Simd>(v: V, block: &[u8]) -> V::F {
        let mut scales = [0.0; LANES];
        for (scale, exponent) in scales.iter_mut().zip(block) {
            *scale = e8m0_half(*exponent);
        }
        v.load_f32(&scales)
    }

    #[inline(always)]
    fn vector<V: Simd>(v: V, block: &[u8], at: usize) -> V::I {
        v.lookup(&MXFP4_STEPS, nibbles_at(v, block, ROWS, at))
    }
}
