//! Operations on floats.

use super::*;
use crate::arch::{Floats, LANES};

impl Floats for Avx2 {
    type F = [__m256; 2];

    #[inline(always)]
    fn load_f32(self, from: &[f32; LANES]) -> Self::F {
        let (halves, _) = from.as_chunks::<8>();
        [0, 1].map(|half| avx2!(_mm256_loadu_ps(halves[half].as_ptr())))
    }

    #[inline(always)]
    fn store_f32(self, to: &mut [f32; LANES], value: Self::F) {
        let (halves, _) = to.as_chunks_mut::<8>();
        for half in 0..2 {
            avx2!(_mm256_storeu_ps(halves[half].as_mut_ptr(), value[half]));
        }
    }

    #[inline(always)]
    fn splat_f32(self, value: f32) -> Self::F {
        [avx2!(_mm256_set1_ps(value)); 2]
    }

    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        [0, 1].map(|half| avx2!(_mm256_fmadd_ps(a[half], b[half], c[half])))
    }
}
