//! aarch64 with 8-bit matrix products (`i8mm`, of Armv8.6) besides what [`super::neon`] needs: four
//! sums of eight products at once.
#![expect(unsafe_code, reason = "instructions of one instruction set")]

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::delegate::{Extends, by_base, integers_by_base};
use super::neon::{Neon, neon};
use super::{Integers, Kernel, Simd};

/// The proof that the processor has 8-bit matrix products and dot products.
#[derive(Clone, Copy, Debug)]
pub(super) struct NeonI8mm(Neon);

impl NeonI8mm {
    /// The proof, where there is one. The answer is cached by the standard library.
    #[inline]
    pub(super) fn detect() -> Option<NeonI8mm> {
        if is_aarch64_feature_detected!("i8mm") { Neon::detect().map(NeonI8mm) } else { None }
    }
}

impl Simd for NeonI8mm {
    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon,dotprod,i8mm")]
        fn inside<K: Kernel>(simd: NeonI8mm, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: a value of `NeonI8mm` exists only where `detect` found the instructions.
        unsafe { inside(self, kernel) }
    }
}

impl Extends for NeonI8mm {
    type Base = Neon;

    #[inline(always)]
    fn base(self) -> Neon {
        self.0
    }
}

/// The registers of a vector.
type Registers = <Neon as Integers>::I;

/// `sums` and the products of two rows of eight signed bytes, which are those of `a`, by two of `b`:
/// first row by first, first by second, second by first, second by second.
///
/// There is no stable intrinsic. The directive is for where the function is not inlined.
#[inline(always)]
fn multiply(sums: uint8x16_t, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
    let mut sums = sums;
    // SAFETY: called by methods of `NeonI8mm`, of which a value exists only where `detect` found the
    // instruction; it changes nothing but a register.
    unsafe {
        asm!(
            ".arch_extension i8mm",
            "smmla {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// 32-bit lanes of two registers in turns.
#[inline(always)]
fn zip(a: uint8x16_t, b: uint8x16_t) -> [uint8x16_t; 2] {
    neon! {
        let (a, b) = (vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b));
        [vreinterpretq_u8_u32(vzip1q_u32(a, b)), vreinterpretq_u8_u32(vzip2q_u32(a, b))]
    }
}

/// The even 32-bit lanes of two registers, and the odd ones.
#[inline(always)]
fn unzip(a: uint8x16_t, b: uint8x16_t) -> [uint8x16_t; 2] {
    neon! {
        let (a, b) = (vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b));
        [vreinterpretq_u8_u32(vuzp1q_u32(a, b)), vreinterpretq_u8_u32(vuzp2q_u32(a, b))]
    }
}

/// `totals + scale * sums` of two registers of 32-bit lanes, by the eight 16-bit lanes of one.
#[inline(always)]
fn scale_add(totals: [uint8x16_t; 2], sums: [uint8x16_t; 2], scale: uint8x16_t) -> [uint8x16_t; 2] {
    neon! {
        let scale = vreinterpretq_s16_u8(scale);
        let scale = [vmovl_s16(vget_low_s16(scale)), vmovl_high_s16(scale)];
        let totals = [vreinterpretq_s32_u8(totals[0]), vreinterpretq_s32_u8(totals[1])];
        let sums = [vreinterpretq_s32_u8(sums[0]), vreinterpretq_s32_u8(sums[1])];
        [
            vreinterpretq_u8_s32(vmlaq_s32(totals[0], sums[0], scale[0])),
            vreinterpretq_u8_s32(vmlaq_s32(totals[1], sums[1], scale[1])),
        ]
    }
}

impl Integers for NeonI8mm {
    type I = Registers;
    const WIDE: bool = Neon::WIDE;
    const SIGNED_OFFSET: i32 = Neon::SIGNED_OFFSET;
    const TILE: usize = Neon::TILE;
    const PAIRED: bool = true;

    integers_by_base!();
    by_base! {
        fn products(weights: Self::I, activations: Self::I) -> Self::I;
        fn add_products(sums: Self::I, weights: Self::I, activations: Self::I) -> Self::I;
        fn widen(sums: Self::I) -> Self::I;
        fn add_widened(total: Self::I, sums: Self::I) -> Self::I;
        fn scale_add(total: Self::I, sums: Self::I, scale: Self::I) -> Self::I;
        fn signed(weights: Self::I) -> Self::I;
        fn add_signed_products(total: Self::I, weights: Self::I, activations: Self::I) -> Self::I;
        fn add_pairs(total: Self::I, a: Self::I, b: Self::I) -> Self::I;
    }

    #[inline(always)]
    fn interleave(self, a: Registers, b: Registers) -> [Registers; 2] {
        let ([a, b, c, d], [e, f, g, h]) = (a, b);
        let ([a, b], [c, d]) = ([zip(a, e), zip(b, f)], [zip(c, g), zip(d, h)]);
        [[a[0], a[1], b[0], b[1]], [c[0], c[1], d[0], d[1]]]
    }

    #[inline(always)]
    fn separate(self, both: [Registers; 2]) -> [Registers; 2] {
        let [[a, b, c, d], [e, f, g, h]] = both;
        let [a, b, c, d] = [unzip(a, b), unzip(c, d), unzip(e, f), unzip(g, h)];
        [[a[0], b[0], c[0], d[0]], [a[1], b[1], c[1], d[1]]]
    }

    #[inline(always)]
    fn add_paired_products(
        self,
        sums: [Registers; 2],
        weights: [Registers; 2],
        activations: [&[i8; 8]; 2],
    ) -> [Registers; 2] {
        let (first, second) = (activations[0].as_ptr(), activations[1].as_ptr());
        let tokens = neon!(vreinterpretq_u8_s8(vcombine_s8(vld1_s8(first), vld1_s8(second))));
        let [[a, b, c, d], [e, f, g, h]] = weights;
        let [[i, j, k, l], [m, n, o, p]] = sums;
        [
            [
                multiply(i, a, tokens),
                multiply(j, b, tokens),
                multiply(k, c, tokens),
                multiply(l, d, tokens),
            ],
            [
                multiply(m, e, tokens),
                multiply(n, f, tokens),
                multiply(o, g, tokens),
                multiply(p, h, tokens),
            ],
        ]
    }

    /// A scale of 16 bits twice is interleaved already.
    #[inline(always)]
    fn scale_add_paired(
        self,
        totals: [Registers; 2],
        sums: [Registers; 2],
        scale: Registers,
    ) -> [Registers; 2] {
        let ([[a, b, c, d], [e, f, g, h]], [[i, j, k, l], [m, n, o, p]]) = (totals, sums);
        let [a, b] = [scale_add([a, b], [i, j], scale[0]), scale_add([c, d], [k, l], scale[1])];
        let [c, d] = [scale_add([e, f], [m, n], scale[2]), scale_add([g, h], [o, p], scale[3])];
        [[a[0], a[1], b[0], b[1]], [c[0], c[1], d[0], d[1]]]
    }
}
