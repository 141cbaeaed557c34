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

    /// Returns once `bytes` more are due.
    pub(in crate::client) async fn pass(&self, bytes: u64) {
        if let Some(until) = self.admit(bytes, Instant::now()) {
            sleep_until(until).await;
        }
    }

    /// When `bytes` that came now are due.
    fn admit(&self, bytes: u64, now: Instant) -> Option<Instant> {
        let cost = Duration::try_from_secs_f64(bytes as f64 / self.rate? as f64).ok()?;
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let start = due.map_or(now, |due| due.max(now.checked_sub(BURST).unwrap_or(now)));
        Some(*due.insert(start + cost))
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

    #[test]
    fn without_a_rate_nothing_waits() {
        for rate in [None, Some(0)] {
            assert_eq!(Pace::new(rate).admit(u64::MAX, Instant::now()), None);
        }
    }
}
