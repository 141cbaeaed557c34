//! Operations on rows of floats, element by element: sums of rows, a scaled row, a soft limit.

use crate::arch::{Isa, Kernel, LANES, Simd};
use crate::exponential::tanh;

/// An operation on the elements of two rows.
pub(crate) trait Lanewise: Copy {
    /// Does it for 16 elements. Implementations are `#[inline(always)]`.
    fn of<V: Simd>(self, simd: V, a: V::F, b: V::F) -> V::F;
}

/// `out[i] = op(a[i], b[i])`.
pub(crate) fn zip<O: Lanewise>(isa: Isa, op: O, a: &[f32], b: &[f32], out: &mut [f32]) {
    assert!(a.len() == b.len() && a.len() == out.len(), "the rows are of one length");
    isa.run(Zip { op, a, b, out });
}

/// `a[i] = op(a[i], b[i])`.
pub(crate) fn zip_assign<O: Lanewise>(isa: Isa, op: O, a: &mut [f32], b: &[f32]) {
    assert!(a.len() == b.len(), "the rows are of one length");
    isa.run(ZipAssign { op, a, b });
}

/// `a[i] = op(a[i], a[i])`.
pub(crate) fn map_assign<O: Lanewise>(isa: Isa, op: O, a: &mut [f32]) {
    isa.run(MapAssign { op, a });
}

/// `row[i] += other[i]`: a bias or a residual.
pub fn add_assign(isa: Isa, row: &mut [f32], other: &[f32]) {
    zip_assign(isa, Sum, row, other);
}

/// `row[i] *= factor`.
pub fn scale(isa: Isa, row: &mut [f32], factor: f32) {
    map_assign(isa, Scaled(factor), row);
}

/// `row[i] = cap * tanh(row[i] / cap)`: the soft limit of Gemma 2's logits.
pub fn soft_cap(isa: Isa, row: &mut [f32], cap: f32) {
    map_assign(isa, SoftCap(cap), row);
}

/// Up to 16 floats, and 0 for those that are missing.
#[inline(always)]
pub(crate) fn load_part<V: Simd>(simd: V, from: &[f32]) -> V::F {
    if let Some(whole) = from.first_chunk() {
        return simd.load_f32(whole);
    }
    let mut lanes = [0.0; LANES];
    lanes[..from.len()].copy_from_slice(from);
    simd.load_f32(&lanes)
}

/// The first up to 16 lanes.
#[inline(always)]
pub(crate) fn store_part<V: Simd>(simd: V, to: &mut [f32], value: V::F) {
    if let Some(whole) = to.first_chunk_mut() {
        return simd.store_f32(whole, value);
    }
    let mut lanes = [0.0; LANES];
    simd.store_f32(&mut lanes, value);
    to.copy_from_slice(&lanes[..to.len()]);
}

#[derive(Clone, Copy)]
struct Sum;

impl Lanewise for Sum {
    #[inline(always)]
    fn of<V: Simd>(self, simd: V, a: V::F, b: V::F) -> V::F {
        simd.add_f32(a, b)
    }
}

/// The first element times a factor.
#[derive(Clone, Copy)]
struct Scaled(f32);

impl Lanewise for Scaled {
    #[inline(always)]
    fn of<V: Simd>(self, simd: V, a: V::F, _: V::F) -> V::F {
        simd.mul_f32(a, simd.splat_f32(self.0))
    }
}

#[derive(Clone, Copy)]
struct SoftCap(f32);

impl Lanewise for SoftCap {
    #[inline(always)]
    fn of<V: Simd>(self, simd: V, a: V::F, _: V::F) -> V::F {
        let cap = simd.splat_f32(self.0);
        simd.mul_f32(cap, tanh(simd, simd.div_f32(a, cap)))
    }
}

struct Zip<'a, O> {
    op: O,
    a: &'a [f32],
    b: &'a [f32],
    out: &'a mut [f32],
}

impl<O: Lanewise> Kernel for Zip<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd>(self, simd: V) {
        let (a, a_rest) = self.a.as_chunks();
        let (b, b_rest) = self.b.as_chunks();
        let (out, out_rest) = self.out.as_chunks_mut();
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            simd.store_f32(out, self.op.of(simd, simd.load_f32(a), simd.load_f32(b)));
        }
        if !out_rest.is_empty() {
            let (a, b) = (load_part(simd, a_rest), load_part(simd, b_rest));
            store_part(simd, out_rest, self.op.of(simd, a, b));
        }
    }
}

struct ZipAssign<'a, O> {
    op: O,
    a: &'a mut [f32],
    b: &'a [f32],
}

impl<O: Lanewise> Kernel for ZipAssign<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd>(self, simd: V) {
        let (a, a_rest) = self.a.as_chunks_mut();
        let (b, b_rest) = self.b.as_chunks();
        for (a, b) in a.iter_mut().zip(b) {
            simd.store_f32(a, self.op.of(simd, simd.load_f32(a), simd.load_f32(b)));
        }
        if !a_rest.is_empty() {
            let (a, b) = (load_part(simd, a_rest), load_part(simd, b_rest));
            store_part(simd, a_rest, self.op.of(simd, a, b));
        }
    }
}

struct MapAssign<'a, O> {
    op: O,
    a: &'a mut [f32],
}

impl<O: Lanewise> Kernel for MapAssign<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd>(self, simd: V) {
        let (a, a_rest) = self.a.as_chunks_mut();
        for a in a {
            let value = simd.load_f32(a);
            simd.store_f32(a, self.op.of(simd, value, value));
        }
        if !a_rest.is_empty() {
            let value = load_part(simd, a_rest);
            store_part(simd, a_rest, self.op.of(simd, value, value));
        }
    }
}

#[cfg(test)]
mod tests;
