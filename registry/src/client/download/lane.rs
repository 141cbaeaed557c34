//! The way of one blob's bytes to the disk and through the hash, on three threads of the blocking pool.
//!
//! One writes chunks as they come. One hashes from the first byte on: a chunk that is next straight from
//! memory, everything else read back. One syncs, and records what is durable; only then do the chunks'
//! bytes leave the budget. An error of any of them ends all.

use super::{Budget, SYNC_INTERVAL, SYNC_LOOK};
use crate::{Digest, Marker, Partial, StoreError};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
};

/// Bytes read back at once.
const READ_BYTES: u64 = 1 << 20;
/// How far the hash goes between two notices of where it is, in bytes.
const NOTICE_BYTES: u64 = 1 << 20;

/// A blob on its way. Dropping it lets the threads write and record what they have, then end.
#[derive(Debug)]
pub(in crate::client) struct Lane {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    partial: Arc<Partial>,
    budget: Arc<Budget>,
    state: Mutex<State>,
    to_write: Condvar,
    to_hash: Condvar,
    to_sync: Condvar,
    /// Where the hash is; changes at the end and on an error as well.
    notices: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<(u64, Bytes)>,
    writing: bool,
    /// Chunks that the hash has not come to.
    ahead: BTreeMap<u64, Bytes>,
    frontier: u64,
    digest: Option<Digest>,
    /// Bytes of this lane that arrived, were written, and became durable.
    arrived: u64,
    written: u64,
    durable: u64,
    /// Since when there are written bytes that are not durable.
    waiting: Option<Instant>,
    error: Option<StoreError>,
    /// An error came, now or earlier.
    failed: bool,
    closed: bool,
}

impl State {
    /// Whether a chunk may stay in memory until it is hashed. One that is needed later makes way for it.
    fn make_room(&mut self, offset: u64, count: u64, budget: &Budget) -> bool {
        while !budget.keep_ahead(count) {
            match self.ahead.last_entry().filter(|last| *last.key() > offset) {
                Some(last) => budget.release_ahead(last.remove().len() as u64),
                None => return false,
            }
        }
        true
    }

    fn is_written(&self) -> bool {
        self.queue.is_empty() && !self.writing
    }
}

/// What the hash goes on with.
enum Next {
    Chunk(Bytes),
    /// This many bytes of the file.
    File(u64),
    End,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: StoreError) {
        let mut state = self.lock();
        state.error.get_or_insert(error);
        (state.failed, state.closed) = (true, true);
        drop(state);
        self.wake();
    }

    fn wake(&self) {
        self.to_write.notify_all();
        self.to_hash.notify_all();
        self.to_sync.notify_all();
        self.notices.send_modify(|_| {});
    }

    fn write_all(&self) -> Result<(), StoreError> {
        loop {
            let Some((offset, bytes)) = self.next_to_write() else { return Ok(()) };
            let result = self.partial.write(offset, &bytes);
            let mut state = self.lock();
            state.writing = false;
            result?;
            state.written += bytes.len() as u64;
            state.waiting.get_or_insert_with(Instant::now);
            drop(state);
            self.budget.queue.add_permits(bytes.len());
            self.to_hash.notify_one();
            self.to_sync.notify_one();
        }
    }

    fn next_to_write(&self) -> Option<(u64, Bytes)> {
        let mut state = self.lock();
        loop {
            if state.failed {
                return None;
            }
            if let Some(chunk) = state.queue.pop_front() {
                state.writing = true;
                return Some(chunk);
            }
            if state.closed {
                self.to_sync.notify_one();
                return None;
            }
            state = self.to_write.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn hash_all(&self) -> Result<(), StoreError> {
        let (mut hasher, mut buffer) = (Marker::default(), Vec::new());
        while let Some((next, frontier)) = self.next_to_hash() {
            let count = match next {
                Next::End => {
                    let (digest, marks) = hasher.finish();
                    self.partial.set_marks(marks);
                    self.lock().digest = Some(digest);
                    self.notices.send_modify(|at| *at = frontier);
                    return Ok(());
                }
                Next::Chunk(bytes) => {
                    hasher.update(&bytes);
                    self.budget.release_ahead(bytes.len() as u64);
                    bytes.len() as u64
                }
                Next::File(count) => {
                    buffer.resize(count as usize, 0);
                    self.partial.read(frontier, &mut buffer)?;
                    hasher.update(&buffer);
                    count
                }
            };
            self.lock().frontier = frontier + count;
            if (frontier + count) / NOTICE_BYTES != frontier / NOTICE_BYTES {
                self.notices.send_modify(|at| *at = frontier + count);
            }
        }
        Ok(())
    }

    fn next_to_hash(&self) -> Option<(Next, u64)> {
        let mut state = self.lock();
        loop {
            let frontier = state.frontier;
            if state.closed {
                return None;
            }
            if frontier == self.partial.size() {
                return Some((Next::End, frontier));
            }
            if let Some(bytes) = state.ahead.remove(&frontier) {
                return Some((Next::Chunk(bytes), frontier));
            }
            if let Some(until) = self.partial.written_until(frontier) {
                let kept = state.ahead.keys().next().copied().unwrap_or(u64::MAX);
                let count = until.min(kept).min(frontier + READ_BYTES) - frontier;
                return Some((Next::File(count), frontier));
            }
            state = self.to_hash.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn sync_all(&self) -> Result<(), StoreError> {
        while let Some(written) = self.next_to_sync() {
            self.partial.sync()?;
            let mut state = self.lock();
            let gained = written - state.durable;
            state.durable = written;
            state.waiting = (state.written > written).then(Instant::now);
            drop(state);
            self.budget.undurable.add_permits(gained as usize);
            self.notices.send_modify(|_| {});
        }
        Ok(())
    }

    /// Waits for a reason to sync, and returns how many bytes were written then.
    fn next_to_sync(&self) -> Option<u64> {
        let mut state = self.lock();
        loop {
            let unsynced = state.written - state.durable;
            if state.failed || (state.closed && state.is_written() && unsynced == 0) {
                return None;
            }
            let due = unsynced >= self.budget.sync_bytes
                || state.closed && state.is_written()
                || state.is_written() && self.partial.written_until(0) == Some(self.partial.size())
                || state.waiting.is_some_and(|since| since.elapsed() >= SYNC_INTERVAL)
                || self.budget.is_short();
            if unsynced > 0 && due {
                return Some(state.written);
            }
            let pause = if unsynced > 0 { SYNC_LOOK } else { Duration::MAX };
            state = self.pause_sync(state, pause);
        }
    }

    fn pause_sync<'a>(
        &self,
        state: MutexGuard<'a, State>,
        pause: Duration,
    ) -> MutexGuard<'a, State> {
        if pause == Duration::MAX {
            return self.to_sync.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let waited = self.to_sync.wait_timeout(state, pause);
        waited.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state)
    }
}

impl Drop for Shared {
    /// What the lane still holds of the budget goes to the other blobs.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let queued: usize = state.queue.iter().map(|(_, bytes)| bytes.len()).sum();
        self.budget.queue.add_permits(queued);
        self.budget.undurable.add_permits((state.arrived - state.durable) as usize);
        self.budget.release_ahead(state.ahead.values().map(|bytes| bytes.len() as u64).sum());
    }
}

impl Lane {
    pub(in crate::client) fn start(partial: Arc<Partial>, budget: Arc<Budget>) -> Lane {
        let notices = watch::Sender::new(0);
        let shared = Arc::new(Shared {
            partial,
            budget,
            state: Mutex::default(),
            to_write: Condvar::new(),
            to_hash: Condvar::new(),
            to_sync: Condvar::new(),
            notices,
        });
        let works = [Shared::write_all, Shared::hash_all, Shared::sync_all];
        let threads = works.map(|work: fn(&Shared) -> Result<(), StoreError>| {
            let shared = Arc::clone(&shared);
            let token = shared.budget.works.token();
            spawn_blocking(move || {
                if let Err(error) = work(&shared) {
                    shared.fail(error);
                }
                // The file first.
                drop(shared);
                drop(token);
            })
        });
        Lane { shared, threads: threads.into() }
    }

    /// Takes bytes that belong at `offset`, once there is room for them.
    pub(in crate::client) async fn put(&self, mut offset: u64, mut bytes: Bytes) {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(self.piece_bytes()));
            let count = piece.len() as u64;
            self.put_piece(offset, piece).await;
            offset += count;
        }
    }

    fn piece_bytes(&self) -> usize {
        super::PIECE_BYTES_MAX.min(self.shared.budget.range_max) as usize
    }

    async fn put_piece(&self, offset: u64, bytes: Bytes) {
        let budget = &self.shared.budget;
        let count = bytes.len() as u32;
        // Neither is ever closed.
        let Ok(undurable) = budget.undurable.acquire_many(count).await else { return };
        let Ok(queue) = budget.queue.acquire_many(count).await else { return };
        undurable.forget();
        queue.forget();
        let mut state = self.shared.lock();
        let keep = state.make_room(offset, u64::from(count), budget);
        if keep {
            state.ahead.insert(offset, bytes.clone());
        }
        state.arrived += u64::from(count);
        state.queue.push_back((offset, bytes));
        let hash_waits = state.frontier == offset;
        drop(state);
        self.shared.to_write.notify_one();
        if keep && hash_waits {
            self.shared.to_hash.notify_one();
        }
    }

    /// Where the hash is: everything before it is hashed.
    pub(in crate::client) fn frontier(&self) -> u64 {
        self.shared.lock().frontier
    }

    /// Tells when the hash has moved on, or something has ended.
    pub(in crate::client) fn notices(&self) -> watch::Receiver<u64> {
        self.shared.notices.subscribe()
    }

    /// An error of a thread comes out here.
    pub(in crate::client) fn check(&self) -> Result<(), StoreError> {
        self.shared.lock().error.take().map_or(Ok(()), Err)
    }

    /// The digest of all bytes, once the hash has come to the end.
    pub(in crate::client) fn digest(&self) -> Option<Digest> {
        self.shared.lock().digest
    }

    /// Ends the threads after they have written and recorded what they have.
    pub(in crate::client) async fn close(mut self) -> Result<(), StoreError> {
        self.shut();
        for thread in std::mem::take(&mut self.threads) {
            crate::pump::join(thread).await;
        }
        self.check()
    }

    fn shut(&self) {
        self.shared.lock().closed = true;
        self.shared.wake();
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.shut();
    }
}
