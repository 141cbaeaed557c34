//! The adversary is the scheduler: chunks yield and sleep at odd moments, and there are more threads
//! than cores, so that threads fall asleep, wake and are overtaken at every point of the protocol.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicUsize};

use proptest::prelude::*;

use super::*;

/// Runs `chunks` and checks from inside the chunks that phases are in order and from outside that
/// every chunk was done once.
fn check(pool: &Pool, chunks: &[u32], disturb: impl Fn(Chunk) + Sync) {
    let counts = |&chunks: &u32| (0..chunks).map(|_| AtomicU32::new(0)).collect::<Vec<_>>();
    let done: Vec<Vec<AtomicU32>> = chunks.iter().map(counts).collect();
    let begun: Vec<AtomicU32> = chunks.iter().map(|_| AtomicU32::new(0)).collect();
    pool.run(chunks, &|chunk| {
        begun[chunk.phase].fetch_add(1, Ordering::Relaxed);
        disturb(chunk);
        // Relaxed throughout: what is seen here is seen by the pool's order alone.
        if let Some(before) = chunk.phase.checked_sub(1) {
            assert!(done[before].iter().all(|done| done.load(Ordering::Relaxed) == 1));
        }
        let later = begun[chunk.phase + 1..].iter();
        assert_eq!(later.map(|begun| begun.load(Ordering::Relaxed)).sum::<u32>(), 0);
        done[chunk.phase][chunk.index as usize].fetch_add(1, Ordering::Relaxed);
    });
    for done in done.iter().flatten() {
        assert_eq!(done.load(Ordering::Relaxed), 1);
    }
}

/// Numbers that look random, the same for the same seed.
fn scramble(seed: u64) -> u64 {
    let mixed = (seed ^ (seed >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32
}

/// Now and then lets another thread run, for an instant or for longer than a spin.
fn disturbance(chunk: Chunk, salt: u64) {
    match scramble((chunk.phase as u64) << 32 | u64::from(chunk.index) ^ salt << 7) % 64 {
        0..8 => std::thread::yield_now(),
        8 => std::thread::sleep(2 * SPIN),
        9..12 => (0..200).for_each(|_| std::hint::spin_loop()),
        _ => {}
    }
}

/// What a panic said.
fn message(action: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(action)).expect_err("a panic");
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned()).expect("a text")
}

#[test]
fn every_chunk_is_done_once_and_phases_are_in_order() {
    for threads in 1..=8 {
        let pool = Pool::new(threads);
        assert_eq!(pool.threads(), threads);
        for run in 0..100 {
            check(&pool, &[5, 1, 0, 16, 3, 0, 0, 2, 9], |chunk| disturbance(chunk, run));
        }
    }
}

#[test]
fn a_run_without_chunks_returns() {
    let pool = Pool::new(2);
    let never = |_: Chunk| panic!("there is no chunk");
    pool.run(&[], &never);
    pool.run(&[0, 0, 0], &never);
    check(&pool, &[0, 1, 0], |_| {});
}

#[test]
fn no_threads_are_one_thread() {
    let pool = Pool::new(0);
    assert_eq!(pool.threads(), 1);
    check(&pool, &[3, 2], |chunk| assert_eq!(chunk.worker, 0));
}

#[test]
fn thousands_of_runs() {
    for threads in [2, 3, 8] {
        let pool = Pool::new(threads);
        let sum = AtomicUsize::new(0);
        let mut expected = 0;
        for run in 0..20_000_u32 {
            let chunks = [1 + run % 3, run % 2, 4, 1];
            expected += chunks.iter().sum::<u32>() as usize;
            pool.run(&chunks, &|_| {
                sum.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(sum.load(Ordering::Relaxed), expected);
        }
    }
}

/// Effects of a phase are plain memory to the next one: each chunk adds its neighbours' numbers, and
/// the end must be what one thread computes.
#[test]
fn the_effects_of_a_phase_are_seen_by_the_next() {
    const CELLS: usize = 16;
    let result = |threads: usize| {
        let pool = Pool::new(threads);
        let cells: [Vec<AtomicUsize>; 2] =
            [0, 1].map(|_| (0..CELLS).map(AtomicUsize::new).collect());
        for _ in 0..20 {
            pool.run(&[CELLS as u32; 100], &|chunk| {
                let (from, to) = (&cells[chunk.phase % 2], &cells[1 - chunk.phase % 2]);
                let at = chunk.index as usize;
                let near = [at, (at + 1) % CELLS, (at + 5) % CELLS];
                let sum = near.iter().map(|&near| from[near].load(Ordering::Relaxed));
                let sum = sum.fold(0, usize::wrapping_add);
                to[at].store(sum.wrapping_mul(31) ^ chunk.phase, Ordering::Relaxed);
            });
        }
        cells.map(|cells| cells.into_iter().map(AtomicUsize::into_inner).collect::<Vec<_>>())
    };
    let expected = result(1);
    for threads in [2, 3, 5, 8] {
        assert_eq!(result(threads), expected, "{threads} threads");
    }
}

#[test]
fn two_chunks_at_a_time_have_different_workers() {
    let pool = Pool::new(6);
    let busy: Vec<AtomicBool> = (0..6).map(|_| AtomicBool::new(false)).collect();
    for run in 0..50 {
        pool.run(&[40, 7], &|chunk| {
            assert!(!busy[chunk.worker].swap(true, Ordering::Relaxed));
            disturbance(chunk, run);
            busy[chunk.worker].store(false, Ordering::Relaxed);
        });
    }
}

/// A chunk of the same phase that waits for another one needs a second thread: all threads help, also
/// those that slept.
#[test]
fn sleepers_are_woken() {
    let pool = Pool::new(8);
    for _ in 0..20 {
        std::thread::sleep(5 * SPIN);
        let (arrived, deadline) = (AtomicUsize::new(0), Instant::now() + Duration::from_secs(60));
        pool.run(&[8], &|_| {
            arrived.fetch_add(1, Ordering::SeqCst);
            while arrived.load(Ordering::SeqCst) < 8 {
                assert!(Instant::now() < deadline, "eight chunks want eight threads");
                std::thread::yield_now();
            }
        });
    }
}

/// The last chunk of a run is long: its caller sleeps and is woken.
#[test]
fn a_caller_that_sleeps_is_woken() {
    let pool = Pool::new(2);
    for _ in 0..50 {
        let slow = AtomicBool::new(false);
        pool.run(&[2, 1, 2], &|chunk| {
            if chunk.worker == 1 && !slow.swap(true, Ordering::Relaxed) {
                std::thread::sleep(10 * SPIN);
            }
        });
    }
}

#[test]
fn a_panic_ends_the_run_and_not_the_pool() {
    for threads in [1, 2, 4, 8] {
        let pool = Pool::new(threads);
        for run in 0..100 {
            let (done, later) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let text = message(|| {
                pool.run(&[3, 50, 4], &|chunk| {
                    disturbance(chunk, run);
                    assert!(chunk.phase != 1 || chunk.index != 7, "chunk seven of run {run}");
                    done.fetch_add(1, Ordering::Relaxed);
                    later.fetch_add(usize::from(chunk.phase == 2), Ordering::Relaxed);
                });
            });
            assert_eq!(text, format!("chunk seven of run {run}"));
            assert_eq!(later.load(Ordering::Relaxed), 0, "no phase after the panic");
            let done = done.load(Ordering::Relaxed);
            assert!((3 + 7..3 + 50).contains(&done), "{done}: chunks are claimed in order");
            check(&pool, &[4, 4], |_| {});
        }
    }
}

#[test]
fn every_chunk_may_panic() {
    let pool = Pool::new(4);
    for _ in 0..100 {
        assert_eq!(message(|| pool.run(&[8, 8], &|_| panic!("all of them"))), "all of them");
    }
    check(&pool, &[4, 4], |_| {});
}

#[test]
fn a_run_within_a_run_is_refused() {
    let pool = Pool::new(2);
    let text = message(|| pool.run(&[1], &|_| pool.run(&[1], &|_| {})));
    assert_eq!(text, "a pool does one run at a time");
    check(&pool, &[2, 2], |_| {});
}

#[test]
fn callers_may_differ() {
    let pool = Pool::new(3);
    for run in 0..50 {
        std::thread::scope(|scope| {
            scope.spawn(|| check(&pool, &[4, 1, 6], |chunk| disturbance(chunk, run)));
        });
    }
}

#[test]
fn pools_come_and_go() {
    for threads in 1..=8 {
        for _ in 0..10 {
            let pool = Pool::new(threads);
            check(&pool, &[4, 4], |_| {});
        }
        drop(Pool::new(threads));
    }
}

#[test]
fn more_workers_than_bits_of_a_word() {
    let pool = Pool::new(130);
    for run in 0..5 {
        check(&pool, &[300, 1, 200], |chunk| disturbance(chunk, run));
        std::thread::sleep(20 * SPIN);
    }
}

/// Several pools on two cores, each busy: the threads of all of them are taken off their cores at any
/// point.
#[test]
fn a_busy_machine() {
    std::thread::scope(|scope| {
        for salt in 0..3 {
            scope.spawn(move || {
                let pool = Pool::new(3);
                for run in 0..200 {
                    check(&pool, &[7, 2, 1, 12], |chunk| disturbance(chunk, run * 5 + salt));
                }
            });
        }
    });
}

proptest! {
    #[test]
    fn any_phases_on_any_threads(
        chunks in prop::collection::vec(0..20_u32, 0..12), threads in 1..9_usize, salt: u64,
    ) {
        let pool = Pool::new(threads);
        check(&pool, &chunks, |chunk| disturbance(chunk, salt));
    }
}
