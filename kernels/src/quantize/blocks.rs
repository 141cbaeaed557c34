//! Blocks of 32 elements with one scale, and a minimum in some.

use half::f16;

use super::fit::{Line, Steps, fit_line, fit_scale};
use crate::dequantize::{E2M1_TWICE, UNEVEN_STEPS, e8m0_half};
use crate::format::QK;

/// Packs pairs of 4-bit codes: the low ones are the first half, the high ones the second.
pub(super) fn pack_nibbles(codes: &[u8], out: &mut [u8]) {
    let (low, high) = codes.split_at(codes.len() / 2);
    for (out, (low, high)) in out.iter_mut().zip(low.iter().zip(high)) {
        *out = low & 0x0f | high << 4;
    }
}

/// Writes a scale as an IEEE half and gives what it was rounded to.
pub(super) fn put_half(out: &mut [u8], value: f64) -> f64 {
    // By way of f32, as everything that reads and writes halves does.
    let half = f16::from_f32(value as f32);
    out.copy_from_slice(&half.to_le_bytes());
    f64::from(half.to_f32())
}

/// Fits and writes the scale at the front of a block; the codes belong to the scale as rounded.
fn scale_and_codes(x: &[f32], steps: Steps, out: &mut [u8]) -> [u8; QK] {
    let scale = put_half(out, fit_scale(x, steps));
    std::array::from_fn(|at| steps.code(x[at].into(), scale))
}

/// Fits and writes scale and minimum at the front of a block.
fn line_and_codes(x: &[f32], top: u8, out: &mut [u8]) -> [u8; QK] {
    let line = fit_line(x, top, true);
    let scale = put_half(&mut out[..2], line.scale);
    let offset = put_half(&mut out[2..], line.offset);
    let line = Line { scale, offset, top };
    std::array::from_fn(|at| line.code(x[at].into()))
}

/// The fifth bits of 32 codes, as a mask of 4 bytes.
fn pack_fifth_bits(codes: &[u8; QK], out: &mut [u8]) {
    for (out, codes) in out.iter_mut().zip(codes.chunks_exact(8)) {
        *out = codes.iter().rev().fold(0, |bits, code| bits << 1 | code >> 4);
    }
}

pub(super) fn q4_0(x: &[f32], out: &mut [u8]) {
    let codes = scale_and_codes(x, Steps::Even { low: -8, high: 7 }, &mut out[..2]);
    pack_nibbles(&codes, &mut out[2..]);
}

pub(super) fn q4_1(x: &[f32], out: &mut [u8]) {
    let codes = line_and_codes(x, 15, &mut out[..4]);
    pack_nibbles(&codes, &mut out[4..]);
}

pub(super) fn q5_0(x: &[f32], out: &mut [u8]) {
    let codes = scale_and_codes(x, Steps::Even { low: -16, high: 15 }, &mut out[..2]);
    pack_fifth_bits(&codes, &mut out[2..6]);
    pack_nibbles(&codes, &mut out[6..]);
}

pub(super) fn q5_1(x: &[f32], out: &mut [u8]) {
    let codes = line_and_codes(x, 31, &mut out[..4]);
    pack_fifth_bits(&codes, &mut out[4..8]);
    pack_nibbles(&codes, &mut out[8..]);
}

/// -128 is left out, so that a code and its negative are both in range.
pub(super) fn q8_0(x: &[f32], out: &mut [u8]) {
    let steps = Steps::Even { low: -127, high: 127 };
    let codes = scale_and_codes(x, steps, &mut out[..2]);
    for (out, code) in out[2..].iter_mut().zip(codes) {
        *out = steps.step(code) as i8 as u8;
    }
}

pub(super) fn iq4_nl(x: &[f32], out: &mut [u8]) {
    let codes = scale_and_codes(x, Steps::Listed(&UNEVEN_STEPS), &mut out[..2]);
    pack_nibbles(&codes, &mut out[2..]);
}

/// The scale is a power of two: the one for which the largest number is at most 6 steps (the
/// largest step), or one of its neighbours.
pub(super) fn mxfp4(x: &[f32], out: &mut [u8]) {
    let peak = f64::from(x[super::largest(x)].abs());
    // The exponent of zero is far below 0, where it is cut off. 4 = 2^2 is the binade of 6.
    let middle = peak.log2().floor().max(-1000.0) as i32 + 127 - 2;
    let candidates = [middle, middle + 1, middle - 1].map(|at| at.clamp(0, 254) as u8);
    let mut best = (f64::INFINITY, 0);
    for exponent in candidates {
        let error = x.iter().map(|&x| e2m1(x, exponent).1).sum();
        best = if error < best.0 { (error, exponent) } else { best };
    }
    out[0] = best.1;
    let codes: [u8; QK] = std::array::from_fn(|at| e2m1(x[at], best.1).0);
    pack_nibbles(&codes, &mut out[1..]);
}

/// The code of `x` with the shared exponent, and its squared error; of equals the smaller one.
fn e2m1(x: f32, exponent: u8) -> (u8, f64) {
    let half = e8m0_half(exponent);
    let sign = if x < 0.0 { 8 } else { 0 };
    let mut best = (0, f64::from(x).powi(2));
    for code in sign + 1..sign + 8 {
        // In f32, where the largest scales make the largest steps infinite.
        let value = half * f32::from(E2M1_TWICE[usize::from(code)]);
        let error = (f64::from(x) - f64::from(value)).powi(2);
        best = if error < best.1 { (code, error) } else { best };
    }
    best
}
