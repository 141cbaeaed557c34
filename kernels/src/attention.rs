//! Attention of query heads to the keys and values of one head of the cache.
//!
//! The softmax is computed on the way (arXiv 2205.14135): for each query there are the largest
//! score so far `m`, the sum of the weights `l` and the weighted sum of the values `o`, all relative
//! to `m`. Scores are logarithms to the base 2.
//!
//! **Invariant:** the result for a query does not depend, in any bit, on what it is computed with.
//! Whatever the number of queries, chunks or threads, for each query the same operations happen in
//! the same order: a sequence is cut into spans of [`SPAN_TOKENS`] at fixed places, each begins
//! afresh, within it blocks of [`BLOCK_TOKENS`](crate::kv::BLOCK_TOKENS) follow each other, and spans are merged in order.
//! Blocks that a query does not see may be computed or left out: they multiply by 1 and add 0, and
//! the sign of a zero, the one thing that this can change, is dropped at the end.

use std::ops::Range;

use crate::arch::{Isa, Kernel, LANES, Simd};
use crate::exponential::exp2;
use crate::kv::{KvType, Layout};

mod product;
mod span;

use span::Rows;

/// Tokens that are worked on at a stretch; a multiple of [`BLOCK_TOKENS`](crate::kv::BLOCK_TOKENS).
pub const SPAN_TOKENS: usize = 512;
/// Rows (query heads) that share a conversion of keys and values to `f32`, where there are many.
const TILE_ROWS: usize = 96;
/// What scores are limited to, either way; far from what makes infinities.
const LIMIT: f32 = 1e30;

/// What is attended to, and how.
#[derive(Clone, Copy, Debug)]
pub struct Attend {
    /// How keys and values are stored.
    pub kv_type: KvType,
    /// Elements of a key and of a query head.
    pub key_length: usize,
    /// Elements of a value and of a result.
    pub value_length: usize,
    /// Query heads for the head of keys and values.
    pub group: usize,
    /// What scores are multiplied by, before the soft limit.
    pub scale: f32,
    /// The soft limit of the scores, `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// How many tokens a query sees, itself included; all without.
    pub window: Option<u32>,
}

/// Memory for intermediate results. It grows to what is needed and is kept by each thread.
#[derive(Debug, Default)]
pub struct Scratch {
    rows: Rows,
    /// Merged spans, [rows][floats of a partial row].
    merged: Vec<f32>,
    /// One span, likewise.
    partial: Vec<f32>,
}

impl Attend {
    fn layout(&self) -> Layout {
        let &Attend { kv_type, key_length, value_length, .. } = self;
        Layout { kv_type, key_length, value_length }
    }

    /// Floats of a row of a partial result: `o`, then `m` and `l`.
    fn partial_row(&self) -> usize {
        self.layout().padded_value() + 2
    }

    /// Floats of a partial result for that many queries.
    pub fn partial_len(&self, queries: usize) -> usize {
        queries * self.group * self.partial_row()
    }

    /// The spans that queries at these positions see something of.
    pub fn spans(&self, positions: Range<usize>) -> Range<usize> {
        self.first_seen(positions.start) / SPAN_TOKENS..positions.end.div_ceil(SPAN_TOKENS)
    }

    /// The first token that a query at a position sees.
    fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window as usize))
    }

    /// Queries that are worked on together: whole tiles of products where that is possible.
    fn tile_queries(&self) -> usize {
        let most = (TILE_ROWS / self.group).max(1);
        let whole = (1..=most).rev().find(|queries| (queries * self.group).is_multiple_of(6));
        whole.filter(|whole| 2 * whole >= most).unwrap_or(most)
    }

    /// How many queries there are in a matrix of them.
    fn count(&self, queries: &[f32], first_position: usize) -> usize {
        assert!(self.group > 0 && self.key_length > 0 && self.value_length > 0, "no empty heads");
        assert!(self.window != Some(0), "a query sees itself");
        assert!(first_position < u32::MAX as usize, "positions are of 32 bits");
        let row = self.group * self.key_length;
        assert!(queries.len().is_multiple_of(row), "queries are whole");
        queries.len() / row
    }
}

/// Attention of queries at the positions from `first_position` on to all that they may see: for the
/// query at `p` the tokens up to `p`, or the last `window` of these.
///
/// `tiles(i)` is the tile of block `i` of the sequence; `queries` is [n][group * key_length];
/// `out` is [n][group * value_length].
///
/// # Panics
///
/// If a matrix or a tile is not of its size.
pub fn attend<'a>(
    isa: Isa,
    shape: &Attend,
    tiles: &dyn Fn(usize) -> &'a [u8],
    queries: &[f32],
    first_position: usize,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let count = shape.count(queries, first_position);
    assert_eq!(out.len(), count * shape.group * shape.value_length, "a result for each query");
    let Scratch { rows, merged, partial } = scratch;
    for at in (0..count).step_by(shape.tile_queries()) {
        let tile = at..count.min(at + shape.tile_queries());
        let positions = first_position + tile.start..first_position + tile.end;
        rows.begin(shape, &queries[heads(&tile, shape.group * shape.key_length)], positions.start);
        let floats = shape.partial_len(tile.len());
        let (merged, partial) = (empty(shape, merged, floats), room(partial, floats));
        for span in shape.spans(positions) {
            isa.run(span::Span { shape, tiles, span, rows, partial });
            isa.run(Merge { shape, merged, partial });
        }
        finish(shape, merged, &mut out[heads(&tile, shape.group * shape.value_length)]);
    }
}

/// The part of [`attend`] that belongs to one span of [`SPAN_TOKENS`]; `partial` is of
/// [`Attend::partial_len`] floats. What [`merge`] makes of all the parts is what `attend` gives.
///
/// # Panics
///
/// If a matrix or a tile is not of its size.
#[expect(clippy::too_many_arguments, reason = "as attend, and which part")]
pub fn attend_span<'a>(
    isa: Isa,
    shape: &Attend,
    tiles: &dyn Fn(usize) -> &'a [u8],
    queries: &[f32],
    first_position: usize,
    span: usize,
    scratch: &mut Scratch,
    partial: &mut [f32],
) {
    let count = shape.count(queries, first_position);
    assert_eq!(partial.len(), shape.partial_len(count), "a partial result for each query");
    let rows = &mut scratch.rows;
    for at in (0..count).step_by(shape.tile_queries()) {
        let tile = at..count.min(at + shape.tile_queries());
        let queries = &queries[heads(&tile, shape.group * shape.key_length)];
        rows.begin(shape, queries, first_position + tile.start);
        let partial = &mut partial[heads(&tile, shape.partial_len(1))];
        isa.run(span::Span { shape, tiles, span, rows, partial });
    }
}

/// Makes results of the partial results of the spans, in the order of the spans; each is of
/// [`Attend::partial_len`] floats for the queries that `out`, [n][group * value_length], is for.
///
/// # Panics
///
/// If a matrix is not of its size.
pub fn merge<'a>(
    isa: Isa,
    shape: &Attend,
    partials: impl IntoIterator<Item = &'a [f32]>,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let row = shape.group * shape.value_length;
    assert!(row > 0 && out.len().is_multiple_of(row), "results are whole");
    let floats = shape.partial_len(out.len() / row);
    let merged = empty(shape, &mut scratch.merged, floats);
    let mut partials = partials.into_iter().peekable();
    assert!(partials.peek().is_some(), "there is something to merge");
    for partial in partials {
        assert_eq!(partial.len(), floats, "a partial result is for all the queries");
        isa.run(Merge { shape, merged, partial });
    }
    finish(shape, merged, out);
}

/// The elements of some rows of a matrix.
fn heads(rows: &Range<usize>, columns: usize) -> Range<usize> {
    rows.start * columns..rows.end * columns
}

/// That many floats, whatever they are.
fn room(floats: &mut Vec<f32>, length: usize) -> &mut [f32] {
    floats.resize(length.max(floats.len()), 0.0);
    &mut floats[..length]
}

/// What nothing has been merged into yet.
fn empty<'a>(shape: &Attend, floats: &'a mut Vec<f32>, length: usize) -> &'a mut [f32] {
    let merged = room(floats, length);
    for row in merged.chunks_exact_mut(shape.partial_row()) {
        row.fill(0.0);
        row[shape.layout().padded_value()] = -LIMIT;
    }
    merged
}

/// Divides by the sums of the weights. They are at least 1: the largest score's own.
fn finish(shape: &Attend, merged: &[f32], out: &mut [f32]) {
    let rows = merged.chunks_exact(shape.partial_row());
    for (row, out) in rows.zip(out.chunks_exact_mut(shape.value_length)) {
        let inverse = 1.0 / row[shape.layout().padded_value() + 1];
        for (out, sum) in out.iter_mut().zip(row) {
            *out = sum * inverse + 0.0;
        }
    }
}

/// Adds one partial result to those before.
struct Merge<'a> {
    shape: &'a Attend,
    merged: &'a mut [f32],
    partial: &'a [f32],
}

impl Kernel for Merge<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd>(self, simd: V) {
        let (row, value) = (self.shape.partial_row(), self.shape.layout().padded_value());
        for (a, b) in self.merged.chunks_exact_mut(row).zip(self.partial.chunks_exact(row)) {
            let largest = if a[value] > b[value] { a[value] } else { b[value] };
            let mut exponents = [0.0; LANES];
            (exponents[0], exponents[1]) = (a[value] - largest, b[value] - largest);
            let powers = exp2(simd, simd.load_f32(&exponents));
            simd.store_f32(&mut exponents, powers);
            let [by_a, by_b, ..] = exponents;
            let (factor_a, factor_b) = (simd.splat_f32(by_a), simd.splat_f32(by_b));
            for (a, b) in a.as_chunks_mut().0.iter_mut().zip(b.as_chunks().0) {
                let scaled = simd.mul_f32(simd.load_f32(b), factor_b);
                simd.store_f32(a, simd.mul_add(simd.load_f32(a), factor_a, scaled));
            }
            a[value] = largest;
            a[value + 1] = a[value + 1] * by_a + b[value + 1] * by_b;
        }
    }
}

#[cfg(test)]
mod tests;
