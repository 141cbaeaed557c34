//! Operations on floats.

use super::*;
use crate::arch::{Floats, LANES};

impl Avx512 {
    /// The lower and the upper half.
    #[inline(always)]
    fn halves(self, value: __m512) -> [__m256; 2] {
        avx512!([_mm512_castps512_ps256(value), _mm512_extractf32x8_ps::<1>(value)])
    }
}

/// Sixteen times the float, in an instruction that the compiler cannot combine with its neighbours',
/// as for AVX2.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(from: &f32) -> __m512 {
    let value;
    // SAFETY: reads the four bytes of a float that is borrowed, and nothing else.
    unsafe {
        std::arch::asm!(
            "vbroadcastss {value}, dword ptr [{from}]",
            value = out(zmm_reg) value,
            from = in(reg) from,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    value
}

impl Floats for Avx512 {
    type F = __m512;
    const REGISTERS: usize = 32;

    #[inline(always)]
    fn load_f32(self, from: &[f32; LANES]) -> __m512 {
        avx512!(_mm512_loadu_ps(from.as_ptr()))
    }

    #[inline(always)]
    fn store_f32(self, to: &mut [f32; LANES], value: __m512) {
        avx512!(_mm512_storeu_ps(to.as_mut_ptr(), value));
    }

    #[inline(always)]
    fn load_f16(self, from: &[u8; 2 * LANES]) -> __m512 {
        avx512!(_mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())))
    }

    #[inline(always)]
    fn store_f16(self, to: &mut [u8; 2 * LANES], value: __m512) {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;
        avx512!(_mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtps_ph::<NEAREST>(value)));
    }

    #[inline(always)]
    fn load_i8(self, from: &[u8; LANES]) -> __m512 {
        avx512!(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast()))))
    }

    #[inline(always)]
    fn splat_f32(self, value: f32) -> __m512 {
        avx512!(_mm512_set1_ps(value))
    }

    #[inline(always)]
    fn splat_at(self, from: &f32) -> __m512 {
        avx512!(broadcast(from))
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        avx512!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn neg_mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        avx512!(_mm512_fnmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn add_f32(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub_f32(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul_f32(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div_f32(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn min_f32(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn max_f32(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn round_f32(self, value: __m512) -> __m512 {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        avx512!(_mm512_roundscale_ps::<NEAREST>(value))
    }

    #[inline(always)]
    fn power_of_two(self, exponent: __m512) -> __m512 {
        avx512! {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(exponent), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
    }

    #[inline(always)]
    fn swap_pairs(self, value: __m512) -> __m512 {
        avx512!(_mm512_permute_ps::<0b10_11_00_01>(value))
    }

    #[inline(always)]
    fn sum_f32(self, value: __m512) -> f32 {
        self.0.sum_f32(self.halves(value))
    }

    #[inline(always)]
    fn largest_f32(self, value: __m512) -> f32 {
        self.0.largest_f32(self.halves(value))
    }
}
