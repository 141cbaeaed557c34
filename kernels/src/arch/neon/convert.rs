//! From integers to floats and back.

use super::integer::Registers;
use super::*;
use crate::arch::{Conversions, LANES};

/// The registers of a vector of floats.
type Floats = [float32x4_t; 4];

impl Conversions for Neon {
    #[inline(always)]
    fn to_f32(self, a: Registers) -> Floats {
        each!(AT: vcvtq_f32_s32(vreinterpretq_s32_u8(a[AT])))
    }

    #[inline(always)]
    fn load_bfloats(self, from: &[u8; 2 * LANES]) -> Floats {
        let from: *const u16 = from.as_ptr().cast();
        each!(AT: {
            let upper = vld1_u16(from.add(4 * AT));
            vreinterpretq_f32_u32(vshll_n_u16::<16>(upper))
        })
    }

    #[inline(always)]
    fn load_singles(self, from: &[u8; 4 * LANES]) -> Floats {
        let from: *const u8 = from.as_ptr();
        each!(AT: vreinterpretq_f32_u8(vld1q_u8(from.add(16 * AT))))
    }

    #[inline(always)]
    fn max_magnitude(self, a: Floats, b: Floats) -> Floats {
        each!(AT: {
            let b = vabsq_f32(b[AT]);
            // Where b is not a number it is not larger.
            vbslq_f32(vcgtq_f32(b, a[AT]), b, a[AT])
        })
    }

    #[inline(always)]
    fn store_i8(self, to: &mut [i8; LANES], value: Floats) {
        let (least, most) = neon!((vdupq_n_f32(-127.0), vdupq_n_f32(127.0)));
        let halves: [int16x4_t; 4] = each!(AT: {
            // Where one operand is not a number, the result is the other.
            let bounded = vminnmq_f32(vmaxnmq_f32(value[AT], least), most);
            vmovn_s32(vcvtnq_s32_f32(bounded))
        });
        neon! {
            let low = vmovn_s16(vcombine_s16(halves[0], halves[1]));
            let high = vmovn_s16(vcombine_s16(halves[2], halves[3]));
            vst1q_s8(to.as_mut_ptr(), vcombine_s8(low, high));
        }
    }
}
