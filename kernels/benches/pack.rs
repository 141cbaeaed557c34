//! How fast weights are packed, in GB/s: a matrix from memory to memory, and one panel in the caches.
//!
//! `cargo bench -p dsk-kernels --bench pack -- [columns]`; the least time of several is taken.
#![expect(clippy::print_stdout, reason = "a benchmark's results")]

use std::time::Instant;

use dsk_kernels::format::Format;
use dsk_kernels::panel::{can_pack, pack_panel, panel_bytes};

/// Bytes of weights that no cache holds.
const BYTES: usize = 128 << 20;
const ROUNDS: usize = 5;

fn main() {
    let columns = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(1536);
    let fits = |format: &Format| {
        can_pack(*format) && usize::is_multiple_of(columns, format.elements_per_block())
    };
    for format in Format::ALL.iter().copied().filter(fits) {
        let panel = panel_bytes(format, columns);
        let bytes = BYTES / panel * panel;
        let (source, mut out) = (vec![1_u8; bytes], vec![0_u8; bytes]);
        let streamed = least_time(|| {
            for (from, to) in source.chunks_exact(panel).zip(out.chunks_exact_mut(panel)) {
                pack_panel(format, columns, from, to).expect("finite scales");
            }
        });
        let cached = least_time(|| {
            for _ in 0..bytes / panel {
                pack_panel(format, columns, &source[..panel], &mut out[..panel])
                    .expect("finite scales");
            }
        });
        let rate = |seconds: f64| bytes as f64 / 1e9 / seconds;
        println!("{:8} {:5.2} {:5.2}", format.name(), rate(streamed), rate(cached));
    }
}

/// Seconds.
fn least_time(mut work: impl FnMut()) -> f64 {
    let once = |_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..ROUNDS).map(once).fold(f64::MAX, f64::min)
}
