//! What the pool costs, and what it keeps of its speed on a busy machine.
//!
//! `cargo bench -p dsk-kernels --bench pool`; with `hogs` as an argument only the busy machine.
//!
//! Three figures: the time that a phase takes beyond its arithmetic on an idle machine; the time of a
//! borrow from `Shared`; and the work done a second with one hog a core (a process that computes
//! without end, at the same priority) as a share of what is done on an idle machine, where a fair share
//! is half. The runs on an idle and on a busy machine are interleaved, and medians are given.
#![expect(clippy::print_stdout, reason = "a report")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dsk_kernels::pool::{Chunk, Pool};
use dsk_kernels::shared::Shared;

/// Phases of a run, as many as a token takes.
const PHASES: usize = 250;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == "hog") {
        hog();
    }
    if !arguments.iter().any(|argument| argument == "hogs") {
        switches();
        borrows();
    }
    busy();
}

/// Computes until its parent is gone.
fn hog() -> ! {
    let parent = std::os::unix::process::parent_id();
    while std::os::unix::process::parent_id() == parent {
        std::hint::black_box(arithmetic(1_000_000));
    }
    std::process::exit(0);
}

/// About a nanosecond or two a step, without memory.
fn arithmetic(steps: u32) -> u32 {
    let mut value = 1_u32;
    for step in 0..steps {
        value = std::hint::black_box(value.wrapping_mul(0x9e37_79b9) ^ step);
    }
    value
}

/// Nanoseconds of a step.
fn step() -> f64 {
    best(|| _ = std::hint::black_box(arithmetic(100_000))).as_nanos() as f64 / 100_000.0
}

fn best(mut action: impl FnMut()) -> Duration {
    let time = |_| {
        let start = Instant::now();
        action();
        start.elapsed()
    };
    (0..200).map(time).min().unwrap_or_default()
}

/// What a phase takes beyond its arithmetic.
fn switches() {
    let step = step();
    for threads in [1, 2] {
        let pool = Pool::new(threads);
        for (chunks, micros) in [(1, 0.0), (2, 0.0), (8, 0.0), (2, 2.0), (2, 10.0), (8, 5.0)] {
            let steps = (micros * 1000.0 / step) as u32;
            let work = |_: Chunk| _ = std::hint::black_box(arithmetic(steps));
            let time = best(|| pool.run(&[chunks; PHASES], &work));
            let rounds = f64::from(chunks.div_ceil(threads as u32));
            let arithmetic = if steps == 0 { 0.0 } else { rounds * f64::from(steps) * step };
            let each = time.as_nanos() as f64 / PHASES as f64 - arithmetic;
            println!(
                "{threads} threads, {chunks} chunks of {micros} us: {each:.0} ns more a phase"
            );
        }
    }
}

fn borrows() {
    let matrix = Shared::<f32>::new(8, 4096);
    let times = 1000;
    let read = best(|| (0..times).for_each(|_| drop(std::hint::black_box(matrix.read()))));
    let write = best(|| {
        (0..times).for_each(|at| drop(std::hint::black_box(matrix.write(0..8, at..at + 64))));
    });
    let each = |time: Duration| time.as_nanos() / times as u128;
    println!("shared: {} ns to read, {} ns to write", each(read), each(write));
}

/// Hogs that can be halted.
struct Hogs(Vec<Child>);

impl Hogs {
    fn start() -> Hogs {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let program = std::env::current_exe().expect("this program's path");
        let start = |_| {
            let mut command = Command::new(&program);
            command.arg("hog").stdin(Stdio::null()).spawn().expect("a process")
        };
        Hogs((0..cores).map(start).collect())
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            let _ = hog.kill();
            let _ = hog.wait();
        }
    }
}

/// Runs a second for about `time`.
fn speed(pool: &Pool, chunks: &[u32], steps: u32, time: Duration) -> f64 {
    let work = |_: Chunk| _ = std::hint::black_box(arithmetic(steps));
    let (start, mut runs) = (Instant::now(), 0);
    while start.elapsed() < time {
        pool.run(chunks, &work);
        runs += 1;
    }
    f64::from(runs) / start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn busy() {
    let step = step();
    for threads in [1, 2] {
        let pool = Pool::new(threads);
        for (chunks, micros) in [(4, 20.0), (8, 30.0), (2, 50.0), (1, 30.0)] {
            let (phases, steps) = ([chunks; PHASES], (micros * 1000.0 / step) as u32);
            let (mut idle, mut busy) = (Vec::new(), Vec::new());
            for _ in 0..5 {
                idle.push(speed(&pool, &phases, steps, Duration::from_millis(400)));
                let hogs = Hogs::start();
                std::thread::sleep(Duration::from_millis(100));
                busy.push(speed(&pool, &phases, steps, Duration::from_millis(1000)));
                drop(hogs);
            }
            let (idle, busy) = (median(idle), median(busy));
            println!(
                "{threads} threads, {chunks} chunks of {micros} us: {idle:.1} runs/s idle, {busy:.1} \
                 with hogs, {:.0} %",
                100.0 * busy / idle
            );
        }
    }
}
