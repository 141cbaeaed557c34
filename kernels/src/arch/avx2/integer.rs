//! Integer operations.

use super::*;
use crate::arch::{Integers, VECTOR_BYTES};

impl Integers for Avx2 {
    type I = [__m256i; 2];

    #[inline(always)]
    fn load(self, from: &[u8; VECTOR_BYTES]) -> Self::I {
        let (halves, _) = from.as_chunks::<32>();
        [0, 1].map(|half| avx2!(_mm256_loadu_si256(halves[half].as_ptr().cast())))
    }

    #[inline(always)]
    fn store(self, to: &mut [u8; VECTOR_BYTES], value: Self::I) {
        let (halves, _) = to.as_chunks_mut::<32>();
        for half in 0..2 {
            avx2!(_mm256_storeu_si256(halves[half].as_mut_ptr().cast(), value[half]));
        }
    }

    #[inline(always)]
    fn splat4(self, bytes: [u8; 4]) -> Self::I {
        [avx2!(_mm256_set1_epi32(i32::from_le_bytes(bytes))); 2]
    }

    #[inline(always)]
    fn and(self, a: Self::I, b: Self::I) -> Self::I {
        [avx2!(_mm256_and_si256(a[0], b[0])), avx2!(_mm256_and_si256(a[1], b[1]))]
    }
}
