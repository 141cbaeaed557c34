//! Integer operations.

use super::delegate::by_avx2;
use super::*;
use crate::arch::avx2::Pair;
use crate::arch::{Integers, LANES, VECTOR_BYTES};

impl Integers for AvxVnni {
    type I = Pair;
    const WIDE: bool = true;
    const SIGNED_OFFSET: i32 = 128;
    const TILE: usize = 3;

    by_avx2! {
        fn load(from: &[u8; VECTOR_BYTES]) -> Pair;
        fn store(to: &mut [u8; VECTOR_BYTES], value: Pair);
        fn splat4(bytes: [u8; 4]) -> Pair;
        fn splat_i8(from: &[i8; 4]) -> Pair;
        fn splat_i16(from: &[i16; 2]) -> Pair;
        fn prefetch(near: &[u8], offset: usize);
        fn and(a: Pair, b: Pair) -> Pair;
        fn or(a: Pair, b: Pair) -> Pair;
        fn shift_left(a: Pair, bits: u32) -> Pair;
        fn shift_right(a: Pair, bits: u32) -> Pair;
        fn shift_left_32(a: Pair, bits: u32) -> Pair;
        fn sub_16(a: Pair, b: Pair) -> Pair;
        fn sub_32(a: Pair, b: Pair) -> Pair;
        fn add_32(a: Pair, b: Pair) -> Pair;
        fn lookup(table: &[u8; 16], indices: Pair) -> Pair;
        fn pair<const LOW, const HIGH>(bytes: Pair) -> Pair;
        fn pair_signed<const LOW, const HIGH>(bytes: Pair) -> Pair;
        fn load_u16(from: &[u8; 2 * LANES]) -> Pair;
        fn scale_add_32(total: Pair, sums: Pair, scale: Pair) -> Pair;
    }

    #[inline(always)]
    fn products(self, weights: Pair, activations: Pair) -> Pair {
        self.add_products(self.splat4([0; 4]), weights, activations)
    }

    #[inline(always)]
    fn add_products(self, sums: Pair, weights: Pair, activations: Pair) -> Pair {
        vnni!([
            _mm256_dpbusd_avx_epi32(sums[0], weights[0], activations[0]),
            _mm256_dpbusd_avx_epi32(sums[1], weights[1], activations[1]),
        ])
    }

    #[inline(always)]
    fn widen(self, sums: Pair) -> Pair {
        sums
    }

    #[inline(always)]
    fn add_widened(self, total: Pair, sums: Pair) -> Pair {
        self.add_32(total, sums)
    }

    #[inline(always)]
    fn scale_add(self, total: Pair, sums: Pair, scale: Pair) -> Pair {
        self.scale_add_32(total, sums, scale)
    }

    #[inline(always)]
    fn signed(self, weights: Pair) -> Pair {
        vnni! {
            let sign = _mm256_set1_epi8(i8::MIN);
            [_mm256_xor_si256(weights[0], sign), _mm256_xor_si256(weights[1], sign)]
        }
    }

    #[inline(always)]
    fn add_signed_products(self, total: Pair, weights: Pair, activations: Pair) -> Pair {
        self.add_products(total, weights, activations)
    }

    #[inline(always)]
    fn add_pairs(self, total: Pair, a: Pair, b: Pair) -> Pair {
        vnni!([
            _mm256_dpwssd_avx_epi32(total[0], a[0], b[0]),
            _mm256_dpwssd_avx_epi32(total[1], a[1], b[1]),
        ])
    }
}
