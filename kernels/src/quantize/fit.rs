//! The search for scales: least squares over the numbers of one group.
//!
//! Both fits work the same way. A guess of the scale gives every number its nearest code; for fixed
//! codes the best scale has a closed form; that scale gives codes again. The guesses lie around the
//! scale at which the largest number just has a code, because cutting off the largest a little may
//! be worth the finer steps for all the others. Sums are in `f64`: squares of large `f32` are not
//! in the range of `f32`.

/// Guesses on each side of the one in the middle.
const GUESSES: i32 = 12;
/// How many codes the outermost guesses are away from the one in the middle.
const REACH: f64 = 1.2;
/// How often codes and scale are improved in turn from one guess.
const ROUNDS: usize = 3;

/// What the codes of a format stand for, before they are multiplied by a scale.
#[derive(Clone, Copy, Debug)]
pub(super) enum Steps {
    /// Code `c` stands for `low + c`, up to `high`.
    Even {
        /// What code 0 stands for.
        low: i32,
        /// What the last code stands for.
        high: i32,
    },
    /// Code `c` stands for entry `c`; ascending.
    Listed(&'static [i8; 16]),
}

impl Steps {
    /// What `code` stands for.
    pub(super) fn step(self, code: u8) -> i32 {
        match self {
            Steps::Even { low, .. } => low + i32::from(code),
            Steps::Listed(steps) => i32::from(steps[usize::from(code)]),
        }
    }

    /// The code of the number `x` at this scale. At scale 0 that is the code nearest to 0.
    pub(super) fn code(self, x: f64, scale: f64) -> u8 {
        let target = if scale == 0.0 { 0.0 } else { x / scale };
        match self {
            Steps::Even { low, high } => {
                (target.round().clamp(f64::from(low), f64::from(high)) as i32 - low) as u8
            }
            Steps::Listed(steps) => {
                let above = steps.partition_point(|&step| f64::from(step) < target).clamp(1, 15);
                let middle = f64::from(i32::from(steps[above - 1]) + i32::from(steps[above])) / 2.0;
                (above - usize::from(target <= middle)) as u8
            }
        }
    }

    /// The squared distance of the numbers from what their codes at this scale stand for.
    pub(super) fn error(self, x: &[f32], scale: f64) -> f64 {
        let distance = |x: f64| x - scale * f64::from(self.step(self.code(x, scale)));
        x.iter().map(|&x| distance(f64::from(x)).powi(2)).sum()
    }

    /// The first and the last step, and how many there are.
    fn ends(self) -> (f64, f64, f64) {
        match self {
            Steps::Even { low, high } => (low.into(), high.into(), (high - low + 1).into()),
            Steps::Listed(steps) => (steps[0].into(), steps[15].into(), 16.0),
        }
    }
}

/// The scale `d` at which `d * step` comes nearest to the numbers: the least sum of squares found.
pub(super) fn fit_scale(x: &[f32], steps: Steps) -> f64 {
    let peak = f64::from(x[super::largest(x)]);
    let (low, high, count) = steps.ends();
    let mut best = (steps.error(x, 0.0), 0.0);
    for end in [low, high].into_iter().filter(|&end| end != 0.0 && peak != 0.0) {
        for guess in -GUESSES..=GUESSES {
            // The numbers lie on both sides of 0: half of the codes are for the largest's side.
            let shift = f64::from(guess) / f64::from(GUESSES) * REACH / (count / 2.0);
            let mut scale = peak / (end * (1.0 + shift));
            for _ in 0..ROUNDS {
                scale = scale_for_codes(x, steps, scale);
                let error = steps.error(x, scale);
                best = if error < best.0 { (error, scale) } else { best };
            }
        }
    }
    best.1
}

/// The best scale for the codes that `scale` leads to: `sum(x s) / sum(s s)` over their steps.
fn scale_for_codes(x: &[f32], steps: Steps, scale: f64) -> f64 {
    let (mut products, mut squares) = (0.0, 0.0);
    for x in x.iter().copied().map(f64::from) {
        let step = f64::from(steps.step(steps.code(x, scale)));
        products += x * step;
        squares += step * step;
    }
    if squares == 0.0 { 0.0 } else { products / squares }
}

/// `scale * code + offset`, with codes from 0 to `top`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) scale: f64,
    pub(super) offset: f64,
    pub(super) top: u8,
}

impl Line {
    /// The code of `x`.
    pub(super) fn code(self, x: f64) -> u8 {
        let steps = Steps::Even { low: 0, high: self.top.into() };
        steps.code(x - self.offset, self.scale)
    }

    /// The squared distance of the numbers from what their codes stand for.
    pub(super) fn error(self, x: &[f32]) -> f64 {
        let distance = |x: f64| x - self.offset - self.scale * f64::from(self.code(x));
        x.iter().map(|&x| distance(f64::from(x)).powi(2)).sum()
    }

    /// The best line for the codes that this one leads to; `None` when all have the same code.
    ///
    /// With codes `c`: `scale = (n sum(x c) - sum(x) sum(c)) / (n sum(c c) - sum(c)^2)` and
    /// `offset = (sum(x) - scale sum(c)) / n`, or an offset of 0 where a positive one is no choice.
    fn for_codes(self, x: &[f32], positive_offset: bool) -> Option<Line> {
        let (mut sum_x, mut sum_c, mut sum_xc, mut sum_cc) = (0.0, 0.0, 0.0, 0.0);
        for x in x.iter().copied().map(f64::from) {
            let code = f64::from(self.code(x));
            sum_x += x;
            sum_c += code;
            sum_xc += x * code;
            sum_cc += code * code;
        }
        let count = x.len() as f64;
        // Sums of small integers: exact.
        let determinant = count * sum_cc - sum_c * sum_c;
        let scale = (count * sum_xc - sum_x * sum_c) / determinant;
        let offset = (sum_x - scale * sum_c) / count;
        if determinant > 0.0 && (positive_offset || offset <= 0.0) {
            return Some(Line { scale, offset, ..self });
        }
        (sum_cc > 0.0 && !positive_offset).then_some(Line {
            scale: sum_xc / sum_cc,
            offset: 0.0,
            ..self
        })
    }
}

/// The line that comes nearest to the numbers: the least sum of squares found. `positive_offset`
/// tells whether the format can store an offset over 0.
pub(super) fn fit_line(x: &[f32], top: u8, positive_offset: bool) -> Line {
    let ends = x.iter().copied().map(f64::from);
    let ceiling = if positive_offset { f64::INFINITY } else { 0.0 };
    let (low, high) = ends.fold((ceiling, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
    let flat = Line { scale: 0.0, offset: low, top };
    let mut best = (flat.error(x), flat);
    for guess in -GUESSES..=GUESSES {
        let shift = f64::from(guess) / f64::from(GUESSES) * REACH;
        let mut line = Line { scale: (high - low) / (f64::from(top) + shift), ..flat };
        for _ in 0..ROUNDS {
            let Some(better) = line.for_codes(x, positive_offset) else { break };
            line = better;
            let error = line.error(x);
            best = if error < best.0 { (error, line) } else { best };
        }
    }
    best.1
}
