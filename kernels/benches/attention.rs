//! How fast attention is: multiplications and additions per cycle for prompts, bytes per second for
//! single tokens far into a sequence. Each figure is of many runs of about a millisecond, which
//! other work on the machine interrupts seldom: the best, or of cold ones the lower quartile.
//!
//! `cargo bench -p dsk-kernels --bench attention [words]` runs the cases whose names hold a word.
#![expect(clippy::print_stdout, reason = "the result of a benchmark")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use dsk_kernels::arch::Isa;
use dsk_kernels::attention::{Attend, Scratch, attend};
use dsk_kernels::kv::{BLOCK_TOKENS, KvType, tile_bytes, write};

/// Query heads for each head of keys and values, and their length: Qwen2.5 1.5B, 0.5B and 7B,
/// SmolLM2 135M, one without groups, Gemma 2.
const HEADS: [(usize, usize); 6] = [(6, 128), (7, 64), (7, 128), (3, 64), (1, 128), (2, 256)];
/// Tokens before those of the prompt.
const DEPTH: usize = 512;
/// Query heads of all the tokens of the prompt.
const PROMPT_ROWS: usize = 96;
/// Tokens before a single one.
const DECODE_DEPTH: usize = 4096;
/// Bytes that are more than the caches hold.
const COLD_BYTES: usize = 64 << 20;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    for kv_type in [KvType::F16, KvType::Q8_0] {
        for (group, length) in HEADS {
            for (kind, run) in [("prompt", prompt as fn(&str, &Attend)), ("decode", decode)] {
                let name = format!("{kind} {kv_type:?} {group}x{length}");
                if words.is_empty() || words.iter().any(|word| name.contains(word.as_str())) {
                    run(&name, &shape(kv_type, group, length));
                }
            }
        }
    }
}

fn shape(kv_type: KvType, group: usize, length: usize) -> Attend {
    let scale = 1.0 / (length as f32).sqrt();
    let (key_length, value_length) = (length, length);
    Attend { kv_type, key_length, value_length, group, scale, softcap: None, window: None }
}

/// Numbers between -1 and 1.
fn numbers(length: usize) -> Vec<f32> {
    (0..length).map(|at| (at as f32 * 0.37).sin()).collect()
}

/// The blocks of one head.
fn cache(shape: &Attend, tokens: usize) -> Vec<Vec<u8>> {
    let bytes = tile_bytes(shape.kv_type, shape.key_length, shape.value_length);
    let row = numbers(2 * shape.key_length);
    let mut tile = vec![0; bytes];
    for slot in 0..BLOCK_TOKENS {
        let key = &row[slot..][..shape.key_length];
        write(Isa::best(), shape.kv_type, &mut tile, slot, key, &row[..shape.value_length]);
    }
    vec![tile; tokens.div_ceil(BLOCK_TOKENS)]
}

/// How long runs take that together take half a second; shortest first.
fn times(mut run: impl FnMut()) -> Vec<f64> {
    let begin = Instant::now();
    let mut times = Vec::new();
    while begin.elapsed() < Duration::from_millis(500) {
        let start = Instant::now();
        run();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times
}

/// Cycles per second, by a chain of additions and multiplications of 4 cycles for a pair.
fn frequency() -> f64 {
    const STEPS: u32 = 100_000;
    let times = times(|| {
        let mut x = black_box(1u64);
        for _ in 0..STEPS {
            x = step(x);
        }
        black_box(x);
    });
    4.0 * f64::from(STEPS) / times[0]
}

/// A multiplication (3 cycles) and an exclusive or (1 cycle), each waiting for the one before.
fn step(x: u64) -> u64 {
    x.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995
}

fn prompt(name: &str, shape: &Attend) {
    let tokens = PROMPT_ROWS / shape.group;
    let tiles = cache(shape, DEPTH + tokens);
    let queries = numbers(tokens * shape.group * shape.key_length);
    let mut out = vec![0.0; tokens * shape.group * shape.value_length];
    let mut scratch = Scratch::default();
    let times = times(|| {
        let tiles = |block: usize| tiles[block].as_slice();
        attend(Isa::best(), shape, &tiles, &queries, DEPTH, &mut scratch, &mut out);
    });
    let seen: usize = (DEPTH + 1..=DEPTH + tokens).sum();
    let products = seen * shape.group * (shape.key_length + shape.value_length);
    let rate = products as f64 / times[0];
    let per_cycle = rate / frequency();
    println!("{name:24} {:6.1} G products/s, {per_cycle:5.2} per cycle", rate / 1e9);
}

fn decode(name: &str, shape: &Attend) {
    let tile = tile_bytes(shape.kv_type, shape.key_length, shape.value_length);
    let bytes = DECODE_DEPTH / BLOCK_TOKENS * tile;
    let count = COLD_BYTES.div_ceil(bytes);
    let caches: Vec<_> = (0..count).map(|_| cache(shape, DECODE_DEPTH)).collect();
    let queries = numbers(shape.group * shape.key_length);
    let mut out = vec![0.0; shape.group * shape.value_length];
    let mut scratch = Scratch::default();
    let mut run = |cache: &[Vec<u8>]| {
        let tiles = |block: usize| cache[block].as_slice();
        let last = DECODE_DEPTH - 1;
        attend(Isa::best(), shape, &tiles, &queries, last, &mut scratch, &mut out);
    };
    let warm = times(|| run(&caches[0]));
    let mut next = caches.iter().cycle();
    let mut another = || next.next().map_or(&[] as &[Vec<u8>], Vec::as_slice);
    let cold = times(|| run(another()));
    let read = times(|| sum(another()));
    let rate = |time: f64| bytes as f64 / time / 1e9;
    let [cold, read] = [&cold, &read].map(|times| rate(times[times.len() / 4]));
    let warm = rate(warm[0]);
    println!("{name:24} {cold:6.1} GB/s, from caches {warm:5.1}, only reading {read:5.1}");
}

/// Reads all the bytes.
fn sum(cache: &[Vec<u8>]) {
    let mut sum = 0u64;
    for tile in cache {
        for word in tile.as_chunks::<8>().0 {
            sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    black_box(sum);
}
