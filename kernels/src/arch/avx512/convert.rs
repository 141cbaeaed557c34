//! From integers to floats and back.

use super::*;
use crate::arch::{Conversions, LANES};

impl Conversions for Avx512 {
    #[inline(always)]
    fn to_f32(self, a: __m512i) -> __m512 {
        avx512!(_mm512_cvtepi32_ps(a))
    }

    #[inline(always)]
    fn load_bfloats(self, from: &[u8; 2 * LANES]) -> __m512 {
        avx512! {
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        }
    }

    #[inline(always)]
    fn load_singles(self, from: &[u8; 4 * LANES]) -> __m512 {
        avx512!(_mm512_loadu_ps(from.as_ptr().cast()))
    }

    #[inline(always)]
    fn max_magnitude(self, a: __m512, b: __m512) -> __m512 {
        // Where the first operand is not a number, the result is the second.
        avx512!(_mm512_max_ps(_mm512_abs_ps(b), a))
    }

    #[inline(always)]
    fn store_i8(self, to: &mut [i8; LANES], value: __m512) {
        avx512! {
            let (least, most) = (_mm512_set1_ps(-127.0), _mm512_set1_ps(127.0));
            // Where the first operand is not a number, the result is the second.
            let bounded = _mm512_min_ps(_mm512_max_ps(value, least), most);
            let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(bounded));
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
        }
    }
}
