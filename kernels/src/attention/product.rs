//! Products of a few rows with a matrix, in registers: the scores of some query heads, and the
//! weighted sums of values.

use crate::arch::{LANES, Simd};

/// Rows that fill the registers of the smallest instruction set.
pub(super) const ROWS: usize = 6;

/// How vectors of 16 elements of a matrix are stored.
pub(super) trait Stored: Copy {
    /// The vector as `f32`. What lies `ahead` bytes further will be wanted soon.
    fn vector<V: Simd>(self, simd: V, ahead: usize) -> V::F;
}

impl Stored for &[f32; LANES] {
    #[inline(always)]
    fn vector<V: Simd>(self, simd: V, _: usize) -> V::F {
        simd.load_f32(self)
    }
}

/// Half precision, converted as it is read.
impl Stored for &[u8; 2 * LANES] {
    #[inline(always)]
    fn vector<V: Simd>(self, simd: V, ahead: usize) -> V::F {
        simd.prefetch(self, ahead);
        simd.load_f16(self)
    }
}

/// Whether so many rows leave registers for two vectors of the matrix.
pub(super) const fn is_wide<V: Simd>(rows: usize) -> bool {
    2 * rows + 2 < V::REGISTERS
}

/// A matrix in rows of vectors.
#[derive(Debug)]
pub(super) struct Matrix<'a, T> {
    pub(super) vectors: &'a [T],
    /// Vectors of a row.
    pub(super) stride: usize,
    /// How many bytes further the matrix lies that comes next.
    pub(super) ahead: usize,
}

impl<T> Clone for Matrix<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Matrix<'_, T> {}

/// Adds to `sums[r][c]` the products of element `r` of each of `left` with vector `column + c` of the
/// row of `right` that goes with it, in their order.
#[inline(always)]
pub(super) fn product<'a, 'l, V: Simd, T, const R: usize, const C: usize>(
    simd: V,
    left: impl Iterator<Item = [&'l f32; R]>,
    right: Matrix<'a, T>,
    column: usize,
    mut sums: [[V::F; C]; R],
) -> [[V::F; C]; R]
where
    &'a T: Stored,
{
    let Matrix { vectors, stride, ahead } = right;
    assert!(column + C <= stride, "the columns are within the row");
    for (factors, row) in left.zip(vectors.chunks_exact(stride)) {
        let row = &row[column..column + C];
        let mut vectors = [simd.splat_f32(0.0); C];
        for at in 0..C {
            vectors[at] = row[at].vector(simd, ahead);
        }
        for r in 0..R {
            let factor = simd.splat_at(factors[r]);
            for at in 0..C {
                sums[r][at] = simd.mul_add(factor, vectors[at], sums[r][at]);
            }
        }
    }
    sums
}
