//! Loads: how one begins, and how it and the runner it made end.

use std::sync::Arc;

use dsk_daemon_engine::LoadOptions;
use tokio::time::Instant;

use super::{
    super::{
        Footprint, SchedulerError,
        slot::{ChildFacts, Slot, State},
    },
    Actor, Ask,
};
use crate::{
    keep_alive::KeepAlive,
    models::ModelSpec,
    runner::{Death, Launch, Runner, SpawnError},
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
    pub(super) fn load(
        &mut self,
        spec: &Arc<ModelSpec>,
        context: Option<u32>,
        bytes: u64,
        keep_alive: KeepAlive,
    ) {
        let (spec, id) = (Arc::clone(spec), self.next_slot);
        self.next_slot += 1;
        tracing::info!(model = %spec.name, context, bytes, "loading");
        let child = Arc::new(ChildFacts::default());
        let launcher = Arc::clone(&self.launcher);
        let load = load(launcher, Arc::clone(&spec), context, Arc::clone(&child));
        let asks = self.asks.clone();
        let task = tokio::spawn(async move {
            let result = load.await.map(Arc::new);
            if let Some(asks) = asks.upgrade() {
                let _ = asks.send(Ask::LoadEnded { slot: id, result });
            }
        });
        self.slots.push(Slot {
            id,
            names: [spec.name.clone()].into(),
            pinned: self.pinned.contains(&spec.name),
            load_time: self.means.load(spec.digest, bytes),
            spec,
            context_asked: context,
            bytes,
            state: State::Loading(task.abort_handle()),
            leases: 0,
            retiring: false,
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
        let error = match result {
            Ok(runner) => return self.loaded(index, runner),
            Err(error) => error,
        };
        let slot = self.slots.swap_remove(index);
        let name = slot.spec.name.clone();
        let error = match error {
            SpawnError::Load(failure) => SchedulerError::Load { name, failure },
            SpawnError::Died(death) => {
                let cause = death.to_string();
                self.crashes.record(slot.spec.digest, &cause, Instant::now());
                SchedulerError::RunnerDied { name, cause }
            }
        };
        tracing::warn!(model = %slot.spec.name, %error, "a model was not loaded");
        self.fail_waiters(slot.spec.digest, &error);
        for watcher in slot.watchers {
            let _ = watcher.send(());
        }
    }

    fn loaded(&mut self, index: usize, runner: Arc<Runner>) {
        let (slot, now) = (&mut self.slots[index], Instant::now());
        slot.bytes = runner.loaded().bytes.total();
        slot.last_used = now;
        slot.load_time = now - slot.began;
        slot.state = State::Ready(Arc::clone(&runner));
        self.means.loaded(slot.spec.digest, slot.bytes, slot.load_time);
        let id = slot.id;
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
        let slot = self.slots.swap_remove(index);
        if let State::Leaving = slot.state {
            tracing::info!(model = %slot.spec.name, "unloaded");
        } else {
            tracing::error!(model = %slot.spec.name, "the runner {death}");
            self.crashes.record(slot.spec.digest, &death.to_string(), Instant::now());
        }
        for watcher in slot.watchers {
            let _ = watcher.send(());
        }
    }
}

async fn load(
    launcher: Arc<dyn Launch>,
    spec: Arc<ModelSpec>,
    context_length: Option<u32>,
    child: Arc<ChildFacts>,
) -> Result<Runner, SpawnError> {
    let label = spec.name.to_string();
    let started = Instant::now();
    let launched = {
        let label = label.clone();
        tokio::task::spawn_blocking(move || launcher.launch(&label)).await
    };
    let link = match launched {
        Ok(Ok(link)) => link,
        Ok(Err(error)) => {
            return Err(SpawnError::Died(Death::new(format!("is not there: {error}"))));
        }
        Err(error) => return Err(SpawnError::Died(Death::new(format!("is not there: {error}")))),
    };
    child.set_pid(link.pid);
    let template = spec.template.clone();
    let options = LoadOptions { context_length, template, ..LoadOptions::default() };
    let progress = |done| child.set_progress(done);
    let runner = Runner::load(link, &label, spec.model_path.clone(), options, progress).await?;
    tracing::info!(model = %label, elapsed = ?started.elapsed(), "loaded");
    Ok(runner)
}
