//! Integer operations.

use super::*;
use crate::arch::{Integers, LANES, VECTOR_BYTES};

/// The registers of a vector.
pub(in crate::arch) type Registers = [uint8x16_t; 4];

/// `sums` and, in each 32-bit lane, the sum of the four products of signed bytes.
///
/// There is no stable intrinsic. The directive is for where the function is not inlined.
#[inline(always)]
fn dot(sums: uint8x16_t, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
    let mut sums = sums;
    // SAFETY: called by methods of `Neon`, of which a value exists only where `detect` found the
    // instruction; it changes nothing but a register.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// A vector of 32-bit lanes as one of bytes.
#[inline(always)]
fn from_32(a: int32x4_t) -> uint8x16_t {
    neon!(vreinterpretq_u8_s32(a))
}

/// The 32-bit lanes of a vector.
#[inline(always)]
fn as_32(a: uint8x16_t) -> int32x4_t {
    neon!(vreinterpretq_s32_u8(a))
}

/// The 16-bit lanes of a vector.
#[inline(always)]
fn as_16(a: uint8x16_t) -> int16x8_t {
    neon!(vreinterpretq_s16_u8(a))
}

/// 16-bit lanes shifted towards the high end, or the low end where `bits` is less than 0.
#[inline(always)]
fn shift_16(a: Registers, bits: i16) -> Registers {
    let bits = neon!(vdupq_n_s16(bits));
    each!(AT: vreinterpretq_u8_u16(vshlq_u16(vreinterpretq_u16_u8(a[AT]), bits)))
}

/// For a table lookup: where the bytes of four lanes come from, given those of a lane; 255 is none.
const fn in_every_lane(lane: [u8; 4]) -> [u8; 16] {
    let mut order = [255; 16];
    let mut at = 0;
    while at < 16 {
        if lane[at % 4] != 255 {
            order[at] = lane[at % 4] + (at as u8 & !3);
        }
        at += 1;
    }
    order
}

/// The bytes of each register in another order.
#[inline(always)]
fn reorder(bytes: Registers, order: &[u8; 16]) -> Registers {
    let order = neon!(vld1q_u8(order.as_ptr()));
    each!(AT: vqtbl1q_u8(bytes[AT], order))
}

impl Integers for Neon {
    type I = Registers;
    const WIDE: bool = true;
    const SIGNED_OFFSET: i32 = 0;
    // 4 registers each for 3 sums of products and 3 totals, 4 of weights, 1 of activations.
    const TILE: usize = 3;

    #[inline(always)]
    fn load(self, from: &[u8; VECTOR_BYTES]) -> Registers {
        let from = from.as_ptr();
        each!(AT: vld1q_u8(from.add(16 * AT)))
    }

    #[inline(always)]
    fn store(self, to: &mut [u8; VECTOR_BYTES], value: Registers) {
        let to = to.as_mut_ptr();
        each!(AT: vst1q_u8(to.add(16 * AT), value[AT]));
    }

    #[inline(always)]
    fn splat4(self, bytes: [u8; 4]) -> Registers {
        [neon!(vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes(bytes)))); 4]
    }

    #[inline(always)]
    fn splat_i8(self, from: &[i8; 4]) -> Registers {
        self.splat4(from.map(i8::cast_unsigned))
    }

    #[inline(always)]
    fn splat_i16(self, from: &[i16; 2]) -> Registers {
        let [[a, b], [c, d]] = from.map(i16::to_le_bytes);
        self.splat4([a, b, c, d])
    }

    #[inline(always)]
    fn prefetch(self, near: &[u8], offset: usize) {
        let at = near.as_ptr().wrapping_add(offset);
        // SAFETY: a hint: any address will do.
        unsafe {
            asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    fn and(self, a: Registers, b: Registers) -> Registers {
        each!(AT: vandq_u8(a[AT], b[AT]))
    }

    #[inline(always)]
    fn or(self, a: Registers, b: Registers) -> Registers {
        each!(AT: vorrq_u8(a[AT], b[AT]))
    }

    #[inline(always)]
    fn shift_left(self, a: Registers, bits: u32) -> Registers {
        shift_16(a, bits as i16)
    }

    #[inline(always)]
    fn shift_right(self, a: Registers, bits: u32) -> Registers {
        shift_16(a, -(bits as i16))
    }

    #[inline(always)]
    fn shift_left_32(self, a: Registers, bits: u32) -> Registers {
        let bits = neon!(vdupq_n_s32(bits as i32));
        each!(AT: from_32(vshlq_s32(as_32(a[AT]), bits)))
    }

    #[inline(always)]
    fn sub_16(self, a: Registers, b: Registers) -> Registers {
        each!(AT: vreinterpretq_u8_s16(vsubq_s16(as_16(a[AT]), as_16(b[AT]))))
    }

    #[inline(always)]
    fn sub_32(self, a: Registers, b: Registers) -> Registers {
        each!(AT: from_32(vsubq_s32(as_32(a[AT]), as_32(b[AT]))))
    }

    #[inline(always)]
    fn add_32(self, a: Registers, b: Registers) -> Registers {
        each!(AT: from_32(vaddq_s32(as_32(a[AT]), as_32(b[AT]))))
    }

    #[inline(always)]
    fn lookup(self, table: &[u8; 16], indices: Registers) -> Registers {
        let table = neon!(vld1q_u8(table.as_ptr()));
        each!(AT: vqtbl1q_u8(table, indices[AT]))
    }

    #[inline(always)]
    fn pair<const LOW: usize, const HIGH: usize>(self, bytes: Registers) -> Registers {
        const { assert!(LOW < 4 && HIGH < 4) };
        reorder(bytes, const { &in_every_lane([LOW as u8, 255, HIGH as u8, 255]) })
    }

    #[inline(always)]
    fn pair_signed<const LOW: usize, const HIGH: usize>(self, bytes: Registers) -> Registers {
        const { assert!(LOW < 4 && HIGH < 4) };
        let upper = reorder(bytes, const { &in_every_lane([255, LOW as u8, 255, HIGH as u8]) });
        each!(AT: vreinterpretq_u8_s16(vshrq_n_s16::<8>(as_16(upper[AT]))))
    }

    #[inline(always)]
    fn load_u16(self, from: &[u8; 2 * LANES]) -> Registers {
        let from: *const u16 = from.as_ptr().cast();
        each!(AT: vreinterpretq_u8_u32(vmovl_u16(vld1_u16(from.add(4 * AT)))))
    }

    /// Unsigned weights are less than 128, so that they are the same as signed ones.
    #[inline(always)]
    fn products(self, weights: Registers, activations: Registers) -> Registers {
        self.add_products([neon!(vdupq_n_u8(0)); 4], weights, activations)
    }

    #[inline(always)]
    fn add_products(
        self,
        sums: Registers,
        weights: Registers,
        activations: Registers,
    ) -> Registers {
        [
            dot(sums[0], weights[0], activations[0]),
            dot(sums[1], weights[1], activations[1]),
            dot(sums[2], weights[2], activations[2]),
            dot(sums[3], weights[3], activations[3]),
        ]
    }

    #[inline(always)]
    fn widen(self, sums: Registers) -> Registers {
        sums
    }

    #[inline(always)]
    fn add_widened(self, total: Registers, sums: Registers) -> Registers {
        self.add_32(total, sums)
    }

    #[inline(always)]
    fn scale_add(self, total: Registers, sums: Registers, scale: Registers) -> Registers {
        self.scale_add_32(total, sums, scale)
    }

    #[inline(always)]
    fn scale_add_32(self, total: Registers, sums: Registers, scale: Registers) -> Registers {
        each!(AT: {
            let scale = vshrq_n_s32::<16>(as_32(scale[AT]));
            from_32(vmlaq_s32(as_32(total[AT]), as_32(sums[AT]), scale))
        })
    }

    #[inline(always)]
    fn signed(self, weights: Registers) -> Registers {
        weights
    }

    #[inline(always)]
    fn add_signed_products(
        self,
        total: Registers,
        weights: Registers,
        activations: Registers,
    ) -> Registers {
        self.add_products(total, weights, activations)
    }

    #[inline(always)]
    fn add_pairs(self, total: Registers, a: Registers, b: Registers) -> Registers {
        each!(AT: {
            let (a, b) = (as_16(a[AT]), as_16(b[AT]));
            let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
            let pairs = vpaddq_s32(low, vmull_high_s16(a, b));
            from_32(vaddq_s32(as_32(total[AT]), pairs))
        })
    }
}
