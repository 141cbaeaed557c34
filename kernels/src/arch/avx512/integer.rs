//! Integer operations.

use super::*;
use crate::arch::{Integers, LANES, VECTOR_BYTES};

impl Integers for Avx512 {
    type I = __m512i;
    const WIDE: bool = true;
    const SIGNED_OFFSET: i32 = 128;
    const TILE: usize = 12;

    #[inline(always)]
    fn load(self, from: &[u8; VECTOR_BYTES]) -> __m512i {
        avx512!(_mm512_loadu_si512(from.as_ptr().cast()))
    }

    #[inline(always)]
    fn store(self, to: &mut [u8; VECTOR_BYTES], value: __m512i) {
        avx512!(_mm512_storeu_si512(to.as_mut_ptr().cast(), value));
    }

    #[inline(always)]
    fn splat4(self, bytes: [u8; 4]) -> __m512i {
        avx512!(_mm512_set1_epi32(i32::from_le_bytes(bytes)))
    }

    #[inline(always)]
    fn splat_i8(self, from: &[i8; 4]) -> __m512i {
        avx512!(_mm512_set1_epi32(from.as_ptr().cast::<i32>().read_unaligned()))
    }

    #[inline(always)]
    fn splat_i16(self, from: &[i16; 2]) -> __m512i {
        avx512!(_mm512_set1_epi32(from.as_ptr().cast::<i32>().read_unaligned()))
    }

    #[inline(always)]
    fn prefetch(self, near: &[u8], offset: usize) {
        self.0.prefetch(near, offset);
    }

    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        avx512!(_mm512_and_si512(a, b))
    }

    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        avx512!(_mm512_or_si512(a, b))
    }

    #[inline(always)]
    fn shift_left(self, a: __m512i, bits: u32) -> __m512i {
        avx512!(_mm512_sll_epi16(a, _mm_cvtsi32_si128(bits as i32)))
    }

    #[inline(always)]
    fn shift_right(self, a: __m512i, bits: u32) -> __m512i {
        avx512!(_mm512_srl_epi16(a, _mm_cvtsi32_si128(bits as i32)))
    }

    #[inline(always)]
    fn shift_left_32(self, a: __m512i, bits: u32) -> __m512i {
        avx512!(_mm512_sll_epi32(a, _mm_cvtsi32_si128(bits as i32)))
    }

    #[inline(always)]
    fn sub_16(self, a: __m512i, b: __m512i) -> __m512i {
        avx512!(_mm512_sub_epi16(a, b))
    }

    #[inline(always)]
    fn sub_32(self, a: __m512i, b: __m512i) -> __m512i {
        avx512!(_mm512_sub_epi32(a, b))
    }

    #[inline(always)]
    fn add_32(self, a: __m512i, b: __m512i) -> __m512i {
        avx512!(_mm512_add_epi32(a, b))
    }

    #[inline(always)]
    fn lookup(self, table: &[u8; 16], indices: __m512i) -> __m512i {
        avx512! {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_shuffle_epi8(table, indices)
        }
    }

    #[inline(always)]
    fn pair<const LOW: usize, const HIGH: usize>(self, bytes: __m512i) -> __m512i {
        const { assert!(LOW < 4 && HIGH < 4) };
        // A selector with its high bit set gives a zero.
        let order = i32::from_le_bytes([LOW as u8, 0x80, HIGH as u8, 0x80]);
        avx512!(_mm512_shuffle_epi8(
            bytes,
            _mm512_add_epi32(_mm512_set1_epi32(order), first_bytes())
        ))
    }

    #[inline(always)]
    fn pair_signed<const LOW: usize, const HIGH: usize>(self, bytes: __m512i) -> __m512i {
        const { assert!(LOW < 4 && HIGH < 4) };
        let order = i32::from_le_bytes([0x80, LOW as u8, 0x80, HIGH as u8]);
        avx512! {
            let order = _mm512_add_epi32(_mm512_set1_epi32(order), first_bytes());
            _mm512_srai_epi16::<8>(_mm512_shuffle_epi8(bytes, order))
        }
    }

    #[inline(always)]
    fn load_u16(self, from: &[u8; 2 * LANES]) -> __m512i {
        avx512!(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast())))
    }

    #[inline(always)]
    fn products(self, weights: __m512i, activations: __m512i) -> __m512i {
        avx512!(_mm512_dpbusd_epi32(_mm512_setzero_si512(), weights, activations))
    }

    #[inline(always)]
    fn add_products(self, sums: __m512i, weights: __m512i, activations: __m512i) -> __m512i {
        avx512!(_mm512_dpbusd_epi32(sums, weights, activations))
    }

    #[inline(always)]
    fn widen(self, sums: __m512i) -> __m512i {
        sums
    }

    #[inline(always)]
    fn add_widened(self, total: __m512i, sums: __m512i) -> __m512i {
        self.add_32(total, sums)
    }

    #[inline(always)]
    fn scale_add(self, total: __m512i, sums: __m512i, scale: __m512i) -> __m512i {
        self.scale_add_32(total, sums, scale)
    }

    #[inline(always)]
    fn scale_add_32(self, total: __m512i, sums: __m512i, scale: __m512i) -> __m512i {
        avx512! {
            let scaled = _mm512_mullo_epi32(sums, _mm512_srai_epi32::<16>(scale));
            _mm512_add_epi32(total, scaled)
        }
    }

    #[inline(always)]
    fn signed(self, weights: __m512i) -> __m512i {
        avx512!(_mm512_xor_si512(weights, _mm512_set1_epi8(i8::MIN)))
    }

    #[inline(always)]
    fn add_signed_products(
        self,
        total: __m512i,
        weights: __m512i,
        activations: __m512i,
    ) -> __m512i {
        self.add_products(total, weights, activations)
    }

    #[inline(always)]
    fn add_pairs(self, total: __m512i, a: __m512i, b: __m512i) -> __m512i {
        avx512!(_mm512_dpwssd_epi32(total, a, b))
    }
}

/// The first byte of each 32-bit lane within its 128 bits, four times.
#[inline(always)]
fn first_bytes() -> __m512i {
    const LANE: i32 = 0x0404_0404;
    avx512!(_mm512_set4_epi32(3 * LANE, 2 * LANE, LANE, 0))
}
