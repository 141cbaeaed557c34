//! x86-64 with AVX-512 (F, BW, DQ, VL) and its VNNI: a vector is one register of 512 bits.
#![expect(unsafe_code, reason = "instructions of one instruction set")]

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::{Kernel, Simd};

mod convert;
mod float;
mod integer;

/// The proof that the processor has AVX-512 F, BW, DQ, VL and VNNI and what AVX2 needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(Avx2);

/// Evaluates intrinsics. Only for methods of [`Avx512`].
macro_rules! avx512 {
    ($($code:tt)*) => {
        // SAFETY: a value of `Avx512` exists only where `detect` found the instructions; loads and
        // stores go through references to arrays that are as long as what is moved.
        unsafe { $($code)* }
    };
}
use avx512;

impl Avx512 {
    /// The proof, where there is one. The answer is cached by the standard library.
    #[inline]
    pub(super) fn detect() -> Option<Avx512> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        if found { Avx2::detect().map(Avx512) } else { None }
    }
}

impl Simd for Avx512 {
    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        fn inside<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        avx512!(inside(self, kernel))
    }
}
