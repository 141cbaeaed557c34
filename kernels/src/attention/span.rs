//! One span of a sequence, for a tile of rows: block by block the scores, their weights, and the
//! weighted sums of the values. A row is a query head.

use std::array::from_fn;
use std::ops::Range;

use super::product::{Matrix, ROWS, Stored, is_wide, product};
use super::{Attend, LIMIT, SPAN_TOKENS};
use crate::arch::{Kernel, LANES, Simd};
use crate::exponential::{exp2, tanh};
use crate::kv::{BLOCK_TOKENS, KvType, Layout, SCALED};

/// Blocks of a span.
const SPAN_BLOCKS: usize = SPAN_TOKENS / BLOCK_TOKENS;
/// Vectors of the scores of a row.
const SCORES: usize = BLOCK_TOKENS / LANES;
/// Up to so many rows, keys and values in half precision are converted in the products; for more
/// rows they are converted once, before.
const DIRECT_ROWS: usize = 12;

/// The rows that are worked on together, and what is known of them so far.
#[derive(Debug, Default)]
pub(super) struct Rows {
    count: usize,
    first_position: usize,
    /// Scaled queries, for each [`ROWS`] rows (of the last, those that there are)
    /// [key_length][rows].
    queries: Vec<f32>,
    /// The largest score, for each row; as many as make whole vectors.
    largest: Vec<[f32; LANES]>,
    /// The same with the block that is being worked on.
    next: Vec<[f32; LANES]>,
    /// `2^(largest - next)`.
    decay: Vec<[f32; LANES]>,
    /// Sums of the weights, for each row 16 parts.
    sums: Vec<[f32; LANES]>,
    /// Weighted sums of values, [rows][value_length in vectors].
    values: Vec<[f32; LANES]>,
    /// Scores of a block, then their weights.
    scores: Vec<[f32; BLOCK_TOKENS]>,
    /// Keys, then values (and scales) of a block as `f32`.
    converted: Vec<[f32; LANES]>,
}

impl Rows {
    /// Takes up queries.
    pub(super) fn begin(&mut self, shape: &Attend, queries: &[f32], first_position: usize) {
        self.count = queries.len() / shape.key_length;
        self.first_position = first_position;
        let factor = match shape.softcap {
            Some(cap) => shape.scale / cap,
            None => shape.scale * std::f32::consts::LOG2_E,
        };
        self.queries.clear();
        for rows in queries.chunks(ROWS * shape.key_length) {
            for at in 0..shape.key_length {
                let column = rows[at..].iter().step_by(shape.key_length);
                self.queries.extend(column.map(|x| x * factor));
            }
        }
    }

    /// Forgets all but the queries.
    fn restart(&mut self, layout: Layout) {
        let (rows, columns) = (self.count, layout.padded_value() / LANES);
        refill(&mut self.largest, rows.div_ceil(LANES), [-LIMIT; LANES]);
        refill(&mut self.next, rows.div_ceil(LANES), [-LIMIT; LANES]);
        refill(&mut self.decay, rows.div_ceil(LANES), [1.0; LANES]);
        refill(&mut self.sums, rows, [0.0; LANES]);
        refill(&mut self.values, rows * columns, [0.0; LANES]);
        self.scores.resize(rows, [0.0; BLOCK_TOKENS]);
        let scales = SCORES * layout.value_length.div_ceil(SCALED);
        let vectors = (layout.key_length * SCORES).max(BLOCK_TOKENS * columns + scales);
        self.converted.resize(vectors, [0.0; LANES]);
    }

    /// The position of a row's query.
    fn position(&self, shape: &Attend, row: usize) -> usize {
        self.first_position + row / shape.group
    }

    /// Rows that see something of a block, and perhaps a few that do not: whole products.
    fn that_see(&self, shape: &Attend, block: usize) -> Range<usize> {
        let first = (block * BLOCK_TOKENS).saturating_sub(self.first_position) * shape.group;
        let first = first / ROWS * ROWS;
        let last = shape.window.map_or(self.count, |window| {
            let end = (block + 1) * BLOCK_TOKENS - 1 + window as usize;
            let queries = end.saturating_sub(self.first_position);
            queries.saturating_mul(shape.group).next_multiple_of(ROWS)
        });
        first.min(self.count)..last.min(self.count)
    }

    /// The tokens of a block that a row sees, from 0 to 32.
    fn seen(&self, shape: &Attend, row: usize, block: usize) -> Range<usize> {
        let position = self.position(shape, row);
        let within = |token: usize| token.saturating_sub(block * BLOCK_TOKENS).min(BLOCK_TOKENS);
        within(shape.first_seen(position))..within(position + 1)
    }

    /// The scores of rows, `queries * keys`.
    #[inline(always)]
    fn score<'a, V: Simd, T>(&mut self, simd: V, rows: Range<usize>, keys: Matrix<'a, T>)
    where
        &'a T: Stored,
    {
        let Rows { queries, scores, .. } = self;
        let length = keys.vectors.len() / SCORES;
        for first in rows.clone().step_by(ROWS) {
            let queries = &queries[first * length..];
            let scores = &mut scores[first..];
            match rows.end - first {
                1 => score_rows::<V, T, 1>(simd, queries, length, keys, scores),
                2 => score_rows::<V, T, 2>(simd, queries, length, keys, scores),
                3 => score_rows::<V, T, 3>(simd, queries, length, keys, scores),
                4 => score_rows::<V, T, 4>(simd, queries, length, keys, scores),
                5 => score_rows::<V, T, 5>(simd, queries, length, keys, scores),
                _ => score_rows::<V, T, ROWS>(simd, queries, length, keys, scores),
            }
        }
    }

    /// Makes weights of the scores of a block, `2^(score - largest)`.
    #[inline(always)]
    fn weigh<V: Simd>(&mut self, simd: V, shape: &Attend, rows: Range<usize>, block: usize) {
        for row in rows.clone() {
            let seen = self.seen(shape, row, block);
            let scores = &mut self.scores[row];
            limit_scores(simd, shape, scores);
            scores[..seen.start].fill(f32::NEG_INFINITY);
            scores[seen.end..].fill(f32::NEG_INFINITY);
            let (vectors, _) = scores.as_chunks();
            let both = simd.max_f32(simd.load_f32(&vectors[0]), simd.load_f32(&vectors[1]));
            let largest = simd.largest_f32(both);
            let next = &mut self.next.as_flattened_mut()[row];
            *next = if largest > *next { largest } else { *next };
        }
        self.decay_rows(simd, rows.clone());
        let (next, decay) = (self.next.as_flattened(), self.decay.as_flattened());
        for row in rows {
            let largest = simd.splat_f32(next[row]);
            let (vectors, _) = self.scores[row].as_chunks_mut();
            let mut weights = [simd.splat_f32(0.0); SCORES];
            for (vector, weight) in vectors.iter_mut().zip(&mut weights) {
                *weight = exp2(simd, simd.sub_f32(simd.load_f32(vector), largest));
                simd.store_f32(vector, *weight);
            }
            let sum = simd.load_f32(&self.sums[row]);
            let new = simd.add_f32(weights[0], weights[1]);
            let sum = simd.mul_add(sum, simd.splat_f32(decay[row]), new);
            simd.store_f32(&mut self.sums[row], sum);
        }
    }

    /// What the sums so far are multiplied by, now that the largest score may be another.
    #[inline(always)]
    fn decay_rows<V: Simd>(&mut self, simd: V, rows: Range<usize>) {
        for at in rows.start / LANES..rows.end.div_ceil(LANES) {
            let largest = simd.load_f32(&self.largest[at]);
            let next = simd.load_f32(&self.next[at]);
            let decay = exp2(simd, simd.sub_f32(largest, next));
            simd.store_f32(&mut self.decay[at], decay);
            simd.store_f32(&mut self.largest[at], next);
        }
    }

    /// Adds the weighted values of a block.
    #[inline(always)]
    fn add_values<'a, V: Simd, T>(&mut self, simd: V, rows: Range<usize>, block: Matrix<'a, T>)
    where
        &'a T: Stored,
    {
        let Rows { scores, decay, values, .. } = self;
        for first in rows.clone().step_by(ROWS) {
            let (weights, decay) = (&scores[first..], &decay.as_flattened()[first..]);
            let values = &mut values[first * block.stride..];
            match rows.end - first {
                1 => value_rows::<V, T, 1>(simd, weights, decay, block, values),
                2 => value_rows::<V, T, 2>(simd, weights, decay, block, values),
                3 => value_rows::<V, T, 3>(simd, weights, decay, block, values),
                4 => value_rows::<V, T, 4>(simd, weights, decay, block, values),
                5 => value_rows::<V, T, 5>(simd, weights, decay, block, values),
                _ => value_rows::<V, T, ROWS>(simd, weights, decay, block, values),
            }
        }
    }

    /// Hands over what is known.
    #[inline(always)]
    fn finish<V: Simd>(&self, simd: V, columns: usize, partial: &mut [f32]) {
        let rows = partial.chunks_exact_mut(columns * LANES + 2).zip(&self.sums);
        for (row, (partial, sum)) in rows.enumerate() {
            let (values, rest) = partial.split_at_mut(columns * LANES);
            values.copy_from_slice(self.values[row * columns..][..columns].as_flattened());
            rest[0] = self.largest.as_flattened()[row];
            rest[1] = simd.sum_f32(simd.load_f32(sum));
        }
    }
}

/// Makes a vector of so many of these.
fn refill<T: Clone>(vector: &mut Vec<T>, length: usize, value: T) {
    vector.clear();
    vector.resize(length, value);
}

/// Applies the soft limit, and the hard one.
#[inline(always)]
fn limit_scores<V: Simd>(simd: V, shape: &Attend, scores: &mut [f32; BLOCK_TOKENS]) {
    for vector in scores.as_chunks_mut().0 {
        let mut score = simd.load_f32(vector);
        if let Some(cap) = shape.softcap {
            let cap = simd.splat_f32(cap * std::f32::consts::LOG2_E);
            score = simd.mul_f32(tanh(simd, score), cap);
        }
        let score = simd.max_f32(score, simd.splat_f32(-LIMIT));
        simd.store_f32(vector, simd.min_f32(score, simd.splat_f32(LIMIT)));
    }
}

#[inline(always)]
fn score_rows<'a, V: Simd, T, const R: usize>(
    simd: V,
    queries: &[f32],
    length: usize,
    keys: Matrix<'a, T>,
    scores: &mut [[f32; BLOCK_TOKENS]],
) where
    &'a T: Stored,
{
    let left = || queries[..R * length].as_chunks::<R>().0.iter().map(<[f32; R]>::each_ref);
    let (scores, _) = scores.as_chunks_mut::<R>();
    let scores = &mut scores[0];
    if is_wide::<V>(R) {
        let sums = product(simd, left(), keys, 0, [[simd.splat_f32(0.0); SCORES]; R]);
        for (scores, sums) in scores.iter_mut().zip(sums) {
            for (vector, sum) in scores.as_chunks_mut().0.iter_mut().zip(sums) {
                simd.store_f32(vector, sum);
            }
        }
        return;
    }
    for column in 0..SCORES {
        let sums = product(simd, left(), keys, column, [[simd.splat_f32(0.0)]; R]);
        for (scores, [sum]) in scores.iter_mut().zip(sums) {
            simd.store_f32(&mut scores.as_chunks_mut().0[column], sum);
        }
    }
}

#[inline(always)]
fn value_rows<'a, V: Simd, T, const R: usize>(
    simd: V,
    weights: &[[f32; BLOCK_TOKENS]],
    decay: &[f32],
    block: Matrix<'a, T>,
    values: &mut [[f32; LANES]],
) where
    &'a T: Stored,
{
    let (weights, decay) = (&weights.as_chunks::<R>().0[0], &decay.as_chunks::<R>().0[0]);
    let (columns, mut column) = (block.stride, 0);
    if is_wide::<V>(R) {
        while column + 2 <= columns {
            value_columns::<V, T, R, 2>(simd, weights, decay, column, block, values);
            column += 2;
        }
    }
    for column in column..columns {
        value_columns::<V, T, R, 1>(simd, weights, decay, column, block, values);
    }
}

#[inline(always)]
fn value_columns<'a, V: Simd, T, const R: usize, const C: usize>(
    simd: V,
    weights: &[[f32; BLOCK_TOKENS]; R],
    decay: &[f32; R],
    column: usize,
    block: Matrix<'a, T>,
    values: &mut [[f32; LANES]],
) where
    &'a T: Stored,
{
    let columns = block.stride;
    let mut sums = [[simd.splat_f32(0.0); C]; R];
    for row in 0..R {
        let decay = simd.splat_f32(decay[row]);
        for at in 0..C {
            let value = simd.load_f32(&values[row * columns + column + at]);
            sums[row][at] = simd.mul_f32(value, decay);
        }
    }
    let left = (0..BLOCK_TOKENS).map(|token| from_fn(|row| &weights[row][token]));
    let sums = product(simd, left, block, column, sums);
    for row in 0..R {
        for at in 0..C {
            simd.store_f32(&mut values[row * columns + column + at], sums[row][at]);
        }
    }
}

/// Reads single-precision numbers.
#[inline(always)]
fn convert_singles(from: &[u8], to: &mut [[f32; LANES]]) {
    for (to, from) in to.as_flattened_mut().iter_mut().zip(from.as_chunks().0) {
        *to = f32::from_le_bytes(*from);
    }
}

/// Converts half-precision numbers. What lies `ahead` bytes further will be wanted soon.
#[inline(always)]
fn convert_halves<V: Simd>(simd: V, from: &[u8], ahead: usize, to: &mut [[f32; LANES]]) {
    for (to, from) in to.iter_mut().zip(from.as_chunks().0) {
        simd.prefetch(from, ahead);
        simd.store_f32(to, simd.load_f16(from));
    }
}

/// Converts keys of [`KvType::Q8_0`]. The products are exact: 8 bits times 11.
#[inline(always)]
fn convert_q8_keys<V: Simd>(
    simd: V,
    layout: Layout,
    from: &[u8],
    ahead: usize,
    to: &mut [[f32; LANES]],
) {
    let (scales, quants) = from.split_at(layout.key_scales());
    let scales = scales.as_chunks::<{ 2 * LANES }>().0.chunks_exact(SCORES);
    let quants = quants.as_chunks::<LANES>().0.as_chunks::<SCORES>().0.chunks(SCALED);
    let to = to.as_chunks_mut::<SCORES>().0.chunks_mut(SCALED);
    for (scales, (quants, to)) in scales.zip(quants.zip(to)) {
        let scales = [simd.load_f16(&scales[0]), simd.load_f16(&scales[1])];
        for (quants, to) in quants.iter().zip(to) {
            simd.prefetch(&quants[0], ahead);
            simd.store_f32(&mut to[0], simd.mul_f32(simd.load_i8(&quants[0]), scales[0]));
            simd.store_f32(&mut to[1], simd.mul_f32(simd.load_i8(&quants[1]), scales[1]));
        }
    }
}

/// Converts values of [`KvType::Q8_0`], and behind them their scales.
#[inline(always)]
fn convert_q8_values<V: Simd>(
    simd: V,
    layout: Layout,
    from: &[u8],
    ahead: usize,
    to: &mut [[f32; LANES]],
) {
    let columns = layout.padded_value() / LANES;
    let (from_scales, quants) = from.split_at(BLOCK_TOKENS * layout.value_scales());
    let (to, scales) = to.split_at_mut(BLOCK_TOKENS * columns);
    convert_halves(simd, from_scales, ahead, scales);
    let scales = scales.as_flattened().chunks_exact(layout.value_length.div_ceil(SCALED));
    let quants = quants.as_chunks::<LANES>().0.chunks_exact(columns);
    for (scales, (quants, to)) in scales.zip(quants.zip(to.chunks_exact_mut(columns))) {
        let (quants, to) = (quants.chunks(SCALED / LANES), to.chunks_mut(SCALED / LANES));
        for (scale, (quants, to)) in scales.iter().zip(quants.zip(to)) {
            let scale = simd.splat_f32(*scale);
            simd.prefetch(&quants[0], ahead);
            for (quants, to) in quants.iter().zip(to) {
                simd.store_f32(to, simd.mul_f32(simd.load_i8(quants), scale));
            }
        }
    }
}

/// The work on one span; gives a partial result.
pub(super) struct Span<'a, 't> {
    pub(super) shape: &'a Attend,
    pub(super) tiles: &'a dyn Fn(usize) -> &'t [u8],
    pub(super) span: usize,
    pub(super) rows: &'a mut Rows,
    pub(super) partial: &'a mut [f32],
}

impl Span<'_, '_> {
    /// The blocks of the span that some row sees.
    fn blocks(&self) -> Range<usize> {
        let first = self.shape.first_seen(self.rows.first_position) / BLOCK_TOKENS;
        let last = self.rows.position(self.shape, self.rows.count - 1) / BLOCK_TOKENS;
        let span = self.span * SPAN_BLOCKS..(self.span + 1) * SPAN_BLOCKS;
        first.max(span.start)..(last + 1).min(span.end)
    }
}

impl Kernel for Span<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd>(self, simd: V) {
        let (blocks, Span { shape, tiles, rows, partial, .. }) = (self.blocks(), self);
        let layout = shape.layout();
        let (length, columns) = (shape.key_length, layout.padded_value() / LANES);
        rows.restart(layout);
        let mut converted = std::mem::take(&mut rows.converted);
        for block in blocks.clone() {
            let tile = tiles(block);
            assert_eq!(tile.len(), layout.bytes(), "a tile is as long as its keys and values");
            let next = if block + 1 < blocks.end { tiles(block + 1) } else { tile };
            let ahead = next.as_ptr().addr().wrapping_sub(tile.as_ptr().addr());
            let (keys, values) = tile.split_at(layout.keys());
            let seeing = rows.that_see(shape, block);
            if shape.kv_type == KvType::F16 && seeing.len() <= DIRECT_ROWS {
                let vectors = keys.as_chunks::<{ 2 * LANES }>().0;
                rows.score(simd, seeing.clone(), Matrix { vectors, stride: SCORES, ahead });
                rows.weigh(simd, shape, seeing.clone(), block);
                let vectors = values.as_chunks::<{ 2 * LANES }>().0;
                rows.add_values(simd, seeing, Matrix { vectors, stride: columns, ahead });
                continue;
            }
            match shape.kv_type {
                KvType::F32 => convert_singles(keys, &mut converted),
                KvType::F16 => convert_halves(simd, keys, ahead, &mut converted),
                KvType::Q8_0 => convert_q8_keys(simd, layout, keys, ahead, &mut converted),
            }
            let vectors = &converted[..length * SCORES];
            rows.score(simd, seeing.clone(), Matrix { vectors, stride: SCORES, ahead: 0 });
            rows.weigh(simd, shape, seeing.clone(), block);
            match shape.kv_type {
                KvType::F32 => convert_singles(values, &mut converted),
                KvType::F16 => convert_halves(simd, values, ahead, &mut converted),
                KvType::Q8_0 => convert_q8_values(simd, layout, values, ahead, &mut converted),
            }
            let vectors = &converted[..BLOCK_TOKENS * columns];
            rows.add_values(simd, seeing, Matrix { vectors, stride: columns, ahead: 0 });
        }
        rows.converted = converted;
        rows.finish(simd, columns, partial);
    }
}
