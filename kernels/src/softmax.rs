//! Softmax of a row: for routers and samplers. Attention has its own, block by block.

use crate::arch::{Isa, Kernel, LANES, Simd};
use crate::elementwise;
use crate::exponential::exp;

/// `row[i] = e^row[i] / sum(e^row)`. Elements of -infinity become 0; of a row that has nothing else,
/// or a NaN, nothing can be said.
pub fn softmax(isa: Isa, row: &mut [f32]) {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum = isa.run(Exponentials { row, largest });
    elementwise::scale(isa, row, 1.0 / sum);
}

/// `row[i] = cap * tanh(row[i] / cap)`, then [`softmax`].
pub fn softmax_capped(isa: Isa, row: &mut [f32], cap: f32) {
    elementwise::soft_cap(isa, row, cap);
    softmax(isa, row);
}

/// `row[i] = e^(row[i] - largest)`; gives their sum.
struct Exponentials<'a> {
    row: &'a mut [f32],
    largest: f32,
}

impl Kernel for Exponentials<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<V: Simd>(self, simd: V) -> f32 {
        let largest = simd.splat_f32(self.largest);
        let mut sum = simd.splat_f32(0.0);
        for part in self.row.chunks_mut(LANES) {
            let mut lanes = [f32::NEG_INFINITY; LANES];
            lanes[..part.len()].copy_from_slice(part);
            let power = exp(simd, simd.sub_f32(simd.load_f32(&lanes), largest));
            sum = simd.add_f32(sum, power);
            elementwise::store_part(simd, part, power);
        }
        simd.sum_f32(sum)
    }
}

#[cfg(test)]
mod tests;
