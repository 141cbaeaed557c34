//! What can be done now for each waiting request.

use std::{collections::HashMap, sync::Arc};

use dsk_daemon_engine::LoadOptions;
use dsk_registry::Digest;
use tokio::time::Instant;

use super::{
    super::{
        Footprint, Lease, SchedulerError,
        room::{Room, room},
        slot::{Slot, State},
    },
    Actor, Ask, FOOTPRINTS_MAX, Waiter, YIELD_AFTER,
};
use crate::{
    models::ModelSpec,
    runner::{Death, Launch, Runner, SpawnError},
};

/// Tokens of context wanted, by model.
type Contexts = HashMap<Digest, u32>;

/// What can be done for a waiter now.
enum Verdict {
    Grant(Lease),
    Fail(SchedulerError),
    /// Its model is being loaded, weighed or ended.
    Wait,
    /// Others must finish first; this slot, if any, would be the one to yield.
    Displace(Option<usize>),
}

impl Actor {
    /// Does for every waiter, first come first, what can be done now.
    pub(super) fn dispatch(&mut self) {
        let now = Instant::now();
        let contexts = self.contexts();
        for mut waiter in std::mem::take(&mut self.pending) {
            match self.judge(&waiter, &contexts, now) {
                Verdict::Grant(lease) => {
                    // A caller that is gone drops the lease, which comes back as released.
                    let _ = waiter.reply.send(Ok(lease));
                    continue;
                }
                Verdict::Fail(error) => {
                    let _ = waiter.reply.send(Err(error));
                    continue;
                }
                Verdict::Wait => waiter.displacing_since = None,
                Verdict::Displace(first) => {
                    let since = *waiter.displacing_since.get_or_insert(now);
                    if now - since >= YIELD_AFTER
                        && let Some(index) = first
                    {
                        self.slots[index].retiring = true;
                    }
                }
            }
            self.pending.push_back(waiter);
        }
    }

    fn judge(&mut self, waiter: &Waiter, contexts: &Contexts, now: Instant) -> Verdict {
        let spec = &waiter.spec;
        if let Some(index) = self.slots.iter().position(|slot| slot.spec.digest == spec.digest) {
            return self.judge_resident(index, waiter, now);
        }
        if let Some(refusal) = self.crashes.refusal(spec.digest, &spec.name, now) {
            return Verdict::Fail(refusal);
        }
        let Some(footprint) = self.footprint(spec) else { return Verdict::Wait };
        // The same name with another manifest was pulled or made anew: the old one is of no use.
        for slot in &mut self.slots {
            if slot.is_idle() && slot.spec.name == spec.name {
                slot.leave();
            }
        }
        let wanted = contexts.get(&spec.digest);
        let context = wanted.map(|tokens| *tokens.min(&footprint.context_max));
        let needed = footprint.bytes(context);
        let occupants: Vec<_> = self.slots.iter().map(Slot::occupant).collect();
        let available = (self.settings.memory)().available;
        match room(&occupants, self.settings.max_loaded, needed, available) {
            Room::Fits => self.load(waiter, context, needed),
            Room::Evict(index) => {
                tracing::info!(model = %self.slots[index].spec.name, "unloading to make room");
                self.slots[index].leave();
                Verdict::Wait
            }
            Room::Wait { first } => Verdict::Displace(first),
            Room::Never { available } => {
                let name = spec.name.clone();
                Verdict::Fail(SchedulerError::InsufficientMemory { name, needed, available })
            }
        }
    }

    fn judge_resident(&mut self, index: usize, waiter: &Waiter, now: Instant) -> Verdict {
        let wanted = self.context_of(waiter);
        let slot = &mut self.slots[index];
        let runner = match &slot.state {
            State::Loading(_) | State::Leaving => return Verdict::Wait,
            State::Ready(runner) => Arc::clone(runner),
        };
        if slot.retiring {
            return Verdict::Displace(None);
        }
        if slot.too_short_for(&runner, wanted) {
            slot.retiring = true;
            if slot.leases > 0 {
                return Verdict::Displace(None);
            }
            slot.leave();
            return Verdict::Wait;
        }
        let Some(asks) = self.asks.upgrade() else { return Verdict::Wait };
        slot.leases += 1;
        slot.last_used = now;
        slot.keep_alive = waiter.wants.keep_alive.unwrap_or(self.settings.keep_alive);
        slot.names.insert(waiter.spec.name.clone());
        Verdict::Grant(Lease::new(slot.id, runner, asks, now - waiter.arrived))
    }

    fn context_of(&self, waiter: &Waiter) -> Option<u32> {
        let wanted = waiter.wants.context_length.or_else(|| waiter.spec.context_length());
        wanted.or(self.settings.context_length)
    }

    /// The largest context that anyone who waits for a model wants: one load serves them all.
    fn contexts(&self) -> Contexts {
        let mut contexts = Contexts::new();
        for waiter in &self.pending {
            if let Some(wanted) = self.context_of(waiter) {
                let largest = contexts.entry(waiter.spec.digest).or_default();
                *largest = wanted.max(*largest);
            }
        }
        contexts
    }

    /// What the model takes, or `None` while its header is being read.
    fn footprint(&mut self, spec: &Arc<ModelSpec>) -> Option<Footprint> {
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
    fn load(&mut self, waiter: &Waiter, context: Option<u32>, bytes: u64) -> Verdict {
        let spec = Arc::clone(&waiter.spec);
        let id = self.next_slot;
        self.next_slot += 1;
        tracing::info!(model = %spec.name, context, bytes, "loading");
        let load = load(Arc::clone(&self.launcher), Arc::clone(&spec), context);
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
            spec,
            context_asked: context,
            bytes,
            state: State::Loading(task.abort_handle()),
            leases: 0,
            retiring: false,
            keep_alive: waiter.wants.keep_alive.unwrap_or(self.settings.keep_alive),
            last_used: Instant::now(),
            watchers: Vec::new(),
        });
        Verdict::Wait
    }
}

async fn load(
    launcher: Arc<dyn Launch>,
    spec: Arc<ModelSpec>,
    context_length: Option<u32>,
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
    let template = spec.template.clone();
    let options = LoadOptions { context_length, template, ..LoadOptions::default() };
    let progress = |done| tracing::debug!(model = %label, done, "loading");
    let runner = Runner::load(link, &label, spec.model_path.clone(), options, progress).await?;
    tracing::info!(model = %label, elapsed = ?started.elapsed(), "loaded");
    Ok(runner)
}
