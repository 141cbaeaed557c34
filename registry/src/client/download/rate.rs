//! A limit on bytes per second.

use std::sync::{Mutex, PoisonError};
use tokio::time::{Duration, Instant, sleep_until};

/// Time that was not used is made up for within this much.
const BURST: Duration = Duration::from_millis(100);

/// Lets bytes pass at a rate; all that share one share its rate.
#[derive(Debug)]
pub(in crate::client) struct Pace {
    /// Bytes per second; none for no limit.
    rate: Option<u64>,
    /// When everything that has passed was due.
    due: Mutex<Option<Instant>>,
}

impl Pace {
    pub(in crate::client) fn new(rate: Option<u64>) -> Pace {
        Pace { rate: rate.filter(|rate| *rate > 0), due: Mutex::default() }
    }

    pub(in crate::client) fn is_limited(&self) -> bool {
        self.rate.is_some()
    }

    /// The most bytes that are due within a second.
    pub(in crate::client) fn second(&self) -> u64 {
        self.rate.unwrap_or(u64::MAX)
    }

    /// Returns once `bytes` more are due.
    pub(in crate::client) async fn pass(&self, bytes: u64) {
        if let Some(turn) = self.turn(bytes) {
            turn.wait().await;
        }
    }

    /// The turn of `bytes` more; none where nothing waits.
    pub(in crate::client) fn turn(&self, bytes: u64) -> Option<Turn<'_>> {
        let due = self.admit(bytes, Instant::now())?;
        Some(Turn { pace: self, due, owed: self.cost(bytes)? })
    }

    /// How long `bytes` take.
    fn cost(&self, bytes: u64) -> Option<Duration> {
        Duration::try_from_secs_f64(bytes as f64 / self.rate? as f64).ok()
    }

    /// When `bytes` that came now are due.
    fn admit(&self, bytes: u64, now: Instant) -> Option<Instant> {
        let cost = self.cost(bytes)?;
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let start = due.map_or(now, |due| due.max(now.checked_sub(BURST).unwrap_or(now)));
        Some(*due.insert(start + cost))
    }
}

/// Bytes whose turn is to come. Whoever leaves before gives the time back to the others.
#[derive(Debug)]
pub(in crate::client) struct Turn<'a> {
    pace: &'a Pace,
    /// When they may pass.
    pub(in crate::client) due: Instant,
    /// The time that they take; none once they have passed.
    owed: Duration,
}

impl Turn<'_> {
    pub(in crate::client) async fn wait(mut self) {
        sleep_until(self.due).await;
        self.owed = Duration::ZERO;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut due = self.pace.due.lock().unwrap_or_else(PoisonError::into_inner);
        *due = due.and_then(|due| due.checked_sub(self.owed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pass_at_the_rate_and_unused_time_is_not_saved_up() {
        let pace = Pace::new(Some(1_000_000));
        let takes = |now: Instant| {
            let last = (0..100).map(|_| pace.admit(10_000, now).unwrap()).last().unwrap();
            last.duration_since(now).as_millis()
        };
        let start = Instant::now();
        assert_eq!(takes(start), 1000);
        assert_eq!(takes(start), 2000, "those that share a limit share its rate");
        assert_eq!(takes(start + Duration::from_secs(60)), 900);
    }

    #[tokio::test]
    async fn whoever_leaves_takes_no_time_of_the_others() {
        let (pace, start) = (Pace::new(Some(1000)), Instant::now());
        let left = [60_000, 60_000].map(|bytes| pace.turn(bytes).unwrap());
        assert!(left[1].due - start >= Duration::from_secs(119));
        drop(left);
        let next = pace.turn(20).unwrap();
        assert!(next.due - start <= Duration::from_secs(1), "{:?}", next.due - start);
        // What has passed is not given back.
        let due = next.due;
        next.wait().await;
        assert_eq!(*pace.due.lock().unwrap(), Some(due));
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        for rate in [None, Some(0)] {
            assert_eq!(Pace::new(rate).admit(u64::MAX, Instant::now()), None);
        }
    }
}
