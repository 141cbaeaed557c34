//! One resident model, as the scheduler keeps it.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use dsk_registry::Name;
use tokio::{sync::oneshot, task::AbortHandle, time::Instant};

use super::{
    Resident, ResidentState,
    room::{Occupancy, Occupant},
};
use crate::{keep_alive::KeepAlive, models::ModelSpec, runner::Runner};

/// A resident model.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: u64,
    pub(super) spec: Arc<ModelSpec>,
    /// Every name it was acquired by: a copied model shares its original's runner.
    pub(super) names: BTreeSet<Name>,
    pub(super) context_asked: Option<u32>,
    pub(super) bytes: u64,
    pub(super) state: State,
    pub(super) leases: usize,
    /// Nobody new gets in; it leaves after its last lease.
    pub(super) retiring: bool,
    pub(super) keep_alive: KeepAlive,
    pub(super) last_used: Instant,
    /// Who waits for its process to be gone.
    pub(super) watchers: Vec<oneshot::Sender<()>>,
}

#[derive(Debug)]
pub(super) enum State {
    Loading(AbortHandle),
    Ready(Arc<Runner>),
    Leaving,
}

impl Slot {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Ready(_)) && self.leases == 0
    }

    /// When it leaves if nobody comes; `None` while it is in use or kept for ever.
    pub(super) fn expiry(&self) -> Option<Instant> {
        let keep = self.keep_alive.duration()?;
        self.is_idle().then(|| self.last_used + keep)
    }

    /// Ends the runner of an idle model.
    pub(super) fn leave(&mut self) {
        if let State::Ready(runner) = std::mem::replace(&mut self.state, State::Leaving) {
            runner.stop();
        }
    }

    /// Whether a request for `wanted` tokens of context needs the model loaded anew.
    pub(super) fn too_short_for(&self, runner: &Runner, wanted: Option<u32>) -> bool {
        let loaded = runner.loaded();
        let Some(wanted) = wanted else { return false };
        // More than the model was made for is not to be had, and asking twice changes nothing.
        let wanted = wanted.min(loaded.model_context_length);
        wanted > loaded.context_length && wanted > self.context_asked.unwrap_or(0)
    }

    pub(super) fn occupant(&self) -> Occupant {
        let state = match self.state {
            State::Loading(_) => Occupancy::Loading,
            State::Leaving => Occupancy::Leaving,
            State::Ready(_) if self.leases == 0 => Occupancy::Idle,
            State::Ready(_) => Occupancy::Busy,
        };
        Occupant { bytes: self.bytes, state, last_used: self.last_used }
    }

    pub(super) fn resident(&self, now: Instant) -> Resident {
        let loaded = match &self.state {
            State::Ready(runner) => Some(runner.loaded().clone()),
            _ => None,
        };
        let state = match self.state {
            State::Loading(_) => ResidentState::Loading,
            State::Ready(_) if !self.retiring => ResidentState::Ready,
            _ => ResidentState::Stopping,
        };
        Resident {
            name: self.names.first().unwrap_or(&self.spec.name).clone(),
            digest: self.spec.digest,
            state,
            size_bytes: self.bytes,
            size_vram: 0,
            context_length: loaded.as_ref().map_or(0, |loaded| loaded.context_length),
            expires_at: self.expires_at(now),
            in_use: self.leases,
            config: self.spec.config.clone(),
            loaded,
        }
    }

    /// [`Slot::expiry`] on the wall clock, for people; a model in use counts from now.
    fn expires_at(&self, now: Instant) -> Option<SystemTime> {
        let keep = self.keep_alive.duration()?;
        let left = match self.expiry() {
            Some(expiry) => expiry.saturating_duration_since(now),
            None => keep,
        };
        SystemTime::now().checked_add(left.max(Duration::ZERO))
    }
}
