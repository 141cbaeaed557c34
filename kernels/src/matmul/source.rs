//! Where the vectors of a tile come from.

use super::blocks::TOGETHER;
use super::{AHEAD, Bytes, Outputs};
use crate::arch::{LANES, Simd, VECTOR_BYTES};

/// Weights of some columns of a panel, as bytes: of a super-block, or of the blocks that go together.
pub(super) struct Unpacked {
    pub(super) vectors: Vectors,
    pub(super) side: Side,
    /// Scales and minimums of blocks of 32.
    pub(super) scales: [Outputs; TOGETHER],
    pub(super) minimums: [Outputs; TOGETHER],
}

/// Vectors of four columns each, eight of a block.
#[repr(align(64))]
pub(super) struct Vectors(pub(super) [Bytes; 8 * TOGETHER]);

/// What a super-block has besides its quants, expanded.
#[repr(align(64))]
pub(super) struct Side {
    /// Scales of the parts, as pairs of equal 16-bit numbers.
    pub(super) scales: [Bytes; 16],
    /// What sums of activations are multiplied by, as pairs of two parts' numbers.
    pub(super) pairs: [Bytes; 8],
    pub(super) scale: Outputs,
    pub(super) minimum: Outputs,
}

impl Default for Side {
    fn default() -> Side {
        Side {
            scales: [[0; VECTOR_BYTES]; 16],
            pairs: [[0; VECTOR_BYTES]; 8],
            scale: [0.0; LANES],
            minimum: [0.0; LANES],
        }
    }
}

impl Default for Unpacked {
    fn default() -> Unpacked {
        Unpacked {
            vectors: Vectors([[0; VECTOR_BYTES]; 8 * TOGETHER]),
            side: Side::default(),
            scales: [[0.0; LANES]; TOGETHER],
            minimums: [[0.0; LANES]; TOGETHER],
        }
    }
}

/// Something that has the vectors of 256 columns.
pub(super) trait Source<V: Simd>: Copy {
    /// Whether it unpacks on the fly, which is for few tokens.
    const DIRECT: bool;
    /// Runs of 32 columns that code is made for apart.
    const INNER: usize;
    /// Vector `at` (0 to 7) of the 32 columns `outer * INNER + inner`.
    fn vector(self, v: V, outer: usize, inner: usize, at: usize) -> V::I;

    /// Asks for what will be wanted when these vectors are done, a share of it at each of eight runs.
    #[inline(always)]
    fn prefetch(self, _v: V, _run: usize) {}
}

impl<V: Simd> Source<V> for &Vectors {
    const DIRECT: bool = false;
    const INNER: usize = 1;

    #[inline(always)]
    fn vector(self, v: V, outer: usize, inner: usize, at: usize) -> V::I {
        v.load(&self.0[(outer + inner) * 8 + at])
    }
}

/// Bytes that memory gives at once.
const LINE: usize = 64;

/// Asks for what is as far behind `bytes[from..from + count]` as will be wanted when those are done.
/// `count` is a constant wherever this is called, so that no loop is left.
#[inline(always)]
pub(super) fn prefetch<V: Simd>(v: V, bytes: &[u8], from: usize, count: usize) {
    for line in 0..count.div_ceil(LINE) {
        v.prefetch(bytes, AHEAD + from + line * LINE);
    }
}
