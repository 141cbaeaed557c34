//! The task that owns every resident model and every request that waits for one.
//!
//! After each change, [`Actor::dispatch`] looks at the waiting requests in the order of arrival and
//! does for each what can be done now. Nothing here waits: loads, deaths and leases report back as
//! [`Ask`]s. All time is monotonic, so that a jump of the clock evicts nothing.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use dsk_registry::{Digest, Name};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    Footprint, Lease, Resident, SchedulerError, Settings, Wants,
    crashes::Crashes,
    slot::{Slot, State},
};
use crate::{
    keep_alive::KeepAlive,
    models::ModelSpec,
    runner::{Death, Launch, Runner, SpawnError},
};

mod judge;

/// How long a request waits for room, or for leases to end that its larger context displaces.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(5 * 60);
/// After this long without room, the busy model used longest ago takes no new requests.
pub(super) const YIELD_AFTER: Duration = Duration::from_secs(10);
/// Footprints remembered; they are read again from the file's header when forgotten.
const FOOTPRINTS_MAX: usize = 1024;
/// A sleep that something always interrupts.
const LONG: Duration = Duration::from_secs(3600);

/// What reaches the actor.
#[derive(Debug)]
pub(super) enum Ask {
    Acquire {
        spec: Arc<ModelSpec>,
        wants: Wants,
        reply: oneshot::Sender<Result<Lease, SchedulerError>>,
    },
    Resident {
        reply: oneshot::Sender<Vec<Resident>>,
    },
    /// Answered with `None` when it is not resident.
    Unload {
        name: Name,
        reply: oneshot::Sender<Option<oneshot::Receiver<()>>>,
    },
    Drain {
        reply: oneshot::Sender<()>,
    },
    Ping {
        reply: oneshot::Sender<()>,
    },
    Released {
        slot: u64,
    },
    Weighed {
        model: Digest,
        footprint: Footprint,
    },
    LoadEnded {
        slot: u64,
        result: Result<Arc<Runner>, SpawnError>,
    },
    Died {
        slot: u64,
        death: Death,
    },
}

/// A request that waits for a model.
struct Waiter {
    spec: Arc<ModelSpec>,
    wants: Wants,
    reply: oneshot::Sender<Result<Lease, SchedulerError>>,
    arrived: Instant,
    /// Since when it has waited for others to finish; a load it waits for does not count.
    displacing_since: Option<Instant>,
}

pub(super) struct Actor {
    settings: Settings,
    launcher: Arc<dyn Launch>,
    /// Weak: the actor ends when the last handle and lease are gone.
    asks: mpsc::WeakUnboundedSender<Ask>,
    slots: Vec<Slot>,
    pending: VecDeque<Waiter>,
    crashes: Crashes,
    /// `None` while the file's header is being read.
    footprints: HashMap<Digest, Option<Footprint>>,
    next_slot: u64,
    /// Who waits for everything to be unloaded; `Some` once the daemon is stopping.
    draining: Option<Vec<oneshot::Sender<()>>>,
}

impl Actor {
    pub(super) fn new(
        settings: Settings,
        launcher: Arc<dyn Launch>,
        asks: mpsc::WeakUnboundedSender<Ask>,
    ) -> Actor {
        Actor {
            settings,
            launcher,
            asks,
            slots: Vec::new(),
            pending: VecDeque::new(),
            crashes: Crashes::default(),
            footprints: HashMap::new(),
            next_slot: 0,
            draining: None,
        }
    }

    pub(super) async fn run(mut self, mut received: mpsc::UnboundedReceiver<Ask>) {
        loop {
            let wake = self.next_deadline();
            tokio::select! {
                ask = received.recv() => match ask {
                    Some(ask) => self.take(ask),
                    None => return,
                },
                () = tokio::time::sleep_until(wake) => {}
            }
            while let Ok(ask) = received.try_recv() {
                self.take(ask);
            }
            self.expire();
            self.dispatch();
            self.finish_drain();
        }
    }

    fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Acquire { spec, wants, reply } => self.enqueue(spec, wants, reply),
            Ask::Resident { reply } => {
                let now = Instant::now();
                let _ = reply.send(self.slots.iter().map(|slot| slot.resident(now)).collect());
            }
            Ask::Unload { name, reply } => {
                let _ = reply.send(self.unload(&name));
            }
            Ask::Drain { reply } => self.drain(reply),
            Ask::Ping { reply } => {
                let _ = reply.send(());
            }
            Ask::Released { slot } => self.released(slot),
            Ask::Weighed { model, footprint } => {
                self.footprints.insert(model, Some(footprint));
            }
            Ask::LoadEnded { slot, result } => self.load_ended(slot, result),
            Ask::Died { slot, death } => self.died(slot, &death),
        }
    }

    fn enqueue(
        &mut self,
        spec: Arc<ModelSpec>,
        wants: Wants,
        reply: oneshot::Sender<Result<Lease, SchedulerError>>,
    ) {
        let running: usize = self.slots.iter().map(|slot| slot.leases).sum();
        if self.draining.is_some() {
            let _ = reply.send(Err(SchedulerError::ShuttingDown));
        } else if self.pending.len() + running >= self.settings.max_queue {
            let _ = reply.send(Err(SchedulerError::Busy));
        } else {
            let arrived = Instant::now();
            let waiter = Waiter { spec, wants, reply, arrived, displacing_since: None };
            self.pending.push_back(waiter);
        }
    }

    fn unload(&mut self, name: &Name) -> Option<oneshot::Receiver<()>> {
        let (sender, gone) = oneshot::channel();
        let mut sender = Some(sender);
        let mut found = false;
        for slot in self.slots.iter_mut().filter(|slot| slot.names.contains(name)) {
            found = true;
            slot.keep_alive = KeepAlive::For(Duration::ZERO);
            slot.retiring |= matches!(slot.state, State::Ready(_));
            if slot.is_idle() {
                slot.leave();
            }
            if matches!(slot.state, State::Leaving) {
                slot.watchers.extend(sender.take());
            }
        }
        found.then_some(gone)
    }

    fn drain(&mut self, reply: oneshot::Sender<()>) {
        for waiter in self.pending.drain(..) {
            let _ = waiter.reply.send(Err(SchedulerError::ShuttingDown));
        }
        self.slots.retain(|slot| match &slot.state {
            State::Loading(load) => {
                load.abort();
                false
            }
            _ => true,
        });
        for slot in &mut self.slots {
            slot.retiring = true;
            if slot.is_idle() {
                slot.leave();
            }
        }
        self.draining.get_or_insert_default().push(reply);
    }

    fn finish_drain(&mut self) {
        if let (true, Some(waiting)) = (self.slots.is_empty(), &mut self.draining) {
            for reply in waiting.drain(..) {
                let _ = reply.send(());
            }
        }
    }

    fn released(&mut self, id: u64) {
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.id == id) else { return };
        slot.leases = slot.leases.saturating_sub(1);
        slot.last_used = Instant::now();
        if slot.leases == 0 && slot.retiring {
            slot.leave();
        }
    }

    fn load_ended(&mut self, id: u64, result: Result<Arc<Runner>, SpawnError>) {
        let Some(index) = self.slots.iter().position(|slot| slot.id == id) else { return };
        let error = match result {
            Ok(runner) => {
                let slot = &mut self.slots[index];
                let bytes = runner.loaded().bytes;
                slot.bytes = bytes.total();
                slot.last_used = Instant::now();
                slot.state = State::Ready(Arc::clone(&runner));
                self.watch(id, &runner);
                return;
            }
            Err(error) => error,
        };
        let slot = self.slots.swap_remove(index);
        let name = slot.spec.name.clone();
        let error = match error {
            SpawnError::Load(failure) => SchedulerError::Load { name, failure },
            SpawnError::Died(death) => {
                let cause = death.to_string();
                self.crashes.record(slot.spec.digest, &cause, Instant::now());
                SchedulerError::RunnerDied { name, cause }
            }
        };
        tracing::warn!(model = %slot.spec.name, %error, "a model was not loaded");
        self.fail_waiters(slot.spec.digest, &error);
    }

    /// Everyone who waited for this load hears why it failed; the next request tries again.
    fn fail_waiters(&mut self, model: Digest, error: &SchedulerError) {
        for waiter in std::mem::take(&mut self.pending) {
            if waiter.spec.digest == model {
                let _ = waiter.reply.send(Err(error.clone()));
            } else {
                self.pending.push_back(waiter);
            }
        }
    }

    fn watch(&self, slot: u64, runner: &Runner) {
        let (died, asks) = (runner.died(), self.asks.clone());
        tokio::spawn(async move {
            let death = died.await;
            if let Some(asks) = asks.upgrade() {
                let _ = asks.send(Ask::Died { slot, death });
            }
        });
    }

    fn died(&mut self, id: u64, death: &Death) {
        let Some(index) = self.slots.iter().position(|slot| slot.id == id) else { return };
        let slot = self.slots.swap_remove(index);
        if let State::Leaving = slot.state {
            tracing::info!(model = %slot.spec.name, "unloaded");
        } else {
            tracing::error!(model = %slot.spec.name, "the runner {death}");
            self.crashes.record(slot.spec.digest, &death.to_string(), Instant::now());
        }
        for watcher in slot.watchers {
            let _ = watcher.send(());
        }
    }

    /// Lets go of what nobody uses or waits for any more.
    fn expire(&mut self) {
        let now = Instant::now();
        for slot in &mut self.slots {
            if slot.expiry().is_some_and(|expiry| expiry <= now) {
                // A load whose keep_alive is 0 still serves those it was made for.
                let awaited = self.pending.iter().any(|one| one.spec.digest == slot.spec.digest);
                if !awaited || slot.retiring {
                    slot.leave();
                }
            }
        }
        for waiter in std::mem::take(&mut self.pending) {
            let overdue = waiter.displacing_since.is_some_and(|since| now - since >= WAIT_MAX);
            if overdue {
                let name = waiter.spec.name.clone();
                let error = SchedulerError::Timeout { name, seconds: WAIT_MAX.as_secs() };
                let _ = waiter.reply.send(Err(error));
            } else if !waiter.reply.is_closed() {
                self.pending.push_back(waiter);
            }
        }
    }

    /// When something happens by itself: an idle model leaves, a waiter gives up or gets its turn.
    fn next_deadline(&self) -> Instant {
        let now = Instant::now();
        let awaited = |slot: &Slot| self.pending.iter().any(|w| w.spec.digest == slot.spec.digest);
        let idle = self.slots.iter().filter(|slot| !awaited(slot)).filter_map(Slot::expiry);
        let waiting = self.pending.iter().filter_map(|waiter| waiter.displacing_since);
        let turns = waiting.flat_map(|since| [since + YIELD_AFTER, since + WAIT_MAX]);
        let turns = turns.filter(|turn| *turn > now);
        idle.chain(turns).min().unwrap_or(now + LONG).min(now + LONG)
    }
}
