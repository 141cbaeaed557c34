//! Loads, evictions and deaths, as counts and as events of one shape in the log.

use std::fmt::Display;
use std::time::Duration;

use dsk_registry::Name;

use super::{Metrics, milliseconds};
use crate::runner::{Death, DeathKind};

/// The words for the kinds of death.
pub(super) const DEATHS: [&str; 8] =
    ["stopped", "exit", "signal", "out_of_memory", "hung", "garbage", "not_started", "unknown"];

/// The word for a kind of death, without its code or signal: those are in the event's text.
fn word(kind: DeathKind) -> &'static str {
    match kind {
        DeathKind::Stopped => "stopped",
        DeathKind::Exit(_) => "exit",
        DeathKind::Signal(_) => "signal",
        DeathKind::OutOfMemory => "out_of_memory",
        DeathKind::Hung => "hung",
        DeathKind::Garbage => "garbage",
        DeathKind::NotStarted => "not_started",
        DeathKind::Unknown => "unknown",
    }
}

/// Why a model left memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eviction {
    /// Nobody used it for its keep-alive.
    Idle,
    /// Another model needed its memory.
    Room,
    /// Somebody asked for it.
    Asked,
    /// It is loaded again with a larger context, or its name stands for another file now.
    Replaced,
    /// The machine ran short of memory, or the user wants it for something else.
    Pressure,
}

impl Eviction {
    pub(super) const ALL: [Eviction; 5] =
        [Eviction::Idle, Eviction::Room, Eviction::Asked, Eviction::Replaced, Eviction::Pressure];

    /// The word in labels and events.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Eviction::Idle => "idle",
            Eviction::Room => "room",
            Eviction::Asked => "asked",
            Eviction::Replaced => "replaced",
            Eviction::Pressure => "pressure",
        }
    }
}

impl Metrics {
    /// A model was loaded.
    pub(crate) fn loaded(&self, model: &Name, took: Duration, bytes: u64) {
        self.loads.with_label_values(&["ok"]).inc();
        self.model(model).load.observe(took.as_secs_f64());
        let load_ms = milliseconds(took);
        tracing::info!(target: "dsk_load", %model, outcome = "ok", load_ms, bytes, "loaded");
    }

    /// A model could not be loaded; `died` when its runner was lost over it.
    pub(crate) fn load_failed(&self, model: &Name, died: bool, error: &dyn Display) {
        let outcome = if died { "died" } else { "failed" };
        self.loads.with_label_values(&[outcome]).inc();
        tracing::warn!(target: "dsk_load", %model, outcome, %error, "not loaded");
    }

    /// A model has left memory.
    pub(crate) fn evicted(&self, model: &Name, reason: Eviction) {
        self.evictions.with_label_values(&[reason.word()]).inc();
        tracing::info!(target: "dsk_evict", %model, reason = reason.word(), "unloaded");
    }

    /// A runner died without being told to.
    pub(crate) fn died(&self, model: &Name, death: &Death) {
        let kind = word(death.kind());
        self.deaths.with_label_values(&[kind]).inc();
        tracing::error!(target: "dsk_death", %model, kind, "the runner {death}");
    }
}
