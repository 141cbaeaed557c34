//! Normalization by the root of the mean square (arXiv 1910.07467).

use crate::arch::{Isa, Kernel, LANES, Simd};
use crate::elementwise::{Lanewise, load_part, zip, zip_assign};

/// `out[i] = x[i] / sqrt(mean(x^2) + epsilon) * weight[i]`: one row.
pub fn rms_norm(isa: Isa, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    zip(isa, Weighted(inverse_rms(isa, x, epsilon)), x, weight, out);
}

/// [`rms_norm`] of a row in its place: a head of the queries or keys.
pub fn rms_norm_in_place(isa: Isa, x: &mut [f32], weight: &[f32], epsilon: f32) {
    zip_assign(isa, Weighted(inverse_rms(isa, x, epsilon)), x, weight);
}

/// `1 / sqrt(mean(x^2) + epsilon)`.
fn inverse_rms(isa: Isa, x: &[f32], epsilon: f32) -> f32 {
    assert!(!x.is_empty(), "a row that is normalized has elements");
    1.0 / (isa.run(SumOfSquares(x)) / x.len() as f32 + epsilon).sqrt()
}

#[derive(Clone, Copy)]
struct Weighted(f32);

impl Lanewise for Weighted {
    #[inline(always)]
    fn of<V: Simd>(self, simd: V, x: V::F, weight: V::F) -> V::F {
        simd.mul_f32(simd.mul_f32(x, simd.splat_f32(self.0)), weight)
    }
}

struct SumOfSquares<'a>(&'a [f32]);

impl Kernel for SumOfSquares<'_> {
    type Output = f32;

    /// Four sums of 16 lanes: short sums are exact enough in `f32`, and do not wait for each other.
    #[inline(always)]
    fn run<V: Simd>(self, simd: V) -> f32 {
        let (quads, rest) = self.0.as_chunks::<{ 4 * LANES }>();
        let mut sums = [simd.splat_f32(0.0); 4];
        for quad in quads {
            let (vectors, _) = quad.as_chunks();
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                let x = simd.load_f32(vector);
                *sum = simd.mul_add(x, x, *sum);
            }
        }
        for (sum, part) in sums.iter_mut().zip(rest.chunks(LANES)) {
            let x = load_part(simd, part);
            *sum = simd.mul_add(x, x, *sum);
        }
        let [a, b, c, d] = sums;
        simd.sum_f32(simd.add_f32(simd.add_f32(a, b), simd.add_f32(c, d)))
    }
}

#[cfg(test)]
mod tests;
