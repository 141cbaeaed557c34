//! Threads that work through phases of chunks together, made for decoding: hundreds of phases a
//! token, each of tens of microseconds.
//!
//! **Nobody waits for a thread, only for claimed chunks.** Threads claim chunks of the current phase
//! one at a time, and whoever completes the last one starts the next phase. A thread that the
//! operating system took off its core without a chunk in hand delays nobody: it joins whatever is
//! current when it comes back. One that has a chunk in hand delays the phase, by the milliseconds for
//! which another process has the core; the others then sleep, after a short spin, and so lose nothing
//! of their own turn. When the thread is back it completes the chunk and wakes them, and all run
//! together until the next interruption: half the speed with one other process a core, as is fair. (To
//! yield between chunks, so as not to be interrupted in one, makes it worse: what is left of a turn is
//! forfeited by yielding.)
//!
//! # The protocol
//!
//! `available` counts the chunks of the current phase that nobody has claimed, `unfinished` those
//! that are not complete, and [`Job`] says what a chunk means.
//!
//! 1. A thread claims with one `fetch_sub(1)` of `available`. The value before it, where positive, is
//!    the thread's chunk; where not, there was none, and the count is only more negative than before,
//!    which the next phase's store undoes. It does not matter how old the knowledge was that made the
//!    thread try: a positive value is a chunk of the phase that is current at that instant.
//! 2. From a claim to its completion the phase cannot end, so `Job` does not change and is read
//!    without a lock.
//! 3. A chunk is completed by `fetch_sub(1)` of `unfinished`. Whoever takes that to zero is alone: all
//!    chunks are claimed and complete. It alone writes `Job`, then `unfinished`, then `available`,
//!    which opens the next phase; or it sets `finished`, which ends the run.
//!
//! Memory order: opening a phase is a `Release` store of `available` at least, and claims are `Acquire`
//! read-modify-writes of it, which continue the release sequence of that store: whoever claims sees
//! `Job`, `unfinished`, and all that came before the phase. Completions are `AcqRel` read-modify-writes
//! of `unfinished`: whoever does the last one sees the effects of all chunks, hence the next phase and
//! the caller do. The remaining orders, all `SeqCst`, are those of falling asleep (see `Threads::sleep`).
#![expect(unsafe_code, reason = "workers call a closure that lives as long as the run")]

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

mod machine;
#[cfg(test)]
mod tests;

pub use machine::default_threads;

/// For how long a thread without a chunk looks for one before it sleeps. Phases follow one another
/// much faster than that, unless another process has the core that a claimed chunk is on.
const SPIN: Duration = Duration::from_micros(40);
/// Looks between two looks at the clock.
const LOOKS: usize = 32;
/// Sleepers that whoever opens a phase wakes; each of those wakes as many.
const WAKES: usize = 2;

/// A share of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Which phase of the run.
    pub phase: usize,
    /// Which chunk of the phase.
    pub index: u32,
    /// Who does it: below [`Pool::threads`], and no two at a time have the same number.
    pub worker: usize,
}

/// Threads that work through phases together.
#[derive(Debug)]
pub struct Pool {
    threads: Arc<Threads>,
    handles: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool of `threads` workers (at least one): the caller of [`Pool::run`], and `threads - 1`
    /// threads that sleep between runs. Where the operating system gives fewer threads, fewer work.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Threads::new(threads.max(1)));
        let mut pool = Pool { threads: shared, handles: Vec::new() };
        for worker in 1..threads {
            let threads = Arc::clone(&pool.threads);
            let thread = std::thread::Builder::new().name(format!("compute {worker}"));
            match thread.spawn(move || threads.work(worker)) {
                Ok(handle) => pool.handles.push(handle),
                Err(_none_to_be_had) => break,
            }
        }
        pool
    }

    /// Workers that were asked for, the caller of [`Pool::run`] among them.
    pub fn threads(&self) -> usize {
        self.threads.seats.len()
    }

    /// Runs `work` once for each chunk: `chunks[p]` of them in phase `p`. All chunks of a phase are
    /// complete, and their effects seen, before any of a later phase starts; within a phase they run
    /// in any order and side by side. The caller is worker 0.
    ///
    /// # Panics
    /// Where a chunk panics, with its payload, after the chunks that had begun are complete; no other
    /// begins, and the pool stays usable. Also where the pool is running already: a chunk cannot run
    /// a pool that it is part of.
    pub fn run(&self, chunks: &[u32], work: &(dyn Fn(Chunk) + Sync)) {
        let running = self.threads.running.swap(true, Ordering::Acquire);
        assert!(!running, "a pool does one run at a time");
        let _idle = Idle(&self.threads.running);
        self.threads.run(chunks, work);
        let panics = std::mem::take(&mut *lock(&self.threads.panics));
        if let Some(payload) = panics.into_iter().next() {
            resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.threads.stopping.0.store(true, Ordering::SeqCst);
        self.threads.wake(usize::MAX);
        for handle in self.handles.drain(..) {
            // A worker catches the panics of chunks and has no other.
            let _ = handle.join();
        }
    }
}

/// Says that the pool is not running any more, by whichever way the run is left.
struct Idle<'a>(&'a AtomicBool);

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A cache line and its neighbour, which processors fetch together: what several threads write
/// lies on lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Line<T>(pub(super) T);

/// What the threads of a pool have in common.
struct Threads {
    /// Chunks of the current phase that nobody has claimed; zero or less: none.
    available: Line<AtomicI64>,
    /// Chunks of the current phase that are not complete.
    unfinished: Line<AtomicI64>,
    /// Whether the run is over.
    finished: Line<AtomicBool>,
    /// Whether the threads are to end.
    stopping: Line<AtomicBool>,
    /// What chunks mean; see the protocol for who may touch it.
    job: UnsafeCell<Job>,
    /// One bit a worker: asleep, or about to be. Whoever clears the bit owes the worker an `unpark`.
    asleep: Vec<AtomicU64>,
    /// Whom to unpark. Locked to wake a worker, by the caller at the start of a run, and once by each.
    seats: Vec<Mutex<Option<Thread>>>,
    /// Whether a chunk of this run panicked.
    panicked: AtomicBool,
    /// With what.
    panics: Mutex<Vec<Box<dyn Any + Send>>>,
    /// Whether there is a run.
    running: AtomicBool,
}

/// A run: what its chunks are and where it stands.
struct Job {
    work: *const (dyn Fn(Chunk) + Sync),
    chunks: *const [u32],
    phase: usize,
}

// SAFETY: `job` is what keeps `Threads` from being `Sync` and `Send`. It is written only by a thread
// that is alone (the caller before the first phase is open; whoever completed the last chunk of a
// phase, before it opens the next) and read only by holders of a claim, between which and those
// writes the module's documentation shows the order. What it points to is `Sync`.
unsafe impl Sync for Threads {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for Threads {}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Threads").field("count", &self.seats.len()).finish_non_exhaustive()
    }
}

impl Threads {
    fn new(count: usize) -> Threads {
        let nothing: &'static (dyn Fn(Chunk) + Sync) = &|_| {};
        Threads {
            available: Line::default(),
            unfinished: Line::default(),
            finished: Line(AtomicBool::new(true)),
            stopping: Line::default(),
            job: UnsafeCell::new(Job { work: nothing, chunks: &[], phase: 0 }),
            asleep: (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            seats: (0..count).map(|_| Mutex::new(None)).collect(),
            panicked: AtomicBool::new(false),
            panics: Mutex::default(),
            running: AtomicBool::new(false),
        }
    }

    /// Does a run as worker 0. Returns when its last chunk is complete.
    fn run(&self, chunks: &[u32], work: &(dyn Fn(Chunk) + Sync)) {
        self.sit(0);
        self.panicked.store(false, Ordering::Relaxed);
        self.finished.0.store(false, Ordering::Relaxed);
        // SAFETY: only the lifetime changes. The pointer is used by holders of a claim alone, and this
        // function returns, in every case, after the last claim is complete.
        let work: *const (dyn Fn(Chunk) + Sync) = unsafe {
            std::mem::transmute::<&(dyn Fn(Chunk) + Sync), &'static (dyn Fn(Chunk) + Sync)>(work)
        };
        // SAFETY: no phase is open, so there is no claim, and `running` keeps other callers out.
        unsafe { *self.job.get() = Job { work, chunks, phase: 0 } };
        self.open(0);
        while !self.finished.0.load(Ordering::Acquire) {
            if !self.do_chunk(0) {
                self.wait(0, || self.finished.0.load(Ordering::SeqCst));
            }
        }
    }

    /// The life of any other worker.
    fn work(&self, worker: usize) {
        self.sit(worker);
        while !self.stopping.0.load(Ordering::Relaxed) {
            if !self.do_chunk(worker) {
                self.wait(worker, || self.stopping.0.load(Ordering::SeqCst));
            }
        }
    }

    /// Tells wakers which thread `worker` is.
    fn sit(&self, worker: usize) {
        *lock(&self.seats[worker]) = Some(std::thread::current());
    }

    /// Claims a chunk and does it; false where there is none.
    fn do_chunk(&self, worker: usize) -> bool {
        // The look before the claim keeps threads that wait from writing to the line, and the count
        // from running away below zero.
        if self.available.0.load(Ordering::Relaxed) <= 0 {
            return false;
        }
        let left = self.available.0.fetch_sub(1, Ordering::Acquire);
        if left <= 0 {
            return false;
        }
        // SAFETY: this thread holds a claim until `complete`, so nobody writes the job, and the caller
        // is still in `run`, so what it points to lives. `phase` is that of an open phase.
        let (work, chunk) = unsafe {
            let job = &*self.job.get();
            let total = i64::from((&*job.chunks)[job.phase]);
            // Below the phase's chunks, which are a u32.
            (&*job.work, Chunk { phase: job.phase, index: (total - left) as u32, worker })
        };
        let done = match catch_unwind(AssertUnwindSafe(|| work(chunk))) {
            Ok(()) => 1,
            Err(payload) => 1 + self.give_up(payload),
        };
        self.complete(done);
        true
    }

    /// After a panic: takes the chunks that nobody has claimed, and says how many.
    fn give_up(&self, payload: Box<dyn Any + Send>) -> i64 {
        lock(&self.panics).push(payload);
        self.panicked.store(true, Ordering::Relaxed);
        // A claim of all that are left, hence `Acquire`; its completion publishes `panicked`.
        self.available.0.swap(0, Ordering::Acquire).max(0)
    }

    /// Completes `done` chunks that this thread has claimed. With the last of a phase, opens the next.
    fn complete(&self, done: i64) {
        if self.unfinished.0.fetch_sub(done, Ordering::AcqRel) != done {
            return;
        }
        // SAFETY: every chunk of the phase is complete and no other is open: this thread is alone.
        let next = unsafe { (*self.job.get()).phase + 1 };
        if self.panicked.load(Ordering::Relaxed) { self.finish() } else { self.open(next) }
    }

    /// Opens the first phase from `phase` on that has chunks, or ends the run. Only for a thread that
    /// is alone; it is not any more when this returns.
    fn open(&self, phase: usize) {
        // SAFETY: this thread is alone, and the caller is in `run`.
        let next = unsafe {
            let job = &mut *self.job.get();
            let next = (&*job.chunks)[phase..].iter().position(|&chunks| chunks > 0);
            job.phase = next.map_or(phase, |skipped| phase + skipped);
            next.map(|_| i64::from((&*job.chunks)[job.phase]))
        };
        let Some(chunks) = next else { return self.finish() };
        self.unfinished.0.store(chunks, Ordering::Relaxed);
        self.available.0.store(chunks, Ordering::SeqCst);
        // This thread takes one of them itself.
        self.wake(WAKES.min(usize::try_from(chunks - 1).unwrap_or(WAKES)));
    }

    /// Ends the run. From here on nothing of it is touched by anybody but the caller.
    fn finish(&self) {
        self.finished.0.store(true, Ordering::SeqCst);
        self.wake_worker(0, 1);
    }

    /// Waits until there may be a chunk, or `over`: looks for a while, then sleeps.
    fn wait(&self, worker: usize, over: impl Fn() -> bool) {
        let ready = || self.available.0.load(Ordering::SeqCst) > 0 || over();
        let start = Instant::now();
        loop {
            for _ in 0..LOOKS {
                if ready() {
                    return;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() >= SPIN {
                break;
            }
        }
        self.sleep(worker, ready);
        // Whoever woke this thread left the other sleepers to it.
        if self.available.0.load(Ordering::Relaxed) > 1 {
            self.wake(WAKES);
        }
    }

    /// Sleeps until woken, unless `ready`.
    ///
    /// A wake-up is not lost: the sleeper sets its bit and then looks whether it is ready; wakers make
    /// it ready and then look at the bits. All four are `SeqCst`, so they are in one order, and either
    /// the sleeper sees the change or the waker sees the bit.
    fn sleep(&self, worker: usize, ready: impl Fn() -> bool) {
        let (word, bit) = (&self.asleep[worker / 64], 1 << (worker % 64));
        word.fetch_or(bit, Ordering::SeqCst);
        if ready() {
            // Where a waker was faster, its `unpark` makes a later `park` return early, no more.
            word.fetch_and(!bit, Ordering::SeqCst);
            return;
        }
        while word.load(Ordering::SeqCst) & bit != 0 {
            std::thread::park();
        }
    }

    /// Wakes up to `count` sleepers, the caller first. No system call where nobody sleeps.
    fn wake(&self, mut count: usize) {
        for (at, word) in self.asleep.iter().enumerate() {
            while count > 0 {
                let sleepers = word.load(Ordering::SeqCst);
                if sleepers == 0 {
                    break;
                }
                let bit = sleepers.trailing_zeros();
                self.wake_worker(at * 64 + bit as usize, 1 << bit);
                count -= 1;
            }
        }
    }

    /// Wakes a worker if it sleeps.
    fn wake_worker(&self, worker: usize, bit: u64) {
        let word = &self.asleep[worker / 64];
        if word.load(Ordering::SeqCst) & bit != 0
            && word.fetch_and(!bit, Ordering::SeqCst) & bit != 0
        {
            // Unparked without the lock, which the next run's start wants.
            let thread = lock(&self.seats[worker]).clone();
            thread.iter().for_each(Thread::unpark);
        }
    }
}

/// Nothing that these mutexes guard is left half-done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
