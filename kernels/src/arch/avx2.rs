//! x86-64 with AVX2, FMA and F16C: a vector is two registers of 256 bits.
#![expect(unsafe_code, reason = "instructions of one instruction set")]

use std::arch::x86_64::*;

use super::{Kernel, Simd};

mod convert;
mod float;
mod integer;

pub(super) use integer::Pair;

/// The proof that the processor has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

/// Evaluates intrinsics. Only for methods of [`Avx2`].
macro_rules! avx2 {
    ($($code:tt)*) => {
        // SAFETY: a value of `Avx2` exists only where `detect` found the instructions; loads and
        // stores go through references to arrays that are as long as what is moved.
        unsafe { $($code)* }
    };
}
use avx2;

impl Avx2 {
    /// The proof, where there is one. The answer is cached by the standard library.
    #[inline]
    pub(super) fn detect() -> Option<Avx2> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Avx2(()))
    }
}

impl Simd for Avx2 {
    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn inside<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        avx2!(inside(self, kernel))
    }
}
