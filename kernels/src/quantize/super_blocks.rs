//! Super-blocks of 256 elements: groups with scales of their own, which are small integers times
//! the scale of the super-block.
//!
//! Each group is fitted alone, its scales (and minimums) are then fitted in turn as if they were
//! elements, and at last the integers next to the rounded ones are tried with the scales as they
//! are stored.

use super::blocks::{pack_nibbles, put_half};
use super::fit::{Line, Steps, fit_line, fit_scale};
use crate::dequantize::{UNEVEN_STEPS, two_bit_place};
use crate::format::{QK, QK_K};

/// The codes of a super-block whose groups have a scale.
struct Scaled {
    /// For each group, the code of its scale.
    scales: Vec<u8>,
    codes: Vec<u8>,
}

/// Fits groups of `group` elements and writes the scale of all to `d`.
fn fit_scaled(x: &[f32], group: usize, steps: Steps, scale_steps: Steps, d: &mut [u8]) -> Scaled {
    let groups = || x.chunks_exact(group);
    let wanted: Vec<f32> = groups().map(|x| fit_scale(x, steps) as f32).collect();
    let d = put_half(d, fit_scale(&wanted, scale_steps));
    let scale_of = |code: u8| d * f64::from(scale_steps.step(code));
    let near = |wanted: f32| neighbours(scale_steps.code(wanted.into(), d), scale_steps);
    let scales: Vec<u8> = (wanted.iter().zip(groups()))
        .map(|(&wanted, x)| least(near(wanted), |&code| steps.error(x, scale_of(code))))
        .collect();
    let codes = (scales.iter().zip(groups()))
        .flat_map(|(&code, x)| x.iter().map(move |&x| steps.code(x.into(), scale_of(code))))
        .collect();
    Scaled { scales, codes }
}

/// The codes of a super-block whose groups have a scale and a minimum, which is subtracted.
struct Lines {
    /// For each group, the integer scale and the integer minimum.
    scales: Vec<(u8, u8)>,
    codes: Vec<u8>,
}

/// Fits groups of `group` elements with codes up to `top`, scales and minimums up to `scale_top`,
/// and writes the two scales of all to `d`: four bytes.
fn fit_lines(x: &[f32], group: usize, top: u8, scale_top: u8, d: &mut [u8]) -> Lines {
    let groups = || x.chunks_exact(group);
    let wanted: Vec<Line> = groups().map(|x| fit_line(x, top, false)).collect();
    let steps = Steps::Even { low: 0, high: scale_top.into() };
    let fit = |of: fn(&Line) -> f64| {
        let numbers: Vec<f32> = wanted.iter().map(|line| of(line) as f32).collect();
        fit_scale(&numbers, steps)
    };
    let d_scale = put_half(&mut d[..2], fit(|line| line.scale));
    let d_minimum = put_half(&mut d[2..], fit(|line| -line.offset));
    let line_of = |(scale, minimum): (u8, u8)| Line {
        scale: d_scale * f64::from(scale),
        offset: -(d_minimum * f64::from(minimum)),
        top,
    };
    let near = |wanted: &Line| {
        let scales = neighbours(steps.code(wanted.scale, d_scale), steps);
        let minimums = neighbours(steps.code(-wanted.offset, d_minimum), steps);
        scales.flat_map(move |scale| minimums.clone().map(move |minimum| (scale, minimum)))
    };
    let scales: Vec<(u8, u8)> = (wanted.iter().zip(groups()))
        .map(|(wanted, x)| least(near(wanted), |&codes| line_of(codes).error(x)))
        .collect();
    let codes = (scales.iter().zip(groups()))
        .flat_map(|(&codes, x)| x.iter().map(move |&x| line_of(codes).code(x.into())))
        .collect();
    Lines { scales, codes }
}

/// A code and those next to it.
fn neighbours(code: u8, steps: Steps) -> impl Iterator<Item = u8> + Clone {
    let last = steps.code(f64::INFINITY, 1.0);
    code.saturating_sub(1)..=code.saturating_add(1).min(last)
}

/// The candidate with the least error; the first of equals.
fn least<T>(candidates: impl Iterator<Item = T>, error: impl Fn(&T) -> f64) -> T {
    candidates
        .map(|candidate| (error(&candidate), candidate))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
        .expect("a code is its own neighbour")
}

/// Adds the low two bits of every code to the 64 bytes that `Q2_K` and `Q3_K` share.
fn pack_two_bits(codes: &[u8], out: &mut [u8]) {
    out.fill(0);
    for (group, codes) in codes.chunks_exact(16).enumerate() {
        let (start, shift) = two_bit_place(group);
        for (out, code) in out[start..].iter_mut().zip(codes) {
            *out |= (code & 3) << shift;
        }
    }
}

pub(super) fn q2_k(x: &[f32], out: &mut [u8]) {
    let (packed, d) = out.split_at_mut(80);
    let Lines { scales, codes } = fit_lines(x, 16, 3, 15, d);
    for (out, (scale, minimum)) in packed.iter_mut().zip(scales) {
        *out = scale | minimum << 4;
    }
    pack_two_bits(&codes, &mut packed[16..]);
}

pub(super) fn q3_k(x: &[f32], out: &mut [u8]) {
    let (packed, d) = out.split_at_mut(108);
    let (high, packed) = packed.split_at_mut(QK_K / 8);
    let (quants, packed) = packed.split_at_mut(QK_K / 4);
    let (steps, scale_steps) = (Steps::Even { low: -4, high: 3 }, SIX_BITS);
    let Scaled { scales, codes } = fit_scaled(x, 16, steps, scale_steps, d);
    pack_two_bits(&codes, quants);
    high.fill(0);
    for (at, code) in codes.iter().enumerate() {
        high[at % 32] |= (code >> 2) << (at / 32);
    }
    packed.fill(0);
    for (group, scale) in scales.into_iter().enumerate() {
        packed[group % 8] |= (scale & 0x0f) << (group / 8 * 4);
        packed[8 + group % 4] |= (scale >> 4) << (group / 4 * 2);
    }
}

/// Signed scales of 6 bits, stored plus 32.
const SIX_BITS: Steps = Steps::Even { low: -32, high: 31 };

/// Packs eight scales and minimums of 6 bits as `Q4_K` and `Q5_K` have them.
fn pack_scales_and_minimums(scales: &[(u8, u8)], out: &mut [u8]) {
    for (group, &(scale, minimum)) in scales.iter().enumerate() {
        if group < 4 {
            (out[group], out[group + 4]) = (scale, minimum);
        } else {
            out[group + 4] = scale & 0x0f | minimum << 4;
            out[group - 4] |= scale >> 4 << 6;
            out[group] |= minimum >> 4 << 6;
        }
    }
}

/// Packs the low four bits of every code: two groups of 32 share 32 bytes.
fn pack_group_nibbles(codes: &[u8], out: &mut [u8]) {
    for (codes, out) in codes.chunks_exact(2 * QK).zip(out.chunks_exact_mut(QK)) {
        pack_nibbles(codes, out);
    }
}

pub(super) fn q4_k(x: &[f32], out: &mut [u8]) {
    let Lines { scales, codes } = fit_lines(x, QK, 15, 63, &mut out[..4]);
    pack_scales_and_minimums(&scales, &mut out[4..16]);
    pack_group_nibbles(&codes, &mut out[16..]);
}

pub(super) fn q5_k(x: &[f32], out: &mut [u8]) {
    let Lines { scales, codes } = fit_lines(x, QK, 31, 63, &mut out[..4]);
    pack_scales_and_minimums(&scales, &mut out[4..16]);
    let (high, quants) = out[16..].split_at_mut(QK_K / 8);
    high.fill(0);
    for (at, code) in codes.iter().enumerate() {
        high[at % 32] |= code >> 4 << (at / 32);
    }
    pack_group_nibbles(&codes, quants);
}

pub(super) fn q6_k(x: &[f32], out: &mut [u8]) {
    let (packed, d) = out.split_at_mut(208);
    let (low, packed) = packed.split_at_mut(QK_K / 2);
    let (high, packed) = packed.split_at_mut(QK_K / 4);
    let scale_steps = Steps::Even { low: -128, high: 127 };
    let Scaled { scales, codes } = fit_scaled(x, 16, SIX_BITS, scale_steps, d);
    for (out, scale) in packed.iter_mut().zip(scales) {
        *out = scale_steps.step(scale) as i8 as u8;
    }
    high.fill(0);
    for (half, codes) in codes.chunks_exact(QK_K / 2).enumerate() {
        pack_nibbles(codes, &mut low[half * 64..]);
        for (at, code) in codes.iter().enumerate() {
            high[half * 32 + at % 32] |= code >> 4 << (at / 32 * 2);
        }
    }
}

pub(super) fn iq4_xs(x: &[f32], out: &mut [u8]) {
    let (d, packed) = out.split_at_mut(2);
    let Scaled { scales, codes } = fit_scaled(x, QK, Steps::Listed(&UNEVEN_STEPS), SIX_BITS, d);
    packed[..6].fill(0);
    for (group, scale) in scales.into_iter().enumerate() {
        packed[group / 4] |= (scale >> 4) << (group % 4 * 2);
        packed[2 + group / 2] |= (scale & 0x0f) << (group % 2 * 4);
    }
    for (codes, out) in codes.chunks_exact(QK).zip(packed[6..].chunks_exact_mut(QK / 2)) {
        pack_nibbles(codes, out);
    }
}
