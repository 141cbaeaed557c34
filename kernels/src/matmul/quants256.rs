//! Formats with super-blocks of 256: where a panel's block has what.
//!
//! The layouts of the files' blocks are drawn in [`crate::dequantize`]; [`crate::panel`] says how
//! they are transposed. All of them keep the columns' natural order in runs of 32.

use super::Bytes;
use super::quants::{UNEVEN_BYTES, bit_pairs, moved, nibbles};
use super::source::Side;
use crate::arch::{LANES, Simd};
use crate::panel::ROWS;

/// 16 numbers of 16 bits.
type Halves = [u8; 2 * LANES];

/// A panel's super-block: `H` x 16 halves, then `W` vectors.
#[derive(Clone, Copy)]
pub(super) struct Block<'a, const H: usize, const W: usize> {
    halves: &'a [Halves; H],
    vectors: &'a [Bytes; W],
}

impl<'a, const H: usize, const W: usize> Block<'a, H, W> {
    #[inline(always)]
    fn of(bytes: &'a [u8]) -> Block<'a, H, W> {
        let (halves, vectors) = bytes.split_at(H * 2 * ROWS);
        let halves = halves.as_chunks().0.try_into().expect("a whole block");
        let vectors = vectors.as_chunks().0.try_into().expect("a whole block");
        Block { halves, vectors }
    }
}

/// What the sums of activations are for.
pub(super) enum Correction {
    Nothing,
    /// Their products with minimums, times a float, are subtracted.
    Minimums,
    /// Their products with scales, shifted left, are subtracted from the integers.
    Offset(u32),
}

/// A format of super-blocks of 256.
pub(super) trait Quants256 {
    /// Bytes of a panel's super-block.
    const BYTES: usize;
    /// Vectors (of four columns) that share a scale: 8 or 4.
    const PART: usize;
    /// Vectors whose products with activations can be summed in 16 bits.
    const LIMIT: usize;
    /// Whether the bytes are signed.
    const SIGNED: bool = false;
    /// Tokens up to which vectors are unpacked on the fly, 1 or 3. Where that takes many operations
    /// and constants, it is worth to be done only once for two tokens already.
    const DIRECT: usize;
    /// A panel's super-block.
    type Block<'a>: Copy;

    /// The parts of the block.
    fn block(bytes: &[u8]) -> Self::Block<'_>;
    /// What sums of activations are for.
    fn correction<V: Simd>() -> Correction;
    /// Expands everything but the quants.
    fn side<V: Simd>(v: V, block: Self::Block<'_>, side: &mut Side);
    /// Runs of 32 columns that differ in more than where their bytes lie, so that code is made for
    /// each of them: 1, 2, 4 or 8.
    const INNER: usize;
    /// Vector `at` (0 to 7) of the 32 columns `outer * INNER + inner`.
    fn vector<V: Simd>(v: V, block: Self::Block<'_>, outer: usize, inner: usize, at: usize)
    -> V::I;
}

/// Stores four scales, one of each byte of `bytes`, as pairs of equal numbers.
#[inline(always)]
fn spread<V: Simd>(v: V, bytes: V::I, to: &mut [Bytes], signed: bool) {
    let pairs = if signed {
        [
            v.pair_signed::<0, 0>(bytes),
            v.pair_signed::<1, 1>(bytes),
            v.pair_signed::<2, 2>(bytes),
            v.pair_signed::<3, 3>(bytes),
        ]
    } else {
        [v.pair::<0, 0>(bytes), v.pair::<1, 1>(bytes), v.pair::<2, 2>(bytes), v.pair::<3, 3>(bytes)]
    };
    for at in 0..4 {
        v.store(&mut to[at], pairs[at]);
    }
}

/// Stores four numbers, one of each byte of `bytes`, as two pairs.
#[inline(always)]
fn couple<V: Simd>(v: V, bytes: V::I, to: &mut [Bytes], signed: bool) {
    let pairs = if signed {
        [v.pair_signed::<0, 1>(bytes), v.pair_signed::<2, 3>(bytes)]
    } else {
        [v.pair::<0, 1>(bytes), v.pair::<2, 3>(bytes)]
    };
    v.store(&mut to[0], pairs[0]);
    v.store(&mut to[1], pairs[1]);
}

/// Expands the 6-bit scales and minimums of `Q4_K` and `Q5_K` and both of their floats.
#[inline(always)]
fn scales_and_minimums<V: Simd>(v: V, halves: &[Halves; 2], packed: &[Bytes], side: &mut Side) {
    let six = v.splat4([63; 4]);
    let [first, second, third] = [v.load(&packed[0]), v.load(&packed[1]), v.load(&packed[2])];
    let scales = v.or(nibbles(v, third, 0), moved(v, first, 6, 0x30));
    let minimums = v.or(nibbles(v, third, 1), moved(v, second, 6, 0x30));
    spread(v, v.and(first, six), &mut side.scales[..4], false);
    spread(v, scales, &mut side.scales[4..8], false);
    couple(v, v.and(second, six), &mut side.pairs[..2], false);
    couple(v, minimums, &mut side.pairs[2..4], false);
    v.store_f32(&mut side.scale, v.load_f16(&halves[0]));
    v.store_f32(&mut side.minimum, v.load_f16(&halves[1]));
}

pub(super) struct Q4K;

impl Quants256 for Q4K {
    const BYTES: usize = 144 * ROWS;
    const PART: usize = 8;
    const LIMIT: usize = 8;
    const DIRECT: usize = 3;
    const INNER: usize = 2;
    type Block<'a> = Block<'a, 2, 35>;

    #[inline(always)]
    fn block(bytes: &[u8]) -> Self::Block<'_> {
        Block::of(bytes)
    }

    #[inline(always)]
    fn correction<V: Simd>() -> Correction {
        Correction::Minimums
    }

    #[inline(always)]
    fn side<V: Simd>(v: V, block: Self::Block<'_>, side: &mut Side) {
        scales_and_minimums(v, block.halves, &block.vectors[..3], side);
    }

    #[inline(always)]
    fn vector<V: Simd>(
        v: V,
        block: Self::Block<'_>,
        outer: usize,
        inner: usize,
        at: usize,
    ) -> V::I {
        nibbles(v, v.load(&block.vectors[3 + outer * 8 + at]), inner)
    }
}

pub(super) struct Q5K;

impl Quants256 for Q5K {
    const BYTES: usize = 176 * ROWS;
    const PART: usize = 8;
    const LIMIT: usize = 4;
    const DIRECT: usize = 1;
    const INNER: usize = 8;
    type Block<'a> = Block<'a, 2, 43>;

    #[inline(always)]
    fn block(bytes: &[u8]) -> Self::Block<'_> {
        Block::of(bytes)
    }

    #[inline(always)]
    fn correction<V: Simd>() -> Correction {
        Correction::Minimums
    }

    #[inline(always)]
    fn side<V: Simd>(v: V, block: Self::Block<'_>, side: &mut Side) {
        scales_and_minimums(v, block.halves, &block.vectors[..3], side);
    }

    #[inline(always)]
    fn vector<V: Simd>(
        v: V,
        block: Self::Block<'_>,
        outer: usize,
        inner: usize,
        at: usize,
    ) -> V::I {
        let low = v.load(&block.vectors[11 + (4 * outer + inner / 2) * 8 + at]);
        let fifth = moved(v, v.load(&block.vectors[3 + at]), 8 * outer + inner, 0x10);
        v.or(nibbles(v, low, inner % 2), fifth)
    }
}

pub(super) struct Q6K;

impl Quants256 for Q6K {
    const BYTES: usize = 210 * ROWS;
    const PART: usize = 4;
    const LIMIT: usize = 2;
    const DIRECT: usize = 1;
    const INNER: usize = 4;
    type Block<'a> = Block<'a, 1, 52>;

    #[inline(always)]
    fn block(bytes: &[u8]) -> Self::Block<'_> {
        Block::of(bytes)
    }

    #[inline(always)]
    fn correction<V: Simd>() -> Correction {
        Correction::Offset(32u32.trailing_zeros())
    }

    #[inline(always)]
    fn side<V: Simd>(v: V, block: Self::Block<'_>, side: &mut Side) {
        for quad in 0..4 {
            let scales = v.load(&block.vectors[quad]);
            spread(v, scales, &mut side.scales[4 * quad..][..4], true);
            couple(v, scales, &mut side.pairs[2 * quad..][..2], true);
        }
        v.store_f32(&mut side.scale, v.load_f16(&block.halves[0]));
    }

    #[inline(always)]
    fn vector<V: Simd>(
        v: V,
        block: Self::Block<'_>,
        outer: usize,
        inner: usize,
        at: usize,
    ) -> V::I {
        let half = 4 + outer * 24;
        let high = v.load(&block.vectors[half + at]);
        let low = v.load(&block.vectors[half + 8 + inner % 2 * 8 + at]);
        v.or(nibbles(v, low, inner / 2), moved(v, high, 2 * inner, 0x30))
    }
}

pub(super) struct Q2K;

impl Quants256 for Q2K {
    const BYTES: usize = 84 * ROWS;
    const PART: usize = 4;
    const LIMIT: usize = 4;
    const DIRECT: usize = 3;
    const INNER: usize = 4;
    type Block<'a> = Block<'a, 2, 20>;

    #[inline(always)]
    fn block(bytes: &[u8]) -> Self::Block<'_> {
        Block::of(bytes)
    }

    #[inline(always)]
    fn correction<V: Simd>() -> Correction {
        Correction::Minimums
    }

    #[inline(always)]
    fn side<V: Simd>(v: V, block: Self::Block<'_>, side: &mut Side) {
        for quad in 0..4 {
            let packed = v.load(&block.vectors[quad]);
            spread(v, nibbles(v, packed, 0), &mut side.scales[4 * quad..][..4], false);
            couple(v, nibbles(v, packed, 1), &mut side.pairs[2 * quad..][..2], false);
        }
        v.store_f32(&mut side.scale, v.load_f16(&block.halves[0]));
        v.store_f32(&mut side.minimum, v.load_f16(&block.halves[1]));
    }

    #[inline(always)]
    fn vector<V: Simd>(
        v: V,
        block: Self::Block<'_>,
        outer: usize,
        inner: usize,
        at: usize,
    ) -> V::I {
        bit_pairs(v, v.load(&block.vectors[4 + outer * 8 + at]), inner)
    }
}

pub(super) struct Q3K;

impl Quants256 for Q3K {
    const BYTES: usize = 110 * ROWS;
    const PART: usize = 4;
    const LIMIT: usize = 4;
    const DIRECT: usize = 1;
    const INNER: usize = 8;
    type Block<'a> = Block<'a, 1, 27>;

    #[inline(always)]
    fn block(bytes: &[u8]) -> Self::Block<'_> {
        Block::of(bytes)
    }

    #[inline(always)]
    fn correction<V: Simd>() -> Correction {
        Correction::Offset(4u32.trailing_zeros())
    }

    #[inline(always)]
    fn side<V: Simd>(v: V, block: Self::Block<'_>, side: &mut Side) {
        let high = v.load(&block.vectors[2]);
        // As 16-bit pairs, so that no byte borrows from another.
        let bias = v.splat4([32, 0, 32, 0]);
        for quad in 0..4 {
            let low = nibbles(v, v.load(&block.vectors[quad % 2]), quad / 2);
            let scales = v.or(low, moved(v, high, 2 * quad, 0x30));
            let to = &mut side.scales[4 * quad..][..4];
            v.store(&mut to[0], v.sub_16(v.pair::<0, 0>(scales), bias));
            v.store(&mut to[1], v.sub_16(v.pair::<1, 1>(scales), bias));
            v.store(&mut to[2], v.sub_16(v.pair::<2, 2>(scales), bias));
            v.store(&mut to[3], v.sub_16(v.pair::<3, 3>(scales), bias));
            let to = &mut side.pairs[2 * quad..][..2];
            v.store(&mut to[0], v.sub_16(v.pair::<0, 1>(scales), bias));
            v.store(&mut to[1], v.sub_16(v.pair::<2, 3>(scales), bias));
        }
        v.store_f32(&mut side.scale, v.load_f16(&block.halves[0]));
    }

    #[inline(always)]
    fn vector<V: Simd>(
        v: V,
        block: Self::Block<'_>,
        outer: usize,
        inner: usize,
        at: usize,
    ) -> V::I {
        let low = v.load(&block.vectors[11 + (2 * outer + inner / 4) * 8 + at]);
        let high = moved(v, v.load(&block.vectors[3 + at]), 8 * outer + inner, 4);
        v.or(bit_pairs(v, low, inner % 4), high)
    }
}

pub(super) struct Iq4Xs;

impl Quants256 for Iq4Xs {
    const BYTES: usize = 136 * ROWS;
    const PART: usize = 8;
    const LIMIT: usize = 1;
    const SIGNED: bool = true;
    const DIRECT: usize = 1;
    const INNER: usize = 1;
    type Block<'a> = Block<'a, 2, 33>;

    #[inline(always)]
    fn block(bytes: &[u8]) -> Self::Block<'_> {
        Block::of(bytes)
    }

    #[inline(always)]
    fn correction<V: Simd>() -> Correction {
        match V::SIGNED_OFFSET {
            0 => Correction::Nothing,
            offset => Correction::Offset(offset.trailing_zeros()),
        }
    }

    /// The scale of run `r` is nibble `r` of a dword and bit pair `r` of 16 bits, less 32.
    #[inline(always)]
    fn side<V: Simd>(v: V, block: Self::Block<'_>, side: &mut Side) {
        let low = v.load(&block.vectors[0]);
        let high = v.load_u16(&block.halves[1]);
        let low = [nibbles(v, low, 0), nibbles(v, low, 1)];
        let bias = v.splat4([32, 0, 32, 0]);
        // Bits of runs 0 and 4, 1 and 5 ... in bytes 0 and 1.
        let high = [
            moved(v, high, 0, 0x30),
            moved(v, high, 2, 0x30),
            moved(v, high, 4, 0x30),
            moved(v, high, 6, 0x30),
        ];
        let even = [v.pair::<0, 0>(high[0]), v.pair::<0, 0>(high[2])];
        let odd = [v.pair::<0, 0>(high[1]), v.pair::<0, 0>(high[3])];
        let late_even = [v.pair::<1, 1>(high[0]), v.pair::<1, 1>(high[2])];
        let late_odd = [v.pair::<1, 1>(high[1]), v.pair::<1, 1>(high[3])];
        let scales = [
            v.or(v.pair::<0, 0>(low[0]), even[0]),
            v.or(v.pair::<0, 0>(low[1]), odd[0]),
            v.or(v.pair::<1, 1>(low[0]), even[1]),
            v.or(v.pair::<1, 1>(low[1]), odd[1]),
            v.or(v.pair::<2, 2>(low[0]), late_even[0]),
            v.or(v.pair::<2, 2>(low[1]), late_odd[0]),
            v.or(v.pair::<3, 3>(low[0]), late_even[1]),
            v.or(v.pair::<3, 3>(low[1]), late_odd[1]),
        ];
        for (at, scale) in scales.into_iter().enumerate() {
            let scale = v.sub_16(scale, bias);
            v.store(&mut side.scales[at], scale);
            if V::SIGNED_OFFSET != 0 {
                // Both sums of 16 of a run have the run's scale.
                v.store(&mut side.pairs[at], scale);
            }
        }
        v.store_f32(&mut side.scale, v.load_f16(&block.halves[0]));
    }

    #[inline(always)]
    fn vector<V: Simd>(
        v: V,
        block: Self::Block<'_>,
        outer: usize,
        inner: usize,
        at: usize,
    ) -> V::I {
        let packed = v.load(&block.vectors[1 + (outer + inner) * 4 + at % 4]);
        v.signed(v.lookup(&UNEVEN_BYTES, nibbles(v, packed, at / 4)))
    }
}
