//! Instruction sets: what the processor has, found at run time, and one interface to all of them.
//!
//! A kernel is written once, over [`Simd`]: vectors of [`LANES`] 32-bit lanes, whatever the width of
//! the machine's registers. It is compiled once for each instruction set and entered through
//! [`Isa::run`], which picks the copy that the processor can execute. A value of a type that
//! implements [`Simd`] is the proof that its instructions exist, so kernels are safe code; all the
//! `unsafe` of arithmetic is in the modules below this one.
//!
//! [`Kernel::run`] and everything that it calls on vectors must be `#[inline(always)]`: a function
//! that is not inlined is compiled without the instruction set, and is very slow.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
#[cfg(target_arch = "x86_64")]
mod avx_vnni;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod delegate;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_i8mm;
pub mod pool;
mod scalar;
pub mod shared;

/// Lanes of a vector, 32 bits each; also the rows of a panel of packed weights.
pub const LANES: usize = 16;
/// Bytes of a vector.
pub const VECTOR_BYTES: usize = 4 * LANES;

/// Work that is compiled for every instruction set.
pub trait Kernel {
    /// What it gives.
    type Output;
    /// Does it. Implementations are `#[inline(always)]`.
    fn run<V: Simd>(self, simd: V) -> Self::Output;
}

/// An instruction set: operations on vectors of integers and of floats.
pub trait Simd: Integers + Floats + Conversions {
    /// Whether pairs of bfloat16 can be multiplied: whether there are the three methods below that no
    /// other instruction set is asked for.
    const BFLOATS: bool = false;

    /// Runs a kernel compiled for this instruction set.
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output;

    /// The bits of 16 floats in bfloat16, rounded to nearest with ties to even.
    #[inline(always)]
    fn store_bfloats(self, _to: &mut [i16; LANES], _value: Self::F) {
        unreachable!("{NO_BFLOATS}")
    }
    /// From 16 numbers of 16 bits and 16 more, the first of both, the second of both ...
    #[inline(always)]
    fn load_pairs(self, _from: &[u8; VECTOR_BYTES]) -> Self::I {
        unreachable!("{NO_BFLOATS}")
    }
    /// `sums` and both products of pairs of bfloat16.
    #[inline(always)]
    fn add_bfloat_products(self, _sums: Self::F, _a: Self::I, _b: Self::I) -> Self::F {
        unreachable!("{NO_BFLOATS}")
    }
}

/// Why a method is not called.
const NO_BFLOATS: &str = "an instruction set without products of bfloat16";

/// Operations on 64 bytes of integers, seen as 64 of 8 bits, 32 of 16 or 16 of 32.
///
/// Products of 8-bit integers are summed by fours, in the 32-bit lane that holds them. How wide the
/// sums are depends on the instruction set: without an instruction that sums four products at once
/// a lane holds two sums of 16 bits, and the kernel must [`widen`](Integers::widen) them before
/// they overflow. What comes out of `widen` and of `scale_add` is the same everywhere.
pub trait Integers: Copy + Send + Sync + 'static {
    /// 64 bytes.
    type I: Copy;
    /// Whether sums of unsigned products are of 32 bits, so that they cannot overflow.
    const WIDE: bool;
    /// What [`Integers::signed`] adds to weights; sums of their products are too large by this
    /// times the sum of the activations.
    const SIGNED_OFFSET: i32;
    /// Tokens that a register tile of 16 rows should have: 1, 3 or 12.
    const TILE: usize;
    /// Whether bytes of two tokens can be multiplied at once: whether there are the four methods
    /// below that no other instruction set is asked for.
    const PAIRED: bool = false;

    /// 64 bytes from memory.
    fn load(self, from: &[u8; VECTOR_BYTES]) -> Self::I;
    /// 64 bytes to memory.
    fn store(self, to: &mut [u8; VECTOR_BYTES], value: Self::I);
    /// Four bytes, repeated 16 times.
    fn splat4(self, bytes: [u8; 4]) -> Self::I;
    /// Four signed bytes from memory, repeated 16 times.
    fn splat_i8(self, from: &[i8; 4]) -> Self::I;
    /// Two 16-bit integers from memory, repeated 16 times.
    fn splat_i16(self, from: &[i16; 2]) -> Self::I;
    /// Asks for the cache line at `offset` bytes from the start of `near`, which may lie outside.
    fn prefetch(self, near: &[u8], offset: usize);
    /// Bitwise and.
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise or.
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    /// 16-bit lanes shifted towards the high end.
    fn shift_left(self, a: Self::I, bits: u32) -> Self::I;
    /// 16-bit lanes shifted towards the low end; zeros come in.
    fn shift_right(self, a: Self::I, bits: u32) -> Self::I;
    /// 32-bit lanes shifted towards the high end.
    fn shift_left_32(self, a: Self::I, bits: u32) -> Self::I;
    /// Differences of 16-bit lanes.
    fn sub_16(self, a: Self::I, b: Self::I) -> Self::I;
    /// Differences of 32-bit lanes.
    fn sub_32(self, a: Self::I, b: Self::I) -> Self::I;
    /// Sums of 32-bit lanes.
    fn add_32(self, a: Self::I, b: Self::I) -> Self::I;
    /// For each byte, which must be less than 16, the entry of the table.
    fn lookup(self, table: &[u8; 16], indices: Self::I) -> Self::I;
    /// Bytes `LOW` and `HIGH` (0 to 3) of every 32-bit lane as its two 16-bit halves.
    fn pair<const LOW: usize, const HIGH: usize>(self, bytes: Self::I) -> Self::I;
    /// The same with signed bytes.
    fn pair_signed<const LOW: usize, const HIGH: usize>(self, bytes: Self::I) -> Self::I;
    /// 16 numbers of 16 bits, zero-extended to the 32-bit lanes.
    fn load_u16(self, from: &[u8; 2 * LANES]) -> Self::I;

    /// Sums of the products of weights of 0 to 127 and signed activations.
    fn products(self, weights: Self::I, activations: Self::I) -> Self::I;
    /// `sums` and the products; activations that are equal in all 32-bit lanes.
    fn add_products(self, sums: Self::I, weights: Self::I, activations: Self::I) -> Self::I;
    /// Sums of products as 32-bit lanes.
    fn widen(self, sums: Self::I) -> Self::I;
    /// `total` of 32-bit lanes and the widened sums.
    fn add_widened(self, total: Self::I, sums: Self::I) -> Self::I;
    /// `total + scale * sums`; total of 32-bit lanes, scale of 16 bits twice in every lane.
    fn scale_add(self, total: Self::I, sums: Self::I, scale: Self::I) -> Self::I;
    /// The same for sums that are of 32 bits already.
    fn scale_add_32(self, total: Self::I, sums: Self::I, scale: Self::I) -> Self::I;
    /// Signed weights as `add_signed_products` wants them.
    fn signed(self, weights: Self::I) -> Self::I;
    /// `total` and the products of weights from `signed` and activations of -127 to 127 that are
    /// equal in all 32-bit lanes; the total has 32-bit lanes, and is too large by [`Integers::SIGNED_OFFSET`] times the sum of the activations.
    fn add_signed_products(self, total: Self::I, weights: Self::I, activations: Self::I)
    -> Self::I;
    /// `total` and the sum of the two products of 16-bit halves, in 32-bit lanes.
    fn add_pairs(self, total: Self::I, a: Self::I, b: Self::I) -> Self::I;

    /// 32-bit lanes of both in turns: the first of `a`, the first of `b`, the second of `a` ...
    #[inline(always)]
    fn interleave(self, _a: Self::I, _b: Self::I) -> [Self::I; 2] {
        unreachable!("{NOT_PAIRED}")
    }
    /// What was interleaved.
    #[inline(always)]
    fn separate(self, _both: [Self::I; 2]) -> [Self::I; 2] {
        unreachable!("{NOT_PAIRED}")
    }
    /// `sums` and the products of signed bytes: interleaved weights of twice four columns, the eight
    /// activations of each of two tokens; 32-bit sums for each token, interleaved.
    #[inline(always)]
    fn add_paired_products(
        self,
        _sums: [Self::I; 2],
        _weights: [Self::I; 2],
        _activations: [&[i8; 8]; 2],
    ) -> [Self::I; 2] {
        unreachable!("{NOT_PAIRED}")
    }
    /// [`Integers::scale_add_32`] of the interleaved totals and sums of two tokens, by one scale.
    #[inline(always)]
    fn scale_add_paired(
        self,
        _totals: [Self::I; 2],
        _sums: [Self::I; 2],
        _scale: Self::I,
    ) -> [Self::I; 2] {
        unreachable!("{NOT_PAIRED}")
    }
}

/// Why a method is not called.
const NOT_PAIRED: &str = "an instruction set without products of two tokens";

/// From integers to floats and back.
pub trait Conversions: Integers + Floats {
    /// 32-bit lanes as floats, rounded to nearest.
    fn to_f32(self, a: Self::I) -> Self::F;
    /// 16 upper halves of single-precision numbers from memory.
    fn load_bfloats(self, from: &[u8; 2 * LANES]) -> Self::F;
    /// 16 single-precision numbers from bytes in memory.
    fn load_singles(self, from: &[u8; 4 * LANES]) -> Self::F;
    /// The larger of each `a` and the magnitude of `b`.
    fn max_magnitude(self, a: Self::F, b: Self::F) -> Self::F;
    /// Rounds to nearest, ties to even; what is outside of -127 to 127 or not a number becomes a
    /// bound.
    fn store_i8(self, to: &mut [i8; LANES], value: Self::F);
}

/// Operations on 16 floats. Where an operand is not a number the result is not one, except as said.
pub trait Floats: Copy + Send + Sync + 'static {
    /// 16 floats.
    type F: Copy;
    /// How many values of [`Floats::F`] fit in the processor's registers.
    const REGISTERS: usize;
    /// 16 floats from memory.
    fn load_f32(self, from: &[f32; LANES]) -> Self::F;
    /// 16 floats to memory.
    fn store_f32(self, to: &mut [f32; LANES], value: Self::F);
    /// 16 half-precision floats (little-endian) from memory. Exact.
    fn load_f16(self, from: &[u8; 2 * LANES]) -> Self::F;
    /// 16 floats to memory in half precision, rounded to nearest with ties to even.
    fn store_f16(self, to: &mut [u8; 2 * LANES], value: Self::F);
    /// 16 signed bytes from memory. Exact.
    fn load_i8(self, from: &[u8; LANES]) -> Self::F;
    /// One float, repeated 16 times.
    fn splat_f32(self, value: f32) -> Self::F;
    /// One float from memory, repeated 16 times. For inner loops: the compiler cannot gather several
    /// of these into a vector, only to take it apart again.
    fn splat_at(self, from: &f32) -> Self::F;
    /// `a * b + c`, rounded once where the processor can.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `c - a * b`, rounded once where the processor can.
    fn neg_mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a + b`.
    fn add_f32(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`.
    fn sub_f32(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`.
    fn mul_f32(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`.
    fn div_f32(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller one; `b` where either is not a number.
    fn min_f32(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger one; `b` where either is not a number.
    fn max_f32(self, a: Self::F, b: Self::F) -> Self::F;
    /// The nearest integers, ties to even.
    fn round_f32(self, value: Self::F) -> Self::F;
    /// Two to the power of integers from -127 to 128: 0 for -127, infinity for 128.
    fn power_of_two(self, exponent: Self::F) -> Self::F;
    /// Lanes 0 and 1, 2 and 3, .. exchanged.
    fn swap_pairs(self, value: Self::F) -> Self::F;
    /// The sum of the lanes: those 8 apart first, then 4, 2 and 1.
    fn sum_f32(self, value: Self::F) -> f32;
    /// The largest lane, where all are numbers.
    fn largest_f32(self, value: Self::F) -> f32;
}

/// The instruction sets that kernels are compiled for, from the plainest to the fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// None in particular: runs everywhere.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// The same with AVX-VNNI.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
    /// The same with AVX-512 BF16, which rounds the activations for weights in BF16.
    Avx512Bf16,
    /// aarch64 with dot products.
    Neon,
    /// The same with 8-bit matrix products.
    NeonI8mm,
}

impl Isa {
    /// Every one of them.
    pub const ALL: [Isa; 7] = [
        Isa::Scalar,
        Isa::Avx2,
        Isa::AvxVnni,
        Isa::Avx512,
        Isa::Avx512Bf16,
        Isa::Neon,
        Isa::NeonI8mm,
    ];

    /// The fastest one that this processor can execute.
    pub fn best() -> Isa {
        Isa::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Isa::Scalar)
    }

    /// Whether this processor can execute it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::Avx2::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => avx_vnni::AvxVnni::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::Avx512::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => avx512_bf16::Avx512Bf16::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 | Isa::Avx512Bf16 => false,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon::Neon::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => neon_i8mm::NeonI8mm::detect().is_some(),
            #[cfg(not(target_arch = "aarch64"))]
            Isa::Neon | Isa::NeonI8mm => false,
        }
    }

    /// Its name, as in an option.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Neon => "neon",
            Isa::NeonI8mm => "neon-i8mm",
        }
    }

    /// The one with this name.
    pub fn parse(name: &str) -> Option<Isa> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// Runs the kernel with this instruction set, or without one where the processor lacks it.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        match self {
            Isa::Scalar | Isa::Neon | Isa::NeonI8mm => {}
            Isa::Avx2 => {
                if let Some(simd) = avx2::Avx2::detect() {
                    return simd.vectorize(kernel);
                }
            }
            Isa::AvxVnni => {
                if let Some(simd) = avx_vnni::AvxVnni::detect() {
                    return simd.vectorize(kernel);
                }
            }
            Isa::Avx512 => {
                if let Some(simd) = avx512::Avx512::detect() {
                    return simd.vectorize(kernel);
                }
            }
            Isa::Avx512Bf16 => {
                if let Some(simd) = avx512_bf16::Avx512Bf16::detect() {
                    return simd.vectorize(kernel);
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        match self {
            Isa::Scalar | Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 | Isa::Avx512Bf16 => {}
            Isa::Neon => {
                if let Some(simd) = neon::Neon::detect() {
                    return simd.vectorize(kernel);
                }
            }
            Isa::NeonI8mm => {
                if let Some(simd) = neon_i8mm::NeonI8mm::detect() {
                    return simd.vectorize(kernel);
                }
            }
        }
        scalar::Scalar.vectorize(kernel)
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
