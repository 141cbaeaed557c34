//! From integers to floats and back.

use half::bf16;

use super::Scalar;
use crate::arch::{Conversions, Integers, LANES};

impl Conversions for Scalar {
    #[inline(always)]
    fn to_f32(self, a: [u32; LANES]) -> [f32; LANES] {
        a.map(|lane| lane as i32 as f32)
    }

    #[inline(always)]
    fn load_bfloats(self, from: &[u8; 2 * LANES]) -> [f32; LANES] {
        std::array::from_fn(|at| bf16::from_le_bytes([from[2 * at], from[2 * at + 1]]).to_f32())
    }

    #[inline(always)]
    fn load_singles(self, from: &[u8; 4 * LANES]) -> [f32; LANES] {
        self.load(from).map(f32::from_bits)
    }

    #[inline(always)]
    fn max_magnitude(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|at| if b[at].abs() > a[at] { b[at].abs() } else { a[at] })
    }

    #[inline(always)]
    fn store_i8(self, to: &mut [i8; LANES], value: [f32; LANES]) {
        *to = value.map(|value| {
            let at_least = if value > -127.0 { value } else { -127.0 };
            at_least.min(127.0).round_ties_even() as i8
        });
    }
}
