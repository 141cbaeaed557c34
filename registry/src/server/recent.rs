//! Blobs that a client has just sent, mounted or asked about: its manifest is still to come.
//!
//! Nothing names such a blob yet, so that deleting another manifest, or a prune, would take it. Each is
//! held for a while; the list is bounded, and the oldest are let go first.

use crate::{Digest, Store, store::guard};
use std::{
    collections::VecDeque,
    sync::Mutex,
    time::{Duration, Instant},
};

/// Most blobs held at once.
const HELD_MAX: usize = 10_000;

#[derive(Debug)]
pub(super) struct Recent {
    held: Mutex<VecDeque<(Instant, Digest, crate::Pin)>>,
    hold: Duration,
}

impl Recent {
    pub(super) fn new(hold: Duration) -> Recent {
        Recent { held: Mutex::default(), hold }
    }

    /// Keeps the blob from being deleted for a while.
    pub(super) fn hold(&self, store: &Store, digest: &Digest) {
        let mut held = guard(&self.held);
        while held.len() >= HELD_MAX {
            held.pop_front();
        }
        held.push_back((Instant::now(), *digest, store.pin([*digest])));
        self.expire(&mut held);
    }

    /// Lets go of a blob that is to be deleted, and of those that were held long enough.
    pub(super) fn release(&self, digest: Option<&Digest>) {
        let mut held = guard(&self.held);
        self.expire(&mut held);
        held.retain(|(_, other, _)| Some(other) != digest);
    }

    fn expire(&self, held: &mut VecDeque<(Instant, Digest, crate::Pin)>) {
        while held.front().is_some_and(|(since, ..)| since.elapsed() >= self.hold) {
            held.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::scratch;

    #[test]
    fn a_blob_is_held_until_it_is_released_or_the_time_is_up() {
        let scratch = scratch();
        let digest = scratch.store.put_blob(b"new").unwrap();
        let gone = |recent: &Recent| {
            recent.release(None);
            scratch.store.remove_unused([digest]).unwrap() > 0
        };
        let recent = Recent::new(Duration::from_secs(60));
        recent.hold(&scratch.store, &digest);
        assert!(!gone(&recent));
        recent.release(Some(&digest));
        assert!(gone(&recent));
        scratch.store.put_blob(b"new").unwrap();
        let brief = Recent::new(Duration::ZERO);
        brief.hold(&scratch.store, &digest);
        assert!(gone(&brief));
    }
}
