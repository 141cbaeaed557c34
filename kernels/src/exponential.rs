//! Exponentials on vectors: the same operations in the same order on every instruction set.

use crate::arch::Simd;

/// `log2(e)`, rounded to `f32`.
const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// What `LOG2_E` lacks of the real number.
const LOG2_E_REST: f32 = (std::f64::consts::LOG2_E - LOG2_E as f64) as f32;

/// `(2^r - 1) / r` for r in -0.5 ..= 0.5: the polynomial through the six Chebyshev nodes. With the
/// 1 apart, 2^0 is exactly 1.
const COEFFICIENTS: [f32; 6] = [
    std::f32::consts::LN_2,
    0.240_226_5,
    0.055_503_57,
    0.009_618_082,
    0.001_339_086_3,
    0.000_154_531_63,
];

/// `2^value`, within 2 units in the last place: 0 below -126.5, infinity above 127.5.
#[inline(always)]
pub(crate) fn exp2<V: Simd>(simd: V, value: V::F) -> V::F {
    let value = simd.max_f32(simd.splat_f32(-127.0), value);
    let value = simd.min_f32(simd.splat_f32(128.0), value);
    let whole = simd.round_f32(value);
    scaled_power(simd, whole, simd.sub_f32(value, whole))
}

/// `e^value`, within 3 units in the last place: 0 below -87.7, infinity above 88.4.
#[inline(always)]
pub(crate) fn exp<V: Simd>(simd: V, value: V::F) -> V::F {
    let value = simd.max_f32(simd.splat_f32(-88.0), value);
    let value = simd.min_f32(simd.splat_f32(88.7), value);
    let log2_e = simd.splat_f32(LOG2_E);
    let whole = simd.round_f32(simd.mul_f32(value, log2_e));
    let rest = simd.sub_f32(simd.splat_f32(0.0), whole);
    let rest = simd.mul_add(value, log2_e, rest);
    let rest = simd.mul_add(value, simd.splat_f32(LOG2_E_REST), rest);
    scaled_power(simd, whole, rest)
}

/// The hyperbolic tangent, within 2e-7.
#[inline(always)]
pub(crate) fn tanh<V: Simd>(simd: V, value: V::F) -> V::F {
    let one = simd.splat_f32(1.0);
    let power = exp(simd, simd.add_f32(value, value));
    let part = simd.div_f32(simd.splat_f32(2.0), simd.add_f32(power, one));
    simd.sub_f32(one, part)
}

/// `2^(whole + rest)`, with `rest` in -0.5 ..= 0.5.
#[inline(always)]
fn scaled_power<V: Simd>(simd: V, whole: V::F, rest: V::F) -> V::F {
    let [first @ .., last] = COEFFICIENTS;
    let mut sum = simd.splat_f32(last);
    for coefficient in first.into_iter().rev() {
        sum = simd.mul_add(sum, rest, simd.splat_f32(coefficient));
    }
    let power = simd.mul_add(sum, rest, simd.splat_f32(1.0));
    simd.mul_f32(power, simd.power_of_two(whole))
}

#[cfg(test)]
mod tests;
