//! Integer operations.

use super::Scalar;
use crate::arch::{Integers, LANES, VECTOR_BYTES};

type Bytes = [u8; VECTOR_BYTES];

/// The 32-bit lanes.
#[inline(always)]
pub(super) fn lanes(a: Bytes) -> [i32; LANES] {
    std::array::from_fn(|at| {
        i32::from_le_bytes([a[4 * at], a[4 * at + 1], a[4 * at + 2], a[4 * at + 3]])
    })
}

#[inline(always)]
fn from_lanes(a: [i32; LANES]) -> Bytes {
    std::array::from_fn(|at| a[at / 4].to_le_bytes()[at % 4])
}

/// The 16-bit lanes.
#[inline(always)]
fn halves(a: Bytes) -> [i16; 2 * LANES] {
    std::array::from_fn(|at| i16::from_le_bytes([a[2 * at], a[2 * at + 1]]))
}

#[inline(always)]
fn from_halves(a: [i16; 2 * LANES]) -> Bytes {
    std::array::from_fn(|at| a[at / 2].to_le_bytes()[at % 2])
}

/// What each 32-bit lane becomes.
#[inline(always)]
fn by_lane(a: Bytes, b: Bytes, operation: impl Fn(i32, i32) -> i32) -> Bytes {
    let (a, b) = (lanes(a), lanes(b));
    from_lanes(std::array::from_fn(|at| operation(a[at], b[at])))
}

/// What each 16-bit lane becomes.
#[inline(always)]
fn by_half(a: Bytes, operation: impl Fn(u16) -> u16) -> Bytes {
    from_halves(halves(a).map(|half| operation(half as u16) as i16))
}

/// The sum of the four products in each 32-bit lane.
#[inline(always)]
fn sums(total: Bytes, product: impl Fn(usize) -> i32) -> Bytes {
    let total = lanes(total);
    from_lanes(std::array::from_fn(|lane| {
        total[lane] + (4 * lane..4 * lane + 4).map(&product).sum::<i32>()
    }))
}

impl Integers for Scalar {
    type I = Bytes;
    const WIDE: bool = true;
    const SIGNED_OFFSET: i32 = 0;
    const TILE: usize = 1;

    #[inline(always)]
    fn load(self, from: &Bytes) -> Bytes {
        *from
    }

    #[inline(always)]
    fn store(self, to: &mut Bytes, value: Bytes) {
        *to = value;
    }

    #[inline(always)]
    fn splat4(self, bytes: [u8; 4]) -> Bytes {
        std::array::from_fn(|at| bytes[at % 4])
    }

    #[inline(always)]
    fn splat_i8(self, from: &[i8; 4]) -> Bytes {
        self.splat4(from.map(|byte| byte as u8))
    }

    #[inline(always)]
    fn splat_i16(self, from: &[i16; 2]) -> Bytes {
        from_halves(std::array::from_fn(|at| from[at % 2]))
    }

    #[inline(always)]
    fn prefetch(self, _near: &[u8], _offset: usize) {}

    #[inline(always)]
    fn and(self, a: Bytes, b: Bytes) -> Bytes {
        std::array::from_fn(|at| a[at] & b[at])
    }

    #[inline(always)]
    fn or(self, a: Bytes, b: Bytes) -> Bytes {
        std::array::from_fn(|at| a[at] | b[at])
    }

    #[inline(always)]
    fn shift_left(self, a: Bytes, bits: u32) -> Bytes {
        by_half(a, |half| half << bits)
    }

    #[inline(always)]
    fn shift_right(self, a: Bytes, bits: u32) -> Bytes {
        by_half(a, |half| half >> bits)
    }

    #[inline(always)]
    fn shift_left_32(self, a: Bytes, bits: u32) -> Bytes {
        by_lane(a, a, |lane, _| lane << bits)
    }

    #[inline(always)]
    fn sub_16(self, a: Bytes, b: Bytes) -> Bytes {
        let (a, b) = (halves(a), halves(b));
        from_halves(std::array::from_fn(|at| a[at].wrapping_sub(b[at])))
    }

    #[inline(always)]
    fn sub_32(self, a: Bytes, b: Bytes) -> Bytes {
        by_lane(a, b, i32::wrapping_sub)
    }

    #[inline(always)]
    fn add_32(self, a: Bytes, b: Bytes) -> Bytes {
        by_lane(a, b, i32::wrapping_add)
    }

    #[inline(always)]
    fn lookup(self, table: &[u8; 16], indices: Bytes) -> Bytes {
        indices.map(|index| table[usize::from(index & 15)])
    }

    #[inline(always)]
    fn pair<const LOW: usize, const HIGH: usize>(self, bytes: Bytes) -> Bytes {
        from_halves(std::array::from_fn(|at| {
            i16::from(bytes[at / 2 * 4 + if at % 2 == 0 { LOW } else { HIGH }])
        }))
    }

    #[inline(always)]
    fn pair_signed<const LOW: usize, const HIGH: usize>(self, bytes: Bytes) -> Bytes {
        from_halves(std::array::from_fn(|at| {
            i16::from(bytes[at / 2 * 4 + if at % 2 == 0 { LOW } else { HIGH }] as i8)
        }))
    }

    #[inline(always)]
    fn load_u16(self, from: &[u8; 2 * LANES]) -> Bytes {
        std::array::from_fn(|at| if at % 4 < 2 { from[at / 4 * 2 + at % 4] } else { 0 })
    }

    #[inline(always)]
    fn products(self, weights: Bytes, activations: Bytes) -> Bytes {
        self.add_products([0; VECTOR_BYTES], weights, activations)
    }

    #[inline(always)]
    fn add_products(self, total: Bytes, weights: Bytes, activations: Bytes) -> Bytes {
        sums(total, |at| i32::from(weights[at]) * i32::from(activations[at] as i8))
    }

    #[inline(always)]
    fn widen(self, sums: Bytes) -> Bytes {
        sums
    }

    #[inline(always)]
    fn add_widened(self, total: Bytes, sums: Bytes) -> Bytes {
        self.add_32(total, sums)
    }

    #[inline(always)]
    fn scale_add(self, total: Bytes, sums: Bytes, scale: Bytes) -> Bytes {
        self.scale_add_32(total, sums, scale)
    }

    #[inline(always)]
    fn scale_add_32(self, total: Bytes, sums: Bytes, scale: Bytes) -> Bytes {
        let scaled = by_lane(sums, scale, |sum, scale| sum * (scale >> 16));
        self.add_32(total, scaled)
    }

    #[inline(always)]
    fn signed(self, weights: Bytes) -> Bytes {
        weights
    }

    #[inline(always)]
    fn add_signed_products(self, total: Bytes, weights: Bytes, activations: Bytes) -> Bytes {
        sums(total, |at| i32::from(weights[at] as i8) * i32::from(activations[at] as i8))
    }

    #[inline(always)]
    fn add_pairs(self, total: Bytes, a: Bytes, b: Bytes) -> Bytes {
        let (total, a, b) = (lanes(total), halves(a), halves(b));
        from_lanes(std::array::from_fn(|lane| {
            let product = |at: usize| i32::from(a[at]) * i32::from(b[at]);
            total[lane] + product(2 * lane) + product(2 * lane + 1)
        }))
    }
}
