//! Which models are resident, and who may use them.
//!
//! One actor task owns every decision; callers hold a [`Scheduler`], a handle to it. A load belongs
//! to the actor, so it survives whoever asked for it, and it blocks nobody who wants another model.
//!
//! ```text
//!            acquire                  loaded                 last lease back, keep_alive over,
//!   (none) ──────────> Loading ──────────────> Ready ──────────────────────────> Leaving ──> (none)
//!                         │ failed or died       │ died      unload, room or context needed, yield
//!                         └───────> (none) <─────┘
//! ```
//!
//! A waiting request is looked at again after every change ([`actor`]), in the order of arrival.
//! Who must leave for a load is decided in [`room`], from what [`footprint`] says it needs.
//!
//! How long a request waits is bounded. Ready models serve at once. Else it waits for its turn, and
//! each turn is at most the minimum residency of the models that must leave ([`slot`], 30 s) or the
//! time a busy one may go on ([`actor::YIELD_AFTER`]), whichever is longer, plus the requests that
//! still run there, plus the load. There is one turn for each *model* in front of it, not for each
//! request: a model that is loaded serves everyone who waits for it. Whatever happens, waiting for
//! room ends with an error after [`actor::WAIT_MAX`].

use std::{sync::Arc, time::Duration};

use dsk_daemon_engine::Loaded;
use dsk_registry::Name;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    config::Config, hardware::Memory, keep_alive::KeepAlive, metrics::Metrics, models::ModelSpec,
    runner::Launch,
};

mod actor;
mod crashes;
mod error;
mod footprint;
mod lease;
mod measure;
mod report;
mod room;
#[cfg(test)]
mod simulation;
mod slot;
#[cfg(test)]
mod tests;
mod ticket;

pub use error::SchedulerError;
pub use lease::Lease;
pub(crate) use measure::touched_bytes;
pub use report::{Freed, Place, Resident, ResidentState, Status, Unloaded, Waiting};
pub use ticket::Ticket;

use actor::{Actor, Ask};
use footprint::Footprint;

/// A handle to the scheduler. When the last one and the last lease are gone, so is every runner.
#[derive(Debug, Clone)]
pub struct Scheduler {
    /// Unbounded: an ask is taken in at once, and the actor limits what waits.
    asks: mpsc::UnboundedSender<Ask>,
}

/// What a request wants of the model it acquires.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wants {
    /// Tokens of context (`num_ctx`); `None` takes the model's or the configuration's.
    pub context_length: Option<u32>,
    /// How long the model stays afterwards; `None` takes the configuration's.
    pub keep_alive: Option<KeepAlive>,
}

/// How long models stay: what the configuration says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeepAlives {
    /// Where the request does not say.
    pub(crate) default: KeepAlive,
    /// The least a request gets, whatever it says.
    pub(crate) min: KeepAlive,
    /// The most.
    pub(crate) max: KeepAlive,
}

impl KeepAlives {
    /// What a request gets.
    pub(crate) fn grant(&self, asked: Option<KeepAlive>) -> KeepAlive {
        asked.unwrap_or(self.default).clamp(self.min, self.max)
    }
}

/// Is told a model that was loaded, and how long that took.
pub(crate) type LoadNote = Box<dyn Fn(&ModelSpec, &Loaded, Duration) + Send>;

/// What the scheduler takes from the configuration and the machine; tests bring their own.
pub(crate) struct Settings {
    pub(crate) keep_alive: KeepAlives,
    pub(crate) pinned: Vec<Name>,
    pub(crate) max_loaded: Option<usize>,
    pub(crate) max_queue: usize,
    pub(crate) context_length: Option<u32>,
    /// Bytes left to other programs; `None` takes a share of the machine.
    pub(crate) memory_reserve: Option<u64>,
    pub(crate) memory: Box<dyn Fn() -> Memory + Send>,
    pub(crate) footprint: Arc<dyn Fn(&ModelSpec) -> Footprint + Send + Sync>,
    /// The bytes that the process of this id has touched.
    pub(crate) touched: Box<dyn Fn(u32) -> Option<u64> + Send>,
    /// Hears how long each load took.
    pub(crate) loaded: LoadNote,
}

impl Settings {
    pub(crate) fn new(config: &Config) -> Settings {
        Settings {
            keep_alive: KeepAlives {
                default: config.keep_alive,
                min: config.keep_alive_min,
                max: config.keep_alive_max,
            },
            pinned: config.pinned.clone(),
            max_loaded: config.max_loaded,
            max_queue: config.max_queue,
            context_length: config.context_length,
            memory_reserve: config.memory_reserve,
            memory: Box::new(Memory::read),
            footprint: Arc::new(Footprint::of),
            touched: Box::new(touched_bytes),
            loaded: Box::new(|_, _, _| ()),
        }
    }
}

impl Scheduler {
    /// [`Scheduler::counted`] where nobody looks at the counts.
    #[cfg(test)]
    pub(crate) fn start(settings: Settings, launcher: Arc<dyn Launch>) -> Scheduler {
        Scheduler::counted(settings, launcher, Arc::default())
    }

    /// Starts the actor on the current runtime; `metrics` count what it does.
    pub(crate) fn counted(
        settings: Settings,
        launcher: Arc<dyn Launch>,
        metrics: Arc<Metrics>,
    ) -> Scheduler {
        let (asks, received) = mpsc::unbounded_channel();
        let actor = Actor::new(settings, metrics, launcher, asks.downgrade());
        tokio::spawn(actor.run(received));
        Scheduler { asks }
    }

    /// Waits for the model to be ready, loading it if need be, and takes a share in it.
    ///
    /// Dropping the future gives up the place in the queue; a load that began goes on.
    pub async fn acquire(&self, spec: &ModelSpec, wants: &Wants) -> Result<Lease, SchedulerError> {
        self.queue(spec, wants).lease().await
    }

    /// [`Scheduler::acquire`] in two steps: a place in the queue that can be looked at, then the
    /// lease. Dropping the ticket gives up the place.
    pub fn queue(&self, spec: &ModelSpec, wants: &Wants) -> Ticket {
        let (reply, answer) = oneshot::channel();
        let (place, seen) = watch::channel(Place::default());
        let (spec, wants) = (Arc::new(spec.clone()), *wants);
        // An actor that is gone drops the reply, and the ticket says so.
        let _ = self.asks.send(Ask::Acquire { spec, wants, place, reply });
        Ticket { answer, place: seen, asks: self.asks.clone(), answered: false }
    }

    /// What is in memory, or on its way in or out.
    pub async fn resident(&self) -> Vec<Resident> {
        self.status().await.map(|status| status.residents).unwrap_or_default()
    }

    /// Everything at once; `None` when the actor is gone.
    pub async fn status(&self) -> Option<Status> {
        self.ask(|reply| Ask::Status { reply }).await.map(|status| *status)
    }

    /// Unloads a model: at once when it is idle, else after its running requests. It is unpinned
    /// too, and a `keep_alive_min` does not hold it.
    pub async fn unload(&self, name: &Name) -> Unloaded {
        let name = name.clone();
        let unload = self.ask(|reply| Ask::Unload { name, reply }).await;
        let Some((unloaded, gone)) = unload else { return Unloaded::default() };
        // Sent when the process is gone; dropped when requests still run.
        let _ = gone.await;
        unloaded
    }

    /// Keeps a model until it is unpinned or unloaded: it is loaded by its first request, and
    /// neither time nor need for room makes it leave. `false` when too many names are pinned.
    ///
    /// Pins live as long as the daemon; `pinned` in the configuration sets them at its start.
    pub async fn pin(&self, name: &Name) -> bool {
        let name = name.clone();
        self.ask(|reply| Ask::Pin { name, reply }).await.unwrap_or(false)
    }

    /// Lets a pinned model leave again as others do. `false` when it was not pinned.
    pub async fn unpin(&self, name: &Name) -> bool {
        let name = name.clone();
        self.ask(|reply| Ask::Unpin { name, reply }).await.unwrap_or(false)
    }

    /// Gives the memory of all models away and loads none until [`Scheduler::resume`]. Idle models
    /// leave at once, loads are given up, and busy models leave after their running requests, or
    /// after `within`: then those requests fail. Ends when all are gone; dropping the future does
    /// not take it back.
    pub async fn yield_now(&self, within: Option<Duration>) -> Freed {
        self.ask(|reply| Ask::Yield { within, reply }).await.unwrap_or_default()
    }

    /// Allows loads again, and loads in the background what had to leave, the model used last
    /// first, as far as there is room. `false` when nothing was yielded.
    pub async fn resume(&self) -> bool {
        self.ask(|reply| Ask::Resume { reply }).await.unwrap_or(false)
    }

    /// Refuses new requests, waits for the running ones, and unloads everything.
    pub async fn drain(&self) {
        let _ = self.ask(|reply| Ask::Drain { reply }).await;
    }

    /// Whether the actor answers within `limit`: what the watchdog of the service manager asks.
    pub async fn self_check(&self, limit: Duration) -> bool {
        let answer = self.ask(|reply| Ask::Ping { reply });
        matches!(tokio::time::timeout(limit, answer).await, Ok(Some(())))
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).ok()?;
        answer.await.ok()
    }
}
