//! The breaker of crash loops: a model whose runner dies again and again is left alone for a while.

use std::{collections::HashMap, time::Duration};

use dsk_registry::{Digest, Name};
use tokio::time::Instant;

use super::SchedulerError;

/// This many deaths …
const DEATHS_MAX: usize = 3;
/// … within this time …
const WINDOW: Duration = Duration::from_secs(60);
/// … and the model is refused for this long.
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// The recent deaths of runners, by model.
#[derive(Debug, Default)]
pub(super) struct Crashes(HashMap<Digest, Vec<Instant>>, HashMap<Digest, String>);

impl Crashes {
    pub(super) fn record(&mut self, model: Digest, cause: &str, now: Instant) {
        self.0.retain(|_, deaths| deaths.last().is_some_and(|last| now - *last < WINDOW));
        let remembered = &self.0;
        self.1.retain(|model, _| remembered.contains_key(model));
        let deaths = self.0.entry(model).or_default();
        deaths.retain(|death| now - *death < WINDOW);
        deaths.push(now);
        self.1.insert(model, cause.to_owned());
    }

    /// The error while a model is refused.
    pub(super) fn refusal(
        &self,
        model: Digest,
        name: &Name,
        now: Instant,
    ) -> Option<SchedulerError> {
        let deaths = self.0.get(&model)?;
        let last = *deaths.last()?;
        let until = last + REFUSED_FOR;
        if deaths.len() < DEATHS_MAX || now >= until {
            return None;
        }
        Some(SchedulerError::CrashLoop {
            name: name.clone(),
            deaths: deaths.len(),
            cause: self.1.get(&model).cloned().unwrap_or_default(),
            retry_seconds: (until - now).as_secs().max(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_deaths_within_a_minute_refuse_for_half_a_minute() {
        let (model, name) = (Digest::of(b"m"), Name::parse("m").unwrap());
        let (start, mut crashes) = (Instant::now(), Crashes::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut shown = String::new();
        for (seconds, dies) in [
            (0, true),
            (10, true),
            (80, true),
            (90, true),
            (91, true),
            (92, false),
            (121, false),
            (122, true),
            (300, false),
        ] {
            if dies {
                crashes.record(model, "ended", at(seconds));
            }
            let refused = crashes.refusal(model, &name, at(seconds)).is_some();
            shown += &format!("{seconds}:{} ", if refused { "refused" } else { "allowed" });
        }
        assert_eq!(
            shown,
            "0:allowed 10:allowed 80:allowed 90:allowed 91:refused 92:refused 121:allowed \
             122:refused 300:allowed "
        );
    }
}
