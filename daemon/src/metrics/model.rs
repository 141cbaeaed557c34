//! What is counted of one model.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dsk_daemon_engine::Usage;
use prometheus::{Histogram, IntCounter, IntGauge};

/// Requests whose speed is remembered: enough to even out, few enough to be recent.
const RECENT_MAX: usize = 8;

/// The series of one model. Everything in it is shared with the registry.
#[derive(Debug)]
pub(crate) struct ModelMetrics {
    pub(crate) name: String,
    pub(crate) waiting: IntGauge,
    pub(crate) running: IntGauge,
    pub(crate) kv_tokens: IntGauge,
    pub(crate) prompt_tokens: IntCounter,
    pub(crate) generated_tokens: IntCounter,
    pub(crate) queue: Histogram,
    pub(crate) load: Histogram,
    pub(crate) prefill: Histogram,
    pub(crate) decode: Histogram,
    pub(crate) first_token: Histogram,
    pub(crate) per_token: Histogram,
    pub(crate) whole: Histogram,
    pub(super) recent: Recent,
}

/// How fast the last requests were.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<VecDeque<Usage>>);

/// Tokens a second; `None` where nothing was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Speed {
    pub(crate) prompt: Option<f64>,
    pub(crate) output: Option<f64>,
}

impl ModelMetrics {
    /// Counts an answer that ended well.
    pub(crate) fn answered(&self, usage: &Usage) {
        self.prompt_tokens.inc_by(usage.prompt_tokens.into());
        self.generated_tokens.inc_by(usage.output_tokens.into());
        self.prefill.observe(seconds(usage.prompt_ns));
        self.decode.observe(seconds(usage.output_ns));
        if usage.output_tokens > 0 {
            self.per_token.observe(seconds(usage.output_ns) / f64::from(usage.output_tokens));
        }
        self.recent.push(*usage);
    }

    /// The speed of the last requests together.
    pub(crate) fn speed(&self) -> Speed {
        self.recent.speed()
    }
}

impl Recent {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Usage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, usage: Usage) {
        let mut recent = self.lock();
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(usage);
    }

    fn speed(&self) -> Speed {
        let recent = self.lock();
        let rate = |count: fn(&Usage) -> (u32, u64)| {
            let counts = recent.iter().map(count);
            let (tokens, ns) = counts.fold((0_u64, 0_u64), |(tokens, ns), (more, time)| {
                (tokens + u64::from(more), ns.saturating_add(time))
            });
            (tokens > 0 && ns > 0).then(|| tokens as f64 / seconds(ns))
        };
        Speed {
            prompt: rate(|usage| (usage.prompt_tokens, usage.prompt_ns)),
            // The first token of an answer takes no time of its own: it comes with the prompt's end.
            output: rate(|usage| match usage.output_tokens {
                0 | 1 => (0, 0),
                tokens => (tokens - 1, usage.output_ns),
            }),
        }
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_is_that_of_the_last_requests() {
        let recent = Recent::default();
        assert_eq!(recent.speed(), Speed::default());
        recent.push(Usage { output_tokens: 1, output_ns: 1000, ..Usage::default() });
        assert_eq!(recent.speed(), Speed::default());
        let slow = Usage { output_tokens: 2, output_ns: 2_000_000_000, ..Usage::default() };
        recent.push(slow);
        assert_eq!(recent.speed(), Speed { prompt: None, output: Some(0.5) });
        for _ in 0..RECENT_MAX {
            recent.push(Usage { output_tokens: 21, output_ns: 1_000_000_000, ..slow });
        }
        assert_eq!(recent.speed().output, Some(20.0));
    }
}
