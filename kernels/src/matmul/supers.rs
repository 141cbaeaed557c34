//! Multiplication by weights in super-blocks of 256.

use std::marker::PhantomData;
use std::ops::Range;

use super::quants256::{Correction, Quants256};
use super::source::{Side, Source, Vectors, prefetch};
use super::{Multiply, Outputs, pairs};
use crate::activation::{Rows, SUMS_256};
use crate::arch::{Kernel, LANES, Simd};
use crate::format::QK_K;

/// The kernel of one format.
pub(super) struct Supers<'a, Q> {
    work: Multiply<'a>,
    format: PhantomData<Q>,
}

impl<'a, Q> Supers<'a, Q> {
    pub(super) fn new(work: Multiply<'a>) -> Supers<'a, Q> {
        Supers { work, format: PhantomData }
    }
}

/// One token's activations of 256 columns.
#[derive(Clone, Copy)]
struct Group<'a> {
    values: &'a [i8; QK_K],
    sums: &'a [i16; SUMS_256],
    scale: f32,
}

impl<'a> Group<'a> {
    #[inline(always)]
    fn of(input: &Rows<'a>, token: usize, group: usize) -> Group<'a> {
        let at = token * (input.columns / QK_K) + group;
        Group {
            values: input.values[at * QK_K..].first_chunk().expect("a whole group"),
            sums: input.sums[at * SUMS_256..].first_chunk().expect("a whole group"),
            scale: input.scales[at],
        }
    }
}

/// Vectors unpacked on the fly, of a block of these bytes.
struct Direct<'a, Q: Quants256>(Q::Block<'a>, &'a [u8]);

impl<Q: Quants256> Clone for Direct<'_, Q> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<Q: Quants256> Copy for Direct<'_, Q> {}

impl<V: Simd, Q: Quants256> Source<V> for Direct<'_, Q> {
    const DIRECT: bool = true;
    const INNER: usize = Q::INNER;

    #[inline(always)]
    fn vector(self, v: V, outer: usize, inner: usize, at: usize) -> V::I {
        Q::vector(v, self.0, outer, inner, at)
    }

    /// An eighth of the block: memory is asked steadily, and never for more at once than the processor
    /// can wait for.
    #[inline(always)]
    fn prefetch(self, v: V, run: usize) {
        prefetch(v, self.1, run * (Q::BYTES / 8), Q::BYTES / 8);
    }
}

impl<Q: Quants256> Kernel for Supers<'_, Q> {
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

impl<Q: Quants256> Supers<'_, Q> {
    #[inline(always)]
    fn panel<V: Simd>(&mut self, v: V, panel: usize, tokens: Range<usize>) {
        let scratch = &mut *self.work.scratch;
        let (unpacked, totals) = (&mut *scratch.unpacked, &mut scratch.totals[..tokens.len()]);
        totals.fill([0.0; LANES]);
        let blocks = self.work.weights.panel(panel).chunks_exact(Q::BYTES);
        for (group, bytes) in blocks.enumerate() {
            let block = Q::block(bytes);
            Q::side(v, block, &mut unpacked.side);
            let work = Tiles { input: self.work.input, tokens: tokens.clone(), group };
            if tokens.len() <= Q::DIRECT {
                work.run::<V, Q, _>(v, Direct::<Q>(block, bytes), &unpacked.side, totals);
            } else {
                prefetch(v, bytes, 0, Q::BYTES);
                unpack::<V, Q>(v, block, &mut unpacked.vectors);
                work.run::<V, Q, &Vectors>(v, &unpacked.vectors, &unpacked.side, totals);
            }
        }
    }
}

/// Unpacks a super-block.
#[inline(always)]
fn unpack<V: Simd, Q: Quants256>(v: V, block: Q::Block<'_>, to: &mut Vectors) {
    for outer in 0..8 / Q::INNER {
        unrolled!(V: inner in Q::INNER => {
            let to = &mut to.0[(outer * Q::INNER + inner) * 8..][..8];
            for (at, to) in to.iter_mut().enumerate() {
                v.store(to, Q::vector(v, block, outer, inner, at));
            }
            if V::PAIRED {
                pairs::interleave(v, to);
            }
        });
    }
}

/// Some tokens' activations of 256 columns.
struct Tiles<'a> {
    input: &'a Rows<'a>,
    tokens: Range<usize>,
    group: usize,
}

impl Tiles<'_> {
    /// Adds the products of these columns to the totals.
    #[inline(always)]
    fn run<V: Simd, Q: Quants256, S: Source<V>>(
        mut self,
        v: V,
        source: S,
        side: &Side,
        mut totals: &mut [Outputs],
    ) {
        if V::TILE >= 12 && !S::DIRECT {
            totals = self.tiles::<V, Q, S, 12>(v, source, side, totals);
            totals = self.tiles::<V, Q, S, 6>(v, source, side, totals);
        }
        if V::PAIRED && !S::DIRECT {
            totals = self.tiles::<V, Q, S, 2>(v, source, side, totals);
        } else if V::TILE >= 3 && (Q::DIRECT > 1 || !S::DIRECT) {
            totals = self.tiles::<V, Q, S, 3>(v, source, side, totals);
            totals = self.tiles::<V, Q, S, 2>(v, source, side, totals);
        }
        self.tiles::<V, Q, S, 1>(v, source, side, totals);
    }

    /// Tiles of `N` tokens for as long as there are so many; the rest of the totals.
    #[inline(always)]
    fn tiles<'t, V: Simd, Q: Quants256, S: Source<V>, const N: usize>(
        &mut self,
        v: V,
        source: S,
        side: &Side,
        totals: &'t mut [Outputs],
    ) -> &'t mut [Outputs] {
        let (whole, rest) = totals.as_chunks_mut::<N>();
        for totals in whole {
            let mut groups = [Group::of(self.input, self.tokens.start, self.group); N];
            for (at, group) in groups.iter_mut().enumerate() {
                *group = Group::of(self.input, self.tokens.start + at, self.group);
            }
            self.tokens.start += N;
            tile::<V, Q, S, N>(v, source, side, &groups, totals);
        }
        rest
    }
}

/// 16 rows by `N` tokens.
#[inline(always)]
fn tile<V: Simd, Q: Quants256, S: Source<V>, const N: usize>(
    v: V,
    source: S,
    side: &Side,
    groups: &[Group<'_>; N],
    totals: &mut [Outputs; N],
) {
    let integers = if V::PAIRED && !S::DIRECT {
        paired::<V, Q, S, N>(v, source, side, groups)
    } else {
        let mut integers = [v.splat4([0; 4]); N];
        for outer in 0..8 / S::INNER {
            unrolled!(V: inner in S::INNER => {
                run::<V, Q, S, N>(v, source, outer, inner, side, groups, &mut integers);
            });
        }
        integers
    };
    let scale = v.load_f32(&side.scale);
    for n in 0..N {
        let value = match Q::correction::<V>() {
            Correction::Nothing => v.mul_f32(scale, v.to_f32(integers[n])),
            Correction::Offset(shift) => {
                let offsets = v.shift_left_32(corrections::<V, Q>(v, side, &groups[n]), shift);
                v.mul_f32(scale, v.to_f32(v.sub_32(integers[n], offsets)))
            }
            Correction::Minimums => {
                let minimums = v.to_f32(corrections::<V, Q>(v, side, &groups[n]));
                let value = v.mul_f32(scale, v.to_f32(integers[n]));
                v.neg_mul_add(v.load_f32(&side.minimum), minimums, value)
            }
        };
        let total = v.mul_add(v.splat_f32(groups[n].scale), value, v.load_f32(&totals[n]));
        v.store_f32(&mut totals[n], total);
    }
}

/// Adds the scaled products of one run of 32 columns.
#[inline(always)]
fn run<V: Simd, Q: Quants256, S: Source<V>, const N: usize>(
    v: V,
    source: S,
    outer: usize,
    inner: usize,
    side: &Side,
    groups: &[Group<'_>; N],
    integers: &mut [V::I; N],
) {
    let limit = if V::WIDE || Q::SIGNED { Q::PART } else { Q::LIMIT };
    let run = outer * S::INNER + inner;
    source.prefetch(v, run);
    let mut sums = [v.splat4([0; 4]); N];
    unrolled!(V: at in 8 => {
        let weights = source.vector(v, outer, inner, at);
        for n in 0..N {
            let column = run * 32 + at * 4;
            let values = groups[n].values[column..].first_chunk().expect("columns of the group");
            let values = v.splat_i8(values);
            sums[n] = match (Q::SIGNED, at % limit == 0) {
                (true, true) => v.add_signed_products(v.splat4([0; 4]), weights, values),
                (true, false) => v.add_signed_products(sums[n], weights, values),
                (false, true) => v.products(weights, values),
                (false, false) => v.add_products(sums[n], weights, values),
            };
        }
        if at % limit == limit - 1 {
            let scale = v.load(&side.scales[(run * 8 + at) / Q::PART]);
            for n in 0..N {
                integers[n] = if Q::SIGNED {
                    v.scale_add_32(integers[n], sums[n], scale)
                } else {
                    v.scale_add(integers[n], sums[n], scale)
                };
            }
        }
    });
}

/// The scaled products of all columns, of interleaved vectors by two tokens at once.
#[inline(always)]
fn paired<V: Simd, Q: Quants256, S: Source<V>, const N: usize>(
    v: V,
    source: S,
    side: &Side,
    groups: &[Group<'_>; N],
) -> [V::I; N] {
    let mut totals = [[v.splat4([0; 4]); 2]; N];
    for part in 0..QK_K / 4 / Q::PART {
        let mut sums = [[v.splat4([0; 4]); 2]; N];
        unrolled!(V: step in Q::PART / 2 => {
            let at = part * Q::PART + 2 * step;
            let (run, first) = (at / 8, at % 8);
            let weights = [source.vector(v, run, 0, first), source.vector(v, run, 0, first + 1)];
            let mut values = [&[0; 8]; N];
            for n in 0..N {
                values[n] = groups[n].values[4 * at..].first_chunk().expect("columns of the group");
            }
            pairs::add_products(v, &mut sums, weights, &values);
        });
        let scale = v.load(&side.scales[part]);
        for pair in 0..N.div_ceil(2) {
            totals[pair] = v.scale_add_paired(totals[pair], sums[pair], scale);
        }
    }
    pairs::separate(v, &totals)
}

/// The sum of the products of the parts' numbers and the sums of activations.
#[inline(always)]
fn corrections<V: Simd, Q: Quants256>(v: V, side: &Side, group: &Group<'_>) -> V::I {
    let mut total = v.splat4([0; 4]);
    // Minimums of runs go with the sums of 32, everything else with the sums of 16.
    let of_runs = Q::PART == 8 && !Q::SIGNED;
    let (start, count) = if of_runs { (QK_K / 16, 4) } else { (0, 8) };
    for at in 0..count {
        let sums = group.sums[start + 2 * at..].first_chunk().expect("sums of the group");
        total = v.add_pairs(total, v.load(&side.pairs[at]), v.splat_i16(sums));
    }
    total
}
