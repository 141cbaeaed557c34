//! What this machine can do at most: read bandwidth and integer peak, for one thread and for all.
//!
//! `cargo bench -p dsk-kernels --bench limits`
#![expect(clippy::print_stdout, reason = "a report")]

use dsk_kernels::arch::Isa;
use dsk_kernels::measure::{integer_peak, read_bandwidth};
use dsk_kernels::pool::{Pool, default_threads};

fn main() {
    let memory = vec![1_u8; 512 << 20];
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for threads in [1, default_threads()] {
            let pool = Pool::new(threads);
            let read = read_bandwidth(isa, &pool, &memory) / 1e9;
            let multiply = integer_peak(isa, &pool) / 1e9;
            println!("{isa}, {threads} threads: {read:.1} GB/s, {multiply:.0} G multiply-adds/s");
        }
    }
}
