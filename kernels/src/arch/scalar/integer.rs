//! Integer operations.

use super::Scalar;
use crate::arch::{Integers, VECTOR_BYTES};

impl Integers for Scalar {
    type I = [u8; VECTOR_BYTES];

    #[inline(always)]
    fn load(self, from: &[u8; VECTOR_BYTES]) -> Self::I {
        *from
    }

    #[inline(always)]
    fn store(self, to: &mut [u8; VECTOR_BYTES], value: Self::I) {
        *to = value;
    }

    #[inline(always)]
    fn splat4(self, bytes: [u8; 4]) -> Self::I {
        std::array::from_fn(|at| bytes[at % 4])
    }

    #[inline(always)]
    fn and(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|at| a[at] & b[at])
    }
}
