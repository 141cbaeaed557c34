//! Operations on floats.

use std::array::from_fn;

use half::f16;

use super::Scalar;
use crate::arch::{Floats, LANES};

impl Floats for Scalar {
    type F = [f32; LANES];
    const REGISTERS: usize = 8;

    #[inline(always)]
    fn load_f32(self, from: &[f32; LANES]) -> Self::F {
        *from
    }

    #[inline(always)]
    fn store_f32(self, to: &mut [f32; LANES], value: Self::F) {
        *to = value;
    }

    #[inline(always)]
    fn load_f16(self, from: &[u8; 2 * LANES]) -> Self::F {
        from_fn(|at| f16::from_le_bytes([from[2 * at], from[2 * at + 1]]).to_f32())
    }

    #[inline(always)]
    fn store_f16(self, to: &mut [u8; 2 * LANES], value: Self::F) {
        let (halves, _) = to.as_chunks_mut::<2>();
        for (half, value) in halves.iter_mut().zip(value) {
            *half = f16::from_f32(value).to_le_bytes();
        }
    }

    #[inline(always)]
    fn load_i8(self, from: &[u8; LANES]) -> Self::F {
        from.map(|byte| f32::from(byte.cast_signed()))
    }

    #[inline(always)]
    fn splat_f32(self, value: f32) -> Self::F {
        [value; LANES]
    }

    #[inline(always)]
    fn splat_at(self, from: &f32) -> Self::F {
        [*from; LANES]
    }

    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        from_fn(|at| a[at] * b[at] + c[at])
    }

    #[inline(always)]
    fn neg_mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        from_fn(|at| c[at] - a[at] * b[at])
    }

    #[inline(always)]
    fn add_f32(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|at| a[at] + b[at])
    }

    #[inline(always)]
    fn sub_f32(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|at| a[at] - b[at])
    }

    #[inline(always)]
    fn mul_f32(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|at| a[at] * b[at])
    }

    #[inline(always)]
    fn div_f32(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|at| a[at] / b[at])
    }

    #[inline(always)]
    fn min_f32(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|at| if a[at] < b[at] { a[at] } else { b[at] })
    }

    #[inline(always)]
    fn max_f32(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|at| if a[at] > b[at] { a[at] } else { b[at] })
    }

    #[inline(always)]
    fn round_f32(self, value: Self::F) -> Self::F {
        value.map(f32::round_ties_even)
    }

    #[inline(always)]
    fn power_of_two(self, exponent: Self::F) -> Self::F {
        exponent.map(|exponent| f32::from_bits(((exponent as i32 + 127) as u32) << 23))
    }

    #[inline(always)]
    fn swap_pairs(self, value: Self::F) -> Self::F {
        from_fn(|at| value[at ^ 1])
    }

    #[inline(always)]
    fn sum_f32(self, value: Self::F) -> f32 {
        let eight: [f32; 8] = from_fn(|at| value[at] + value[at + 8]);
        let four: [f32; 4] = from_fn(|at| eight[at] + eight[at + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }

    #[inline(always)]
    fn largest_f32(self, value: Self::F) -> f32 {
        value.into_iter().fold(value[0], |a, b| if a > b { a } else { b })
    }
}
