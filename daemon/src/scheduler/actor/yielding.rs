//! Giving all memory away, and taking it back.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::{
    super::{
        Freed, SchedulerError,
        slot::{Slot, State},
    },
    Actor,
};
use crate::{keep_alive::KeepAlive, metrics::Eviction, models::ModelSpec};

/// The memory is somebody else's.
pub(super) struct Yielded {
    /// When running requests are cut off.
    pub(super) deadline: Option<Instant>,
    left: Vec<Restore>,
    freed: Freed,
    watchers: Vec<oneshot::Sender<Freed>>,
}

/// A model that had to leave, and how it was loaded.
pub(super) struct Restore {
    spec: Arc<ModelSpec>,
    context: Option<u32>,
    keep_alive: KeepAlive,
    last_used: Instant,
}

impl Restore {
    fn of(slot: &Slot) -> Restore {
        Restore {
            spec: Arc::clone(&slot.spec),
            context: slot.context_asked,
            keep_alive: slot.keep_alive,
            last_used: slot.last_used,
        }
    }
}

impl Actor {
    pub(super) fn yield_memory(&mut self, within: Option<Duration>, reply: oneshot::Sender<Freed>) {
        for waiter in self.pending.drain(..) {
            let name = waiter.spec.name.clone();
            waiter.fail(SchedulerError::Yielded { name });
        }
        let mut left: Vec<Restore> = self.restoring.drain(..).collect();
        // A model that leaves anyway does not come back.
        let staying = |slot: &&Slot| !slot.retiring && !matches!(slot.state, State::Leaving);
        left.extend(self.slots.iter().filter(staying).map(Restore::of));
        let bytes = self.slots.iter().map(|slot| slot.bytes).sum();
        let freed = Freed { models: self.slots.len(), bytes };
        self.retire_all();
        let yielded = self.yielded.get_or_insert_with(|| Yielded {
            deadline: None,
            left: Vec::new(),
            freed,
            watchers: Vec::new(),
        });
        yielded.left.extend(left);
        let deadline = within.and_then(|within| Instant::now().checked_add(within));
        yielded.deadline = match (yielded.deadline, deadline) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        yielded.watchers.push(reply);
    }

    /// `false` when nothing was yielded.
    pub(super) fn resume(&mut self) -> bool {
        let Some(mut yielded) = self.yielded.take() else { return false };
        yielded.left.sort_by_key(|one| std::cmp::Reverse(one.last_used));
        self.restoring = yielded.left.into();
        for watcher in yielded.watchers {
            let _ = watcher.send(yielded.freed);
        }
        true
    }

    /// Cuts off what runs too long, and tells who waits that all memory is free.
    pub(super) fn finish_yield(&mut self, now: Instant) {
        let Some(yielded) = &mut self.yielded else { return };
        if yielded.deadline.is_some_and(|deadline| deadline <= now) {
            yielded.deadline = None;
            for slot in &mut self.slots {
                tracing::warn!(model = %slot.spec.name, "unloading in spite of running requests");
                slot.leave_for(Eviction::Asked);
            }
        }
        if self.slots.is_empty() {
            for watcher in yielded.watchers.drain(..) {
                let _ = watcher.send(yielded.freed);
            }
        }
    }

    /// Loads the next of the models that had to leave, when nothing else is going on and it costs
    /// nobody anything.
    pub(super) fn restore(&mut self, now: Instant) {
        let moves = |slot: &Slot| matches!(slot.state, State::Loading | State::Leaving);
        if !self.pending.is_empty() || self.slots.iter().any(moves) {
            return;
        }
        while let Some(next) = self.restoring.pop_front() {
            if self.slots.iter().any(|slot| slot.spec.digest == next.spec.digest) {
                continue;
            }
            let Some(footprint) = self.footprint(&next.spec) else {
                return self.restoring.push_front(next);
            };
            let ledger = self.ledger(now);
            if let Some(way) = footprint.ways(next.context).find(|way| ledger.fits(way.bytes)) {
                return self.load(&next.spec, way, next.keep_alive);
            }
            tracing::info!(model = %next.spec.name, "not loaded again: there is no room");
        }
    }
}
