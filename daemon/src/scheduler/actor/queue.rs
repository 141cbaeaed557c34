//! Requests that wait: who is let in, who gives up, and what each of them is told.

use std::{collections::HashMap, sync::Arc, time::Duration};

use dsk_registry::Digest;
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

use super::{
    super::{
        Lease, Place, SchedulerError, Waiting, Wants,
        slot::{Slot, State},
    },
    Actor, WAIT_MAX,
};
use crate::models::ModelSpec;

/// A caller of a full queue is told to come back no later than this.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// A request that waits for a model.
pub(super) struct Waiter {
    pub(super) spec: Arc<ModelSpec>,
    pub(super) wants: Wants,
    pub(super) reply: oneshot::Sender<Result<Lease, SchedulerError>>,
    place: watch::Sender<Place>,
    pub(super) arrived: Instant,
    /// Since when it has waited for others; a load it waits for does not count.
    pub(super) displacing_since: Option<Instant>,
}

impl Waiter {
    pub(super) fn new(
        spec: Arc<ModelSpec>,
        wants: Wants,
        place: watch::Sender<Place>,
        reply: oneshot::Sender<Result<Lease, SchedulerError>>,
    ) -> Waiter {
        Waiter { spec, wants, reply, place, arrived: Instant::now(), displacing_since: None }
    }

    pub(super) fn fail(self, error: SchedulerError) {
        let _ = self.reply.send(Err(error));
    }
}

impl Actor {
    pub(super) fn enqueue(&mut self, waiter: Waiter) {
        let running: usize = self.slots.iter().map(|slot| slot.leases).sum();
        if self.draining.is_some() {
            waiter.fail(SchedulerError::ShuttingDown);
        } else if self.yielded.is_some() {
            let name = waiter.spec.name.clone();
            waiter.fail(SchedulerError::Yielded { name });
        } else if self.pending.len() + running >= self.settings.max_queue {
            // A place is free when the first of them is served or a running request ends.
            let first = self.forecast(Instant::now()).into_iter().next();
            let retry_after = first.unwrap_or_else(|| self.means.request()).min(RETRY_MAX);
            let position = self.pending.len() + 1;
            waiter.fail(SchedulerError::Busy { position, retry_after });
        } else {
            self.pending.push_back(waiter);
        }
    }

    /// Everyone who waited for this load hears why it failed; the next request tries again.
    pub(super) fn fail_waiters(&mut self, model: Digest, error: &SchedulerError) {
        for waiter in std::mem::take(&mut self.pending) {
            match waiter.spec.digest == model {
                true => waiter.fail(error.clone()),
                false => self.pending.push_back(waiter),
            }
        }
    }

    /// Drops those whose caller is gone, and those who waited too long for others.
    pub(super) fn give_up(&mut self, now: Instant) {
        for waiter in std::mem::take(&mut self.pending) {
            let overdue = waiter.displacing_since.is_some_and(|since| now - since >= WAIT_MAX);
            if overdue {
                let name = waiter.spec.name.clone();
                waiter.fail(SchedulerError::Timeout { name, seconds: WAIT_MAX.as_secs() });
            } else if !waiter.reply.is_closed() {
                self.pending.push_back(waiter);
            }
        }
    }

    pub(super) fn waiting(&self, now: Instant) -> Vec<Waiting> {
        let expected = self.forecast(now);
        let each = self.pending.iter().zip(expected).enumerate();
        each.map(|(index, (waiter, expected_wait))| Waiting {
            name: waiter.spec.name.clone(),
            place: Place { position: index + 1, expected_wait },
            waited: now - waiter.arrived,
        })
        .collect()
    }

    /// Tells every waiting request where it stands.
    pub(super) fn show_places(&self, now: Instant) {
        for (index, (waiter, expected_wait)) in
            self.pending.iter().zip(self.forecast(now)).enumerate()
        {
            let place = Place { position: index + 1, expected_wait };
            waiter.place.send_if_modified(|shown| std::mem::replace(shown, place) != place);
        }
    }

    /// How long each waiting request will wait, in whole seconds.
    fn forecast(&self, now: Instant) -> Vec<Duration> {
        let mut turns = Duration::ZERO;
        let mut known = HashMap::new();
        let mut expect = |waiter: &Waiter| {
            let model = waiter.spec.digest;
            *known.entry(model).or_insert_with(|| self.expect(waiter, &mut turns, now))
        };
        let whole = |wait: Duration| Duration::from_secs(wait.as_secs_f64().ceil() as u64);
        self.pending.iter().map(|waiter| whole(expect(waiter))).collect()
    }

    /// `turns` is how long the models in front will take.
    fn expect(&self, waiter: &Waiter, turns: &mut Duration, now: Instant) -> Duration {
        let model = waiter.spec.digest;
        let slot = self.slots.iter().find(|slot| slot.spec.digest == model);
        let load = match slot {
            Some(slot) if matches!(slot.state, State::Loading) => return remaining(slot, now),
            Some(slot) => slot.load_time,
            None => self.means.load(model, self.known_bytes(waiter)),
        };
        if slot.is_none() && waiter.displacing_since.is_none() {
            return load;
        }
        *turns += self.next_room(now) + load;
        *turns
    }

    /// How long until some model can leave.
    fn next_room(&self, now: Instant) -> Duration {
        let leaves_in = |slot: &Slot| match &slot.state {
            State::Ready(_) if slot.leases > 0 => self.means.request(),
            State::Ready(_) => slot.held_until().saturating_duration_since(now),
            State::Loading => remaining(slot, now) + self.means.request(),
            State::Leaving => Duration::ZERO,
        };
        let movable = self.slots.iter().filter(|slot| !slot.pinned);
        movable.map(leaves_in).min().unwrap_or_else(|| self.means.request())
    }

    fn known_bytes(&self, waiter: &Waiter) -> u64 {
        let footprint = self.footprints.get(&waiter.spec.digest).copied().flatten();
        footprint.map_or(waiter.spec.model_bytes, |one| one.best_way(self.context_of(waiter)).bytes)
    }
}

/// What is left of a load: by its progress, or before there is any, by what such a load takes.
fn remaining(slot: &Slot, now: Instant) -> Duration {
    let (elapsed, done) = (now.saturating_duration_since(slot.began), slot.child.progress());
    match done > 0.05 {
        true => elapsed.mul_f32(((1.0 - done) / done).max(0.0)),
        false => slot.load_time.saturating_sub(elapsed),
    }
}
