//! Multiplication by weights that are not quantized, in floats.
//!
//! Weights in BF16 are multiplied by pairs of columns where the instruction set can, and then the
//! activations are rounded to BF16 first. An odd last column is paired with zeros.

use std::marker::PhantomData;
use std::mem::take;

use super::{Bytes, Multiply, Outputs};
use crate::arch::{Kernel, LANES, Simd, VECTOR_BYTES};

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

/// Two columns' activations in bfloat16.
pub(super) type Pair = [i16; 2];

/// What a panel is multiplied by, and in which steps.
pub(super) trait Terms {
    /// Columns of a step.
    const COLUMNS: usize;
    /// Bytes of a panel that a step takes.
    const BYTES: usize;
    /// The activations of a step.
    type Input;
    /// The weights of a step.
    type Weights<V: Simd>: Copy;
    /// The activations of all steps, for whole rows; made in `rounded` if they are not the floats.
    fn inputs<'a, V: Simd>(
        v: V,
        rows: &'a [f32],
        columns: usize,
        rounded: &'a mut Vec<Pair>,
    ) -> &'a [Self::Input];
    /// The 16 rows' weights of a step.
    fn weights<V: Simd>(v: V, bytes: &[u8]) -> Self::Weights<V>;
    /// The sums and the products of a step.
    fn add<V: Simd>(v: V, sums: V::F, weights: Self::Weights<V>, input: &Self::Input) -> V::F;
}

impl<W: Number> Terms for W {
    const COLUMNS: usize = 1;
    const BYTES: usize = <W as Number>::BYTES;
    type Input = f32;
    type Weights<V: Simd> = V::F;

    #[inline(always)]
    fn inputs<'a, V: Simd>(_: V, rows: &'a [f32], _: usize, _: &'a mut Vec<Pair>) -> &'a [f32] {
        rows
    }

    #[inline(always)]
    fn weights<V: Simd>(v: V, bytes: &[u8]) -> V::F {
        W::vector(v, bytes)
    }

    #[inline(always)]
    fn add<V: Simd>(v: V, sums: V::F, weights: V::F, input: &f32) -> V::F {
        v.mul_add(weights, v.splat_f32(*input), sums)
    }
}

/// Pairs of columns in bfloat16. Only with [`Simd::BFLOATS`].
struct BfloatPairs;

impl Terms for BfloatPairs {
    const COLUMNS: usize = 2;
    const BYTES: usize = VECTOR_BYTES;
    type Input = Pair;
    type Weights<V: Simd> = V::I;

    #[inline(always)]
    fn inputs<'a, V: Simd>(
        v: V,
        rows: &'a [f32],
        columns: usize,
        rounded: &'a mut Vec<Pair>,
    ) -> &'a [Pair] {
        let pairs = columns.div_ceil(2);
        rounded.resize(rows.len() / columns * pairs, [0; 2]);
        for (row, rounded) in rows.chunks_exact(columns).zip(rounded.chunks_exact_mut(pairs)) {
            round(v, row, rounded.as_flattened_mut());
        }
        rounded
    }

    #[inline(always)]
    fn weights<V: Simd>(v: V, bytes: &[u8]) -> V::I {
        v.load_pairs(bytes.first_chunk().expect("two whole columns"))
    }

    #[inline(always)]
    fn add<V: Simd>(v: V, sums: V::F, weights: V::I, input: &Pair) -> V::F {
        v.add_bfloat_products(sums, weights, v.splat_i16(input))
    }
}

/// Rounds a row to bfloat16, and fills it up with zeros.
#[inline(always)]
fn round<V: Simd>(v: V, row: &[f32], rounded: &mut [i16]) {
    let (row, rest) = row.as_chunks();
    let (whole, last) = rounded.split_at_mut(row.len() * LANES);
    for (from, to) in row.iter().zip(whole.as_chunks_mut().0) {
        v.store_bfloats(to, v.load_f32(from));
    }
    let (mut floats, mut bits) = ([0.0; LANES], [0; LANES]);
    floats[..rest.len()].copy_from_slice(rest);
    v.store_bfloats(&mut bits, v.load_f32(&floats));
    last.copy_from_slice(&bits[..last.len()]);
}

/// The kernel of one format.
pub(super) struct Dense<'a, W> {
    work: Multiply<'a>,
    terms: PhantomData<W>,
}

impl<'a, W> Dense<'a, W> {
    pub(super) fn new(work: Multiply<'a>) -> Dense<'a, W> {
        Dense { work, terms: PhantomData }
    }
}

impl<W: Terms> Kernel for Dense<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd>(mut self, v: V) {
        let (floats, columns) = (self.work.input.floats, self.work.input.columns);
        let mut rounded = take(&mut self.work.scratch.rounded);
        for tokens in self.work.token_blocks() {
            let rows = &floats[tokens.start * columns..tokens.end * columns];
            let inputs = W::inputs(v, rows, columns, &mut rounded);
            for panel in self.work.panels.clone() {
                let totals = &mut self.work.scratch.totals[..tokens.len()];
                let bytes = self.work.weights.panel(panel);
                let (inputs, totals) = tiles::<V, W, 6>(v, bytes, inputs, columns, totals);
                tiles::<V, W, 1>(v, bytes, inputs, columns, totals);
                self.work.put(panel, tokens.clone());
            }
        }
        self.work.scratch.rounded = rounded;
    }
}

/// The kernel of BF16.
pub(super) struct Bfloats<'a>(pub(super) Multiply<'a>);

impl Kernel for Bfloats<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd>(self, v: V) {
        if V::BFLOATS {
            Dense::<BfloatPairs>::new(self.0).run(v);
        } else {
            Dense::<Bfloat>::new(self.0).run(v);
        }
    }
}

/// Tiles of `N` tokens for as long as there are so many; the rest of the inputs and totals.
#[inline(always)]
fn tiles<'t, V: Simd, W: Terms, const N: usize>(
    v: V,
    panel: &[u8],
    inputs: &'t [W::Input],
    columns: usize,
    totals: &'t mut [Outputs],
) -> (&'t [W::Input], &'t mut [Outputs]) {
    let steps = columns.div_ceil(W::COLUMNS);
    let (whole, rest) = totals.as_chunks_mut::<N>();
    let (rows, others) = inputs.split_at(whole.len() * N * steps);
    for (totals, rows) in whole.iter_mut().zip(rows.chunks_exact(N * steps)) {
        tile::<V, W, N>(v, panel, rows, steps, totals);
    }
    (others, rest)
}

/// 16 rows by `N` tokens, over all columns in their order.
#[inline(always)]
fn tile<V: Simd, W: Terms, const N: usize>(
    v: V,
    panel: &[u8],
    rows: &[W::Input],
    steps: usize,
    totals: &mut [Outputs; N],
) {
    let mut inputs = [&rows[..steps]; N];
    for (n, input) in inputs.iter_mut().enumerate() {
        *input = &rows[n * steps..][..steps];
    }
    let mut sums = [v.splat_f32(0.0); N];
    for (step, bytes) in panel.chunks_exact(W::BYTES).take(steps).enumerate() {
        let weights = W::weights(v, bytes);
        for n in 0..N {
            sums[n] = W::add(v, sums[n], weights, &inputs[n][step]);
        }
    }
    let rest = panel.chunks_exact(W::BYTES).remainder();
    if W::COLUMNS > 1 && !rest.is_empty() {
        let mut last: Bytes = [0; VECTOR_BYTES];
        last[..rest.len()].copy_from_slice(rest);
        let weights = W::weights(v, &last);
        for n in 0..N {
            sums[n] = W::add(v, sums[n], weights, &inputs[n][steps - 1]);
        }
    }
    for n in 0..N {
        v.store_f32(&mut totals[n], sums[n]);
    }
}
