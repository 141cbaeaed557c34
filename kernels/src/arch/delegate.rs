//! Instruction sets that are another one and a few instructions more.

use super::{Conversions, Floats, Integers, LANES, Simd};

/// An instruction set that does with floats what another one does.
pub trait Extends: Copy + Send + Sync + 'static {
    /// The other one.
    type Base: Simd;
    /// The proof of it.
    fn base(self) -> Self::Base;
}

/// Methods that are those of the base. Only for what implements [`Extends`].
macro_rules! by_base {
    ($(fn $name:ident$(<$(const $constant:ident),*>)?($($argument:ident: $type:ty),*)
        $(-> $out:ty)?;)*) => {$(
        #[inline(always)]
        fn $name$(<$(const $constant: usize),*>)?(self, $($argument: $type),*) $(-> $out)? {
            $crate::arch::delegate::Extends::base(self).$name$(::<$($constant),*>)?($($argument),*)
        }
    )*};
}
pub(super) use by_base;

/// The methods of integers that multiply no bytes.
macro_rules! integers_by_base {
    () => {
        $crate::arch::delegate::by_base! {
            fn load(from: &[u8; $crate::arch::VECTOR_BYTES]) -> Self::I;
            fn store(to: &mut [u8; $crate::arch::VECTOR_BYTES], value: Self::I);
            fn splat4(bytes: [u8; 4]) -> Self::I;
            fn splat_i8(from: &[i8; 4]) -> Self::I;
            fn splat_i16(from: &[i16; 2]) -> Self::I;
            fn prefetch(near: &[u8], offset: usize);
            fn and(a: Self::I, b: Self::I) -> Self::I;
            fn or(a: Self::I, b: Self::I) -> Self::I;
            fn shift_left(a: Self::I, bits: u32) -> Self::I;
            fn shift_right(a: Self::I, bits: u32) -> Self::I;
            fn shift_left_32(a: Self::I, bits: u32) -> Self::I;
            fn sub_16(a: Self::I, b: Self::I) -> Self::I;
            fn sub_32(a: Self::I, b: Self::I) -> Self::I;
            fn add_32(a: Self::I, b: Self::I) -> Self::I;
            fn lookup(table: &[u8; 16], indices: Self::I) -> Self::I;
            fn pair<const LOW, const HIGH>(bytes: Self::I) -> Self::I;
            fn pair_signed<const LOW, const HIGH>(bytes: Self::I) -> Self::I;
            fn load_u16(from: &[u8; 2 * $crate::arch::LANES]) -> Self::I;
            fn scale_add_32(total: Self::I, sums: Self::I, scale: Self::I) -> Self::I;
        }
    };
}
pub(super) use integers_by_base;

impl<E: Extends> Floats for E {
    type F = <E::Base as Floats>::F;
    const REGISTERS: usize = E::Base::REGISTERS;

    by_base! {
        fn load_f32(from: &[f32; LANES]) -> Self::F;
        fn store_f32(to: &mut [f32; LANES], value: Self::F);
        fn load_f16(from: &[u8; 2 * LANES]) -> Self::F;
        fn store_f16(to: &mut [u8; 2 * LANES], value: Self::F);
        fn load_i8(from: &[u8; LANES]) -> Self::F;
        fn splat_f32(value: f32) -> Self::F;
        fn splat_at(from: &f32) -> Self::F;
        fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
        fn neg_mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
        fn add_f32(a: Self::F, b: Self::F) -> Self::F;
        fn sub_f32(a: Self::F, b: Self::F) -> Self::F;
        fn mul_f32(a: Self::F, b: Self::F) -> Self::F;
        fn div_f32(a: Self::F, b: Self::F) -> Self::F;
        fn min_f32(a: Self::F, b: Self::F) -> Self::F;
        fn max_f32(a: Self::F, b: Self::F) -> Self::F;
        fn round_f32(value: Self::F) -> Self::F;
        fn power_of_two(exponent: Self::F) -> Self::F;
        fn swap_pairs(value: Self::F) -> Self::F;
        fn sum_f32(value: Self::F) -> f32;
        fn largest_f32(value: Self::F) -> f32;
    }
}

impl<E: Extends + Integers<I = <E::Base as Integers>::I>> Conversions for E {
    by_base! {
        fn to_f32(a: Self::I) -> Self::F;
        fn load_bfloats(from: &[u8; 2 * LANES]) -> Self::F;
        fn load_singles(from: &[u8; 4 * LANES]) -> Self::F;
        fn max_magnitude(a: Self::F, b: Self::F) -> Self::F;
        fn store_i8(to: &mut [i8; LANES], value: Self::F);
    }
}
