//! Two tokens at once, where the instruction set multiplies so: two rows and eight columns of the
//! weights by two tokens and eight columns give four sums.
//!
//! Vectors of the weights are interleaved with their neighbours when they are unpacked, so that eight
//! columns of a row lie together. The sums of two tokens are interleaved too, in the first places of
//! arrays that have one for each token.

use super::Bytes;
use crate::arch::Simd;

/// Interleaves each vector with the one behind it.
#[inline(always)]
pub(super) fn interleave<V: Simd>(v: V, vectors: &mut [Bytes]) {
    for [first, second] in vectors.as_chunks_mut::<2>().0 {
        let both = v.interleave(v.load(first), v.load(second));
        v.store(first, both[0]);
        v.store(second, both[1]);
    }
}

/// Adds the products of eight columns. A token that is left over goes with itself.
#[inline(always)]
pub(super) fn add_products<V: Simd, const N: usize>(
    v: V,
    sums: &mut [[V::I; 2]; N],
    weights: [V::I; 2],
    values: &[&[i8; 8]; N],
) {
    for pair in 0..N.div_ceil(2) {
        let tokens = [values[2 * pair], values[(2 * pair + 1).min(N - 1)]];
        sums[pair] = v.add_paired_products(sums[pair], weights, tokens);
    }
}

/// The sums of each token.
#[inline(always)]
pub(super) fn separate<V: Simd, const N: usize>(v: V, sums: &[[V::I; 2]; N]) -> [V::I; N] {
    let mut separated = [v.splat4([0; 4]); N];
    for (sums, separated) in sums.iter().zip(separated.chunks_mut(2)) {
        let tokens = v.separate(*sums);
        separated.copy_from_slice(&tokens[..separated.len()]);
    }
    separated
}
