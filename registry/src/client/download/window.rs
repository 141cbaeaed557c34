//! Which bytes of a blob are asked for next, and by whom.
//!
//! Ranges are handed out from the front, so that what arrives is near the bytes that are hashed. When the
//! network is faster than the hash, no further than what memory can keep until it is hashed: more would
//! only have to be read back from the disk. A
//! connection that has nothing left to take helps the slowest one: it takes the second half of its rest,
//! or asks for the same bytes again when that one stands still or has little left. Whoever comes first
//! wins; bytes that come twice are dropped.

use crate::extents::Extents;
use std::{collections::BTreeMap, ops::Range, time::Duration};
use tokio::time::Instant;

/// A range that is done sooner than this is nobody's business.
const HELP_AFTER: Duration = Duration::from_secs(1);
/// Without a byte for this long, a connection is taken to stand still.
const SILENCE: Duration = Duration::from_secs(2);
/// A rest smaller than this, in bytes, is not divided.
const SPLIT_BYTES_MIN: u64 = 2 << 20;

/// One connection's part.
#[derive(Debug)]
struct Slot {
    next: u64,
    end: u64,
    began: Instant,
    /// When its last byte came.
    heard: Instant,
    gained: u64,
    /// The other one that asks for the same bytes, while it does.
    double: Option<u32>,
    /// It has been helped this way, or is such help: once is enough.
    helped: bool,
}

impl Slot {
    fn new(range: Range<u64>, now: Instant, double: Option<u32>) -> Slot {
        let (next, end, helped) = (range.start, range.end, double.is_some());
        Slot { next, end, began: now, heard: now, gained: 0, double, helped }
    }

    fn is_silent(&self, now: Instant) -> bool {
        now.duration_since(self.heard) >= SILENCE
    }

    /// How long the rest will take at the speed so far.
    fn time_left(&self, now: Instant) -> Duration {
        let spent = now.duration_since(self.began).as_secs_f64();
        if self.gained == 0 || self.is_silent(now) {
            // Nothing to reckon with: as long again, and more the longer it lasts.
            return Duration::from_secs_f64(2.0 * spent);
        }
        let rest = self.end.saturating_sub(self.next) as f64;
        Duration::try_from_secs_f64(rest * spent / self.gained as f64).unwrap_or(Duration::MAX)
    }
}

/// How far ahead of the hash parts are handed out, in bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::client) struct Ahead {
    /// While the hash waits for the network.
    pub(in crate::client) far: u64,
    /// While the network waits for the hash.
    pub(in crate::client) near: u64,
}

impl Ahead {
    /// For a blob that is fetched in one piece.
    pub(in crate::client) const ALL: Ahead = Ahead { far: u64::MAX, near: u64::MAX };

    /// For a hash that has `lag` bytes to go to the first missing one.
    fn with(self, lag: u64) -> u64 {
        if lag > self.near / 4 { self.near } else { self.far }
    }
}

/// The parts of one blob.
#[derive(Debug)]
pub(in crate::client) struct Window {
    size: u64,
    range: u64,
    ahead: Ahead,
    /// The beginning that was there before; it is hashed while the rest arrives.
    base: u64,
    have: Extents,
    slots: BTreeMap<u32, Slot>,
    next_id: u32,
}

/// What became of some bytes that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::client) struct Accepted {
    /// Those of them that are new.
    pub(in crate::client) new: Extents,
    /// Nothing more is wanted of this part.
    pub(in crate::client) done: bool,
}

impl Window {
    pub(in crate::client) fn new(size: u64, range: u64, ahead: Ahead, have: Extents) -> Window {
        let base = have.covered_until(0).unwrap_or(0);
        Window { size, range, ahead, base, have, slots: BTreeMap::new(), next_id: 0 }
    }

    #[cfg(test)]
    fn is_complete(&self) -> bool {
        self.have.covers(&(0..self.size))
    }

    /// The bytes that have arrived or were there before.
    pub(in crate::client) fn bytes(&self) -> u64 {
        self.have.bytes()
    }

    /// The first bytes that nobody has or asks for, where the hash has come to `frontier`.
    fn next_gap(&self, frontier: u64) -> Option<Range<u64>> {
        let limit = self.limit(frontier);
        let mut at = 0;
        loop {
            let gap = self.have.gap(at);
            if gap.start >= limit {
                return None;
            }
            let taken = self.slots.values().filter(|slot| slot.next <= gap.start);
            if let Some(end) = taken.map(|slot| slot.end).filter(|end| *end > gap.start).max() {
                at = end;
                continue;
            }
            let others = self.slots.values().map(|slot| slot.next).filter(|at| *at > gap.start);
            let aligned = (gap.start / self.range + 1).saturating_mul(self.range);
            let end = others.fold(aligned.min(gap.end).min(self.size), u64::min);
            return Some(gap.start..end);
        }
    }

    /// Where parts must begin before. What is hashed from the disk anyway holds up nothing.
    fn limit(&self, frontier: u64) -> u64 {
        let ahead = match self.have.covered_until(frontier) {
            Some(end) if frontier >= self.base => self.ahead.with(end - frontier),
            _ => self.ahead.far,
        };
        frontier.max(self.base).saturating_add(ahead).min(self.size)
    }

    pub(in crate::client) fn has_more(&self, frontier: u64) -> bool {
        self.next_gap(frontier).is_some()
    }

    /// Hands out the next part.
    pub(in crate::client) fn take(&mut self, frontier: u64, now: Instant) -> Option<u32> {
        let range = self.next_gap(frontier)?;
        Some(self.add(Slot::new(range, now, None)))
    }

    fn add(&mut self, slot: Slot) -> u32 {
        self.next_id += 1;
        self.slots.insert(self.next_id, slot);
        self.next_id
    }

    /// Hands out what helps the slowest part; none when all are fast enough.
    pub(in crate::client) fn help(&mut self, now: Instant) -> Option<u32> {
        let open = self.slots.iter_mut().filter(|(_, slot)| !slot.helped && slot.next < slot.end);
        let (&id, slowest) = open.max_by_key(|(_, slot)| slot.time_left(now))?;
        if slowest.time_left(now) < HELP_AFTER {
            return None;
        }
        let rest = slowest.end - slowest.next;
        if slowest.is_silent(now) || rest < SPLIT_BYTES_MIN {
            let range = slowest.next..slowest.end;
            (slowest.helped, slowest.double) = (true, Some(self.next_id + 1));
            return Some(self.add(Slot::new(range, now, Some(id))));
        }
        let middle = slowest.next + rest / 2;
        let range = middle..slowest.end;
        slowest.end = middle;
        Some(self.add(Slot::new(range, now, None)))
    }

    /// What is still missing of a part; none once it is done or given up.
    pub(in crate::client) fn rest(&mut self, id: u32) -> Option<Range<u64>> {
        let slot = self.slots.get_mut(&id)?;
        slot.next = self.have.gap(slot.next).start;
        (slot.next < slot.end).then_some(slot.next..slot.end)
    }

    /// Whether another connection is busy with the same bytes.
    pub(in crate::client) fn is_doubled(&self, id: u32) -> bool {
        self.slots.get(&id).is_some_and(|slot| slot.double.is_some())
    }

    /// Takes bytes that arrived for a part.
    pub(in crate::client) fn accept(
        &mut self,
        id: u32,
        arrived: Range<u64>,
        now: Instant,
    ) -> Accepted {
        let Some(slot) = self.slots.get_mut(&id) else {
            return Accepted { new: Extents::default(), done: true };
        };
        let arrived = arrived.start..arrived.end.min(slot.end);
        let mut new = Extents::of(arrived.clone());
        self.have.iter().for_each(|there| new.remove(there));
        self.have.insert(arrived.clone());
        slot.next = slot.next.max(arrived.end);
        slot.gained += arrived.end.saturating_sub(arrived.start);
        slot.heard = now;
        let done = self.have.covers(&(slot.next..slot.end.max(slot.next)));
        Accepted { new, done }
    }

    /// Notes that a part's connection was held up by us until now, not by the network.
    pub(in crate::client) fn touch(&mut self, id: u32, now: Instant) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.heard = now;
        }
    }

    /// Gives a part back, done or not.
    pub(in crate::client) fn give_back(&mut self, id: u32) {
        if let Some(other) = self.slots.remove(&id).and_then(|slot| slot.double)
            && let Some(other) = self.slots.get_mut(&other)
        {
            other.double = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window(size: u64, have: &str) -> Window {
        Window::new(size, 10, Ahead { far: 40, near: 20 }, Extents::parse(have).unwrap())
    }

    /// The parts handed out until there are no more.
    fn parts(window: &mut Window, frontier: u64) -> Vec<Range<u64>> {
        let now = Instant::now();
        std::iter::from_fn(|| window.take(frontier, now).and_then(|id| window.rest(id))).collect()
    }

    #[test]
    fn parts_come_from_the_front_within_the_window() {
        assert_eq!(parts(&mut window(25, ""), 0), [0..10, 10..20, 20..25]);
        assert_eq!(parts(&mut window(100, ""), 0).last(), Some(&(30..40)));
        assert_eq!(parts(&mut window(100, ""), 7).last(), Some(&(40..50)));
        // What is there is not asked for; a beginning that is there does not hold up the rest.
        assert_eq!(parts(&mut window(40, "5-12 20-30"), 0), [0..5, 12..20, 30..40]);
        assert_eq!(parts(&mut window(100, "0-90"), 0).first(), Some(&(90..100)));
        assert!(parts(&mut window(0, ""), 0).is_empty());
    }

    #[test]
    fn a_hash_that_cannot_follow_narrows_the_window() {
        let mut all = window(100, "");
        let (id, now) = (all.take(0, Instant::now()).unwrap(), Instant::now());
        assert!(all.accept(id, 0..10, now).done);
        // Ten bytes to hash: only what memory can keep is asked for.
        assert_eq!(parts(&mut all, 0), vec![10..20; 1]);
        // Few to hash, or one that is missing there: all that the window takes.
        assert_eq!(parts(&mut all, 6), [20..30, 30..40, 40..50]);
        assert_eq!(parts(&mut window(100, "10-40"), 0), vec![0..10; 1]);
        // The beginning was there before: it is read from the disk whatever comes.
        assert_eq!(parts(&mut window(100, "0-30"), 5), [30..40, 40..50, 50..60, 60..70]);
        assert_eq!(parts(&mut window(100, "0-30"), 30).len(), 4);
    }

    #[test]
    fn a_part_that_is_given_back_is_handed_out_again() {
        let (mut window, now) = (window(30, ""), Instant::now());
        let first = window.take(0, now).unwrap();
        window.take(0, now).unwrap();
        let accepted = window.accept(first, 0..4, now);
        assert_eq!(accepted, Accepted { new: Extents::of(0..4), done: false });
        window.give_back(first);
        assert_eq!(parts(&mut window, 0), [4..10, 20..30]);
    }

    const MIB: u64 = 1 << 20;

    fn slow(now: Instant) -> (Window, u32) {
        let mut window = Window::new(16 * MIB, 16 * MIB, Ahead::ALL, Extents::default());
        let id = window.take(0, now).unwrap();
        assert!(window.take(0, now).is_none() && window.help(now).is_none());
        (window, id)
    }

    #[test]
    fn the_rest_of_a_slow_part_is_divided() {
        let (mut window, slow) = slow(Instant::now());
        let now = Instant::now() + Duration::from_secs(1);
        window.accept(slow, 0..4 * MIB, now);
        // Three more seconds at this speed: half of it is worth taking.
        let helper = window.help(now).unwrap();
        assert_eq!(window.rest(slow), Some(4 * MIB..10 * MIB));
        assert_eq!(window.rest(helper), Some(10 * MIB..16 * MIB));
        // What comes past its new end is no longer its own.
        let accepted = window.accept(slow, 4 * MIB..11 * MIB, now);
        assert_eq!(accepted, Accepted { new: Extents::of(4 * MIB..10 * MIB), done: true });
    }

    #[test]
    fn a_fast_part_is_left_alone() {
        let (mut window, id) = slow(Instant::now());
        let now = Instant::now() + Duration::from_secs(1);
        window.accept(id, 0..9 * MIB, now);
        assert!(window.help(now).is_none());
    }

    #[test]
    fn what_a_silent_part_owes_is_asked_for_twice_and_taken_once() {
        let (mut window, silent) = slow(Instant::now());
        window.accept(silent, 0..MIB, Instant::now());
        let now = Instant::now() + SILENCE;
        let helper = window.help(now).unwrap();
        assert_eq!(window.rest(helper), Some(MIB..16 * MIB));
        assert!(window.help(now).is_none(), "one helper is enough");
        assert!(window.is_doubled(silent) && window.is_doubled(helper));
        assert_eq!(window.accept(helper, MIB..3 * MIB, now).new, Extents::of(MIB..3 * MIB));
        let late = window.accept(silent, MIB..5 * MIB, now);
        assert_eq!(late, Accepted { new: Extents::of(3 * MIB..5 * MIB), done: false });
        assert_eq!(window.rest(helper), Some(5 * MIB..16 * MIB));
        assert!(
            window.accept(helper, 5 * MIB..16 * MIB, now).done && window.rest(silent).is_none()
        );
        assert!(window.is_complete());
        // Whoever is left answers for what is missing.
        window.give_back(silent);
        assert!(!window.is_doubled(helper));
    }

    proptest! {
        /// Whatever is taken, arrives, or is given back: bytes count once, and the end is reached.
        #[test]
        fn every_byte_arrives_once(
            size in 0u64..300,
            steps in proptest::collection::vec((0u8..4, any::<u8>(), 1u64..25), 0..200),
        ) {
            let (mut window, now) = (window(size, ""), Instant::now());
            let (mut ids, mut arrived) = (Vec::new(), Extents::default());
            let mut feed = |window: &mut Window, id: u32, count: u64| {
                let Some(rest) = window.rest(id) else { return false };
                let range = rest.start..(rest.start + count).min(rest.end);
                for new in window.accept(id, range, now).new.iter() {
                    assert!(arrived.gap(new.start).end >= new.end && arrived.gap(new.start).start == new.start);
                    arrived.insert(new);
                }
                true
            };
            for (step, choice, count) in steps {
                match (step, ids.is_empty()) {
                    (0, _) => ids.extend(window.take(size, now)),
                    (1, false) => window.give_back(ids.swap_remove(choice as usize % ids.len())),
                    (_, false) => drop(feed(&mut window, ids[choice as usize % ids.len()], count)),
                    _ => {}
                }
            }
            ids.into_iter().for_each(|id| window.give_back(id));
            while let Some(id) = window.take(size, now) {
                while feed(&mut window, id, 7) {}
                window.give_back(id);
            }
            prop_assert!(window.is_complete());
            prop_assert_eq!(arrived.bytes(), size);
        }
    }
}
