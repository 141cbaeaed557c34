//! What the blobs of one pull share while they arrive.
//!
//! A blob is cut into ranges, and every range is one request on one connection. All blobs of a pull draw on
//! one budget: of connections, of bytes that the disk does not have yet, and of memory. Each blob has a
//! [`window::Window`], which says what to ask for next, and a [`lane::Lane`], which writes, hashes and
//! syncs on threads of its own. The hash follows the first missing byte; what arrives ahead of it waits in
//! memory, or is read back when there is too much of it, so the digest is known soon after the last byte.
//!
//! What bounds the loss: bytes that have arrived and are not durable yet never exceed one range for each
//! connection. When they would, nothing more is read from the network until the disk has some.

pub(super) mod flow;
pub(super) mod lane;
pub(super) mod rate;
pub(super) mod source;
pub(super) mod window;

use super::Limits;
use crate::pump::blocking;
use rate::Pace;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use window::Ahead;

/// Ranges are no smaller than this, in bytes, however small the blob.
const RANGE_BYTES_MIN: u64 = 1 << 20;
/// The share of the memory that chunks may take on their way to the disk: one part in so many.
const QUEUE_SHARE: u64 = 3;
/// The most bytes that take permits at once; a larger chunk is cut.
const PIECE_BYTES_MAX: u64 = 256 << 10;

/// What one pull may use at once.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) connections: Arc<Semaphore>,
    /// Bytes that may have arrived without being durable.
    undurable: Semaphore,
    /// Bytes that may wait in memory to be written.
    queue: Semaphore,
    /// Bytes that wait in memory to be hashed, and how many may.
    ahead: AtomicU64,
    ahead_max: u64,
    /// A lane syncs at the latest when this many bytes wait for it.
    sync_bytes: u64,
    range_max: u64,
    connections_max: u64,
    /// The limits of this pull and of the whole client.
    paces: [Arc<Pace>; 2],
    /// What has files of the store in its hands on threads, which no future takes with it when it is dropped.
    works: TaskTracker,
    ending: CancellationToken,
}

impl Budget {
    pub(super) fn new(limits: &Limits, paces: [Arc<Pace>; 2]) -> Budget {
        let connections = limits.connections.clamp(1, Semaphore::MAX_PERMITS);
        let connections_max = connections as u64;
        let range_max = limits.range_bytes.max(1);
        let undurable = connections_max.saturating_mul(range_max);
        let queue = (limits.memory_bytes / QUEUE_SHARE).max(PIECE_BYTES_MAX);
        let permits = |bytes: u64| Semaphore::new(bytes.min(u64::from(u32::MAX)) as usize);
        Budget {
            connections: Arc::new(Semaphore::new(connections)),
            undurable: permits(undurable),
            queue: permits(queue),
            ahead: AtomicU64::new(0),
            ahead_max: limits.memory_bytes.saturating_sub(queue),
            sync_bytes: (undurable / 4).max(1),
            range_max,
            connections_max,
            paces,
            works: TaskTracker::new(),
            ending: CancellationToken::new(),
        }
    }

    /// Runs blocking work that has a file of the store in its hands.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        // With the result, which may be such a file and go unread.
        let token = self.works.token();
        blocking(move || (work(), token)).await.0
    }

    /// Whether the pull has ended, so that long work need not.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_cancelled()
    }

    /// Waits until every file has been let go of, after whoever used them is gone.
    pub(super) async fn settle(&self) {
        self.ending.cancel();
        self.works.close();
        self.works.wait().await;
    }

    /// How large the ranges of a blob are, in bytes.
    pub(super) fn range_of(&self, size: u64) -> u64 {
        let share = size.div_ceil(self.connections_max);
        let rounded = share.next_multiple_of(RANGE_BYTES_MIN);
        rounded.max(RANGE_BYTES_MIN).min(self.range_max)
    }

    /// How far ahead of the hash ranges are handed out, in bytes.
    pub(super) fn window(&self) -> Ahead {
        let far = 2 * self.connections_max.saturating_mul(self.range_max);
        // One range at least: the next must not wait for the hash to end the last.
        Ahead { far, near: self.ahead_max.max(self.range_max).min(far) }
    }

    /// Whether an arriving chunk may stay in memory until it is hashed.
    fn keep_ahead(&self, bytes: u64) -> bool {
        let kept = self.ahead.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.ahead_max;
        if !kept {
            self.release_ahead(bytes);
        }
        kept
    }

    fn release_ahead(&self, bytes: u64) {
        self.ahead.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Waits as long as the rate limits ask for.
    pub(super) async fn pace(&self, bytes: u64) {
        for pace in &self.paces {
            pace.pass(bytes).await;
        }
    }

    /// Whether another connection would bring nothing: the disk or a limit is what is slow.
    pub(super) fn is_held_back(&self) -> bool {
        self.is_short() || self.paces.iter().any(|pace| pace.is_limited())
    }

    /// Whether the bytes on their way to the disk leave little room for more.
    fn is_short(&self) -> bool {
        (self.undurable.available_permits() as u64) < self.sync_bytes
    }
}

/// Between two looks of a lane that has bytes to sync and no reason yet.
const SYNC_LOOK: Duration = Duration::from_millis(100);
/// Bytes wait at most this long to be synced.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
