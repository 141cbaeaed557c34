//! Multiplication by weights that are not quantized, in floats.

use std::marker::PhantomData;
use std::ops::Range;

use super::{Multiply, Outputs};
use crate::arch::{Kernel, LANES, Simd};

/// A format that is not quantized.
pub(super) trait Number {
    /// Bytes of one column of a panel.
    const BYTES: usize;
    /// The 16 rows' weights of one column.
    fn vector<V: Simd>(v: V, bytes: &[u8]) -> V::F;
}

pub(super) struct Single;

impl Number for Single {
    const BYTES: usize = 4 * LANES;

    #[inline(always)]
    fn vector<V: Simd>(v: V, bytes: &[u8]) -> V::F {
        v.load_singles(bytes.first_chunk().expect("a whole column"))
    }
}

pub(super) struct Half;

impl Number for Half {
    const BYTES: usize = 2 * LANES;

    #[inline(always)]
    fn vector<V: Simd>(v: V, bytes: &[u8]) -> V::F {
        v.load_f16(bytes.first_chunk().expect("a whole column"))
    }
}

pub(super) struct Bfloat;

impl Number for Bfloat {
    const BYTES: usize = 2 * LANES;

    #[inline(always)]
    fn vector<V: Simd>(v: V, bytes: &[u8]) -> V::F {
        v.load_bfloats(bytes.first_chunk().expect("a whole column"))
    }
}

/// The kernel of one format.
pub(super) struct Dense<'a, W> {
    work: Multiply<'a>,
    format: PhantomData<W>,
}

impl<'a, W> Dense<'a, W> {
    pub(super) fn new(work: Multiply<'a>) -> Dense<'a, W> {
        Dense { work, format: PhantomData }
    }
}

impl<W: Number> Kernel for Dense<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd>(mut self, v: V) {
        for tokens in self.work.token_blocks() {
            for panel in self.work.panels.clone() {
                self.panel(v, panel, tokens.clone());
                self.work.put(panel, tokens.clone());
            }
        }
    }
}

impl<W: Number> Dense<'_, W> {
    #[inline(always)]
    fn panel<V: Simd>(&mut self, v: V, panel: usize, mut tokens: Range<usize>) {
        let totals = &mut self.work.scratch.totals[..tokens.len()];
        let (panel, input) = (self.work.weights.panel(panel), self.work.input);
        let columns = input.columns;
        let rows = &input.floats[tokens.start * columns..tokens.end * columns];
        let totals = tiles::<V, W, 6>(v, panel, rows, columns, &mut tokens, totals);
        let rows = &input.floats[tokens.start * columns..tokens.end * columns];
        tiles::<V, W, 1>(v, panel, rows, columns, &mut tokens, totals);
    }
}

/// Tiles of `N` tokens for as long as there are so many; the rest of the totals.
#[inline(always)]
fn tiles<'t, V: Simd, W: Number, const N: usize>(
    v: V,
    panel: &[u8],
    rows: &[f32],
    columns: usize,
    tokens: &mut Range<usize>,
    totals: &'t mut [Outputs],
) -> &'t mut [Outputs] {
    let (whole, rest) = totals.as_chunks_mut::<N>();
    for (totals, rows) in whole.iter_mut().zip(rows.chunks_exact(N * columns)) {
        tile::<V, W, N>(v, panel, rows, columns, totals);
        tokens.start += N;
    }
    rest
}

/// 16 rows by `N` tokens, over all columns in their order.
#[inline(always)]
fn tile<V: Simd, W: Number, const N: usize>(
    v: V,
    panel: &[u8],
    rows: &[f32],
    columns: usize,
    totals: &mut [Outputs; N],
) {
    let mut inputs = [&rows[..columns]; N];
    for (n, input) in inputs.iter_mut().enumerate() {
        *input = &rows[n * columns..][..columns];
    }
    let mut sums = [v.splat_f32(0.0); N];
    for (column, weights) in panel.chunks_exact(W::BYTES).take(columns).enumerate() {
        let weights = W::vector(v, weights);
        for n in 0..N {
            sums[n] = v.mul_add(weights, v.splat_f32(inputs[n][column]), sums[n]);
        }
    }
    for n in 0..N {
        v.store_f32(&mut totals[n], sums[n]);
    }
}
