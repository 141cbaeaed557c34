//! Products of a few rows with a matrix, in registers: the scores of some query heads, and the
//! weighted sums of values.

use crate::arch::{LANES, Simd};

/// Rows that fill the registers of the smallest instruction set.
pub(super) const ROWS: usize = 6;

/// A matrix of vectors of 16 elements, converted to `f32` as they are read.
pub(super) trait Block: Copy {
    /// Vector `at`.
    fn vector<V: Simd>(self, simd: V, at: usize) -> V::F;
}

/// Already converted.
#[derive(Clone, Copy)]
pub(super) struct Single<'a>(pub(super) &'a [[f32; LANES]]);

impl Block for Single<'_> {
    #[inline(always)]
    fn vector<V: Simd>(self, simd: V, at: usize) -> V::F {
        simd.load_f32(&self.0[at])
    }
}

/// Half precision.
#[derive(Clone, Copy)]
pub(super) struct Half<'a>(pub(super) &'a [[u8; 2 * LANES]]);

impl Block for Half<'_> {
    #[inline(always)]
    fn vector<V: Simd>(self, simd: V, at: usize) -> V::F {
        simd.load_f16(&self.0[at])
    }
}

/// Whether so many rows leave registers for two vectors of the matrix.
pub(super) const fn is_wide<V: Simd>(rows: usize) -> bool {
    2 * rows + 2 < V::REGISTERS
}

/// Adds to `sums[r][c]` the products of `left[r][step]` with vector `step * stride + c`, in the order
/// of the steps. All the rows are of one length, the number of steps.
#[inline(always)]
pub(super) fn product<V: Simd, B: Block, const R: usize, const C: usize>(
    simd: V,
    left: [&[f32]; R],
    right: B,
    stride: usize,
    column: usize,
    mut sums: [[V::F; C]; R],
) -> [[V::F; C]; R] {
    let steps = left[0].len();
    let left = left.map(|row| &row[..steps]);
    for step in 0..steps {
        let mut vectors = [simd.splat_f32(0.0); C];
        for (at, vector) in vectors.iter_mut().enumerate() {
            *vector = right.vector(simd, step * stride + column + at);
        }
        for (sums, row) in sums.iter_mut().zip(left) {
            let factor = simd.splat_f32(row[step]);
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                *sum = simd.mul_add(factor, vector, *sum);
            }
        }
    }
    sums
}
