//! Activations as the kernels of a matrix's format want them: 8-bit integers with scales and sums.
//!
//! A row (one token) is cut into groups of 32 or 256 elements. Within a group an element is
//! `scale * value`, the scale being the largest magnitude over 127 and the value an integer of -127
//! to 127. Sums of values turn the offsets and minimums of the weights into one product each. What
//! is written is the same on every instruction set.

use crate::arch::{Isa, Kernel, LANES, Simd};
use crate::format::{Format, QK, QK_K};

/// What a format's weights are multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Plain floats, for weights that are not quantized.
    F32,
    /// Groups of 32, for formats with blocks of 32.
    ///
    /// `scales` has two floats for each group, the scale and the scale times the sum of the
    /// values; `sums` the sums of both halves of 16.
    Blocks32,
    /// Groups of 256, for formats with super-blocks.
    ///
    /// `scales` has one float for each group; `sums` 16 sums of 16 elements and then 8 sums of 32.
    Blocks256,
}

/// Sums of a group of [`Kind::Blocks256`].
pub(crate) const SUMS_256: usize = QK_K / 16 + QK_K / 32;
/// Sums of a group of [`Kind::Blocks32`], and also its floats.
pub(crate) const SUMS_32: usize = 2;

impl Kind {
    /// What weights of this format are multiplied by.
    pub const fn of(weights: Format) -> Kind {
        match weights.elements_per_block() {
            QK_K => Kind::Blocks256,
            QK => Kind::Blocks32,
            _ => Kind::F32,
        }
    }

    /// 8-bit values of a row.
    pub const fn values(self, columns: usize) -> usize {
        match self {
            Kind::F32 => 0,
            Kind::Blocks32 | Kind::Blocks256 => columns,
        }
    }

    /// Scales of a row.
    pub const fn scales(self, columns: usize) -> usize {
        match self {
            Kind::F32 => 0,
            Kind::Blocks32 => columns / QK * 2,
            Kind::Blocks256 => columns / QK_K,
        }
    }

    /// Sums of a row.
    pub const fn sums(self, columns: usize) -> usize {
        match self {
            Kind::F32 => 0,
            Kind::Blocks32 => columns / QK * SUMS_32,
            Kind::Blocks256 => columns / QK_K * SUMS_256,
        }
    }

    /// Floats of a row.
    pub const fn floats(self, columns: usize) -> usize {
        match self {
            Kind::F32 => columns,
            Kind::Blocks32 | Kind::Blocks256 => 0,
        }
    }

    /// Elements of a group; rows are whole groups.
    const fn group(self) -> usize {
        match self {
            Kind::F32 => 1,
            Kind::Blocks32 => QK,
            Kind::Blocks256 => QK_K,
        }
    }
}

/// Rows of activations, one token after another. A slice that the kind has no use for is empty.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Which of the slices are used, and how.
    pub kind: Kind,
    /// Elements of a row.
    pub columns: usize,
    /// [`Kind::values`] for each row.
    pub values: &'a [i8],
    /// [`Kind::scales`] for each row.
    pub scales: &'a [f32],
    /// [`Kind::sums`] for each row.
    pub sums: &'a [i16],
    /// [`Kind::floats`] for each row.
    pub floats: &'a [f32],
}

impl Rows<'_> {
    /// Number of rows.
    ///
    /// # Panics
    ///
    /// Where the slices are not the same number of whole rows.
    pub fn tokens(&self) -> usize {
        let Rows { kind, columns, .. } = *self;
        assert!(columns > 0 && columns.is_multiple_of(kind.group()), "{columns} columns");
        let tokens = (self.values.len() + self.floats.len()) / columns;
        assert_eq!(self.values.len(), tokens * kind.values(columns), "8-bit values");
        assert_eq!(self.scales.len(), tokens * kind.scales(columns), "scales");
        assert_eq!(self.sums.len(), tokens * kind.sums(columns), "sums");
        assert_eq!(self.floats.len(), tokens * kind.floats(columns), "floats");
        tokens
    }
}

/// Quantizes one row. Elements that are not finite numbers give a row that is of no use, but
/// nothing worse.
///
/// # Panics
///
/// For [`Kind::F32`], which is not quantized, and for slices of the wrong lengths.
pub fn quantize_row(
    isa: Isa,
    kind: Kind,
    x: &[f32],
    values: &mut [i8],
    scales: &mut [f32],
    sums: &mut [i16],
) {
    assert!(kind != Kind::F32, "floats are not quantized");
    assert!(x.len().is_multiple_of(kind.group()), "{} elements", x.len());
    assert_eq!(values.len(), kind.values(x.len()), "8-bit values");
    assert_eq!(scales.len(), kind.scales(x.len()), "scales");
    assert_eq!(sums.len(), kind.sums(x.len()), "sums");
    isa.run(Quantize { kind, x, values, scales, sums });
}

struct Quantize<'a> {
    kind: Kind,
    x: &'a [f32],
    values: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i16],
}

impl Kernel for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd>(self, v: V) {
        if self.kind == Kind::Blocks256 {
            let groups = self.x.as_chunks().0.iter().zip(self.values.as_chunks_mut().0);
            let sums = self.sums.as_chunks_mut::<SUMS_256>().0;
            for (((x, values), scale), sums) in groups.zip(self.scales).zip(sums) {
                *scale = quantize_group::<V, QK_K>(v, x, values);
                let (sixteens, pairs) = sums.split_at_mut(QK_K / 16);
                sums_of_16(values, sixteens);
                for (pair, both) in pairs.iter_mut().zip(sixteens.as_chunks::<2>().0) {
                    *pair = both[0] + both[1];
                }
            }
        } else {
            let groups = self.x.as_chunks().0.iter().zip(self.values.as_chunks_mut().0);
            let scales = self.scales.as_chunks_mut::<2>().0;
            let sums = self.sums.as_chunks_mut::<SUMS_32>().0;
            for (((x, values), [scale, scaled_sum]), sums) in groups.zip(scales).zip(sums) {
                *scale = quantize_group::<V, QK>(v, x, values);
                sums_of_16(values, sums);
                *scaled_sum = *scale * f32::from(sums[0] + sums[1]);
            }
        }
    }
}

/// The values of one group; its scale is the result.
#[inline(always)]
fn quantize_group<V: Simd, const N: usize>(v: V, x: &[f32; N], values: &mut [i8; N]) -> f32 {
    let mut largest = v.splat_f32(0.0);
    for x in x.as_chunks::<LANES>().0 {
        largest = v.max_magnitude(largest, v.load_f32(x));
    }
    let mut lanes = [0.0; LANES];
    v.store_f32(&mut lanes, largest);
    let mut largest = 0.0;
    for lane in lanes {
        largest = if lane > largest { lane } else { largest };
    }
    // Below this the factor would be infinite; such a group is as good as zero.
    let (scale, factor) =
        if largest < 1e-30 { (0.0, 0.0) } else { (largest / 127.0, 127.0 / largest) };
    let factor = v.splat_f32(factor);
    for (x, values) in x.as_chunks::<LANES>().0.iter().zip(values.as_chunks_mut::<LANES>().0) {
        v.store_i8(values, v.mul_f32(v.load_f32(x), factor));
    }
    scale
}

#[inline(always)]
fn sums_of_16(values: &[i8], sums: &mut [i16]) {
    for (sum, values) in sums.iter_mut().zip(values.as_chunks::<16>().0) {
        let mut total = 0;
        for value in values {
            total += i16::from(*value);
        }
        *sum = total;
    }
}

#[cfg(test)]
mod tests;
