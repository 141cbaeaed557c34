//! Which bytes of a blob there are: a set of positions, as the ranges that make it up.

use std::{collections::BTreeMap, fmt, ops::Range};

/// The most ranges that a text may hold: far more than a transfer ever leaves, and still small.
const RANGES_MAX: usize = 1 << 16;

/// Disjoint ranges that do not touch, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extents(BTreeMap<u64, u64>);

impl Extents {
    /// All of `range`.
    pub(crate) fn of(range: Range<u64>) -> Extents {
        let mut extents = Extents::default();
        extents.insert(range);
        extents
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes there are.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(start, end)| *start..*end)
    }

    /// Where the range that holds the byte at `position` ends; none when the byte is missing.
    pub(crate) fn covered_until(&self, position: u64) -> Option<u64> {
        let (_, end) = self.0.range(..=position).next_back()?;
        (*end > position).then_some(*end)
    }

    /// The first missing byte at or after `position`, and where the next range begins.
    pub(crate) fn gap(&self, position: u64) -> Range<u64> {
        let start = self.covered_until(position).unwrap_or(position);
        let end = self.0.range(start..).next().map_or(u64::MAX, |(next, _)| *next);
        start..end
    }

    pub(crate) fn covers(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.covered_until(range.start).is_some_and(|end| end >= range.end)
    }

    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // Whatever overlaps or touches melts into one range.
        while let Some((&other, &until)) = self.0.range(..=end).next_back() {
            if until < start {
                break;
            }
            (start, end) = (start.min(other), end.max(until));
            self.0.remove(&other);
        }
        self.0.insert(start, end);
    }

    pub(crate) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&start, &end)) = self.0.range(..range.end).next_back() {
            if end <= range.start {
                break;
            }
            self.0.remove(&start);
            if end > range.end {
                self.0.insert(range.end, end);
            }
            if start < range.start {
                self.0.insert(start, range.start);
            }
        }
    }

    /// Without what `others` hold.
    pub(crate) fn without(mut self, others: &Extents) -> Extents {
        others.iter().for_each(|range| self.remove(range));
        self
    }

    /// Reads what `Display` writes; none for anything else.
    pub(crate) fn parse(text: &str) -> Option<Extents> {
        let mut extents = Extents::default();
        for (count, part) in text.split_ascii_whitespace().enumerate() {
            let (start, end) = part.split_once('-')?;
            let (start, end) = (start.parse::<u64>().ok()?, end.parse::<u64>().ok()?);
            if start >= end || count >= RANGES_MAX {
                return None;
            }
            extents.insert(start..end);
        }
        Some(extents)
    }
}

impl fmt::Display for Extents {
    /// `0-10 20-30`: each end is the first byte that is not there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, range) in self.iter().enumerate() {
            let space = if count == 0 { "" } else { " " };
            write!(f, "{space}{}-{}", range.start, range.end)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_that_nobody_wrote_are_refused() {
        assert_eq!(Extents::parse("0-10 20-30").unwrap().to_string(), "0-10 20-30");
        assert_eq!(Extents::parse(""), Some(Extents::default()));
        for bad in ["5-5", "9-3", "1", "-", "a-b", "0--1", "1-99999999999999999999"] {
            assert_eq!(Extents::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        /// Against the plain thing: a flag for each byte.
        #[test]
        fn they_are_a_set(steps in proptest::collection::vec((any::<bool>(), 0u64..64, 0u64..20), 0..40)) {
            let (mut extents, mut flags) = (Extents::default(), [false; 96]);
            for (add, start, length) in steps {
                let range = start..start + length;
                flags[range.start as usize..range.end as usize].fill(add);
                if add { extents.insert(range) } else { extents.remove(range) }
            }
            prop_assert_eq!(extents.bytes(), flags.iter().filter(|flag| **flag).count() as u64);
            for (at, flag) in flags.iter().enumerate() {
                let at = at as u64;
                let run = |wanted| flags[at as usize..].iter().take_while(|f| **f == wanted).count() as u64;
                prop_assert_eq!(extents.covered_until(at), flag.then(|| at + run(true)));
                let gap = extents.gap(at);
                prop_assert_eq!(gap.start, at + run(true));
                prop_assert!(!extents.covers(&(at..at + run(true) + 1)) && extents.covers(&(at..at + run(true))));
            }
            prop_assert_eq!(Extents::parse(&extents.to_string()), Some(extents.clone()));
            prop_assert!(extents.clone().without(&extents).is_empty());
        }
    }
}
