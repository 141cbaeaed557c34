//! How fast the multiplication kernels are, in processor cycles, on data in the caches.
//!
//! `cargo bench -p dsk-kernels --bench matmul -- [instruction set] [format] [columns]` prints, for
//! each format, multiplications per cycle with 1 to 8 and 126 tokens, and for one token the bytes
//! of weights per cycle and, of a matrix in memory, in GB/s. The least time of many is taken: what the machine does otherwise only adds.

#![expect(clippy::print_stdout, reason = "a benchmark's results")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use dsk_kernels::activation::{Kind, Rows, quantize_row};
use dsk_kernels::arch::Isa;
use dsk_kernels::format::Format;
use dsk_kernels::matmul::{Scratch, multiply};
use dsk_kernels::panel::{Matrix, can_pack, pack_panel, panel_bytes};

/// Rows of the weights.
const ROWS: usize = 64;
/// Bytes of weights that no cache holds.
const STREAMED: usize = 40 << 20;
/// How long one figure may take.
const PATIENCE: Duration = Duration::from_millis(250);

fn main() {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let isa = words.iter().find_map(|word| Isa::parse(word)).unwrap_or(Isa::best());
    let columns: usize = words.iter().find_map(|word| word.parse().ok()).unwrap_or(1536);
    let named = |format: &Format| words.iter().any(|word| word == format.name());
    let formats: Vec<Format> = Format::ALL.iter().copied().filter(named).collect();
    let formats = if formats.is_empty() { Format::ALL.to_vec() } else { formats };
    println!("{isa}, {ROWS} x {columns}, {:.2} cycles/ns; MAC/cycle", cycles_per_ns());
    println!("{:8} B/cycle  GB/s | 1, 2, 3, 4, 6, 8, 126 tokens", "format");
    let fits =
        |format: &Format| can_pack(*format) && columns.is_multiple_of(format.elements_per_block());
    for format in formats.into_iter().filter(fits) {
        let bytes = panel_bytes(format, columns) * (ROWS / 16);
        let time = |tokens| least_time(isa, format, columns, ROWS, tokens);
        let per_cycle =
            |tokens: usize| (ROWS * columns * tokens) as f64 / (time(tokens) * cycles_per_ns());
        let line: Vec<String> =
            [1, 2, 3, 4, 6, 8, 126].map(|tokens| format!("{:6.1}", per_cycle(tokens))).to_vec();
        let gemv = bytes as f64 / (time(1) * cycles_per_ns());
        let streamed = STREAMED / (bytes / ROWS) / 16 * 16;
        let rate =
            (streamed * (bytes / ROWS)) as f64 / least_time(isa, format, columns, streamed, 1);
        println!("{:8} {gemv:7.1} {rate:5.1} | {}", format.name(), line.join(" "));
    }
}

/// The least time of one multiplication, in ns.
fn least_time(isa: Isa, format: Format, columns: usize, rows: usize, tokens: usize) -> f64 {
    let file = panel_rows(format, columns);
    let mut packed = vec![0; panel_bytes(format, columns) * (rows / 16)];
    let panels = packed.chunks_exact_mut(panel_bytes(format, columns));
    for panel in panels {
        pack_panel(format, columns, &file, panel).expect("finite scales");
    }
    let weights = Matrix::new(format, rows, columns, &packed);
    let kind = Kind::of(format);
    let x: Vec<f32> = (0..tokens * columns).map(|at| (at % 251) as f32 - 125.0).collect();
    let mut values = vec![0; tokens * kind.values(columns)];
    let mut scales = vec![0.0; tokens * kind.scales(columns)];
    let mut sums = vec![0; tokens * kind.sums(columns)];
    if kind != Kind::F32 {
        for (token, x) in x.chunks_exact(columns).enumerate() {
            let values = &mut values[token * columns..][..columns];
            let scales = &mut scales[token * kind.scales(columns)..][..kind.scales(columns)];
            let sums = &mut sums[token * kind.sums(columns)..][..kind.sums(columns)];
            quantize_row(isa, kind, x, values, scales, sums);
        }
    }
    let floats: &[f32] = if kind == Kind::F32 { &x } else { &[] };
    let (values, scales, sums) = (&values[..], &scales[..], &sums[..]);
    let input = Rows { kind, columns, values, scales, sums, floats };
    let (mut scratch, mut out) = (Scratch::new(), vec![0.0; tokens * rows]);
    let mut least = f64::INFINITY;
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let start = Instant::now();
        multiply(isa, &weights, 0..weights.panels(), &input, &mut scratch, &mut out);
        least = least.min(start.elapsed().as_nanos() as f64);
        black_box(&mut out);
    }
    least
}

/// 16 rows of a file: all bytes 0x31, which makes scales of about 0.15.
fn panel_rows(format: Format, columns: usize) -> Vec<u8> {
    vec![0x31; panel_bytes(format, columns)]
}

/// The clock: a chain of operations that take one and three cycles.
fn cycles_per_ns() -> f64 {
    const STEPS: u32 = 4000;
    let mut least = f64::INFINITY;
    for _ in 0..400 {
        let mut number = black_box(1u64);
        let start = Instant::now();
        for _ in 0..STEPS {
            number = (number ^ 0x5555).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        black_box(number);
        least = least.min(start.elapsed().as_nanos() as f64);
    }
    f64::from(STEPS) * 4.0 / least
}
