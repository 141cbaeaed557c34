//! What the machine can do at most: the speeds that those of kernels are a part of.
//!
//! Both are measured with the instructions and the threads that the kernels use, over the shortest of
//! several runs, since whatever else the machine does only ever makes a run longer.

use std::time::{Duration, Instant};

use crate::arch::{Isa, Kernel, Simd, VECTOR_BYTES};
use crate::pool::Pool;

#[cfg(test)]
mod tests;

/// Bytes that a worker reads at a time, in order.
const CHUNK: usize = 512 << 10;
/// Vectors that are read before they are joined, so that loads do not wait for one another.
const STREAMS: usize = 4;
/// Bytes ahead of those that are read: processors do not look past a page of 4 KiB by themselves.
const AHEAD: usize = 4096;
/// Runs of which the shortest counts.
const RUNS: usize = 8;
/// Multiplications of a chunk: some tens of microseconds.
const ROUNDS: usize = 4096;
/// Chunks of a run for each worker.
const CHUNKS: usize = 16;

/// Bytes a second of a loop that does nothing but read `memory`, from end to end, with all threads of the
/// pool. The memory should be much larger than the caches, and be paged as that it is compared with.
pub fn read_bandwidth(isa: Isa, pool: &Pool, memory: &[u8]) -> f64 {
    let chunks = u32::try_from(memory.len().div_ceil(CHUNK)).expect("memory that can be had");
    let time = shortest(|| {
        pool.run(&[chunks], &|chunk| {
            let start = chunk.index as usize * CHUNK;
            let bytes = &memory[start..memory.len().min(start + CHUNK)];
            std::hint::black_box(isa.run(ReadAll { bytes }));
        });
    });
    memory.len() as f64 / time.as_secs_f64()
}

/// Multiply-accumulates a second, of 8-bit integers, with all threads of the pool: those of the
/// instruction that kernels multiply with, on operands that are in the nearest cache.
pub fn integer_peak(isa: Isa, pool: &Pool) -> f64 {
    // How many sums hide an instruction's latency and still fit in the registers depends on the set.
    let peak = multiply_rate(isa, pool, Multiply::<4>, 4)
        .max(multiply_rate(isa, pool, Multiply::<6>, 6))
        .max(multiply_rate(isa, pool, Multiply::<12>, 12));
    if isa.run(MultiplyPaired::<1>).is_none() {
        return peak;
    }
    // By two tokens both halves of eight columns.
    peak.max(multiply_rate(isa, pool, MultiplyPaired::<1>, 4)).max(multiply_rate(
        isa,
        pool,
        MultiplyPaired::<2>,
        8,
    ))
}

/// The rate of a kernel that multiplies this many vectors in a round.
fn multiply_rate<K: Kernel + Copy + Sync>(isa: Isa, pool: &Pool, kernel: K, vectors: usize) -> f64 {
    let chunks = u32::try_from(CHUNKS * pool.threads()).expect("fewer threads");
    let time = shortest(|| {
        pool.run(&[chunks], &|_| {
            std::hint::black_box(isa.run(kernel));
        });
    });
    let multiplications = ROUNDS * vectors * VECTOR_BYTES;
    f64::from(chunks) * multiplications as f64 / time.as_secs_f64()
}

fn shortest(mut run: impl FnMut()) -> Duration {
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    let shortest = (0..RUNS).map(time).min().unwrap_or_default();
    // A clock that stands still gives a rate that is too low and not one that is infinite.
    shortest.max(Duration::from_nanos(1))
}

/// Reads all bytes. Gives their conjunction, so that the reading is not optimised away.
struct ReadAll<'a> {
    bytes: &'a [u8],
}

impl Kernel for ReadAll<'_> {
    type Output = [u8; VECTOR_BYTES];

    #[inline(always)]
    fn run<V: Simd>(self, simd: V) -> Self::Output {
        let mut sums = [simd.splat4([0xff; 4]); STREAMS];
        let (blocks, rest) = self.bytes.as_chunks::<{ STREAMS * VECTOR_BYTES }>();
        for (at, block) in blocks.iter().enumerate() {
            let (vectors, _) = block.as_chunks::<VECTOR_BYTES>();
            for stream in 0..STREAMS {
                let offset = (at * STREAMS + stream) * VECTOR_BYTES + AHEAD;
                simd.prefetch(self.bytes, offset);
                sums[stream] = simd.and(sums[stream], simd.load(&vectors[stream]));
            }
        }
        let sum = simd.and(simd.and(sums[0], sums[1]), simd.and(sums[2], sums[3]));
        let mut out = [0; VECTOR_BYTES];
        simd.store(&mut out, sum);
        for part in rest.chunks(VECTOR_BYTES) {
            part.iter().zip(&mut out).for_each(|(byte, out)| *out &= byte);
        }
        out
    }
}

/// Multiplies, each round one vector of weights with `SUMS` groups of activations that are in registers.
#[derive(Clone, Copy)]
struct Multiply<const SUMS: usize>;

impl<const SUMS: usize> Kernel for Multiply<SUMS> {
    type Output = [u8; VECTOR_BYTES];

    #[inline(always)]
    fn run<V: Simd>(self, simd: V) -> Self::Output {
        // From memory that the compiler knows nothing of, as a kernel's operands are.
        let weights = std::hint::black_box([[3_u8; VECTOR_BYTES]; 64]);
        let activations = std::hint::black_box([[1_i8; 4]; SUMS]);
        let activations: [V::I; SUMS] = std::array::from_fn(|at| simd.splat_i8(&activations[at]));
        let mut sums = [simd.splat4([0; 4]); SUMS];
        for round in 0..ROUNDS {
            let weights = simd.load(&weights[round % 64]);
            for sum in 0..SUMS {
                sums[sum] = simd.add_products(sums[sum], weights, activations[sum]);
            }
        }
        joined(simd, &sums)
    }
}

/// Multiplies, each round two vectors of weights with `PAIRS` groups of two tokens' activations; gives
/// nothing where the instruction set cannot.
#[derive(Clone, Copy)]
struct MultiplyPaired<const PAIRS: usize>;

impl<const PAIRS: usize> Kernel for MultiplyPaired<PAIRS> {
    type Output = Option<[u8; VECTOR_BYTES]>;

    #[inline(always)]
    fn run<V: Simd>(self, simd: V) -> Self::Output {
        if !V::PAIRED {
            return None;
        }
        let weights = std::hint::black_box([[[3_u8; VECTOR_BYTES]; 2]; 32]);
        let activations = std::hint::black_box([[[1_i8; 8]; 2]; PAIRS]);
        let mut sums = [[simd.splat4([0; 4]); 2]; PAIRS];
        for round in 0..ROUNDS {
            let [first, second] = &weights[round % 32];
            let weights = [simd.load(first), simd.load(second)];
            for pair in 0..PAIRS {
                let [first, second] = &activations[pair];
                sums[pair] = simd.add_paired_products(sums[pair], weights, [first, second]);
            }
        }
        Some(joined(simd, sums.as_flattened()))
    }
}

/// The exclusive disjunction of vectors.
#[inline(always)]
fn joined<V: Simd>(simd: V, sums: &[V::I]) -> [u8; VECTOR_BYTES] {
    let mut out = [0; VECTOR_BYTES];
    for sum in sums {
        let mut bytes = [0; VECTOR_BYTES];
        simd.store(&mut bytes, *sum);
        out.iter_mut().zip(bytes).for_each(|(out, byte)| *out ^= byte);
    }
    out
}
