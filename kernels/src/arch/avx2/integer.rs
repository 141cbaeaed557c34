//! Integer operations.

use super::*;
use crate::arch::{Integers, LANES, VECTOR_BYTES};

/// Both registers of a vector.
pub(in crate::arch) type Pair = [__m256i; 2];

impl Integers for Avx2 {
    type I = Pair;
    const WIDE: bool = false;
    const SIGNED_OFFSET: i32 = 0;
    const TILE: usize = 3;

    #[inline(always)]
    fn load(self, from: &[u8; VECTOR_BYTES]) -> Pair {
        let at: *const __m256i = from.as_ptr().cast();
        avx2!([_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))])
    }

    #[inline(always)]
    fn store(self, to: &mut [u8; VECTOR_BYTES], value: Pair) {
        let at: *mut __m256i = to.as_mut_ptr().cast();
        avx2! {
            _mm256_storeu_si256(at, value[0]);
            _mm256_storeu_si256(at.add(1), value[1]);
        }
    }

    #[inline(always)]
    fn splat4(self, bytes: [u8; 4]) -> Pair {
        [avx2!(_mm256_set1_epi32(i32::from_le_bytes(bytes))); 2]
    }

    #[inline(always)]
    fn splat_i8(self, from: &[i8; 4]) -> Pair {
        [avx2!(_mm256_set1_epi32(from.as_ptr().cast::<i32>().read_unaligned())); 2]
    }

    #[inline(always)]
    fn splat_i16(self, from: &[i16; 2]) -> Pair {
        [avx2!(_mm256_set1_epi32(from.as_ptr().cast::<i32>().read_unaligned())); 2]
    }

    #[inline(always)]
    fn prefetch(self, near: &[u8], offset: usize) {
        let at = near.as_ptr().wrapping_add(offset);
        // SAFETY: a hint: any address will do. As far as the compiler knows it touches memory, so that it
        // stays between the loads that it was written between; an intrinsic is moved to its like, and
        // what comes in one burst is not fetched in time.
        unsafe {
            std::arch::asm!("prefetcht0 [{at}]", at = in(reg) at, options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    fn and(self, a: Pair, b: Pair) -> Pair {
        avx2!([_mm256_and_si256(a[0], b[0]), _mm256_and_si256(a[1], b[1])])
    }

    #[inline(always)]
    fn or(self, a: Pair, b: Pair) -> Pair {
        avx2!([_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])])
    }

    #[inline(always)]
    fn shift_left(self, a: Pair, bits: u32) -> Pair {
        avx2! {
            let bits = _mm_cvtsi32_si128(bits as i32);
            [_mm256_sll_epi16(a[0], bits), _mm256_sll_epi16(a[1], bits)]
        }
    }

    #[inline(always)]
    fn shift_right(self, a: Pair, bits: u32) -> Pair {
        avx2! {
            let bits = _mm_cvtsi32_si128(bits as i32);
            [_mm256_srl_epi16(a[0], bits), _mm256_srl_epi16(a[1], bits)]
        }
    }

    #[inline(always)]
    fn shift_left_32(self, a: Pair, bits: u32) -> Pair {
        avx2! {
            let bits = _mm_cvtsi32_si128(bits as i32);
            [_mm256_sll_epi32(a[0], bits), _mm256_sll_epi32(a[1], bits)]
        }
    }

    #[inline(always)]
    fn sub_16(self, a: Pair, b: Pair) -> Pair {
        avx2!([_mm256_sub_epi16(a[0], b[0]), _mm256_sub_epi16(a[1], b[1])])
    }

    #[inline(always)]
    fn sub_32(self, a: Pair, b: Pair) -> Pair {
        avx2!([_mm256_sub_epi32(a[0], b[0]), _mm256_sub_epi32(a[1], b[1])])
    }

    #[inline(always)]
    fn add_32(self, a: Pair, b: Pair) -> Pair {
        avx2!([_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])])
    }

    #[inline(always)]
    fn lookup(self, table: &[u8; 16], indices: Pair) -> Pair {
        avx2! {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            [_mm256_shuffle_epi8(table, indices[0]), _mm256_shuffle_epi8(table, indices[1])]
        }
    }

    #[inline(always)]
    fn pair<const LOW: usize, const HIGH: usize>(self, bytes: Pair) -> Pair {
        const { assert!(LOW < 4 && HIGH < 4) };
        // A selector with its high bit set gives a zero.
        let order = i32::from_le_bytes([LOW as u8, 0x80, HIGH as u8, 0x80]);
        avx2! {
            let order = _mm256_add_epi32(_mm256_set1_epi32(order), first_bytes());
            [_mm256_shuffle_epi8(bytes[0], order), _mm256_shuffle_epi8(bytes[1], order)]
        }
    }

    #[inline(always)]
    fn pair_signed<const LOW: usize, const HIGH: usize>(self, bytes: Pair) -> Pair {
        const { assert!(LOW < 4 && HIGH < 4) };
        let order = i32::from_le_bytes([0x80, LOW as u8, 0x80, HIGH as u8]);
        avx2! {
            let order = _mm256_add_epi32(_mm256_set1_epi32(order), first_bytes());
            [
                _mm256_srai_epi16::<8>(_mm256_shuffle_epi8(bytes[0], order)),
                _mm256_srai_epi16::<8>(_mm256_shuffle_epi8(bytes[1], order)),
            ]
        }
    }

    #[inline(always)]
    fn load_u16(self, from: &[u8; 2 * LANES]) -> Pair {
        let at: *const __m128i = from.as_ptr().cast();
        avx2! {[
            _mm256_cvtepu16_epi32(_mm_loadu_si128(at)),
            _mm256_cvtepu16_epi32(_mm_loadu_si128(at.add(1))),
        ]}
    }

    #[inline(always)]
    fn products(self, weights: Pair, activations: Pair) -> Pair {
        avx2! {[
            _mm256_maddubs_epi16(weights[0], activations[0]),
            _mm256_maddubs_epi16(weights[1], activations[1]),
        ]}
    }

    #[inline(always)]
    fn add_products(self, sums: Pair, weights: Pair, activations: Pair) -> Pair {
        // Activations are the same four bytes in every lane.
        avx2!(add_products(sums, weights, activations[0]))
    }

    #[inline(always)]
    fn widen(self, sums: Pair) -> Pair {
        avx2! {
            let one = _mm256_set1_epi16(1);
            [_mm256_madd_epi16(sums[0], one), _mm256_madd_epi16(sums[1], one)]
        }
    }

    #[inline(always)]
    fn add_widened(self, total: Pair, sums: Pair) -> Pair {
        avx2!(scale_add(total, sums, [_mm256_set1_epi16(1); 2]))
    }

    #[inline(always)]
    fn scale_add(self, total: Pair, sums: Pair, scale: Pair) -> Pair {
        avx2!(scale_add(total, sums, scale))
    }

    #[inline(always)]
    fn scale_add_32(self, total: Pair, sums: Pair, scale: Pair) -> Pair {
        avx2! {
            let scaled = [
                _mm256_mullo_epi32(sums[0], _mm256_srai_epi32::<16>(scale[0])),
                _mm256_mullo_epi32(sums[1], _mm256_srai_epi32::<16>(scale[1])),
            ];
            [_mm256_add_epi32(total[0], scaled[0]), _mm256_add_epi32(total[1], scaled[1])]
        }
    }

    #[inline(always)]
    fn signed(self, weights: Pair) -> Pair {
        weights
    }

    #[inline(always)]
    fn add_signed_products(self, total: Pair, weights: Pair, activations: Pair) -> Pair {
        avx2! {
            let magnitudes = [_mm256_abs_epi8(weights[0]), _mm256_abs_epi8(weights[1])];
            add_signed_products(total, weights, magnitudes, activations[0])
        }
    }

    #[inline(always)]
    fn add_pairs(self, total: Pair, a: Pair, b: Pair) -> Pair {
        avx2! {[
            _mm256_add_epi32(total[0], _mm256_madd_epi16(a[0], b[0])),
            _mm256_add_epi32(total[1], _mm256_madd_epi16(a[1], b[1])),
        ]}
    }
}

/// For `vpshufb`: the first byte of each 32-bit lane within its 128 bits, on the two selectors
/// whose high bit is clear or set alike (adding 12 at most does not carry).
#[inline(always)]
fn first_bytes() -> __m256i {
    const LANE: i32 = 0x0404_0404;
    avx2!(_mm256_setr_epi32(0, LANE, 2 * LANE, 3 * LANE, 0, LANE, 2 * LANE, 3 * LANE))
}

/// The sums and the products, in instructions that the compiler cannot move apart.
///
/// Zen 3 executes 1.6 pairs of multiplications and additions in a cycle when two of each follow one
/// another, and fewer when they alternate. The compiler would also make trees of chains of sums,
/// which need more registers than there are.
#[target_feature(enable = "avx2")]
#[inline]
fn add_products(mut sums: Pair, weights: Pair, activations: __m256i) -> Pair {
    // SAFETY: arithmetic on registers.
    unsafe {
        std::arch::asm!(
            "vpmaddubsw {product}, {low}, {values}",
            "vpmaddubsw {values}, {high}, {values}",
            "vpaddw {sum_low}, {sum_low}, {product}",
            "vpaddw {sum_high}, {sum_high}, {values}",
            product = out(ymm_reg) _,
            low = in(ymm_reg) weights[0],
            high = in(ymm_reg) weights[1],
            values = inout(ymm_reg) activations => _,
            sum_low = inout(ymm_reg) sums[0],
            sum_high = inout(ymm_reg) sums[1],
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// `total + scale * sums`, where it stands: moved behind what follows, sums need registers.
#[target_feature(enable = "avx2")]
#[inline]
fn scale_add(mut total: Pair, sums: Pair, scale: Pair) -> Pair {
    // SAFETY: arithmetic on registers.
    unsafe {
        std::arch::asm!(
            "vpmaddwd {low}, {low}, {low_scale}",
            "vpmaddwd {high}, {high}, {high_scale}",
            "vpaddd {total_low}, {total_low}, {low}",
            "vpaddd {total_high}, {total_high}, {high}",
            low = inout(ymm_reg) sums[0] => _,
            high = inout(ymm_reg) sums[1] => _,
            low_scale = in(ymm_reg) scale[0],
            high_scale = in(ymm_reg) scale[1],
            total_low = inout(ymm_reg) total[0],
            total_high = inout(ymm_reg) total[1],
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    total
}

/// The magnitudes of the weights times the activations with the weights' signs: two products are at
/// most 2 * 128 * 127, which 16 bits hold.
#[target_feature(enable = "avx2")]
#[inline]
fn add_signed_products(
    mut total: Pair,
    weights: Pair,
    magnitudes: Pair,
    activations: __m256i,
) -> Pair {
    // SAFETY: arithmetic on registers.
    unsafe {
        std::arch::asm!(
            "vpsignb {product}, {values}, {low}",
            "vpsignb {values}, {values}, {high}",
            "vpmaddubsw {product}, {low_magnitude}, {product}",
            "vpmaddubsw {values}, {high_magnitude}, {values}",
            "vpmaddwd {product}, {product}, {one}",
            "vpmaddwd {values}, {values}, {one}",
            "vpaddd {total_low}, {total_low}, {product}",
            "vpaddd {total_high}, {total_high}, {values}",
            product = out(ymm_reg) _,
            low = in(ymm_reg) weights[0],
            high = in(ymm_reg) weights[1],
            low_magnitude = in(ymm_reg) magnitudes[0],
            high_magnitude = in(ymm_reg) magnitudes[1],
            one = in(ymm_reg) _mm256_set1_epi16(1),
            values = inout(ymm_reg) activations => _,
            total_low = inout(ymm_reg) total[0],
            total_high = inout(ymm_reg) total[1],
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    total
}
