//! No instruction set in particular: arrays, for processors that have none of the others, and for
//! interpreters that check memory accesses.

use super::{Kernel, Simd};

mod convert;
mod float;
mod integer;

/// Always available.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scalar;

impl Simd for Scalar {
    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
}
