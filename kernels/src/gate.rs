//! Gated feed-forward: an activation of one row times another row.

use crate::arch::{Isa, Simd};
use crate::elementwise::{Lanewise, zip};
use crate::exponential::exp;

/// `out[i] = silu(gate[i]) * up[i]` with `silu(x) = x / (1 + e^-x)`.
pub fn silu_mul(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    zip(isa, Silu, gate, up, out);
}

/// `out[i] = gelu(gate[i]) * up[i]` with the approximation that Gemma uses,
/// `gelu(x) = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))` (arXiv 1606.08415).
pub fn gelu_mul(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    zip(isa, Gelu, gate, up, out);
}

/// `x / (1 + e^-y)`.
#[inline(always)]
fn sigmoid_times<V: Simd>(simd: V, x: V::F, y: V::F) -> V::F {
    let power = exp(simd, simd.sub_f32(simd.splat_f32(0.0), y));
    simd.div_f32(x, simd.add_f32(simd.splat_f32(1.0), power))
}

#[derive(Clone, Copy)]
struct Silu;

impl Lanewise for Silu {
    #[inline(always)]
    fn of<V: Simd>(self, simd: V, gate: V::F, up: V::F) -> V::F {
        simd.mul_f32(sigmoid_times(simd, gate, gate), up)
    }
}

#[derive(Clone, Copy)]
struct Gelu;

impl Lanewise for Gelu {
    /// `(1 + tanh(y)) / 2` is the sigmoid of `2y`.
    #[inline(always)]
    fn of<V: Simd>(self, simd: V, gate: V::F, up: V::F) -> V::F {
        const LINEAR: f32 = 1.595_769; // 2 * sqrt(2 / pi)
        const CUBIC: f32 = LINEAR * 0.044_715;
        let square = simd.mul_f32(gate, gate);
        let inner = simd.mul_add(square, simd.splat_f32(CUBIC), simd.splat_f32(LINEAR));
        simd.mul_f32(sigmoid_times(simd, gate, simd.mul_f32(gate, inner)), up)
    }
}

#[cfg(test)]
mod tests;
