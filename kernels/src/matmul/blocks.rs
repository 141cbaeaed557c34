//! Multiplication by weights in blocks of 32. Some of them go together.

use std::marker::PhantomData;
use std::ops::Range;

use super::blocks32::Quants32;
use super::source::{Unpacked, prefetch};
use super::{Multiply, Outputs, pairs};
use crate::activation::{Rows, SUMS_32};
use crate::arch::{Kernel, LANES, Simd};
use crate::format::QK;

/// Blocks that go together: enough that starting a tile costs little, few enough that the bytes which
/// they are unpacked to stay in the first-level cache.
pub(super) const TOGETHER: usize = 24;

/// The kernel of one format.
pub(super) struct Blocks<'a, Q> {
    work: Multiply<'a>,
    format: PhantomData<Q>,
}

impl<'a, Q> Blocks<'a, Q> {
    pub(super) fn new(work: Multiply<'a>) -> Blocks<'a, Q> {
        Blocks { work, format: PhantomData }
    }
}

/// One token's activations of some blocks.
#[derive(Clone, Copy)]
struct Group<'a> {
    values: &'a [[i8; QK]],
    /// The scale, and the scale times the sum of the values.
    scales: &'a [[f32; 2]],
    sums: &'a [[i16; SUMS_32]],
}

impl<'a> Group<'a> {
    #[inline(always)]
    fn of(input: &Rows<'a>, token: usize, blocks: &Range<usize>) -> Group<'a> {
        let start = token * (input.columns / QK) + blocks.start;
        let blocks = start..start + blocks.len();
        Group {
            values: &input.values.as_chunks().0[blocks.clone()],
            scales: &input.scales.as_chunks().0[blocks.clone()],
            sums: &input.sums.as_chunks().0[blocks],
        }
    }
}

/// Something that has the vectors of some blocks.
trait Source<V: Simd>: Copy {
    /// Whether it unpacks on the fly, which is for few tokens.
    const DIRECT: bool;
    fn scale(self, v: V, block: usize) -> V::F;
    fn minimum(self, v: V, block: usize) -> V::F;
    fn vector(self, v: V, block: usize, at: usize) -> V::I;
}

impl<V: Simd> Source<V> for &Unpacked {
    const DIRECT: bool = false;

    #[inline(always)]
    fn scale(self, v: V, block: usize) -> V::F {
        v.load_f32(&self.scales[block])
    }

    #[inline(always)]
    fn minimum(self, v: V, block: usize) -> V::F {
        v.load_f32(&self.minimums[block])
    }

    #[inline(always)]
    fn vector(self, v: V, block: usize, at: usize) -> V::I {
        v.load(&self.vectors.0[block * 8 + at])
    }
}

/// Vectors unpacked on the fly.
struct Direct<'a, Q>(&'a [u8], PhantomData<Q>);

impl<Q> Clone for Direct<'_, Q> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<Q> Copy for Direct<'_, Q> {}

impl<'a, Q: Quants32> Direct<'a, Q> {
    #[inline(always)]
    fn block(self, block: usize) -> &'a [u8] {
        &self.0[block * Q::BYTES..][..Q::BYTES]
    }
}

impl<V: Simd, Q: Quants32> Source<V> for Direct<'_, Q> {
    const DIRECT: bool = true;

    /// Also asks for the lines that are wanted some blocks later: memory is asked steadily, and never
    /// for more at once than the processor can wait for.
    #[inline(always)]
    fn scale(self, v: V, block: usize) -> V::F {
        prefetch(v, self.0, block * Q::BYTES, Q::BYTES);
        Q::scale(v, self.block(block))
    }

    #[inline(always)]
    fn minimum(self, v: V, block: usize) -> V::F {
        Q::minimum(v, self.block(block))
    }

    #[inline(always)]
    fn vector(self, v: V, block: usize, at: usize) -> V::I {
        Q::vector(v, self.block(block), at)
    }
}

/// Tokens up to which vectors are unpacked on the fly: in two tiles, where tiles are small and no
/// tokens can be multiplied in pairs.
const fn direct_max<V: Simd>() -> usize {
    if V::TILE > 3 || V::PAIRED { 3 } else { 6 }
}

impl<Q: Quants32> Kernel for Blocks<'_, Q> {
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

impl<Q: Quants32> Blocks<'_, Q> {
    #[inline(always)]
    fn panel<V: Simd>(&mut self, v: V, panel: usize, tokens: Range<usize>) {
        let scratch = &mut *self.work.scratch;
        let (unpacked, totals) = (&mut *scratch.unpacked, &mut scratch.totals[..tokens.len()]);
        totals.fill([0.0; LANES]);
        let chunks = self.work.weights.panel(panel).chunks(TOGETHER * Q::BYTES);
        for (chunk, bytes) in chunks.enumerate() {
            let start = chunk * TOGETHER;
            let blocks = start..start + bytes.len() / Q::BYTES;
            let work = Tiles { input: self.work.input, tokens: tokens.clone(), blocks };
            if tokens.len() <= direct_max::<V>() {
                work.run::<V, Q, _>(v, Direct::<Q>(bytes, PhantomData), totals);
            } else {
                unpack::<V, Q>(v, bytes, unpacked);
                work.run::<V, Q, &Unpacked>(v, unpacked, totals);
            }
        }
    }
}

/// Unpacks some blocks.
#[inline(always)]
fn unpack<V: Simd, Q: Quants32>(v: V, bytes: &[u8], to: &mut Unpacked) {
    let scales = to.scales.iter_mut().zip(&mut to.minimums);
    let vectors = to.vectors.0.as_chunks_mut::<8>().0;
    let blocks = bytes.chunks_exact(Q::BYTES).enumerate();
    for (((at, block), (scale, minimum)), vectors) in blocks.zip(scales).zip(vectors) {
        prefetch(v, bytes, at * Q::BYTES, Q::BYTES);
        v.store_f32(scale, Q::scale(v, block));
        if Q::MINIMUM {
            v.store_f32(minimum, Q::minimum(v, block));
        }
        for (at, vector) in vectors.iter_mut().enumerate() {
            v.store(vector, Q::vector(v, block, at));
        }
        if V::PAIRED {
            pairs::interleave(v, vectors);
        }
    }
}

/// Some tokens' activations of some blocks.
struct Tiles<'a> {
    input: &'a Rows<'a>,
    tokens: Range<usize>,
    blocks: Range<usize>,
}

impl Tiles<'_> {
    /// Adds the products of these columns to the totals.
    #[inline(always)]
    fn run<V: Simd, Q: Quants32, S: Source<V>>(
        mut self,
        v: V,
        source: S,
        mut totals: &mut [Outputs],
    ) {
        if V::TILE >= 12 && !S::DIRECT {
            totals = self.tiles::<V, Q, S, 12>(v, source, totals);
            totals = self.tiles::<V, Q, S, 6>(v, source, totals);
        }
        if V::PAIRED && !S::DIRECT {
            totals = self.tiles::<V, Q, S, 2>(v, source, totals);
        } else if V::TILE >= 3 {
            // Unlike a super-block's, these tiles hold one sum for each token, and can have more
            // tokens.
            if V::TILE == 3 && !S::DIRECT {
                totals = self.tiles::<V, Q, S, 4>(v, source, totals);
            }
            totals = self.tiles::<V, Q, S, 3>(v, source, totals);
            totals = self.tiles::<V, Q, S, 2>(v, source, totals);
        }
        self.tiles::<V, Q, S, 1>(v, source, totals);
    }

    /// Tiles of `N` tokens for as long as there are so many; the rest of the totals.
    #[inline(always)]
    fn tiles<'t, V: Simd, Q: Quants32, S: Source<V>, const N: usize>(
        &mut self,
        v: V,
        source: S,
        totals: &'t mut [Outputs],
    ) -> &'t mut [Outputs] {
        let (whole, rest) = totals.as_chunks_mut::<N>();
        for totals in whole {
            let mut groups = [Group::of(self.input, self.tokens.start, &self.blocks); N];
            for (at, group) in groups.iter_mut().enumerate() {
                *group = Group::of(self.input, self.tokens.start + at, &self.blocks);
            }
            self.tokens.start += N;
            tile::<V, Q, S, N>(v, source, self.blocks.len(), &groups, totals);
        }
        rest
    }
}

/// 16 rows by `N` tokens.
#[inline(always)]
fn tile<V: Simd, Q: Quants32, S: Source<V>, const N: usize>(
    v: V,
    source: S,
    blocks: usize,
    groups: &[Group<'_>; N],
    totals: &mut [Outputs; N],
) {
    let offset = if Q::SIGNED { V::SIGNED_OFFSET as i16 } else { Q::OFFSET };
    let [low, high] = offset.to_le_bytes();
    let mut sums_out = [v.splat_f32(0.0); N];
    for n in 0..N {
        sums_out[n] = v.load_f32(&totals[n]);
    }
    for block in 0..blocks {
        let integers = if V::PAIRED && !S::DIRECT {
            paired_products(v, source, groups, block)
        } else {
            products::<V, Q, S, N>(v, source, groups, block)
        };
        let scale = source.scale(v, block);
        for n in 0..N {
            let group = &groups[n];
            let mut integer = integers[n];
            if offset != 0 {
                let sums = v.splat_i16(&group.sums[block]);
                let offset = v.splat4([low, high, low, high]);
                integer = v.sub_32(integer, v.add_pairs(v.splat4([0; 4]), sums, offset));
            }
            let [own, sum] = group.scales[block];
            // In this order nothing overflows on the way to a zero: scales of MXFP4 go up to 2^126.
            let value = v.mul_f32(v.splat_f32(own), v.to_f32(integer));
            sums_out[n] = v.mul_add(scale, value, sums_out[n]);
            if Q::MINIMUM {
                let minimum = source.minimum(v, block);
                sums_out[n] = v.mul_add(minimum, v.splat_f32(sum), sums_out[n]);
            }
        }
    }
    for n in 0..N {
        v.store_f32(&mut totals[n], sums_out[n]);
    }
}

/// Sums of the products of a block's vectors, as 32-bit integers.
#[inline(always)]
fn products<V: Simd, Q: Quants32, S: Source<V>, const N: usize>(
    v: V,
    source: S,
    groups: &[Group<'_>; N],
    block: usize,
) -> [V::I; N] {
    let limit = if V::WIDE || Q::SIGNED { 8 } else { Q::LIMIT };
    let mut wide = [v.splat4([0; 4]); N];
    let mut sums = wide;
    unrolled!(V: at in 8 => {
        let weights = source.vector(v, block, at);
        for n in 0..N {
            let values = groups[n].values[block].as_chunks::<4>().0;
            let values = v.splat_i8(&values[at]);
            sums[n] = if Q::SIGNED {
                v.add_signed_products(sums[n], weights, values)
            } else if at % limit == 0 {
                v.products(weights, values)
            } else {
                v.add_products(sums[n], weights, values)
            };
            if !Q::SIGNED && at % limit == limit - 1 {
                wide[n] = if at < limit {
                    v.widen(sums[n])
                } else {
                    v.add_widened(wide[n], sums[n])
                };
            }
        }
    });
    if Q::SIGNED { sums } else { wide }
}

/// The same of interleaved vectors, by two tokens at once.
#[inline(always)]
fn paired_products<V: Simd, S: Source<V>, const N: usize>(
    v: V,
    source: S,
    groups: &[Group<'_>; N],
    block: usize,
) -> [V::I; N] {
    let mut sums = [[v.splat4([0; 4]); 2]; N];
    unrolled!(V: step in QK / 8 => {
        let at = 2 * step;
        let weights = [source.vector(v, block, at), source.vector(v, block, at + 1)];
        let mut values = [&[0; 8]; N];
        for n in 0..N {
            values[n] = &groups[n].values[block].as_chunks::<8>().0[step];
        }
        pairs::add_products(v, &mut sums, weights, &values);
    });
    pairs::separate(v, &sums)
}
