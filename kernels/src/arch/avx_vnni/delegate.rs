//! What AVX2 does as well.

use std::arch::x86_64::__m256;

use super::AvxVnni;
use crate::arch::avx2::{Avx2, Pair};
use crate::arch::{Conversions, Floats, LANES};

/// Methods that are those of AVX2.
macro_rules! by_avx2 {
    ($(fn $name:ident$(<$(const $constant:ident),*>)?($($argument:ident: $type:ty),*)
        $(-> $out:ty)?;)*) => {$(
        #[inline(always)]
        fn $name$(<$(const $constant: usize),*>)?(self, $($argument: $type),*) $(-> $out)? {
            self.0.$name$(::<$($constant),*>)?($($argument),*)
        }
    )*};
}
pub(super) use by_avx2;

/// 16 floats.
type F = [__m256; 2];

impl Floats for AvxVnni {
    type F = F;
    const REGISTERS: usize = Avx2::REGISTERS;

    by_avx2! {
        fn load_f32(from: &[f32; LANES]) -> F;
        fn store_f32(to: &mut [f32; LANES], value: F);
        fn load_f16(from: &[u8; 2 * LANES]) -> F;
        fn store_f16(to: &mut [u8; 2 * LANES], value: F);
        fn load_i8(from: &[u8; LANES]) -> F;
        fn splat_f32(value: f32) -> F;
        fn splat_at(from: &f32) -> F;
        fn mul_add(a: F, b: F, c: F) -> F;
        fn neg_mul_add(a: F, b: F, c: F) -> F;
        fn add_f32(a: F, b: F) -> F;
        fn sub_f32(a: F, b: F) -> F;
        fn mul_f32(a: F, b: F) -> F;
        fn div_f32(a: F, b: F) -> F;
        fn min_f32(a: F, b: F) -> F;
        fn max_f32(a: F, b: F) -> F;
        fn round_f32(value: F) -> F;
        fn power_of_two(exponent: F) -> F;
        fn swap_pairs(value: F) -> F;
        fn sum_f32(value: F) -> f32;
        fn largest_f32(value: F) -> f32;
    }
}

impl Conversions for AvxVnni {
    by_avx2! {
        fn to_f32(a: Pair) -> F;
        fn load_bfloats(from: &[u8; 2 * LANES]) -> F;
        fn load_singles(from: &[u8; 4 * LANES]) -> F;
        fn max_magnitude(a: F, b: F) -> F;
        fn store_i8(to: &mut [i8; LANES], value: F);
    }
}
