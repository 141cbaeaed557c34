//! aarch64 with dot products (`dotprod`, of Armv8.2): a vector is four registers of 128 bits.
#![expect(unsafe_code, reason = "instructions of one instruction set")]

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::{Kernel, Simd};

mod convert;
mod float;
mod integer;

/// The proof that the processor has dot products.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neon(());

/// Evaluates intrinsics. Only for methods of [`Neon`].
macro_rules! neon {
    ($($code:tt)*) => {
        // SAFETY: a value of `Neon` exists only where `detect` found the instructions; loads and
        // stores go through references to arrays that are as long as what is moved.
        unsafe { $($code)* }
    };
}
pub(super) use neon;

/// Evaluates intrinsics for each of a vector's registers and gives the results as an array. The
/// constant that is named first is the number of the register.
macro_rules! each {
    ($at:ident: $code:expr) => {
        [each!(0, $at, $code), each!(1, $at, $code), each!(2, $at, $code), each!(3, $at, $code)]
    };
    ($number:literal, $at:ident, $code:expr) => {{
        const $at: usize = $number;
        neon!($code)
    }};
}
use each;

impl Neon {
    /// The proof, where there is one. The answer is cached by the standard library.
    #[inline]
    pub(super) fn detect() -> Option<Neon> {
        is_aarch64_feature_detected!("dotprod").then_some(Neon(()))
    }
}

impl Simd for Neon {
    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon,dotprod")]
        fn inside<K: Kernel>(simd: Neon, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        neon!(inside(self, kernel))
    }
}
