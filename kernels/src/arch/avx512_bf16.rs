//! AVX-512 BF16 besides what [`super::avx512`] needs: products of bfloat16, two at once.
//!
//! They halve the instructions for weights stored as BF16, at the price of rounding the activations
//! to the same 8 bits of mantissa. Models with such weights were made with activations of that
//! kind, so nothing is lost that they ever had. Subnormal numbers count as zeros.
#![expect(unsafe_code, reason = "instructions of one instruction set")]

use std::arch::x86_64::*;
use std::mem::transmute;

use super::avx512::Avx512;
use super::delegate::{Extends, by_base, integers_by_base};
use super::{Integers, Kernel, LANES, Simd, VECTOR_BYTES};

/// The proof that the processor has AVX-512 BF16 and what [`Avx512`] needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512Bf16(Avx512);

/// Evaluates intrinsics. Only for methods of [`Avx512Bf16`].
macro_rules! bf16 {
    ($($code:tt)*) => {
        // SAFETY: a value of `Avx512Bf16` exists only where `detect` found the instructions; loads
        // and stores go through references to arrays that are as long as what is moved, and
        // registers are only turned into others of the same size, which hold any bits.
        unsafe { $($code)* }
    };
}

impl Avx512Bf16 {
    /// The proof, where there is one. The answer is cached by the standard library.
    #[inline]
    pub(super) fn detect() -> Option<Avx512Bf16> {
        if is_x86_feature_detected!("avx512bf16") { Avx512::detect().map(Avx512Bf16) } else { None }
    }
}

impl Extends for Avx512Bf16 {
    type Base = Avx512;

    #[inline(always)]
    fn base(self) -> Avx512 {
        self.0
    }
}

impl Integers for Avx512Bf16 {
    type I = __m512i;
    const WIDE: bool = Avx512::WIDE;
    const SIGNED_OFFSET: i32 = Avx512::SIGNED_OFFSET;
    const TILE: usize = Avx512::TILE;

    integers_by_base!();
    by_base! {
        fn products(weights: __m512i, activations: __m512i) -> __m512i;
        fn add_products(sums: __m512i, weights: __m512i, activations: __m512i) -> __m512i;
        fn widen(sums: __m512i) -> __m512i;
        fn add_widened(total: __m512i, sums: __m512i) -> __m512i;
        fn scale_add(total: __m512i, sums: __m512i, scale: __m512i) -> __m512i;
        fn signed(weights: __m512i) -> __m512i;
        fn add_signed_products(total: __m512i, weights: __m512i, activations: __m512i) -> __m512i;
        fn add_pairs(total: __m512i, a: __m512i, b: __m512i) -> __m512i;
    }
}

impl Simd for Avx512Bf16 {
    const BFLOATS: bool = true;

    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(
            enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16"
        )]
        fn inside<K: Kernel>(simd: Avx512Bf16, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        bf16!(inside(self, kernel))
    }

    #[inline(always)]
    fn store_bfloats(self, to: &mut [i16; LANES], value: __m512) {
        bf16! {
            let rounded = transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(value));
            _mm256_storeu_si256(to.as_mut_ptr().cast(), rounded);
        }
    }

    #[inline(always)]
    fn load_pairs(self, from: &[u8; VECTOR_BYTES]) -> __m512i {
        bf16!(_mm512_permutexvar_epi16(in_turns(), _mm512_loadu_si512(from.as_ptr().cast())))
    }

    #[inline(always)]
    fn add_bfloat_products(self, sums: __m512, a: __m512i, b: __m512i) -> __m512 {
        bf16! {
            let (a, b) = (transmute::<__m512i, __m512bh>(a), transmute::<__m512i, __m512bh>(b));
            _mm512_dpbf16_ps(sums, a, b)
        }
    }
}

/// The 16-bit lanes of both halves in turns: 0, 16, 1, 17 ...
#[inline(always)]
fn in_turns() -> __m512i {
    const ORDER: [u16; 2 * LANES] = {
        let mut order = [0; 2 * LANES];
        let mut lane = 0;
        while lane < LANES {
            order[2 * lane] = lane as u16;
            order[2 * lane + 1] = (LANES + lane) as u16;
            lane += 1;
        }
        order
    };
    bf16!(_mm512_loadu_si512(ORDER.as_ptr().cast()))
}
