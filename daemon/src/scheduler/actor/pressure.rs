//! What happens when other programs need memory: idle models leave, and none is loaded.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    super::slot::{Slot, State},
    Actor,
};
use crate::hardware::Memory;
use crate::metrics::Eviction;

/// While models are resident, memory is looked at this often; a change looks sooner.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Two looks are at least this far apart, unless something is to be loaded.
const LOOK_MIN: Duration = Duration::from_secs(1);
/// What is left to other programs when the configuration does not say …
const RESERVE_MAX: u64 = 1 << 30;
/// … or this part of the machine, whichever is less.
const RESERVE_PART: u64 = 20;

/// Whether memory is short. It begins when less is available than the reserve, and ends when half
/// as much again is, so that one model does not come and go.
#[derive(Debug)]
pub(super) struct Pressure {
    pub(super) on: bool,
    /// Bytes left to other programs.
    pub(super) reserve: u64,
    looked: Option<Instant>,
}

impl Pressure {
    pub(super) fn new(reserve: Option<u64>, total: u64) -> Pressure {
        let reserve = reserve.unwrap_or_else(|| (total / RESERVE_PART).min(RESERVE_MAX));
        Pressure { on: false, reserve, looked: None }
    }

    /// When memory is to be looked at again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.looked.map(|looked| looked + LOOK_EVERY)
    }

    fn relieved_at(&self) -> u64 {
        self.reserve.saturating_add(self.reserve / 2)
    }

    /// `soon` is what will be available once those are gone that leave.
    fn update(&mut self, available: u64, soon: u64) {
        self.on = match self.on {
            true => soon < self.relieved_at(),
            false => available < self.reserve && soon < self.reserve,
        };
    }
}

impl Actor {
    /// Looks at memory now and then.
    pub(super) fn relieve(&mut self, now: Instant) {
        let rested = self.pressure.looked.is_none_or(|looked| now >= looked + LOOK_MIN);
        if rested && !self.slots.is_empty() {
            self.look(now);
        }
    }

    /// Looks at memory and lets idle models go, the one used longest ago first, while it is short.
    pub(super) fn look(&mut self, now: Instant) -> Memory {
        let memory = (self.settings.memory)();
        self.pressure.looked = Some(now);
        let mut soon = self.coming_back().fold(memory.available, u64::saturating_add);
        let was = self.pressure.on;
        self.pressure.update(memory.available, soon);
        if self.pressure.on != was {
            let (on, available, reserve) = (!was, memory.available, self.pressure.reserve);
            tracing::warn!(on, available, reserve, "other programs need memory");
        }
        while self.pressure.on && soon < self.pressure.relieved_at() {
            let Some(index) = self.idle_longest() else { break };
            let slot = &self.slots[index];
            let measured = slot.occupant(self.touched(slot), now).measured;
            tracing::info!(model = %slot.spec.name, "unloading: other programs need the memory");
            self.slots[index].leave_for(Eviction::Pressure);
            soon = soon.saturating_add(measured);
        }
        memory
    }

    /// What the processes that leave still hold.
    fn coming_back(&self) -> impl Iterator<Item = u64> {
        let now = Instant::now();
        let leaving = self.slots.iter().filter(|slot| matches!(slot.state, State::Leaving));
        leaving.map(move |slot| slot.occupant(self.touched(slot), now).measured)
    }

    fn idle_longest(&self) -> Option<usize> {
        let free = |slot: &Slot| slot.is_idle() && !slot.pinned;
        let idle = self.slots.iter().enumerate().filter(|(_, slot)| free(slot));
        idle.min_by_key(|(_, slot)| slot.last_used).map(|(index, _)| index)
    }
}
