//! One resident model, as the scheduler keeps it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use dsk_registry::Name;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::{
    Resident, ResidentState,
    room::{Occupant, Standing, regret},
};
use crate::{keep_alive::KeepAlive, metrics::Eviction, models::ModelSpec, runner::Runner};

/// A model that was loaded serves for twice the time its load took, within these bounds, before it
/// leaves for another: models that take turns would else load more than they serve …
pub(super) const RESIDENCY_MIN: Duration = Duration::from_secs(5);
/// See [`RESIDENCY_MIN`].
pub(super) const RESIDENCY_MAX: Duration = Duration::from_secs(30);
/// … unless nobody used it for this long: one client that asks two models in turn waits no longer.
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// A resident model.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: u64,
    pub(super) spec: Arc<ModelSpec>,
    /// Every name it was acquired by: a copied model shares its original's runner.
    pub(super) names: BTreeSet<Name>,
    pub(super) context_asked: Option<u32>,
    /// The bytes it was promised.
    pub(super) bytes: u64,
    pub(super) state: State,
    pub(super) leases: usize,
    /// Nobody new gets in; it leaves after its last lease.
    pub(super) retiring: bool,
    /// Why it leaves.
    pub(super) left_for: Option<Eviction>,
    /// Nobody new gets in for now: somebody has waited long for its room.
    pub(super) yielding: bool,
    /// It was so before: whose room was once chosen stays the choice.
    pub(super) yielded_before: bool,
    pub(super) pinned: bool,
    pub(super) keep_alive: KeepAlive,
    pub(super) last_used: Instant,
    /// When its load began.
    pub(super) began: Instant,
    /// How long the load took, or will take.
    pub(super) load_time: Duration,
    pub(super) child: Arc<ChildFacts>,
    /// Who waits for its process to be gone.
    pub(super) watchers: Vec<oneshot::Sender<()>>,
}

#[derive(Debug)]
pub(super) enum State {
    Loading,
    Ready(Arc<Runner>),
    Leaving,
}

/// What the actor and the task that loads a model tell each other.
#[derive(Debug, Default)]
pub(super) struct ChildFacts {
    /// The load is given up.
    cancel: Notify,
    /// There is a process, and its end will be told.
    launched: AtomicBool,
    /// The bits of an f32 from 0 to 1.
    progress: AtomicU32,
    /// 0 before the process runs.
    pid: AtomicU32,
}

impl ChildFacts {
    pub(super) fn set_progress(&self, done: f32) {
        self.progress.store(done.clamp(0.0, 1.0).to_bits(), Ordering::Relaxed);
    }

    pub(super) fn progress(&self) -> f32 {
        f32::from_bits(self.progress.load(Ordering::Relaxed))
    }

    pub(super) fn launched(&self, pid: Option<u32>) {
        self.pid.store(pid.unwrap_or(0), Ordering::Relaxed);
        self.launched.store(true, Ordering::Release);
    }

    pub(super) fn is_launched(&self) -> bool {
        self.launched.load(Ordering::Acquire)
    }

    /// Ends when the load was given up.
    pub(super) async fn cancelled(&self) {
        self.cancel.notified().await;
    }

    pub(super) fn pid(&self) -> Option<u32> {
        Some(self.pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }
}

impl Slot {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Ready(_)) && self.leases == 0
    }

    /// When it leaves if nobody comes; `None` while it is in use or kept for ever.
    pub(super) fn expiry(&self) -> Option<Instant> {
        let keep = self.keep_alive.duration().filter(|_| !self.pinned)?;
        self.is_idle().then(|| self.last_used + keep)
    }

    /// Until when it does not leave for another model.
    pub(super) fn held_until(&self) -> Instant {
        let residency = (self.load_time * 2).clamp(RESIDENCY_MIN, RESIDENCY_MAX);
        (self.began + self.load_time + residency).min(self.last_used + QUIET)
    }

    /// Ends the runner, whoever uses it, or gives up its load; the first reason counts.
    pub(super) fn leave_for(&mut self, reason: Eviction) {
        self.left_for.get_or_insert(reason);
        match std::mem::replace(&mut self.state, State::Leaving) {
            State::Ready(runner) => runner.stop(),
            State::Loading => self.child.cancel.notify_one(),
            State::Leaving => {}
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

    /// `touched` is what its process was seen to use.
    pub(super) fn occupant(&self, touched: Option<u64>, now: Instant) -> Occupant {
        let standing = match self.state {
            State::Loading => Standing::Loading,
            State::Leaving => Standing::Leaving,
            State::Ready(_) if self.leases == 0 && self.held_until() <= now => Standing::Idle,
            State::Ready(_) => Standing::Held,
        };
        Occupant {
            promised: self.bytes,
            measured: touched.unwrap_or_else(|| self.presumed()),
            standing,
            pinned: self.pinned,
            regret: self.regret(now),
        }
    }

    fn regret(&self, now: Instant) -> f64 {
        if self.yielded_before {
            return 0.0;
        }
        let forever = self.keep_alive == KeepAlive::Forever;
        regret(self.load_time, now.saturating_duration_since(self.last_used), forever)
    }

    /// What it uses where the system does not say: what is loaded of it, and of its context nothing.
    fn presumed(&self) -> u64 {
        match &self.state {
            State::Loading => (self.bytes as f64 * f64::from(self.child.progress())) as u64,
            State::Ready(runner) => self.bytes.saturating_sub(runner.loaded().bytes.kv),
            State::Leaving => self.bytes,
        }
    }

    pub(super) fn resident(&self, touched: Option<u64>, waiting: usize, now: Instant) -> Resident {
        let confinement = match &self.state {
            State::Ready(runner) => runner.confinement().cloned(),
            _ => None,
        };
        let loaded = match &self.state {
            State::Ready(runner) => Some(runner.loaded().clone()),
            _ => None,
        };
        let state = match self.state {
            State::Loading => ResidentState::Loading,
            State::Ready(_) if !self.retiring => ResidentState::Ready,
            _ => ResidentState::Stopping,
        };
        Resident {
            name: self.names.first().unwrap_or(&self.spec.name).clone(),
            digest: self.spec.digest,
            state,
            size_bytes: self.bytes,
            size_vram: 0,
            measured_bytes: touched,
            context_length: loaded.as_ref().map_or(0, |loaded| loaded.context_length),
            expires_at: self.expires_at(now),
            idle: now.saturating_duration_since(self.last_used),
            in_use: self.leases,
            waiting,
            pinned: self.pinned,
            load_progress: (state == ResidentState::Loading).then(|| self.child.progress()),
            load_time: self.load_time,
            config: self.spec.config.clone(),
            loaded,
            confinement,
        }
    }

    /// [`Slot::expiry`] on the wall clock, for people; a model in use counts from now.
    fn expires_at(&self, now: Instant) -> Option<SystemTime> {
        let keep = self.keep_alive.duration().filter(|_| !self.pinned)?;
        let left = match self.expiry() {
            Some(expiry) => expiry.saturating_duration_since(now),
            None => keep,
        };
        SystemTime::now().checked_add(left.max(Duration::ZERO))
    }
}
