//! The breaker of crash loops: after its first death a model's runner is started again at once, after
//! the second with a pause, and after the third the model is refused for a while.

use std::{collections::HashMap, time::Duration};

use dsk_registry::{Digest, Name};
use tokio::time::Instant;

use super::SchedulerError;
use crate::runner::Death;

/// This many deaths …
const DEATHS_MAX: usize = 3;
/// … within this time …
const WINDOW: Duration = Duration::from_secs(60);
/// … and the model is refused for this long.
const REFUSED_FOR: Duration = Duration::from_secs(30);
/// The pause before the third start: whoever waits goes on waiting.
const PAUSE: Duration = Duration::from_secs(1);

/// The recent deaths of runners, by model.
#[derive(Debug, Default)]
pub(super) struct Crashes(HashMap<Digest, Deaths>);

#[derive(Debug)]
struct Deaths {
    /// The oldest first; never empty.
    times: Vec<Instant>,
    /// What the last one was.
    cause: String,
}

impl Deaths {
    fn last(&self) -> Option<Instant> {
        self.times.last().copied()
    }

    /// When the next start is due, if it has to wait.
    fn start_at(&self) -> Option<Instant> {
        match self.times.len() {
            0 | 1 => None,
            deaths if deaths < DEATHS_MAX => Some(self.last()? + PAUSE),
            _ => Some(self.last()? + REFUSED_FOR),
        }
    }
}

impl Crashes {
    pub(super) fn record(&mut self, model: Digest, death: &Death, now: Instant) {
        self.0.retain(|_, deaths| deaths.last().is_some_and(|last| now - last < WINDOW));
        let deaths = self
            .0
            .entry(model)
            .or_insert_with(|| Deaths { times: Vec::new(), cause: String::new() });
        deaths.times.retain(|time| now - *time < WINDOW);
        deaths.times.push(now);
        deaths.cause = death.to_string();
    }

    /// The error while a model is refused.
    pub(super) fn refusal(
        &self,
        model: Digest,
        name: &Name,
        now: Instant,
    ) -> Option<SchedulerError> {
        let deaths = self.0.get(&model)?;
        let until = deaths.start_at().filter(|until| now < *until)?;
        if deaths.times.len() < DEATHS_MAX {
            return None;
        }
        Some(SchedulerError::CrashLoop {
            name: name.clone(),
            deaths: deaths.times.len(),
            cause: deaths.cause.clone(),
            retry_seconds: (until - now).as_secs().max(1),
        })
    }

    /// Whether a start has to wait a moment.
    pub(super) fn pauses(&self, model: Digest, now: Instant) -> bool {
        self.0.get(&model).and_then(Deaths::start_at).is_some_and(|start| now < start)
    }

    /// When the first of the starts that wait is due.
    pub(super) fn next_start(&self, now: Instant) -> Option<Instant> {
        self.0.values().filter_map(Deaths::start_at).filter(|start| *start > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::DeathKind;

    #[test]
    fn three_deaths_within_a_minute_refuse_for_half_a_minute_and_two_pause() {
        let (model, name) = (Digest::of(b"m"), Name::parse("m").unwrap());
        let (start, mut crashes) = (Instant::now(), Crashes::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut shown = String::new();
        for (seconds, dies) in [
            (0, true),
            (10, true),
            (11, false),
            (80, true),
            (90, true),
            (91, true),
            (92, false),
            (121, false),
            (122, true),
            (300, false),
        ] {
            if dies {
                let death = Death::new(DeathKind::Exit(0), "ended");
                crashes.record(model, &death, at(seconds));
            }
            let refused = crashes.refusal(model, &name, at(seconds)).is_some();
            let pauses = crashes.pauses(model, at(seconds));
            let next = crashes.next_start(at(seconds));
            assert_eq!(pauses, next.is_some(), "whoever waits is woken");
            let word = match (refused, pauses) {
                (true, _) => "refused",
                (false, true) => "pauses",
                (false, false) => "allowed",
            };
            shown += &format!("{seconds}:{word} ");
        }
        assert_eq!(
            shown,
            "0:allowed 10:pauses 11:allowed 80:allowed 90:pauses 91:refused 92:refused 121:allowed \
             122:refused 300:allowed "
        );
    }
}
