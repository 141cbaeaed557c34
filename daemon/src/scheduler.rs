//! Which models are resident, and who may use them.
//!
//! One actor task owns every decision; callers hold a [`Scheduler`], a handle to it. A load belongs
//! to the actor, so it survives whoever asked for it, and it blocks nobody who wants another model.
//!
//! ```text
//!            acquire                  loaded                 last lease back, keep_alive over,
//!   (none) ──────────> Loading ──────────────> Ready ──────────────────────────> Leaving ──> (none)
//!                         │ failed or died       │ died      unload, room or context needed
//!                         └───────> (none) <─────┘
//! ```
//!
//! A waiting request is looked at again after every change ([`actor`]), in the order of arrival.
//! What a load needs and who must leave for it is decided in [`room`], from what [`footprint`] says.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use dsk_daemon_engine::Loaded;
use dsk_registry::{Digest, ModelConfig, Name};
use tokio::sync::{mpsc, oneshot};

use crate::{
    config::Config,
    hardware::Memory,
    keep_alive::KeepAlive,
    models::ModelSpec,
    runner::{Launch, LoadFailure},
};

mod actor;
mod crashes;
mod footprint;
mod lease;
mod room;
mod slot;
#[cfg(test)]
mod tests;

pub use lease::Lease;

use actor::{Actor, Ask};
use footprint::{Footprint, gibibytes};

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

/// A model in memory, or on its way.
#[derive(Debug, Clone)]
pub struct Resident {
    /// The name it was asked for by.
    pub name: Name,
    /// The digest of its manifest.
    pub digest: Digest,
    /// Where it is in its life.
    pub state: ResidentState,
    /// The bytes it takes: measured once loaded, estimated before.
    pub size_bytes: u64,
    /// How many of them are in GPU memory.
    pub size_vram: u64,
    /// Tokens of context; 0 while it loads.
    pub context_length: u32,
    /// When it leaves if nobody uses it; `None` is never.
    pub expires_at: Option<SystemTime>,
    /// How many leases are out.
    pub in_use: usize,
    /// Its configuration: family, parameter size, quantization.
    pub config: ModelConfig,
    /// What the runner says of it, once it is loaded.
    pub loaded: Option<Loaded>,
}

/// Where a resident model is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResidentState {
    /// Being read.
    Loading,
    /// Serving.
    Ready,
    /// Serving what runs, then leaving.
    Stopping,
}

/// Why a model cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SchedulerError {
    /// Too many requests wait. The text is Ollama's, two spaces included: clients look for it.
    #[error("server busy, please try again.  maximum pending requests exceeded")]
    Busy,
    /// Nothing made room in time.
    #[error("model {name} waited {seconds} s for running requests to end; try again")]
    Timeout {
        /// The model.
        name: Name,
        /// How long it waited.
        seconds: u64,
    },
    /// The model cannot be loaded.
    #[error("cannot load model {name}: {failure}")]
    Load {
        /// The model.
        name: Name,
        /// Whose fault it is, and what is wrong.
        failure: LoadFailure,
    },
    /// The machine lacks the memory, even with every other model unloaded.
    #[error(
        "model {name} needs about {} of memory and {} can be had: choose a smaller model, \
         quantization or num_ctx",
        gibibytes(*.needed),
        gibibytes(*.available)
    )]
    InsufficientMemory {
        /// The model.
        name: Name,
        /// An estimate, in bytes.
        needed: u64,
        /// What is free or would be after unloading everything, in bytes.
        available: u64,
    },
    /// The runner died while it loaded the model.
    #[error("the runner of {name} {cause}")]
    RunnerDied {
        /// The model.
        name: Name,
        /// What happened, after "the runner of X".
        cause: String,
    },
    /// The runner died too often; it is not started again for a while.
    #[error(
        "the runner of {name} died {deaths} times within a minute (the last one {cause}); \
         it is started again in {retry_seconds} s"
    )]
    CrashLoop {
        /// The model.
        name: Name,
        /// How often it died.
        deaths: usize,
        /// What happened last.
        cause: String,
        /// When the next start is allowed.
        retry_seconds: u64,
    },
    /// The daemon is stopping.
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

/// What the scheduler takes from the configuration and the machine; tests bring their own.
pub(crate) struct Settings {
    pub(crate) keep_alive: KeepAlive,
    pub(crate) max_loaded: Option<usize>,
    pub(crate) max_queue: usize,
    pub(crate) context_length: Option<u32>,
    pub(crate) memory: Box<dyn Fn() -> Memory + Send>,
    pub(crate) footprint: Arc<dyn Fn(&ModelSpec) -> Footprint + Send + Sync>,
}

impl Settings {
    pub(crate) fn new(config: &Config) -> Settings {
        Settings {
            keep_alive: config.keep_alive,
            max_loaded: config.max_loaded,
            max_queue: config.max_queue,
            context_length: config.context_length,
            memory: Box::new(Memory::read),
            footprint: Arc::new(Footprint::of),
        }
    }
}

impl Scheduler {
    /// Starts the actor on the current runtime.
    pub(crate) fn start(settings: Settings, launcher: Arc<dyn Launch>) -> Scheduler {
        let (asks, received) = mpsc::unbounded_channel();
        let actor = Actor::new(settings, launcher, asks.downgrade());
        tokio::spawn(actor.run(received));
        Scheduler { asks }
    }

    /// Waits for the model to be ready, loading it if need be, and takes a share in it.
    ///
    /// Dropping the future gives up the place in the queue; a load that began goes on.
    pub async fn acquire(&self, spec: &ModelSpec, wants: &Wants) -> Result<Lease, SchedulerError> {
        let spec = Arc::new(spec.clone());
        let wants = *wants;
        self.ask(|reply| Ask::Acquire { spec, wants, reply })
            .await
            .unwrap_or(Err(SchedulerError::ShuttingDown))
    }

    /// What is in memory, or on its way in or out.
    pub async fn resident(&self) -> Vec<Resident> {
        self.ask(|reply| Ask::Resident { reply }).await.unwrap_or_default()
    }

    /// Unloads a model: at once when it is idle, else after its running requests.
    /// `false` when it is not resident.
    pub async fn unload(&self, name: &Name) -> bool {
        let name = name.clone();
        let leaving = self.ask(|reply| Ask::Unload { name, reply }).await.flatten();
        let Some(gone) = leaving else { return false };
        // Sent when the process is gone; dropped when requests still run.
        let _ = gone.await;
        true
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
