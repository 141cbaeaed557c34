//! x86-64 with AVX-VNNI besides what [`super::avx2`] needs: sums of four products at once.
#![expect(unsafe_code, reason = "instructions of one instruction set")]

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::delegate::Extends;
use super::{Kernel, Simd};

mod integer;

/// The proof that the processor has AVX-VNNI, AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub(super) struct AvxVnni(Avx2);

/// Evaluates intrinsics. Only for methods of [`AvxVnni`].
macro_rules! vnni {
    ($($code:tt)*) => {
        // SAFETY: a value of `AvxVnni` exists only where `detect` found the instructions.
        unsafe { $($code)* }
    };
}
use vnni;

impl AvxVnni {
    /// The proof, where there is one. The answer is cached by the standard library.
    #[inline]
    pub(super) fn detect() -> Option<AvxVnni> {
        if is_x86_feature_detected!("avxvnni") { Avx2::detect().map(AvxVnni) } else { None }
    }
}

impl Extends for AvxVnni {
    type Base = Avx2;

    #[inline(always)]
    fn base(self) -> Avx2 {
        self.0
    }
}

impl Simd for AvxVnni {
    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        fn inside<K: Kernel>(simd: AvxVnni, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        vnni!(inside(self, kernel))
    }
}
