//! Operations on floats.

use super::*;
use crate::arch::{Floats, LANES};

/// The lanes of a register of 8, reduced to 4 and then to 1 by an operation on pairs.
macro_rules! reduce {
    ($eight:expr, $four:ident, $one:ident) => {{
        let eight = $eight;
        let four = avx2!($four(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight)));
        let two = avx2!($four(four, _mm_movehl_ps(four, four)));
        avx2!(_mm_cvtss_f32($one(two, _mm_movehdup_ps(two))))
    }};
}

/// Eight times the float. As an intrinsic this would be a load and a shuffle to the compiler, which
/// it combines with its neighbours' to loads of vectors and many more shuffles.
#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(from: &f32) -> __m256 {
    let value;
    // SAFETY: reads the four bytes of a float that is borrowed, and nothing else.
    unsafe {
        std::arch::asm!(
            "vbroadcastss {value}, dword ptr [{from}]",
            value = out(ymm_reg) value,
            from = in(reg) from,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    value
}

impl Floats for Avx2 {
    type F = [__m256; 2];
    const REGISTERS: usize = 8;

    #[inline(always)]
    fn load_f32(self, from: &[f32; LANES]) -> Self::F {
        let from = from.as_ptr();
        [avx2!(_mm256_loadu_ps(from)), avx2!(_mm256_loadu_ps(from.add(8)))]
    }

    #[inline(always)]
    fn store_f32(self, to: &mut [f32; LANES], value: Self::F) {
        let to = to.as_mut_ptr();
        avx2!(_mm256_storeu_ps(to, value[0]));
        avx2!(_mm256_storeu_ps(to.add(8), value[1]));
    }

    #[inline(always)]
    fn load_f16(self, from: &[u8; 2 * LANES]) -> Self::F {
        let from = from.as_ptr().cast::<__m128i>();
        [
            avx2!(_mm256_cvtph_ps(_mm_loadu_si128(from))),
            avx2!(_mm256_cvtph_ps(_mm_loadu_si128(from.add(1)))),
        ]
    }

    #[inline(always)]
    fn store_f16(self, to: &mut [u8; 2 * LANES], value: Self::F) {
        let to = to.as_mut_ptr().cast::<__m128i>();
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;
        avx2!(_mm_storeu_si128(to, _mm256_cvtps_ph::<NEAREST>(value[0])));
        avx2!(_mm_storeu_si128(to.add(1), _mm256_cvtps_ph::<NEAREST>(value[1])));
    }

    #[inline(always)]
    fn load_i8(self, from: &[u8; LANES]) -> Self::F {
        let bytes = avx2!(_mm_loadu_si128(from.as_ptr().cast()));
        let low = avx2!(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
        let high = avx2!(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes))));
        [low, high]
    }

    #[inline(always)]
    fn splat_f32(self, value: f32) -> Self::F {
        [avx2!(_mm256_set1_ps(value)); 2]
    }

    #[inline(always)]
    fn splat_at(self, from: &f32) -> Self::F {
        [avx2!(broadcast(from)); 2]
    }

    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        [avx2!(_mm256_fmadd_ps(a[0], b[0], c[0])), avx2!(_mm256_fmadd_ps(a[1], b[1], c[1]))]
    }

    #[inline(always)]
    fn neg_mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        [avx2!(_mm256_fnmadd_ps(a[0], b[0], c[0])), avx2!(_mm256_fnmadd_ps(a[1], b[1], c[1]))]
    }

    #[inline(always)]
    fn add_f32(self, a: Self::F, b: Self::F) -> Self::F {
        [avx2!(_mm256_add_ps(a[0], b[0])), avx2!(_mm256_add_ps(a[1], b[1]))]
    }

    #[inline(always)]
    fn sub_f32(self, a: Self::F, b: Self::F) -> Self::F {
        [avx2!(_mm256_sub_ps(a[0], b[0])), avx2!(_mm256_sub_ps(a[1], b[1]))]
    }

    #[inline(always)]
    fn mul_f32(self, a: Self::F, b: Self::F) -> Self::F {
        [avx2!(_mm256_mul_ps(a[0], b[0])), avx2!(_mm256_mul_ps(a[1], b[1]))]
    }

    #[inline(always)]
    fn div_f32(self, a: Self::F, b: Self::F) -> Self::F {
        [avx2!(_mm256_div_ps(a[0], b[0])), avx2!(_mm256_div_ps(a[1], b[1]))]
    }

    #[inline(always)]
    fn min_f32(self, a: Self::F, b: Self::F) -> Self::F {
        [avx2!(_mm256_min_ps(a[0], b[0])), avx2!(_mm256_min_ps(a[1], b[1]))]
    }

    #[inline(always)]
    fn max_f32(self, a: Self::F, b: Self::F) -> Self::F {
        [avx2!(_mm256_max_ps(a[0], b[0])), avx2!(_mm256_max_ps(a[1], b[1]))]
    }

    #[inline(always)]
    fn round_f32(self, value: Self::F) -> Self::F {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        let [low, high] = value;
        [avx2!(_mm256_round_ps::<NEAREST>(low)), avx2!(_mm256_round_ps::<NEAREST>(high))]
    }

    #[inline(always)]
    fn power_of_two(self, exponent: Self::F) -> Self::F {
        let bias = avx2!(_mm256_set1_epi32(127));
        let low = avx2!(_mm256_add_epi32(_mm256_cvtps_epi32(exponent[0]), bias));
        let high = avx2!(_mm256_add_epi32(_mm256_cvtps_epi32(exponent[1]), bias));
        [
            avx2!(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(low))),
            avx2!(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(high))),
        ]
    }

    #[inline(always)]
    fn swap_pairs(self, value: Self::F) -> Self::F {
        let [low, high] = value;
        const SWAP: i32 = 0b10_11_00_01;
        [avx2!(_mm256_permute_ps::<SWAP>(low)), avx2!(_mm256_permute_ps::<SWAP>(high))]
    }

    #[inline(always)]
    fn sum_f32(self, value: Self::F) -> f32 {
        reduce!(avx2!(_mm256_add_ps(value[0], value[1])), _mm_add_ps, _mm_add_ss)
    }

    #[inline(always)]
    fn largest_f32(self, value: Self::F) -> f32 {
        reduce!(avx2!(_mm256_max_ps(value[0], value[1])), _mm_max_ps, _mm_max_ss)
    }
}
