//! Operations on floats.

use super::Scalar;
use crate::arch::{Floats, LANES};

impl Floats for Scalar {
    type F = [f32; LANES];

    #[inline(always)]
    fn load_f32(self, from: &[f32; LANES]) -> Self::F {
        *from
    }

    #[inline(always)]
    fn store_f32(self, to: &mut [f32; LANES], value: Self::F) {
        *to = value;
    }

    #[inline(always)]
    fn splat_f32(self, value: f32) -> Self::F {
        [value; LANES]
    }

    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|at| a[at] * b[at] + c[at])
    }
}
