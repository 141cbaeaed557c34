//! Whether a model fits beside the resident ones, and who must leave if not. Pure.
//!
//! Requests are decided in the order of arrival, on one [`Ledger`]. What an earlier one waits for
//! is booked: a later one takes neither that room nor the victims, so nobody is overtaken for ever,
//! and it may still load at once when that costs the earlier ones nothing.
//!
//! ```text
//! available to the system
//!   - reserve for other programs
//!   - what was promised to residents and loads and is not touched yet
//!   = free now; + what leaves, - what earlier requests will load = free later
//! ```

use std::time::Duration;

/// A resident model, as far as room is concerned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Occupant {
    /// The bytes it may come to use.
    pub(super) promised: u64,
    /// The bytes it uses: no longer available to the system.
    pub(super) measured: u64,
    pub(super) standing: Standing,
    /// It leaves for nobody.
    pub(super) pinned: bool,
    /// What its leaving costs: [`regret`].
    pub(super) regret: f64,
}

/// Whether an occupant can leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// When its load has ended.
    Loading,
    /// At once.
    Idle,
    /// Later: it runs requests, or was loaded only just now.
    Held,
    /// It does; its bytes come back when its process is gone.
    Leaving,
}

/// What must happen before a load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Room {
    /// Nothing.
    Fits,
    /// These idle occupants leave, and then it fits.
    Evict(Vec<usize>),
    /// These leave when they can, and then it fits; none: those who leave already are enough, or
    /// those in front come first.
    Wait(Vec<usize>),
    /// It does not fit even alone: all the bytes there are beside the pinned ones.
    Never { available: u64, pinned: u64 },
    /// It does not fit because as many are pinned as may be loaded.
    AllPinned { limit: usize },
}

/// A model idle for this long is half as likely to be wanted soon as one used just now.
const IDLE_HALF: f64 = 60.0;
/// How much dearer a model is whose user asked to keep it for ever.
const FOREVER_WEIGHT: f64 = 100.0;
/// Above this many candidates the cheapest set is no longer searched, only approached.
const SEARCHED_MAX: usize = 12;

/// The seconds of loading that an eviction is expected to cost: the time of a load, times how
/// likely the model is wanted again soon, which falls with the time nobody wanted it.
///
/// Models to be kept for ever are [`FOREVER_WEIGHT`] times as dear, so that they leave last. Pinned
/// ones leave never, and are no question of cost.
pub(super) fn regret(load: Duration, idle: Duration, forever: bool) -> f64 {
    let soon = 1.0 / (1.0 + idle.as_secs_f64() / IDLE_HALF);
    load.as_secs_f64() * soon * if forever { FOREVER_WEIGHT } else { 1.0 }
}

impl Occupant {
    /// Promised and not touched: available to the system, but not to us. Until its process is gone
    /// it may still touch it, even one that was told to end.
    pub(super) fn reserved(&self) -> u64 {
        self.promised.saturating_sub(self.measured)
    }

    /// What its leaving adds to the free bytes.
    fn gain(&self) -> i128 {
        i128::from(self.measured) + i128::from(self.reserved())
    }
}

/// The room there is, and what was booked of it.
#[derive(Debug)]
pub(super) struct Ledger {
    occupants: Vec<Occupant>,
    claimed: Vec<bool>,
    limit: Option<usize>,
    /// Free bytes before anything was booked.
    base: i128,
    /// Free bytes.
    now: i128,
    /// Free bytes when everyone booked has left or loaded.
    later: i128,
    loaded_now: usize,
    loaded_later: usize,
}

impl Ledger {
    /// `free` is what the system has available, less the reserve for other programs.
    pub(super) fn new(occupants: Vec<Occupant>, limit: Option<usize>, free: i128) -> Ledger {
        let reserved: i128 = occupants.iter().map(|one| i128::from(one.reserved())).sum();
        let leaving = || occupants.iter().filter(|one| one.standing == Standing::Leaving);
        let now = free - reserved;
        let (later, gone) = (now + leaving().map(Occupant::gain).sum::<i128>(), leaving().count());
        let (claimed, loaded_now) = (vec![false; occupants.len()], occupants.len());
        let loaded_later = loaded_now - gone;
        Ledger { occupants, claimed, limit, base: now, now, later, loaded_now, loaded_later }
    }

    /// Whether a load of `needed` bytes can begin at once and costs nobody anything.
    pub(super) fn fits(&self, needed: u64) -> bool {
        let place = |loaded| self.limit.is_none_or(|limit| loaded < limit);
        let fits = |free| i128::from(needed) <= free;
        fits(self.now) && fits(self.later) && place(self.loaded_now) && place(self.loaded_later)
    }

    /// Decides for a load of `needed` bytes and books what it decides.
    pub(super) fn decide(&mut self, needed: u64) -> Room {
        if let Some(never) = self.never(needed, None) {
            return never;
        }
        if self.fits(needed) {
            self.now -= i128::from(needed);
            self.loaded_now += 1;
            self.book(needed, &[]);
            return Room::Fits;
        }
        let pools: [&[Standing]; 4] = [
            &[],
            &[Standing::Idle],
            &[Standing::Idle, Standing::Held],
            &[Standing::Idle, Standing::Held, Standing::Loading],
        ];
        for pool in pools {
            let Some(victims) = self.cheapest(pool, needed) else { continue };
            self.book(needed, &victims);
            let at_once = !victims.is_empty() && pool == [Standing::Idle];
            return if at_once { Room::Evict(victims) } else { Room::Wait(victims) };
        }
        // Those in front of it take what is left; its turn comes when they have loaded.
        Room::Wait(Vec::new())
    }

    /// Whether `needed` bytes can never be freed. `replaced` makes way though it is pinned.
    pub(super) fn never(&self, needed: u64, replaced: Option<usize>) -> Option<Room> {
        let stays = |(at, one): &(usize, &Occupant)| {
            one.pinned && one.standing != Standing::Leaving && Some(*at) != replaced
        };
        let pinned = || self.occupants.iter().enumerate().filter(stays);
        if let Some(limit) = self.limit.filter(|limit| pinned().count() >= *limit) {
            return Some(Room::AllPinned { limit });
        }
        let kept: i128 = pinned().map(|(_, one)| one.gain()).sum();
        let all: i128 = self.occupants.iter().map(Occupant::gain).sum();
        // How much of its promise a load has taken is seen late, so all of it may come back.
        let each = self.occupants.iter().enumerate().filter(|one| !stays(one));
        let loading = each.filter(|(_, one)| one.standing == Standing::Loading);
        let unseen: i128 = loading.map(|(_, one)| i128::from(one.reserved())).sum();
        let available = self.base + all + unseen - kept;
        let bytes = |value: i128| u64::try_from(value.max(0)).unwrap_or(u64::MAX);
        (i128::from(needed) > available)
            .then(|| Room::Never { available: bytes(available), pinned: bytes(kept) })
    }

    fn book(&mut self, needed: u64, victims: &[usize]) {
        for at in victims {
            self.claimed[*at] = true;
            self.later += self.occupants[*at].gain();
            self.loaded_later -= 1;
        }
        self.later -= i128::from(needed);
        self.loaded_later += 1;
    }

    /// The set of unclaimed occupants in `pool` that costs least among those that are enough;
    /// `None` when even all of them are not. No member of it could be spared.
    fn cheapest(&self, pool: &[Standing], needed: u64) -> Option<Vec<usize>> {
        let free = |at: &usize| {
            let one = &self.occupants[*at];
            !self.claimed[*at] && !one.pinned && pool.contains(&one.standing)
        };
        let mut candidates: Vec<usize> = (0..self.occupants.len()).filter(free).collect();
        candidates.sort_by(|a, b| self.occupants[*a].regret.total_cmp(&self.occupants[*b].regret));
        if !self.enough(&candidates, needed) {
            return None;
        }
        if candidates.len() <= SEARCHED_MAX {
            return self.search(&candidates, needed);
        }
        Some(self.approach(&candidates, needed))
    }

    fn enough(&self, victims: &[usize], needed: u64) -> bool {
        let freed: i128 = victims.iter().map(|at| self.occupants[*at].gain()).sum();
        let left = self.loaded_later - victims.len().min(self.loaded_later);
        i128::from(needed) <= self.later + freed && self.limit.is_none_or(|limit| left < limit)
    }

    /// Tries every subset.
    fn search(&self, candidates: &[usize], needed: u64) -> Option<Vec<usize>> {
        let subset = |mask: u32| -> Vec<usize> {
            let members = candidates.iter().enumerate();
            members.filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, at)| *at).collect()
        };
        let cost = |victims: &[usize]| -> f64 {
            victims.iter().map(|at| self.occupants[*at].regret).sum()
        };
        (0..1u32 << candidates.len())
            .map(subset)
            .filter(|victims| self.enough(victims, needed))
            .min_by(|a, b| cost(a).total_cmp(&cost(b)).then(a.len().cmp(&b.len())))
    }

    /// Takes the cheapest until they are enough, then spares the dearest that are not needed.
    fn approach(&self, candidates: &[usize], needed: u64) -> Vec<usize> {
        let enough = |count: &usize| self.enough(&candidates[..*count], needed);
        let count = (0..=candidates.len()).find(enough).unwrap_or(candidates.len());
        let mut victims = candidates[..count].to_vec();
        for at in candidates[..count].iter().rev() {
            let spared: Vec<usize> = victims.iter().copied().filter(|one| one != at).collect();
            if self.enough(&spared, needed) {
                victims = spared;
            }
        }
        victims
    }
}

#[cfg(test)]
mod tests;
