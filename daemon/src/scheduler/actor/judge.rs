//! What can be done now for each waiting request.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use dsk_registry::Digest;
use tokio::time::Instant;

use super::{
    super::{
        Footprint, Lease, SchedulerError,
        footprint::Way,
        room::{Ledger, Room},
        slot::{Slot, State},
    },
    Actor, Waiter, YIELD_AFTER,
};

/// A model that was once loaded with a larger context gets it again within this time if there is
/// room: two clients that want different contexts shall not load it in turns.
const CONTEXT_REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// Contexts remembered.
const REMEMBERED_MAX: usize = 1024;

/// Tokens of context wanted, by model.
type Contexts = HashMap<Digest, u32>;

/// The largest context asked for of late, by model.
#[derive(Debug, Default)]
pub(super) struct Remembered(HashMap<Digest, (u32, Instant)>);

use crate::metrics::Eviction;

impl Remembered {
    fn note(&mut self, model: Digest, tokens: u32, now: Instant) {
        if self.0.len() >= REMEMBERED_MAX {
            self.0.retain(|_, (_, at)| now - *at < CONTEXT_REMEMBERED);
        }
        let known = self.recall(model, now).unwrap_or(0);
        if tokens >= known && self.0.len() < REMEMBERED_MAX {
            self.0.insert(model, (tokens, now));
        }
    }

    fn recall(&self, model: Digest, now: Instant) -> Option<u32> {
        let (tokens, at) = self.0.get(&model)?;
        (now - *at < CONTEXT_REMEMBERED).then_some(*tokens)
    }
}

/// One look at all waiting requests.
struct Turn {
    now: Instant,
    contexts: Contexts,
    /// Made when the first load is considered.
    ledger: Option<Ledger>,
    /// Models whose first waiter waits for room: the others wait with it.
    blocked: HashSet<Digest>,
}

/// What can be done for a waiter now.
enum Verdict {
    Grant(Lease),
    Fail(SchedulerError),
    /// Its model is being loaded.
    Loading,
    /// Its model is being weighed or ended.
    Wait,
    /// Others must finish first; these slots are those to yield.
    Displace(Vec<usize>),
}

impl Actor {
    /// Does for every waiter, first come first, what can be done now.
    pub(super) fn dispatch(&mut self, now: Instant) {
        for slot in &mut self.slots {
            slot.yielded_before = std::mem::take(&mut slot.yielding);
        }
        let contexts = self.contexts();
        let mut turn = Turn { now, contexts, ledger: None, blocked: HashSet::new() };
        for mut waiter in std::mem::take(&mut self.pending) {
            match self.judge(&waiter, &mut turn) {
                Verdict::Grant(lease) => {
                    // A caller that is gone drops the lease, which comes back as released.
                    let _ = waiter.reply.send(Ok(lease));
                    continue;
                }
                Verdict::Fail(error) => {
                    waiter.fail(error);
                    continue;
                }
                Verdict::Loading => waiter.displacing_since = None,
                Verdict::Wait => {}
                Verdict::Displace(slots) => {
                    let since = *waiter.displacing_since.get_or_insert(now);
                    if now - since >= YIELD_AFTER {
                        self.ask_to_yield(&slots, now);
                    }
                }
            }
            self.pending.push_back(waiter);
        }
    }

    /// Slots whose room was long waited for take nobody new, once they have served long enough.
    fn ask_to_yield(&mut self, slots: &[usize], now: Instant) {
        for index in slots {
            let slot = &mut self.slots[*index];
            slot.yielding = slot.held_until() <= now;
        }
    }

    fn judge(&mut self, waiter: &Waiter, turn: &mut Turn) -> Verdict {
        let spec = &waiter.spec;
        if let Some(index) = self.slots.iter().position(|slot| slot.spec.digest == spec.digest) {
            return self.judge_resident(index, waiter, turn);
        }
        if turn.blocked.contains(&spec.digest) {
            return Verdict::Displace(Vec::new());
        }
        if let Some(refusal) = self.crashes.refusal(spec.digest, &spec.name, turn.now) {
            return Verdict::Fail(refusal);
        }
        if self.crashes.pauses(spec.digest, turn.now) {
            return Verdict::Wait;
        }
        let Some(footprint) = self.footprint(spec) else { return Verdict::Wait };
        // The same name with another manifest was pulled or made anew: the old one is of no use.
        for slot in &mut self.slots {
            if slot.is_idle() && slot.spec.name == spec.name {
                slot.leave_for(Eviction::Replaced);
            }
        }
        if let Some(verdict) = self.judge_pressure(waiter, turn) {
            return verdict;
        }
        self.judge_room(waiter, footprint, turn)
    }

    /// While other programs need memory nothing is loaded.
    fn judge_pressure(&mut self, waiter: &Waiter, turn: &mut Turn) -> Option<Verdict> {
        if turn.ledger.is_none() {
            let available = self.look(turn.now).available;
            if self.pressure.on {
                if self.slots.iter().any(|slot| matches!(slot.state, State::Leaving)) {
                    return Some(Verdict::Displace(Vec::new()));
                }
                let (name, reserve) = (waiter.spec.name.clone(), self.pressure.reserve);
                let error = SchedulerError::Pressure { name, available, reserve };
                return Some(Verdict::Fail(error));
            }
            turn.ledger = Some(self.ledger(turn.now));
        }
        None
    }

    fn judge_room(&mut self, waiter: &Waiter, footprint: Footprint, turn: &mut Turn) -> Verdict {
        let spec = &waiter.spec;
        let Some(ledger) = &mut turn.ledger else { return Verdict::Wait };
        let asked =
            shared_context(turn.contexts.get(&spec.digest), self.context_of(waiter), |context| {
                possible(footprint, context, ledger, None).is_ok()
            });
        let way = possible(footprint, asked, ledger, None);
        let mut way = match way {
            Ok(way) => way,
            Err((needed, never)) => return Verdict::Fail(refusal(waiter, needed, never)),
        };
        let larger = self.remembered.recall(spec.digest, turn.now);
        let larger = larger.map(|context| footprint.best_way(Some(context)));
        if let Some(larger) = larger.filter(|larger| larger.context > way.context)
            && ledger.fits(larger.bytes)
        {
            way = larger;
        }
        match ledger.decide(way.bytes) {
            Room::Fits => {
                let keep_alive = self.settings.keep_alive.grant(waiter.wants.keep_alive);
                self.load(spec, way, keep_alive);
                Verdict::Loading
            }
            Room::Evict(victims) => {
                for index in victims {
                    tracing::info!(model = %self.slots[index].spec.name, "unloading to make room");
                    self.slots[index].leave_for(Eviction::Room);
                }
                turn.blocked.insert(spec.digest);
                Verdict::Displace(Vec::new())
            }
            Room::Wait(slots) => {
                turn.blocked.insert(spec.digest);
                Verdict::Displace(slots)
            }
            never => Verdict::Fail(refusal(waiter, way.bytes, never)),
        }
    }

    fn judge_resident(&mut self, index: usize, waiter: &Waiter, turn: &mut Turn) -> Verdict {
        let wanted = self.context_of(waiter);
        let slot = &self.slots[index];
        let runner = match &slot.state {
            State::Loading => return Verdict::Loading,
            State::Leaving => return Verdict::Wait,
            State::Ready(runner) => Arc::clone(runner),
        };
        if slot.retiring || slot.yielding {
            return Verdict::Displace(Vec::new());
        }
        if slot.too_short_for(&runner, wanted) {
            return self.judge_reload(index, waiter, turn);
        }
        let Some(asks) = self.asks.upgrade() else { return Verdict::Wait };
        if let Some(wanted) = wanted {
            let tokens = wanted.min(runner.loaded().model_context_length);
            self.remembered.note(waiter.spec.digest, tokens, turn.now);
        }
        let slot = &mut self.slots[index];
        slot.leases += 1;
        slot.last_used = turn.now;
        slot.keep_alive = self.settings.keep_alive.grant(waiter.wants.keep_alive);
        if slot.names.insert(waiter.spec.name.clone()) {
            slot.pinned |= self.pinned.contains(&waiter.spec.name);
        }
        let lease = Lease::new(slot.id, runner, slot.child.pid(), asks, turn.now - waiter.arrived);
        Verdict::Grant(lease)
    }

    /// The model is there, but with too short a context. It makes way for itself only if the longer
    /// one can be had.
    fn judge_reload(&mut self, index: usize, waiter: &Waiter, turn: &mut Turn) -> Verdict {
        let Some(footprint) = self.footprint(&waiter.spec) else { return Verdict::Wait };
        let ledger = self.ledger(turn.now);
        let asked = self.context_of(waiter);
        if let Err((needed, never)) = possible(footprint, asked, &ledger, Some(index)) {
            return Verdict::Fail(refusal(waiter, needed, never));
        }
        let slot = &mut self.slots[index];
        slot.retiring = true;
        if slot.is_idle() {
            slot.leave_for(Eviction::Replaced);
        }
        Verdict::Displace(Vec::new())
    }

    /// The room as it is.
    pub(super) fn ledger(&self, now: Instant) -> Ledger {
        let occupant = |slot: &Slot| slot.occupant(self.touched(slot), now);
        let occupants = self.slots.iter().map(occupant).collect();
        let available = (self.settings.memory)().available;
        let free = i128::from(available) - i128::from(self.pressure.reserve);
        Ledger::new(occupants, self.settings.max_loaded, free)
    }

    pub(super) fn context_of(&self, waiter: &Waiter) -> Option<u32> {
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
}

/// The first way to load that can ever be had, or what the least demanding one takes and why even that
/// cannot; `instead` would make way.
fn possible(
    footprint: Footprint,
    asked: Option<u32>,
    ledger: &Ledger,
    instead: Option<usize>,
) -> Result<Way, (u64, Room)> {
    let mut least = (0, Room::Fits);
    for way in footprint.ways(asked) {
        match ledger.never(way.bytes, instead) {
            None => return Ok(way),
            Some(never) => least = (way.bytes, never),
        }
    }
    Err(least)
}

/// One load serves all who wait: with the largest context that any of them wants and that can be
/// had, else with the request's own.
fn shared_context(
    largest: Option<&u32>,
    own: Option<u32>,
    can_be_had: impl Fn(Option<u32>) -> bool,
) -> Option<u32> {
    let largest = largest.copied();
    if can_be_had(largest) { largest } else { own }
}

fn refusal(waiter: &Waiter, needed: u64, room: Room) -> SchedulerError {
    let name = waiter.spec.name.clone();
    match room {
        Room::AllPinned { limit } => SchedulerError::AllPinned { name, limit },
        Room::Never { available, pinned } => {
            SchedulerError::InsufficientMemory { name, needed, available, pinned }
        }
        // Only what can never be is refused.
        Room::Fits | Room::Evict(_) | Room::Wait(_) => {
            SchedulerError::InsufficientMemory { name, needed, available: 0, pinned: 0 }
        }
    }
}
