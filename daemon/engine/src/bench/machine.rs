//! What this process takes of the machine, and what the machine can do at most.

use dsk_kernels::arch::Isa;
use dsk_kernels::measure;
use dsk_kernels::pool::Pool;

use crate::mmap::Arena;

/// Memory that bandwidth is measured on, in bytes: far more than caches hold, and not so much that
/// the measurement takes longer than what it is compared with.
const MEMORY: usize = 256 << 20;

/// The resident memory of this process, as the kernel counts it: its own pages and those of files.
/// 0 where the kernel does not say.
pub(super) fn resident_bytes() -> u64 {
    sum(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
}

/// The memory that only this process has. 0 where the kernel does not say.
pub(super) fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    kibibytes(&status, "RssAnon:").saturating_mul(1024)
}

fn kibibytes(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn sum(status: &str) -> u64 {
    let parts = ["RssAnon:", "RssFile:"].map(|name| kibibytes(status, name));
    parts[0].saturating_add(parts[1]).saturating_mul(1024)
}

/// Bytes a second that the threads read; `None` where there is no memory to read.
pub(super) fn read_bandwidth(isa: Isa, threads: usize) -> Option<f64> {
    let mut memory = Arena::new(MEMORY).ok()?;
    // Pages that were never written to are all the same one.
    memory.fill(1);
    Some(measure::read_bandwidth(isa, &Pool::new(threads), &memory))
}

/// 8-bit multiply-accumulates a second of the threads.
pub(super) fn integer_peak(isa: Isa, threads: usize) -> f64 {
    measure::integer_peak(isa, &Pool::new(threads))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_its_own_and_that_of_files() {
        let status = "VmRSS:\t 99 kB\nRssAnon:\t     30 kB\nRssFile:\t 12 kB\nRssShmem:\t 1 kB\n";
        assert_eq!(sum(status), 42 * 1024);
        assert_eq!(sum("Name:\tx\n"), 0);
        assert!(resident_bytes() > 0);
    }
}
