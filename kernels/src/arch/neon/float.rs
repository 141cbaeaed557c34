//! Operations on floats.

use super::*;
use crate::arch::{Floats, LANES};

impl Floats for Neon {
    type F = [float32x4_t; 4];
    const REGISTERS: usize = 8;

    #[inline(always)]
    fn load_f32(self, from: &[f32; LANES]) -> Self::F {
        let from = from.as_ptr();
        each!(AT: vld1q_f32(from.add(4 * AT)))
    }

    #[inline(always)]
    fn store_f32(self, to: &mut [f32; LANES], value: Self::F) {
        let to = to.as_mut_ptr();
        each!(AT: vst1q_f32(to.add(4 * AT), value[AT]));
    }

    #[inline(always)]
    fn load_f16(self, from: &[u8; 2 * LANES]) -> Self::F {
        let from: *const u16 = from.as_ptr().cast();
        each!(AT: vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from.add(4 * AT)))))
    }

    #[inline(always)]
    fn store_f16(self, to: &mut [u8; 2 * LANES], value: Self::F) {
        let to: *mut u16 = to.as_mut_ptr().cast();
        each!(AT: {
            let halves = vreinterpret_u16_f16(vcvt_f16_f32(value[AT]));
            vst1_u16(to.add(4 * AT), halves)
        });
    }

    #[inline(always)]
    fn load_i8(self, from: &[u8; LANES]) -> Self::F {
        neon! {
            let bytes = vreinterpretq_s8_u8(vld1q_u8(from.as_ptr()));
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ]
        }
    }

    #[inline(always)]
    fn splat_f32(self, value: f32) -> Self::F {
        [neon!(vdupq_n_f32(value)); 4]
    }

    #[inline(always)]
    fn splat_at(self, from: &f32) -> Self::F {
        self.splat_f32(*from)
    }

    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        each!(AT: vfmaq_f32(c[AT], a[AT], b[AT]))
    }

    #[inline(always)]
    fn neg_mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        each!(AT: vfmsq_f32(c[AT], a[AT], b[AT]))
    }

    #[inline(always)]
    fn add_f32(self, a: Self::F, b: Self::F) -> Self::F {
        each!(AT: vaddq_f32(a[AT], b[AT]))
    }

    #[inline(always)]
    fn sub_f32(self, a: Self::F, b: Self::F) -> Self::F {
        each!(AT: vsubq_f32(a[AT], b[AT]))
    }

    #[inline(always)]
    fn mul_f32(self, a: Self::F, b: Self::F) -> Self::F {
        each!(AT: vmulq_f32(a[AT], b[AT]))
    }

    #[inline(always)]
    fn div_f32(self, a: Self::F, b: Self::F) -> Self::F {
        each!(AT: vdivq_f32(a[AT], b[AT]))
    }

    #[inline(always)]
    fn min_f32(self, a: Self::F, b: Self::F) -> Self::F {
        each!(AT: vbslq_f32(vcltq_f32(a[AT], b[AT]), a[AT], b[AT]))
    }

    #[inline(always)]
    fn max_f32(self, a: Self::F, b: Self::F) -> Self::F {
        each!(AT: vbslq_f32(vcgtq_f32(a[AT], b[AT]), a[AT], b[AT]))
    }

    #[inline(always)]
    fn round_f32(self, value: Self::F) -> Self::F {
        each!(AT: vrndnq_f32(value[AT]))
    }

    #[inline(always)]
    fn power_of_two(self, exponent: Self::F) -> Self::F {
        let bias = neon!(vdupq_n_s32(127));
        each!(AT: {
            let biased = vaddq_s32(vcvtnq_s32_f32(exponent[AT]), bias);
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
        })
    }

    #[inline(always)]
    fn swap_pairs(self, value: Self::F) -> Self::F {
        each!(AT: vrev64q_f32(value[AT]))
    }

    #[inline(always)]
    fn sum_f32(self, value: Self::F) -> f32 {
        let [a, b, c, d] = value;
        neon! {
            let four = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }

    #[inline(always)]
    fn largest_f32(self, value: Self::F) -> f32 {
        let [a, b, c, d] = value;
        neon!(vmaxvq_f32(vmaxq_f32(vmaxq_f32(a, b), vmaxq_f32(c, d))))
    }
}
