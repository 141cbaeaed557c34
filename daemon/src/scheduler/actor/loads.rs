//! Loads: how one begins, and how it and the runner it made end.

use std::sync::Arc;

use dsk_daemon_engine::LoadOptions;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    super::{
        Footprint, SchedulerError,
        footprint::Way,
        slot::{ChildFacts, Slot, State},
    },
    Actor, Ask,
};
use crate::{
    keep_alive::KeepAlive,
    metrics::Eviction,
    models::ModelSpec,
    runner::{Death, DeathKind, Launch, Link, Runner, SpawnError},
};

/// Footprints remembered; they are read again from the file's header when forgotten.
const FOOTPRINTS_MAX: usize = 1024;

impl Actor {
    /// What the model takes, or `None` while its header is being read.
    pub(super) fn footprint(&mut self, spec: &Arc<ModelSpec>) -> Option<Footprint> {
        if let Some(known) = self.footprints.get(&spec.digest) {
            return *known;
        }
        if self.footprints.len() >= FOOTPRINTS_MAX {
            self.footprints.retain(|_, footprint| footprint.is_none());
        }
        self.footprints.insert(spec.digest, None);
        let (spec, asks) = (Arc::clone(spec), self.asks.clone());
        let weigh = Arc::clone(&self.settings.footprint);
        tokio::task::spawn_blocking(move || {
            let footprint = weigh(&spec);
            if let Some(asks) = asks.upgrade() {
                let _ = asks.send(Ask::Weighed { model: spec.digest, footprint });
            }
        });
        None
    }

    /// Starts a runner. The load is the scheduler's own and outlives whoever waits for it.
    pub(super) fn load(&mut self, spec: &Arc<ModelSpec>, way: Way, keep_alive: KeepAlive) {
        let (spec, id) = (Arc::clone(spec), self.next_slot);
        self.next_slot += 1;
        let Way { context, kv, bytes } = way;
        tracing::info!(model = %spec.name, context, ?kv, bytes, "loading");
        let child = Arc::new(ChildFacts::default());
        let launcher = Arc::clone(&self.launcher);
        let task = Task { id, launcher, spec: Arc::clone(&spec), way, child: Arc::clone(&child) };
        tokio::spawn(task.run(self.asks.clone()));
        self.slots.push(Slot {
            id,
            names: [spec.name.clone()].into(),
            pinned: self.pinned.contains(&spec.name),
            load_time: self.means.load(spec.digest, bytes),
            spec,
            context_asked: Some(context),
            bytes,
            state: State::Loading,
            leases: 0,
            retiring: false,
            left_for: None,
            yielding: false,
            yielded_before: false,
            keep_alive,
            last_used: Instant::now(),
            began: Instant::now(),
            child,
            watchers: Vec::new(),
        });
    }

    pub(super) fn load_ended(&mut self, id: u64, result: Result<Arc<Runner>, SpawnError>) {
        let Some(index) = self.slots.iter().position(|slot| slot.id == id) else { return };
        if let State::Leaving = self.slots[index].state {
            // It was given up. The end of its process is told; without one it is over now.
            if !self.slots[index].child.is_launched() {
                self.gone(index);
            }
            return;
        }
        let error = match result {
            Ok(runner) => return self.loaded(index, runner),
            Err(error) => error,
        };
        let slot = self.slots.swap_remove(index);
        let name = slot.spec.name.clone();
        let died = matches!(error, SpawnError::Died(_));
        let error = match error {
            SpawnError::Load(failure) => SchedulerError::Load { name, failure },
            SpawnError::Died(death) => {
                self.metrics.died(&name, &death);
                self.crashes.record(slot.spec.digest, &death, Instant::now());
                SchedulerError::RunnerDied { name, death }
            }
        };
        self.metrics.load_failed(&slot.spec.name, died, &error);
        self.fail_waiters(slot.spec.digest, &error);
    }

    fn loaded(&mut self, index: usize, runner: Arc<Runner>) {
        let (slot, now) = (&mut self.slots[index], Instant::now());
        slot.bytes = runner.loaded().bytes.total();
        slot.last_used = now;
        slot.load_time = now - slot.began;
        slot.state = State::Ready(Arc::clone(&runner));
        self.means.loaded(slot.spec.digest, slot.bytes, slot.load_time);
        (self.settings.loaded)(&slot.spec, runner.loaded(), slot.load_time);
        let id = slot.id;
        self.metrics.loaded(&slot.spec.name, slot.load_time, slot.bytes);
        self.watch(id, &runner);
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

    pub(super) fn died(&mut self, id: u64, death: &Death) {
        let Some(index) = self.slots.iter().position(|slot| slot.id == id) else { return };
        let slot = &self.slots[index];
        let model = &slot.spec.name;
        match slot.state {
            // The end of the load tells why.
            State::Loading => return,
            State::Leaving => {
                self.metrics.evicted(model, slot.left_for.unwrap_or(Eviction::Asked));
            }
            State::Ready(_) => {
                self.metrics.died(model, death);
                self.crashes.record(slot.spec.digest, death, Instant::now());
            }
        }
        self.gone(index);
    }

    fn gone(&mut self, index: usize) {
        for watcher in self.slots.swap_remove(index).watchers {
            let _ = watcher.send(());
        }
        // What the requests of a model allocated lies between what stays; the C library keeps it.
        tokio::task::spawn_blocking(dsk_daemon_engine::mmap::trim_heap);
    }
}

/// A load, apart from the actor.
struct Task {
    id: u64,
    launcher: Arc<dyn Launch>,
    spec: Arc<ModelSpec>,
    way: Way,
    child: Arc<ChildFacts>,
}

impl Task {
    async fn run(self, asks: mpsc::WeakUnboundedSender<Ask>) {
        let slot = self.id;
        let result = match self.launch().await {
            Ok(link) => {
                let link = watched(link, slot, asks.clone());
                self.child.launched(link.pid);
                tokio::select! {
                    result = self.load(link) => result,
                    // The link is dropped, and with it the process.
                    () = self.child.cancelled() => return,
                }
            }
            Err(error) => Err(error),
        };
        if let Some(asks) = asks.upgrade() {
            let _ = asks.send(Ask::LoadEnded { slot, result: result.map(Arc::new) });
        }
    }

    async fn launch(&self) -> Result<Link, SpawnError> {
        let (launcher, label) = (Arc::clone(&self.launcher), self.spec.name.to_string());
        let bytes = self.way.bytes;
        let absent = |error: &dyn std::fmt::Display| {
            SpawnError::Died(Death::new(DeathKind::NotStarted, format!("is not there: {error}")))
        };
        match tokio::task::spawn_blocking(move || launcher.launch(&label, bytes)).await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(error)) => Err(absent(&error)),
            Err(error) => Err(absent(&error)),
        }
    }

    async fn load(&self, link: Link) -> Result<Runner, SpawnError> {
        let (label, files) = (self.spec.name.to_string(), self.spec.model_files.clone());
        let options = LoadOptions {
            context_length: Some(self.way.context),
            kv: self.way.kv,
            template: self.spec.template.clone(),
            ..LoadOptions::default()
        };
        let progress = |done| self.child.set_progress(done);
        Runner::load(link, &label, files, options, progress).await
    }
}

/// The same link; the actor hears of the process's end even when the link is dropped before it.
fn watched(link: Link, slot: u64, asks: mpsc::WeakUnboundedSender<Ask>) -> Link {
    let (say, died) = oneshot::channel();
    let ends = link.died;
    tokio::spawn(async move {
        let death = ends.await.unwrap_or_else(|_| Death::unknown());
        let _ = say.send(death.clone());
        if let Some(asks) = asks.upgrade() {
            let _ = asks.send(Ask::Died { slot, death });
        }
    });
    Link { died, ..link }
}
