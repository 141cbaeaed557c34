//! Rotary position embedding (arXiv 2104.09864), with the scalings that model files ask for.
//!
//! Pair `i` of a head is turned by the angle `position * base^(-2i / dimensions)`. Angles are
//! computed in `f64` once for each position; all the heads and layers share them.

use std::f64::consts::TAU;

use crate::arch::{Isa, Kernel, LANES, Simd};
use crate::elementwise::{load_part, store_part};

/// Which elements of a head make pair `i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// `2i` and `2i + 1`: llama, as its weights lie in GGUF files.
    Adjacent,
    /// `i` and `i + dimensions / 2`: GPT-NeoX, Qwen, Gemma, Phi.
    Halves,
}

/// How angles are changed for contexts longer than those of the training.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// Positions are divided by `factor` (arXiv 2306.15595).
    Linear {
        /// `rope.scaling.factor`.
        factor: f32,
    },
    /// YaRN (arXiv 2309.00071): slow pairs as in [`Scaling::Linear`], fast ones as they are, a ramp
    /// between; cosines and sines are multiplied by `attention_factor * (1 + 0.1 ln factor)`.
    Yarn {
        /// `rope.scaling.factor`.
        factor: f32,
        /// `rope.scaling.original_context_length`.
        original_context: u32,
        /// `rope.scaling.attn_factor`; 1 where it is absent.
        attention_factor: f32,
        /// Pairs that turn more often than this within the original context stay; 32 by default.
        beta_fast: f32,
        /// Pairs that turn less often than this within it are interpolated; 1 by default.
        beta_slow: f32,
    },
    /// One divisor for the angle of each pair: the tensor `rope_freqs.weight`.
    Factors(Vec<f32>),
}

/// The rotation of a model's heads.
#[derive(Clone, Debug)]
pub struct Rope {
    pairing: Pairing,
    /// Radians per position, one for each pair.
    frequencies: Vec<f64>,
    /// What cosines and sines are multiplied by.
    magnitude: f64,
}

/// The cosines and sines of one position, for [`Rope::rotate`].
#[derive(Clone, Debug, Default)]
pub struct Angles {
    /// One for each pair; for adjacent pairs twice in a row.
    cosines: Vec<f32>,
    /// The same; for adjacent pairs the first of the two is negated.
    sines: Vec<f32>,
}

impl Rope {
    /// The rotation of the first `dimensions` of each head.
    ///
    /// # Panics
    ///
    /// If `dimensions` is odd, or there are not `dimensions / 2` factors.
    pub fn new(dimensions: usize, base: f32, pairing: Pairing, scaling: Scaling) -> Rope {
        assert!(dimensions.is_multiple_of(2), "a rotation is of pairs");
        let pairs = dimensions / 2;
        let plain = |pair: usize| f64::from(base).powf(-2.0 * pair as f64 / dimensions as f64);
        let mut magnitude = 1.0;
        let frequencies = match scaling {
            Scaling::None => (0..pairs).map(plain).collect(),
            Scaling::Linear { factor } => {
                (0..pairs).map(|pair| plain(pair) / f64::from(factor)).collect()
            }
            Scaling::Yarn { factor, original_context, attention_factor, beta_fast, beta_slow } => {
                let factor = f64::from(factor);
                magnitude = f64::from(attention_factor) * (1.0 + 0.1 * factor.ln());
                let context = f64::from(original_context);
                let border = |turns| yarn_border(dimensions, f64::from(base), context, turns);
                let fast = border(f64::from(beta_fast)).floor().max(0.0);
                let slow = border(f64::from(beta_slow)).ceil().min(dimensions as f64 - 1.0);
                let width = (slow - fast).max(0.001);
                let scaled = |pair: usize| {
                    let interpolated = ((pair as f64 - fast) / width).clamp(0.0, 1.0);
                    plain(pair) * (interpolated / factor + (1.0 - interpolated))
                };
                (0..pairs).map(scaled).collect()
            }
            Scaling::Factors(factors) => {
                assert_eq!(factors.len(), pairs, "there is one factor for each pair");
                factors.iter().enumerate().map(|(at, by)| plain(at) / f64::from(*by)).collect()
            }
        };
        Rope { pairing, frequencies, magnitude }
    }

    /// The same rotation, and heads multiplied by `magnitude` (`rope.scaling.attn_factor`) on top.
    pub fn with_magnitude(self, magnitude: f32) -> Rope {
        Rope { magnitude: self.magnitude * f64::from(magnitude), ..self }
    }

    /// How many elements of a head are turned.
    pub fn dimensions(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// Computes what [`Rope::rotate`] needs at a position.
    pub fn angles(&self, position: u32, angles: &mut Angles) {
        angles.cosines.clear();
        angles.sines.clear();
        for frequency in &self.frequencies {
            let (sine, cosine) = (f64::from(position) * frequency).sin_cos();
            let sine = (sine * self.magnitude) as f32;
            let cosine = (cosine * self.magnitude) as f32;
            match self.pairing {
                Pairing::Adjacent => {
                    angles.cosines.extend([cosine, cosine]);
                    angles.sines.extend([-sine, sine]);
                }
                Pairing::Halves => {
                    angles.cosines.push(cosine);
                    angles.sines.push(sine);
                }
            }
        }
    }

    /// Turns the first [`Rope::dimensions`] of a head; the others stay.
    ///
    /// # Panics
    ///
    /// If the head is shorter than that, or the angles were not computed by this rotation.
    pub fn rotate(&self, isa: Isa, angles: &Angles, head: &mut [f32]) {
        let head = &mut head[..self.dimensions()];
        let Angles { cosines, sines } = angles;
        match self.pairing {
            Pairing::Adjacent => {
                assert_eq!(cosines.len(), head.len(), "the angles are of this rotation");
                isa.run(Adjacent { cosines, sines, head });
            }
            Pairing::Halves => {
                assert_eq!(2 * cosines.len(), head.len(), "the angles are of this rotation");
                isa.run(Halves { cosines, sines, head });
            }
        }
    }
}

/// The pair (a fraction) that turns `turns` times in a context of that length.
fn yarn_border(dimensions: usize, base: f64, context: f64, turns: f64) -> f64 {
    dimensions as f64 * (context / (turns * TAU)).ln() / (2.0 * base.ln())
}

struct Adjacent<'a> {
    cosines: &'a [f32],
    sines: &'a [f32],
    head: &'a mut [f32],
}

impl Kernel for Adjacent<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd>(self, simd: V) {
        let angles = self.cosines.chunks(LANES).zip(self.sines.chunks(LANES));
        for (head, (cosines, sines)) in self.head.chunks_mut(LANES).zip(angles) {
            let x = load_part(simd, head);
            let turned = simd.mul_f32(simd.swap_pairs(x), load_part(simd, sines));
            store_part(simd, head, simd.mul_add(x, load_part(simd, cosines), turned));
        }
    }
}

struct Halves<'a> {
    cosines: &'a [f32],
    sines: &'a [f32],
    head: &'a mut [f32],
}

impl Kernel for Halves<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd>(self, simd: V) {
        let (first, second) = self.head.split_at_mut(self.cosines.len());
        let angles = self.cosines.chunks(LANES).zip(self.sines.chunks(LANES));
        let pairs = first.chunks_mut(LANES).zip(second.chunks_mut(LANES));
        for ((first, second), (cosines, sines)) in pairs.zip(angles) {
            let (cosine, sine) = (load_part(simd, cosines), load_part(simd, sines));
            let (a, b) = (load_part(simd, first), load_part(simd, second));
            store_part(simd, first, simd.neg_mul_add(b, sine, simd.mul_f32(a, cosine)));
            store_part(simd, second, simd.mul_add(a, sine, simd.mul_f32(b, cosine)));
        }
    }
}

#[cfg(test)]
mod tests;
