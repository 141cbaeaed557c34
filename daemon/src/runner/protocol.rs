//! What a runner's frames say.

use std::path::PathBuf;

use dsk_daemon_engine::{Event, LoadOptions, Loaded, Request};
use serde::{Deserialize, Serialize};

use super::sandbox::Confinement;

/// From the daemon to the child. The first one is `Load`; the socket's end means the same as `Stop`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Command {
    /// Load this model; answered by `Loading`s and one of `Loaded` and `LoadFailed`.
    Load { model: Vec<PathBuf>, options: LoadOptions },
    /// Run a request; answered by its events, `Done` or `Failed` last.
    Submit { id: u64, request: Box<Request> },
    /// Stop a request. One that ended already is left alone.
    Cancel { id: u64 },
    /// Say that the process lives; answered by `Pong`, whatever else it does.
    Ping,
    /// End the process.
    Stop,
}

/// From the child to the daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// How the child has confined itself; it reads the model next.
    Confined(Confinement),
    /// How much of the model is loaded, from 0 to 1.
    Loading { progress: f32 },
    /// The model is ready.
    Loaded(Loaded),
    /// The model cannot be loaded; the child ends.
    LoadFailed(LoadFailure),
    /// The process lives.
    Pong,
    /// Something happened to a request.
    Event { id: u64, event: Event },
}

/// Why a model could not be loaded, in words for the person who asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct LoadFailure {
    /// Whose fault it is.
    pub kind: LoadFailureKind,
    /// What is wrong, with the names of what it is wrong with.
    pub message: String,
}

/// Whose fault a failed load is, and so what a caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadFailureKind {
    /// The model is whole, but of a family or tensor type that this version cannot run.
    Unsupported,
    /// The file is broken: pull or create it again.
    Corrupt,
    /// The file cannot be read.
    Unreadable,
    /// The template that comes with the model is broken.
    Template,
    /// The options of the load are wrong.
    Options,
    /// There is not enough memory.
    OutOfMemory,
    /// The engine is at fault.
    Internal,
}
