//! Products of packed matrices and activations, for every format that the engine computes with.
//!
//! One output is the sum, over the groups of a row, of small integers' products times floats. For
//! formats with blocks of 32, with `u` the unsigned quant, `a` the activation and `o` the offset:
//!
//! ```text
//! out += (d * da) * (sum(u * a) - o * sum(a))   and with minimums   out += m * (da * sum(a))
//! ```
//!
//! and for super-blocks of 256, whose parts `p` have integer scales `s` and minimums `m`:
//!
//! ```text
//! out += da * (d * sum(s[p] * sum(u * a)) - dmin * sum(m[p] * sum(a)))
//! ```
//!
//! The offset of Q4_0 and Q5_0 is a minimum, of -8 and -16 scales.
//!
//! Weights that are not quantized are multiplied by floats; those in BF16 by activations rounded to
//! BF16 where the instruction set multiplies such pairs. Models with these weights were made with
//! such activations, and an instruction does twice the work.
//!
//! The integers are exact. The floats' operations and their order are the same for an output
//! whatever else is computed with it: how many tokens, which panels, on how many threads, in tiles
//! of what size. So a token's result does not depend on its company, bit for bit.
//!
//! Few tokens are multiplied straight from the packed bytes ([`source::Direct`]); for more, a
//! panel's super-block is unpacked to bytes once and used for all of them.

use std::ops::Range;

use crate::activation::{Kind, Rows};
use crate::arch::{Isa, LANES, VECTOR_BYTES};
use crate::format::Format;
use crate::panel::{Matrix, ROWS};

/// The code for each number below a constant, which is 8 at most, where an instruction set is worth
/// that much code. Loops that the compiler might not unroll would choose shifts by branches, and
/// keep in memory what belongs in registers.
macro_rules! unrolled {
    ($simd:ident: $number:ident in $count:expr => $code:block) => {
        if $simd::TILE > 1 {
            unrolled!(@ 0, $number, $count, $code);
            unrolled!(@ 1, $number, $count, $code);
            unrolled!(@ 2, $number, $count, $code);
            unrolled!(@ 3, $number, $count, $code);
            unrolled!(@ 4, $number, $count, $code);
            unrolled!(@ 5, $number, $count, $code);
            unrolled!(@ 6, $number, $count, $code);
            unrolled!(@ 7, $number, $count, $code);
        } else {
            for $number in 0..$count {
                $code
            }
        }
    };
    (@ $value:literal, $number:ident, $count:expr, $code:block) => {
        if $value < $count {
            let $number = $value;
            $code
        }
    };
}

mod blocks;
mod blocks32;
mod dense;
mod pairs;
mod quants;
mod quants256;
mod source;
mod supers;

/// A vector in memory.
type Bytes = [u8; VECTOR_BYTES];
/// One output of each row of a panel.
type Outputs = [f32; LANES];

/// Memory that a multiplication needs. One for each thread, to be used again.
pub struct Scratch {
    unpacked: Box<source::Unpacked>,
    /// The outputs of a panel, for a block of tokens.
    totals: Vec<Outputs>,
    /// Activations in bfloat16, for a block of tokens.
    rounded: Vec<dense::Pair>,
}

impl Scratch {
    /// About 30 KiB. The activations that are rounded for weights in BF16 are added when needed.
    pub fn new() -> Scratch {
        let totals = vec![[0.0; LANES]; TOKENS_MAX];
        Scratch { unpacked: Box::default(), totals, rounded: Vec::new() }
    }
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new()
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scratch")
    }
}

/// Tokens that go together over the panels.
const TOKENS_MAX: usize = 192;

/// How many tokens go together over the panels, so that their activations stay in the processor's
/// second-level cache; a multiple of every tile.
fn tokens_together(columns: usize) -> usize {
    (L2_BYTES / columns.max(1)).clamp(48, TOKENS_MAX) / 12 * 12
}

/// What activations may take of the second-level cache.
const L2_BYTES: usize = 384 << 10;

/// How far ahead of its use memory is asked for, in bytes: what comes while a block is worked on, and
/// as far as a processor looks by itself.
const AHEAD: usize = 3072;

/// What every kernel below is given.
struct Multiply<'a> {
    weights: &'a Matrix<'a>,
    panels: Range<usize>,
    input: &'a Rows<'a>,
    scratch: &'a mut Scratch,
    out: &'a mut [f32],
}

impl Multiply<'_> {
    /// Blocks of tokens that go together.
    fn token_blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (tokens, together) = (self.input.tokens(), tokens_together(self.input.columns));
        (0..tokens).step_by(together).map(move |at| at..tokens.min(at + together))
    }

    /// Writes the totals of one panel to the outputs of some tokens.
    fn put(&mut self, panel: usize, tokens: Range<usize>) {
        let width = self.panels.len() * ROWS;
        let column = (panel - self.panels.start) * ROWS;
        for (token, totals) in tokens.zip(&self.scratch.totals) {
            self.out[token * width + column..][..ROWS].copy_from_slice(totals);
        }
    }
}

/// Multiplies `panels` of the weights by every row of the input.
///
/// `out` is `tokens x (panels.len() * 16)`, a row for each token; rows of the last panel that are
/// no rows of the matrix give zeros.
///
/// # Panics
///
/// Where the shapes do not fit one another, or the input is not of the weights' [`Kind`].
pub fn multiply(
    isa: Isa,
    weights: &Matrix<'_>,
    panels: Range<usize>,
    input: &Rows<'_>,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    assert_eq!(input.kind, Kind::of(weights.format()), "the kind of activations");
    assert_eq!(input.columns, weights.columns(), "columns of the activations");
    assert!(panels.start <= panels.end && panels.end <= weights.panels(), "panels {panels:?}");
    assert_eq!(out.len(), input.tokens() * panels.len() * ROWS, "outputs");
    if panels.is_empty() {
        return;
    }
    let work = Multiply { weights, panels, input, scratch, out };
    match weights.format() {
        Format::F32 => isa.run(dense::Dense::<dense::Single>::new(work)),
        Format::F16 => isa.run(dense::Dense::<dense::Half>::new(work)),
        Format::BF16 => isa.run(dense::Bfloats(work)),
        Format::Q4_0 => isa.run(blocks::Blocks::<blocks32::Q4_0>::new(work)),
        Format::Q4_1 => isa.run(blocks::Blocks::<blocks32::Q4_1>::new(work)),
        Format::Q5_0 => isa.run(blocks::Blocks::<blocks32::Q5_0>::new(work)),
        Format::Q5_1 => isa.run(blocks::Blocks::<blocks32::Q5_1>::new(work)),
        Format::Q8_0 => isa.run(blocks::Blocks::<blocks32::Q8_0>::new(work)),
        Format::IQ4_NL => isa.run(blocks::Blocks::<blocks32::Iq4Nl>::new(work)),
        Format::MXFP4 => isa.run(blocks::Blocks::<blocks32::Mxfp4>::new(work)),
        Format::Q2_K => isa.run(supers::Supers::<quants256::Q2K>::new(work)),
        Format::Q3_K => isa.run(supers::Supers::<quants256::Q3K>::new(work)),
        Format::Q4_K => isa.run(supers::Supers::<quants256::Q4K>::new(work)),
        Format::Q5_K => isa.run(supers::Supers::<quants256::Q5K>::new(work)),
        Format::Q6_K => isa.run(supers::Supers::<quants256::Q6K>::new(work)),
        Format::IQ4_XS => isa.run(supers::Supers::<quants256::Iq4Xs>::new(work)),
        format => unreachable!("a packed matrix of {format}"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
