//! What the scheduler tells about itself.

use std::time::{Duration, SystemTime};

use dsk_daemon_engine::Loaded;
use dsk_registry::{Digest, ModelConfig, Name};

use crate::hardware::Memory;
use crate::runner::sandbox::Confinement;

/// Everything at once: what `ps`, `top` and metrics show.
#[derive(Debug, Clone)]
pub struct Status {
    /// What is in memory, or on its way in or out.
    pub residents: Vec<Resident>,
    /// Requests that wait for a model, the next one first.
    pub waiting: Vec<Waiting>,
    /// The names of pinned models, resident or not.
    pub pinned: Vec<Name>,
    /// The memory was given away; nothing is loaded until it is taken back.
    pub yielded: bool,
    /// Other programs need memory; nothing is loaded until they need less.
    pub pressed: bool,
    /// The machine's memory, just read.
    pub memory: Memory,
    /// Bytes that resident models were promised and have not touched yet: they count as available
    /// to the system, and not to the scheduler.
    pub reserved_bytes: u64,
    /// Bytes that are left to other programs.
    pub reserve_bytes: u64,
    /// How many requests may wait or run.
    pub max_queue: usize,
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
    /// The bytes it was promised: the runner's own figure once loaded, an estimate before.
    pub size_bytes: u64,
    /// How many of them are in GPU memory.
    pub size_vram: u64,
    /// The bytes its process has touched, where the system says.
    pub measured_bytes: Option<u64>,
    /// Tokens of context; 0 while it loads.
    pub context_length: u32,
    /// When it leaves if nobody uses it; `None` is never.
    pub expires_at: Option<SystemTime>,
    /// Since its last request began or ended.
    pub idle: Duration,
    /// How many leases are out.
    pub in_use: usize,
    /// How many requests wait for it.
    pub waiting: usize,
    /// It stays until it is unpinned or unloaded.
    pub pinned: bool,
    /// How much of it is read, from 0 to 1; `None` unless it loads.
    pub load_progress: Option<f32>,
    /// How long its load took, or, while it loads, will take.
    pub load_time: Duration,
    /// Its configuration: family, parameter size, quantization.
    pub config: ModelConfig,
    /// What the runner says of it, once it is loaded.
    pub loaded: Option<Loaded>,
    /// How its runner is confined, once it is loaded.
    pub confinement: Option<Confinement>,
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

/// A request that waits for a model.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The model.
    pub name: Name,
    /// Where it stands.
    pub place: Place,
    /// How long it has waited.
    pub waited: Duration,
}

/// Where a request stands in the queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// From 1, in the order of arrival; 0 before the scheduler took it in.
    pub position: usize,
    /// How long it will wait from now: an estimate, in whole seconds.
    pub expected_wait: Duration,
}

/// What an unload did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unloaded {
    /// It was in memory. It is gone now, or goes after its running requests.
    pub was_resident: bool,
    /// It was pinned, and is no longer.
    pub was_pinned: bool,
}

/// What a yield freed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freed {
    /// How many models left.
    pub models: usize,
    /// The bytes they were promised.
    pub bytes: u64,
}
