//! Keys and values of past tokens, in tiles: what one head keeps of a block of 32 tokens.
//!
//! ```text
//! F32    as F16, with f32
//! F16    keys    [key_length][32 tokens] f16
//!        values  [32 tokens][value_length, up to a multiple of 16] f16
//! Q8_0   keys    [key_length / 32, up][32 tokens] f16 scales, [key_length][32 tokens] i8
//!        values  [32 tokens][value_length / 32, up] f16 scales,
//!                [32 tokens][value_length, up to a multiple of 16] i8
//! ```
//!
//! Keys lie with the tokens side by side, so that the scores of 32 tokens come out of products as
//! two vectors; values lie with the elements side by side, for the same reason. Numbers are
//! little-endian.
//!
//! A tile begins as zeros. Whatever is written is made finite (in half precision, at most 65504
//! either way), so that tokens that a query must not see can take part in sums with a weight of 0.

use crate::arch::{Isa, Kernel, LANES, Simd};

/// Tokens of a block.
pub const BLOCK_TOKENS: usize = 32;
/// Elements that share a scale in [`KvType::Q8_0`].
pub(crate) const SCALED: usize = 32;
/// The largest number that is kept in single precision: sums of products of such are finite.
const SINGLE_LARGEST: f32 = 1e15;
/// The largest half-precision number.
const LARGEST: f32 = 65504.0;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvType {
    /// Single precision: nothing is rounded. To compare with other implementations.
    F32,
    /// Half precision.
    F16,
    /// Signed bytes, with a half-precision scale for every 32 elements of a token.
    Q8_0,
}

/// Where the parts of a tile begin, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) kv_type: KvType,
    pub(crate) key_length: usize,
    pub(crate) value_length: usize,
}

impl Layout {
    /// Elements of a value, up to whole vectors.
    pub(crate) const fn padded_value(self) -> usize {
        self.value_length.next_multiple_of(LANES)
    }

    /// Bytes of the scales of all the keys.
    pub(crate) const fn key_scales(self) -> usize {
        match self.kv_type {
            KvType::F32 | KvType::F16 => 0,
            KvType::Q8_0 => self.key_length.div_ceil(SCALED) * BLOCK_TOKENS * 2,
        }
    }

    /// Bytes of the scales of one value.
    pub(crate) const fn value_scales(self) -> usize {
        match self.kv_type {
            KvType::F32 | KvType::F16 => 0,
            KvType::Q8_0 => self.value_length.div_ceil(SCALED) * 2,
        }
    }

    const fn element(self) -> usize {
        match self.kv_type {
            KvType::F32 => 4,
            KvType::F16 => 2,
            KvType::Q8_0 => 1,
        }
    }

    /// Bytes of the keys, scales included; the values follow.
    pub(crate) const fn keys(self) -> usize {
        self.key_scales() + self.key_length * BLOCK_TOKENS * self.element()
    }

    /// Bytes of a tile.
    pub(crate) const fn bytes(self) -> usize {
        let value = self.value_scales() + self.padded_value() * self.element();
        self.keys() + BLOCK_TOKENS * value
    }
}

/// Bytes of a tile: the keys and values of one head for a block of [`BLOCK_TOKENS`] tokens.
pub const fn tile_bytes(kv_type: KvType, key_length: usize, value_length: usize) -> usize {
    Layout { kv_type, key_length, value_length }.bytes()
}

/// Writes the key and the value of one token into place `slot` of a tile.
///
/// # Panics
///
/// If the tile is not of [`tile_bytes`], or there is no such slot.
pub fn write(isa: Isa, kv_type: KvType, tile: &mut [u8], slot: usize, key: &[f32], value: &[f32]) {
    let layout = Layout { kv_type, key_length: key.len(), value_length: value.len() };
    assert_eq!(tile.len(), layout.bytes(), "a tile is as long as its keys and values");
    assert!(slot < BLOCK_TOKENS, "a block has {BLOCK_TOKENS} slots");
    match kv_type {
        KvType::F32 => write_f32(layout, tile, slot, key, value),
        KvType::F16 => isa.run(WriteF16 { layout, tile, slot, key, value }),
        KvType::Q8_0 => isa.run(WriteQ8 { layout, tile, slot, key, value }),
    }
}

fn write_f32(layout: Layout, tile: &mut [u8], slot: usize, key: &[f32], value: &[f32]) {
    let bytes = |x: &f32| number(*x).clamp(-SINGLE_LARGEST, SINGLE_LARGEST).to_le_bytes();
    let (keys, values) = tile.split_at_mut(layout.keys());
    let rows = keys.as_chunks_mut::<{ 4 * BLOCK_TOKENS }>().0;
    for (row, key) in rows.iter_mut().zip(key) {
        row.as_chunks_mut().0[slot] = bytes(key);
    }
    let row = &mut values[4 * layout.padded_value() * slot..];
    for (to, value) in row.as_chunks_mut().0.iter_mut().zip(value) {
        *to = bytes(value);
    }
}

/// What is not a number is kept as zero.
#[inline(always)]
fn number(x: f32) -> f32 {
    if x.is_nan() { 0.0 } else { x }
}

/// Up to 16 floats in half precision; those that are too large become finite.
#[inline(always)]
fn halves<V: Simd>(simd: V, from: &[f32]) -> [u8; 2 * LANES] {
    let mut lanes = [0.0; LANES];
    lanes.iter_mut().zip(from).for_each(|(lane, x)| *lane = number(*x));
    let value = simd.max_f32(simd.load_f32(&lanes), simd.splat_f32(-LARGEST));
    let value = simd.min_f32(value, simd.splat_f32(LARGEST));
    let mut bytes = [0; 2 * LANES];
    simd.store_f16(&mut bytes, value);
    bytes
}

struct WriteF16<'a> {
    layout: Layout,
    tile: &'a mut [u8],
    slot: usize,
    key: &'a [f32],
    value: &'a [f32],
}

impl Kernel for WriteF16<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd>(self, simd: V) {
        let (keys, values) = self.tile.split_at_mut(self.layout.keys());
        let rows = keys.as_chunks_mut::<{ 2 * BLOCK_TOKENS }>().0;
        for (rows, part) in rows.chunks_mut(LANES).zip(self.key.chunks(LANES)) {
            let bytes = halves(simd, part);
            for (row, half) in rows.iter_mut().zip(bytes.as_chunks::<2>().0) {
                row.as_chunks_mut::<2>().0[self.slot] = *half;
            }
        }
        let row = values.chunks_exact_mut(2 * self.layout.padded_value()).nth(self.slot);
        let vectors = row.map(|row| row.as_chunks_mut().0).unwrap_or_default();
        for (vector, part) in vectors.iter_mut().zip(self.value.chunks(LANES)) {
            *vector = halves(simd, part);
        }
    }
}

/// Quantizes up to 32 floats; gives the scale in half precision.
#[inline(always)]
fn quantize<V: Simd>(simd: V, from: &[f32]) -> ([u8; 2], [i8; SCALED]) {
    let mut lanes = [0.0; SCALED];
    lanes.iter_mut().zip(from).for_each(|(lane, x)| *lane = number(*x));
    let largest = lanes.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let mut scale = [0; 2 * LANES];
    simd.store_f16(&mut scale, simd.splat_f32((largest / 127.0).min(LARGEST)));
    // The scale as it will be read: the integers then make up for its rounding.
    let read = simd.load_f16(&scale);
    let mut rounded = [0.0; SCALED];
    for (rounded, lanes) in rounded.as_chunks_mut().0.iter_mut().zip(lanes.as_chunks().0) {
        let quotient = simd.div_f32(simd.load_f32(lanes), read);
        // In this order of operands, quotients of 0 / 0 become numbers.
        let quotient = simd.min_f32(quotient, simd.splat_f32(127.0));
        let quotient = simd.max_f32(quotient, simd.splat_f32(-127.0));
        simd.store_f32(rounded, simd.round_f32(quotient));
    }
    ([scale[0], scale[1]], rounded.map(|x| x as i8))
}

struct WriteQ8<'a> {
    layout: Layout,
    tile: &'a mut [u8],
    slot: usize,
    key: &'a [f32],
    value: &'a [f32],
}

impl Kernel for WriteQ8<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd>(self, simd: V) {
        let Self { layout, slot, .. } = self;
        let (keys, values) = self.tile.split_at_mut(layout.keys());
        let (scales, keys) = keys.split_at_mut(layout.key_scales());
        let scales = scales.as_chunks_mut::<{ 2 * BLOCK_TOKENS }>().0;
        let rows = keys.as_chunks_mut::<BLOCK_TOKENS>().0.chunks_mut(SCALED);
        for ((scales, rows), part) in scales.iter_mut().zip(rows).zip(self.key.chunks(SCALED)) {
            let (scale, quants) = quantize(simd, part);
            scales.as_chunks_mut::<2>().0[slot] = scale;
            for (row, quant) in rows.iter_mut().zip(quants) {
                row[slot] = quant.cast_unsigned();
            }
        }
        let (scales, values) = values.split_at_mut(BLOCK_TOKENS * layout.value_scales());
        let scales = &mut scales[slot * layout.value_scales()..];
        let row = &mut values[slot * layout.padded_value()..][..layout.padded_value()];
        let scales = scales.as_chunks_mut::<2>().0;
        let parts = self.value.chunks(SCALED);
        for ((scale, row), part) in scales.iter_mut().zip(row.chunks_mut(SCALED)).zip(parts) {
            let (written, quants) = quantize(simd, part);
            *scale = written;
            for (byte, quant) in row.iter_mut().zip(quants) {
                *byte = quant.cast_unsigned();
            }
        }
    }
}

#[cfg(test)]
mod tests;
