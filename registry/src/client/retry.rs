//! Which failures may pass, and how long to wait for that.

use super::{ClientError, Limits};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, SystemTime},
};

/// One failed try.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: ClientError,
    pub(super) kind: FailureKind,
}

/// What may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// Nothing.
    Fatal,
    /// Trying again, after this pause at least when the registry named one.
    Again(Option<Duration>),
    /// Trying again without a range, from the first byte.
    Over,
    /// Trying again from the first byte: the source has another version now.
    Changed,
}

impl Failure {
    pub(super) fn again(error: ClientError) -> Failure {
        Failure { error, kind: FailureKind::Again(None) }
    }

    pub(super) fn over(error: ClientError) -> Failure {
        Failure { error, kind: FailureKind::Over }
    }
}

impl<E: Into<ClientError>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure { error: error.into(), kind: FailureKind::Fatal }
    }
}

/// Counts the failures in a row of one operation.
#[derive(Debug)]
pub(super) struct Retry<'a> {
    limits: &'a Limits,
    failures: u32,
}

impl<'a> Retry<'a> {
    pub(super) fn new(limits: &'a Limits) -> Retry<'a> {
        Retry { limits, failures: 0 }
    }

    /// Something was gained: the next failure is a first one again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Sleeps before the next try, or gives the error back when there is none.
    pub(super) async fn pause(&mut self, failure: Failure) -> Result<(), ClientError> {
        self.failures += 1;
        let asked = match failure.kind {
            FailureKind::Fatal => return Err(failure.error),
            _ if self.failures >= self.limits.attempts => return Err(failure.error),
            FailureKind::Again(asked) => asked,
            FailureKind::Over | FailureKind::Changed => None,
        };
        let pause = self.delay(asked, RandomState::new().hash_one(self.failures));
        tracing::debug!(error = %failure.error, ?pause, "trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Doubles with each failure, and takes between half and all of that by `random`, so that many
    /// clients that failed together do not come back together.
    fn delay(&self, asked: Option<Duration>, random: u64) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        let full = self.limits.backoff.saturating_mul(1 << doublings).min(self.limits.backoff_max);
        let share = 0.5 + 0.5 * (random as f64 / u64::MAX as f64);
        let asked = asked.unwrap_or_default().min(self.limits.retry_after_max);
        full.mul_f64(share).max(asked)
    }
}

/// The pause that an answer asks for: in seconds, or until a time.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_asked_for_in_seconds_or_until_a_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let asked = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            retry_after(&headers, now).map(|pause| pause.as_secs())
        };
        assert_eq!(asked(" 7 "), Some(7));
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:07 GMT"), Some(30));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:07 GMT"), Some(0), "long ago is now");
        for bad in ["soon", "-1", "1.5", ""] {
            assert_eq!(asked(bad), None, "{bad}");
        }
    }

    #[test]
    fn pauses_double_are_capped_and_jittered() {
        let limits = Limits::default();
        let delays = |random| {
            let at = |failures| Retry { limits: &limits, failures }.delay(None, random);
            (1..=7).map(|failures| at(failures).as_millis()).collect::<Vec<_>>()
        };
        assert_eq!(delays(u64::MAX), [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(delays(0), [250, 500, 1000, 2000, 4000, 5000, 5000]);
    }

    #[test]
    fn a_registry_can_ask_for_a_longer_pause_within_reason() {
        let limits = Limits::default();
        let retry = Retry { limits: &limits, failures: 1 };
        assert_eq!(retry.delay(Some(Duration::from_secs(7)), 0), Duration::from_secs(7));
        assert_eq!(retry.delay(Some(Duration::from_secs(86_400)), 0), limits.retry_after_max);
        assert_eq!(retry.delay(Some(Duration::ZERO), 0), limits.backoff / 2);
    }
}
