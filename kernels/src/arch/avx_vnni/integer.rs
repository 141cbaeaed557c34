//! Integer operations.

use super::*;
use crate::arch::Integers;
use crate::arch::avx2::Pair;
use crate::arch::delegate::integers_by_base;

impl Integers for AvxVnni {
    type I = Pair;
    const WIDE: bool = true;
    const SIGNED_OFFSET: i32 = 128;
    const TILE: usize = 3;

    integers_by_base!();

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
