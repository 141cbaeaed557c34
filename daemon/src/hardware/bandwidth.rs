//! How fast all threads together read memory: what bounds the speed of generation on a processor.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use super::roots::cpu_list;
use super::{Machine, Roots};

/// More threads saturate no memory.
const THREADS_MAX: usize = 64;
/// The buffers together: far larger than the caches, and no burden to the machine.
const BYTES_MIN: u64 = 64 << 20;
const BYTES_MAX: u64 = 512 << 20;
/// Times the caches' size, so that little of a buffer is still cached when it comes round again.
const CACHES: u64 = 4;
/// The part of what is available that a measurement may take.
const SHARE: u64 = 8;
/// The best of these counts: others run as well.
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_millis(12);
/// Words between two looks at the clock: 512 KiB.
const STRIDE: usize = 64 << 10;

/// Bytes per second; `None` where memory is too scarce to measure. Blocking, about 100 ms, and all
/// processors are busy meanwhile: once per process is enough.
pub(super) fn measure(roots: &Roots, machine: &Machine) -> Option<u64> {
    let wanted = caches(roots).saturating_mul(CACHES).clamp(BYTES_MIN, BYTES_MAX);
    let bytes = wanted.min(machine.memory.available / SHARE);
    let threads = machine.cpu.threads.clamp(1, THREADS_MAX);
    let words = usize::try_from(bytes).ok()? / size_of::<u64>() / threads;
    (words >= STRIDE).then(|| fastest(threads, words))
}

/// The size of all last-level caches, in bytes; 0 where nobody says.
fn caches(roots: &Roots) -> u64 {
    let base = "/sys/devices/system/cpu";
    let one = |index: u32| {
        let cache = format!("{base}/cpu0/cache/index{index}");
        let size = roots.line(format!("{cache}/size"))?;
        let size = size.strip_suffix('K')?.parse::<u64>().ok()?.checked_mul(1024)?;
        let sharing = cpu_list(&roots.line(format!("{cache}/shared_cpu_list"))?)?.len();
        Some((size, sharing as u64))
    };
    let Some((size, sharing)) = (0..5).rev().find_map(one) else { return 0 };
    let online = roots.text(format!("{base}/online")).as_deref().and_then(cpu_list);
    let online = online.map_or(1, |cpus| cpus.len() as u64);
    size.saturating_mul(online.div_ceil(sharing))
}

/// Every thread reads a buffer of its own, all at the same time.
fn fastest(threads: usize, words: usize) -> u64 {
    let barrier = Barrier::new(threads);
    let rates: Vec<[f64; ROUNDS]> = thread::scope(|scope| {
        let reader = || scope.spawn(|| rounds(&barrier, words));
        let readers: Vec<_> = (0..threads).map(|_| reader()).collect();
        readers.into_iter().map(|reader| reader.join().expect("a reader only adds")).collect()
    });
    let sums = (0..ROUNDS).map(|round| rates.iter().map(|rates| rates[round]).sum::<f64>());
    sums.fold(0.0, f64::max) as u64
}

/// Bytes per second of this thread in each round: of the stride in the middle, since others that take
/// the processor for a while slow down a few strides and say nothing of the memory.
fn rounds(barrier: &Barrier, words: usize) -> [f64; ROUNDS] {
    // Written, since pages that were never written to are all the same page.
    let buffer = vec![1_u64; words];
    let mut chunks = buffer.chunks_exact(STRIDE).cycle();
    [(); ROUNDS].map(|()| {
        barrier.wait();
        let (began, mut times) = (Instant::now(), Vec::new());
        while began.elapsed() < ROUND {
            let start = Instant::now();
            black_box(sum(chunks.next().unwrap_or_default()));
            times.push(start.elapsed());
        }
        times.sort_unstable();
        let middle = times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64);
        if middle > 0.0 { size_of::<[u64; STRIDE]>() as f64 / middle } else { 0.0 }
    })
}

/// Eight sums side by side, so that no addition waits for another.
fn sum(words: &[u64]) -> u64 {
    let mut sums = [0_u64; 8];
    for eight in words.chunks_exact(8) {
        for (sum, word) in sums.iter_mut().zip(eight) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().fold(0, |sum, part| sum.wrapping_add(*part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::testing::tree;
    use crate::hardware::{Cpu, Memory};

    #[test]
    fn memory_is_measured_in_a_bounded_time() {
        let cpu = Cpu { threads: 2, ..Cpu::default() };
        let memory = Memory { total: 2 << 30, available: 1 << 30, ..Memory::default() };
        let machine = Machine { cpu, memory, ..Machine::default() };
        let empty = tree(&[]);
        let began = Instant::now();
        let rate = measure(&Roots::at(empty.path()), &machine).unwrap();
        assert!((100_000_000..5_000_000_000_000).contains(&rate), "{rate}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }

    #[test]
    fn scarce_memory_is_left_alone() {
        let memory = Memory { total: 2 << 30, available: 2 << 20, ..Memory::default() };
        let machine = Machine { memory, ..Machine::default() };
        assert_eq!(measure(&Roots::system(), &machine), None);
    }

    #[test]
    fn all_caches_of_the_last_level() {
        let base = "sys/devices/system/cpu";
        let folder = tree(&[
            (&format!("{base}/online"), "0-15"),
            (&format!("{base}/cpu0/cache/index2/size"), "512K"),
            (&format!("{base}/cpu0/cache/index2/shared_cpu_list"), "0-1"),
            (&format!("{base}/cpu0/cache/index3/size"), "32768K"),
            (&format!("{base}/cpu0/cache/index3/shared_cpu_list"), "0-7"),
        ]);
        assert_eq!(caches(&Roots::at(folder.path())), 64 << 20);
        assert_eq!(caches(&Roots::at(tree(&[]).path())), 0);
    }
}
