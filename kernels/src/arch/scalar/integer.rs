//! Integer operations.

use super::Scalar;
use crate::arch::{Integers, LANES, VECTOR_BYTES};

/// The 32-bit lanes.
type Lanes = [u32; LANES];

/// What each lane becomes.
#[inline(always)]
fn each(mut a: Lanes, operation: impl Fn(u32) -> u32) -> Lanes {
    for lane in &mut a {
        *lane = operation(*lane);
    }
    a
}

/// What each lane becomes together with that of another vector.
#[inline(always)]
fn both(mut a: Lanes, b: &Lanes, operation: impl Fn(u32, u32) -> u32) -> Lanes {
    for (a, b) in a.iter_mut().zip(b) {
        *a = operation(*a, *b);
    }
    a
}

/// The 16-bit halves, low and high.
#[inline(always)]
fn halves(lane: u32) -> [u16; 2] {
    [lane as u16, (lane >> 16) as u16]
}

#[inline(always)]
fn from_halves([low, high]: [u16; 2]) -> u32 {
    u32::from(low) | u32::from(high) << 16
}

/// The sum of the four products of the bytes of a lane.
#[inline(always)]
fn products(weights: u32, activations: u32, weight: impl Fn(u8) -> i32) -> u32 {
    let (weights, activations) = (weights.to_le_bytes(), activations.to_le_bytes());
    let mut sum = 0;
    for at in 0..4 {
        sum += weight(weights[at]) * i32::from(activations[at] as i8);
    }
    sum as u32
}

impl Integers for Scalar {
    type I = Lanes;
    const WIDE: bool = true;
    const SIGNED_OFFSET: i32 = 0;
    const TILE: usize = 1;

    #[inline(always)]
    fn load(self, from: &[u8; VECTOR_BYTES]) -> Lanes {
        let mut lanes = [0; LANES];
        for (lane, bytes) in lanes.iter_mut().zip(from.as_chunks::<4>().0) {
            *lane = u32::from_le_bytes(*bytes);
        }
        lanes
    }

    #[inline(always)]
    fn store(self, to: &mut [u8; VECTOR_BYTES], value: Lanes) {
        for (bytes, lane) in to.as_chunks_mut::<4>().0.iter_mut().zip(value) {
            *bytes = lane.to_le_bytes();
        }
    }

    #[inline(always)]
    fn splat4(self, bytes: [u8; 4]) -> Lanes {
        [u32::from_le_bytes(bytes); LANES]
    }

    #[inline(always)]
    fn splat_i8(self, from: &[i8; 4]) -> Lanes {
        self.splat4(from.map(|byte| byte as u8))
    }

    #[inline(always)]
    fn splat_i16(self, from: &[i16; 2]) -> Lanes {
        [from_halves(from.map(|half| half as u16)); LANES]
    }

    #[inline(always)]
    fn prefetch(self, _near: &[u8], _offset: usize) {}

    #[inline(always)]
    fn and(self, a: Lanes, b: Lanes) -> Lanes {
        both(a, &b, |a, b| a & b)
    }

    #[inline(always)]
    fn or(self, a: Lanes, b: Lanes) -> Lanes {
        both(a, &b, |a, b| a | b)
    }

    #[inline(always)]
    fn shift_left(self, a: Lanes, bits: u32) -> Lanes {
        each(a, |lane| from_halves(halves(lane).map(|half| half << bits)))
    }

    #[inline(always)]
    fn shift_right(self, a: Lanes, bits: u32) -> Lanes {
        each(a, |lane| from_halves(halves(lane).map(|half| half >> bits)))
    }

    #[inline(always)]
    fn shift_left_32(self, a: Lanes, bits: u32) -> Lanes {
        each(a, |lane| lane << bits)
    }

    #[inline(always)]
    fn sub_16(self, a: Lanes, b: Lanes) -> Lanes {
        both(a, &b, |a, b| {
            let ([low, high], [less_low, less_high]) = (halves(a), halves(b));
            from_halves([low.wrapping_sub(less_low), high.wrapping_sub(less_high)])
        })
    }

    #[inline(always)]
    fn sub_32(self, a: Lanes, b: Lanes) -> Lanes {
        both(a, &b, u32::wrapping_sub)
    }

    #[inline(always)]
    fn add_32(self, a: Lanes, b: Lanes) -> Lanes {
        both(a, &b, u32::wrapping_add)
    }

    #[inline(always)]
    fn lookup(self, table: &[u8; 16], indices: Lanes) -> Lanes {
        each(indices, |lane| {
            u32::from_le_bytes(lane.to_le_bytes().map(|index| table[usize::from(index & 15)]))
        })
    }

    #[inline(always)]
    fn pair<const LOW: usize, const HIGH: usize>(self, bytes: Lanes) -> Lanes {
        each(bytes, |lane| {
            let bytes = lane.to_le_bytes();
            from_halves([u16::from(bytes[LOW]), u16::from(bytes[HIGH])])
        })
    }

    #[inline(always)]
    fn pair_signed<const LOW: usize, const HIGH: usize>(self, bytes: Lanes) -> Lanes {
        each(bytes, |lane| {
            let bytes = lane.to_le_bytes();
            from_halves([bytes[LOW], bytes[HIGH]].map(|byte| i16::from(byte as i8) as u16))
        })
    }

    #[inline(always)]
    fn load_u16(self, from: &[u8; 2 * LANES]) -> Lanes {
        let mut lanes = [0; LANES];
        for (lane, bytes) in lanes.iter_mut().zip(from.as_chunks::<2>().0) {
            *lane = u32::from(u16::from_le_bytes(*bytes));
        }
        lanes
    }

    #[inline(always)]
    fn products(self, weights: Lanes, activations: Lanes) -> Lanes {
        both(weights, &activations, |weights, values| products(weights, values, i32::from))
    }

    #[inline(always)]
    fn add_products(self, sums: Lanes, weights: Lanes, activations: Lanes) -> Lanes {
        self.add_32(sums, self.products(weights, activations))
    }

    #[inline(always)]
    fn widen(self, sums: Lanes) -> Lanes {
        sums
    }

    #[inline(always)]
    fn add_widened(self, total: Lanes, sums: Lanes) -> Lanes {
        self.add_32(total, sums)
    }

    #[inline(always)]
    fn scale_add(self, total: Lanes, sums: Lanes, scale: Lanes) -> Lanes {
        self.scale_add_32(total, sums, scale)
    }

    #[inline(always)]
    fn scale_add_32(self, total: Lanes, sums: Lanes, scale: Lanes) -> Lanes {
        let scaled = both(sums, &scale, |sum, scale| sum.wrapping_mul((scale as i32 >> 16) as u32));
        self.add_32(total, scaled)
    }

    #[inline(always)]
    fn signed(self, weights: Lanes) -> Lanes {
        weights
    }

    #[inline(always)]
    fn add_signed_products(self, total: Lanes, weights: Lanes, activations: Lanes) -> Lanes {
        let products = both(weights, &activations, |weights, values| {
            products(weights, values, |weight| i32::from(weight as i8))
        });
        self.add_32(total, products)
    }

    #[inline(always)]
    fn add_pairs(self, total: Lanes, a: Lanes, b: Lanes) -> Lanes {
        let products = both(a, &b, |a, b| {
            let (a, b) = (halves(a).map(|half| half as i16), halves(b).map(|half| half as i16));
            (i32::from(a[0]) * i32::from(b[0]) + i32::from(a[1]) * i32::from(b[1])) as u32
        });
        self.add_32(total, products)
    }
}
