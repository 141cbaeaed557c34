//! A pull, as the metrics count it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dsk_registry::{ClientError, Digest, Name, Progress};

use super::TransferError;
use crate::metrics::Metrics;

/// Counts one pull from its beginning to its end.
#[derive(Debug)]
pub(super) struct Counted {
    metrics: Arc<Metrics>,
    name: Name,
    fetched: AtomicU64,
    /// The bytes of each blob that were there when it was last heard of.
    there: Mutex<HashMap<Digest, u64>>,
}

impl Counted {
    pub(super) fn begin(metrics: Arc<Metrics>, name: Name) -> Counted {
        metrics.pull_began();
        Counted { metrics, name, fetched: AtomicU64::new(0), there: Mutex::default() }
    }

    /// Counts what is new. What a blob has when it is first heard of was there before.
    pub(super) fn progress(&self, line: &Progress) {
        let Progress::Blob { digest, completed, .. } = line else { return };
        let mut there = self.there.lock().unwrap_or_else(PoisonError::into_inner);
        let before = there.insert(*digest, *completed).unwrap_or(*completed);
        let new = completed.saturating_sub(before);
        self.fetched.fetch_add(new, Ordering::Relaxed);
        self.metrics.pulled(new);
    }

    pub(super) fn end(&self, result: &Result<(), TransferError>) {
        let outcome = match result {
            Ok(()) => "ok",
            Err(TransferError::Registry(ClientError::Cancelled) | TransferError::Paused { .. }) => {
                "cancelled"
            }
            Err(_) => "failed",
        };
        self.metrics.pull_ended(&self.name, outcome, self.fetched.load(Ordering::Relaxed));
    }
}
