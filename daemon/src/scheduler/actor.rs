//! The task that owns every resident model and every request that waits for one.
//!
//! After each change, [`Actor::dispatch`] looks at the waiting requests in the order of arrival and
//! does for each what can be done now. Nothing here waits: loads, deaths and leases report back as
//! [`Ask`]s.
//!
//! All time is [`Instant`], which is the kernel's monotonic clock: setting the wall clock moves it
//! not at all, and it stands still while the machine sleeps. So neither evicts anybody.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use dsk_registry::{Digest, Name};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    Footprint, Freed, Lease, Place, SchedulerError, Settings, Status, Unloaded, Wants,
    crashes::Crashes,
    measure::Means,
    slot::{Slot, State},
};
use crate::{
    metrics::Metrics,
    models::ModelSpec,
    runner::{Death, Launch, Runner, SpawnError},
};

mod judge;
mod leaving;
mod loads;
mod pressure;
mod queue;
mod yielding;

use judge::Remembered;
use pressure::Pressure;
use queue::Waiter;
use yielding::{Restore, Yielded};

/// How long a request waits for room, or for leases to end that its larger context displaces.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(5 * 60);
/// After this long without room, the busy models whose room is needed take no new requests.
pub(super) const YIELD_AFTER: Duration = Duration::from_secs(10);
/// Names pinned at once.
const PINNED_MAX: usize = 1024;
/// A sleep that something always interrupts.
const LONG: Duration = Duration::from_secs(3600);

/// What reaches the actor.
#[derive(Debug)]
pub(super) enum Ask {
    Acquire {
        spec: Arc<ModelSpec>,
        wants: Wants,
        place: watch::Sender<Place>,
        reply: oneshot::Sender<Result<Lease, SchedulerError>>,
    },
    Status {
        reply: oneshot::Sender<Box<Status>>,
    },
    /// The receiver hears when the process is gone, and is dropped when requests still run.
    Unload {
        name: Name,
        reply: oneshot::Sender<(Unloaded, oneshot::Receiver<()>)>,
    },
    Pin {
        name: Name,
        reply: oneshot::Sender<bool>,
    },
    Unpin {
        name: Name,
        reply: oneshot::Sender<bool>,
    },
    Yield {
        within: Option<Duration>,
        reply: oneshot::Sender<Freed>,
    },
    Resume {
        reply: oneshot::Sender<bool>,
    },
    Drain {
        reply: oneshot::Sender<()>,
    },
    Ping {
        reply: oneshot::Sender<()>,
    },
    /// A caller left its place in the queue.
    GaveUp,
    Released {
        slot: u64,
        held: Duration,
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

pub(super) struct Actor {
    settings: Settings,
    metrics: Arc<Metrics>,
    launcher: Arc<dyn Launch>,
    /// Weak: the actor ends when the last handle and lease are gone.
    asks: mpsc::WeakUnboundedSender<Ask>,
    slots: Vec<Slot>,
    pending: VecDeque<Waiter>,
    crashes: Crashes,
    /// `None` while the file's header is being read.
    footprints: HashMap<Digest, Option<Footprint>>,
    means: Means,
    remembered: Remembered,
    pinned: BTreeSet<Name>,
    pressure: Pressure,
    /// `Some` while the memory is somebody else's.
    yielded: Option<Yielded>,
    /// What is loaded again after a yield.
    restoring: VecDeque<Restore>,
    next_slot: u64,
    /// Who waits for everything to be unloaded; `Some` once the daemon is stopping.
    draining: Option<Vec<oneshot::Sender<()>>>,
}

impl Actor {
    pub(super) fn new(
        settings: Settings,
        metrics: Arc<Metrics>,
        launcher: Arc<dyn Launch>,
        asks: mpsc::WeakUnboundedSender<Ask>,
    ) -> Actor {
        let pinned = settings.pinned.iter().take(PINNED_MAX).cloned().collect();
        let pressure = Pressure::new(settings.memory_reserve, (settings.memory)().total);
        Actor {
            settings,
            metrics,
            launcher,
            asks,
            slots: Vec::new(),
            pending: VecDeque::new(),
            crashes: Crashes::default(),
            footprints: HashMap::new(),
            means: Means::default(),
            remembered: Remembered::default(),
            pinned,
            pressure,
            yielded: None,
            restoring: VecDeque::new(),
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
            self.turn();
        }
    }

    fn turn(&mut self) {
        let now = Instant::now();
        self.expire(now);
        self.give_up(now);
        self.dispatch(now);
        self.relieve(now);
        self.restore(now);
        self.finish_yield(now);
        self.finish_drain();
        self.show_places(now);
    }

    fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Acquire { spec, wants, place, reply } => {
                self.enqueue(Waiter::new(spec, wants, place, reply));
            }
            Ask::Status { reply } => {
                let _ = reply.send(Box::new(self.status(Instant::now())));
            }
            Ask::Unload { name, reply } => {
                let _ = reply.send(self.unload(&name));
            }
            Ask::Pin { name, reply } => {
                let _ = reply.send(self.pin(name));
            }
            Ask::Unpin { name, reply } => {
                let _ = reply.send(self.unpin(&name));
            }
            Ask::Yield { within, reply } => self.yield_memory(within, reply),
            Ask::Resume { reply } => {
                let _ = reply.send(self.resume());
            }
            Ask::Drain { reply } => self.drain(reply),
            Ask::Ping { reply } => {
                let _ = reply.send(());
            }
            // The turn that follows lets go of it.
            Ask::GaveUp => {}
            Ask::Released { slot, held } => self.released(slot, held),
            Ask::Weighed { model, footprint } => {
                self.footprints.insert(model, Some(footprint));
            }
            Ask::LoadEnded { slot, result } => self.load_ended(slot, result),
            Ask::Died { slot, death } => self.died(slot, &death),
        }
    }

    fn status(&self, now: Instant) -> Status {
        let waiting = |slot: &Slot| {
            self.pending.iter().filter(|waiter| waiter.spec.digest == slot.spec.digest).count()
        };
        let touched = |slot: &Slot| self.touched(slot);
        let resident = |slot: &Slot| slot.resident(touched(slot), waiting(slot), now);
        let reserved = |slot: &Slot| slot.occupant(touched(slot), now).reserved();
        Status {
            residents: self.slots.iter().map(resident).collect(),
            waiting: self.waiting(now),
            pinned: self.pinned.iter().cloned().collect(),
            yielded: self.yielded.is_some(),
            pressed: self.pressure.on,
            memory: (self.settings.memory)(),
            reserved_bytes: self.slots.iter().map(reserved).sum(),
            reserve_bytes: self.pressure.reserve,
            max_queue: self.settings.max_queue,
        }
    }

    /// What the slot's process was seen to use.
    fn touched(&self, slot: &Slot) -> Option<u64> {
        (self.settings.touched)(slot.child.pid()?)
    }

    fn awaited(&self, slot: &Slot) -> bool {
        self.pending.iter().any(|waiter| waiter.spec.digest == slot.spec.digest)
    }

    /// When something happens by itself: an idle model leaves, a waiter gives up or gets its turn,
    /// the memory is looked at. Without residents and waiters, never.
    fn next_deadline(&self) -> Instant {
        let now = Instant::now();
        let idle = self.slots.iter().filter(|slot| !self.awaited(slot)).filter_map(Slot::expiry);
        let waiting = self.pending.iter().filter_map(|waiter| waiter.displacing_since);
        let turns = waiting.clone().flat_map(|since| [since + YIELD_AFTER, since + WAIT_MAX]);
        let held = self.slots.iter().filter(|slot| matches!(slot.state, State::Ready(_)));
        let held = held.map(Slot::held_until).filter(|_| waiting.clone().next().is_some());
        let turns = turns.chain(held).filter(|turn| *turn > now);
        let yielded = self.yielded.as_ref().and_then(|yielded| yielded.deadline);
        let pressure = self.pressure.due().filter(|_| !self.slots.is_empty());
        let starts = self.crashes.next_start(now);
        let all = idle.chain(turns).chain(yielded).chain(pressure).chain(starts);
        all.min().unwrap_or(now + LONG).min(now + LONG)
    }
}
