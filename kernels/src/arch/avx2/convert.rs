//! From integers to floats and back.

use super::integer::Pair;
use super::*;
use crate::arch::{Conversions, LANES};

/// Both registers of a vector.
type Floats = [__m256; 2];

impl Conversions for Avx2 {
    #[inline(always)]
    fn to_f32(self, a: Pair) -> Floats {
        avx2!([_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])])
    }

    #[inline(always)]
    fn load_bfloats(self, from: &[u8; 2 * LANES]) -> Floats {
        let at: *const __m128i = from.as_ptr().cast();
        avx2! {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(at));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.add(1)));
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            ]
        }
    }

    #[inline(always)]
    fn load_singles(self, from: &[u8; 4 * LANES]) -> Floats {
        let at: *const f32 = from.as_ptr().cast();
        avx2!([_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))])
    }

    #[inline(always)]
    fn max_magnitude(self, a: Floats, b: Floats) -> Floats {
        avx2! {
            let sign = _mm256_set1_ps(-0.0);
            // Where the first operand is not a number, the result is the second.
            [
                _mm256_max_ps(_mm256_andnot_ps(sign, b[0]), a[0]),
                _mm256_max_ps(_mm256_andnot_ps(sign, b[1]), a[1]),
            ]
        }
    }

    #[inline(always)]
    fn store_i8(self, to: &mut [i8; LANES], value: Floats) {
        avx2! {
            let (least, most) = (_mm256_set1_ps(-127.0), _mm256_set1_ps(127.0));
            // Where the first operand is not a number, the result is the second.
            let low = _mm256_min_ps(_mm256_max_ps(value[0], least), most);
            let high = _mm256_min_ps(_mm256_max_ps(value[1], least), most);
            let (low, high) = (_mm256_cvtps_epi32(low), _mm256_cvtps_epi32(high));
            // Packing works within 128 bits; put the quarters back in order.
            let words = _mm256_packs_epi32(low, high);
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let bytes = _mm256_packs_epi16(words, words);
            let low = _mm256_castsi256_si128(bytes);
            let high = _mm256_extracti128_si256::<1>(bytes);
            _mm_storeu_si128(to.as_mut_ptr().cast(), _mm_unpacklo_epi64(low, high));
        }
    }
}
