//! Why a model cannot be had.

use std::time::Duration;

use dsk_registry::Name;

use super::footprint::gibibytes;
use crate::runner::{Death, LoadFailure};

/// Why a model cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SchedulerError {
    /// Too many requests wait. The text is Ollama's, two spaces included: clients look for it.
    #[error("server busy, please try again.  maximum pending requests exceeded")]
    Busy {
        /// The place in the queue it would have had, from 1.
        position: usize,
        /// When a place may be free again: an estimate.
        retry_after: Duration,
    },
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
    /// The machine lacks the memory, even with every model unloaded that may be.
    #[error(
        "model {name} needs about {} of memory and {} can be had{}: choose a smaller model, \
         quantization or num_ctx",
        gibibytes(*.needed),
        gibibytes(*.available),
        beside_pinned(*.pinned)
    )]
    InsufficientMemory {
        /// The model.
        name: Name,
        /// An estimate, in bytes.
        needed: u64,
        /// What is free or would be after unloading everything that is not pinned, in bytes.
        available: u64,
        /// What pinned models keep, in bytes.
        pinned: u64,
    },
    /// As many models are pinned as may be loaded.
    #[error(
        "model {name} has no place: {limit} models may be loaded (max_loaded) and all of them are \
         pinned; unpin one"
    )]
    AllPinned {
        /// The model.
        name: Name,
        /// How many models may be loaded.
        limit: usize,
    },
    /// Other programs need the memory.
    #[error(
        "model {name} is not loaded: {} of memory is left, and {} is kept free for other programs \
         (memory_reserve); try again when they use less",
        gibibytes(*.available),
        gibibytes(*.reserve)
    )]
    Pressure {
        /// The model.
        name: Name,
        /// What is left, in bytes.
        available: u64,
        /// What must be left, in bytes.
        reserve: u64,
    },
    /// The memory was given to somebody else.
    #[error("model {name} is not loaded: dsk yielded its memory; take it back: dsk yield --resume")]
    Yielded {
        /// The model.
        name: Name,
    },
    /// The runner died while it loaded the model.
    #[error("the runner of {name} {death}")]
    RunnerDied {
        /// The model.
        name: Name,
        /// What happened.
        death: Death,
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

impl SchedulerError {
    /// When it makes sense to try again, in seconds; `None` when waiting alone mends nothing.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            SchedulerError::Busy { retry_after, .. } => Some(retry_after.as_secs().max(1)),
            SchedulerError::CrashLoop { retry_seconds, .. } => Some(*retry_seconds),
            SchedulerError::Timeout { .. } => Some(10),
            SchedulerError::Pressure { .. } | SchedulerError::Yielded { .. } => Some(60),
            SchedulerError::ShuttingDown => Some(5),
            SchedulerError::Load { .. }
            | SchedulerError::InsufficientMemory { .. }
            | SchedulerError::AllPinned { .. }
            | SchedulerError::RunnerDied { .. } => None,
        }
    }
}

fn beside_pinned(bytes: u64) -> String {
    match bytes {
        0 => String::new(),
        bytes => format!(" beside the pinned models ({})", gibibytes(bytes)),
    }
}
