//! How to generate: the sampler's settings and the bounds of an answer.

use serde::{Deserialize, Serialize};

use crate::stop::{STOP_BYTES_MAX, STOPS_MAX};

/// The largest `repeat_last_n`, in tokens; beyond it the window is the whole context anyway.
const REPEAT_LAST_N_MAX: i32 = 1 << 20;
/// Penalties beyond this blow logits out of f32's useful range.
const PENALTY_MAX: f32 = 100.0;
/// The logit of a token that occurred is divided by the repeat penalty.
const REPEAT_PENALTY_MIN: f32 = 0.01;
/// Above this every token is as good as any other.
const TEMPERATURE_MAX: f32 = 100.0;

/// Options of one request. The defaults are Ollama's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// 0 takes the likeliest token always.
    pub temperature: f32,
    /// Keep this many of the likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest tokens that together have this probability.
    pub top_p: f32,
    /// Drop tokens less likely than this fraction of the likeliest.
    pub min_p: f32,
    /// Keep the tokens whose surprise is nearest to the expected one; 1 keeps all.
    pub typical_p: f32,
    /// How many of the latest tokens the penalties look at; 0 none, -1 all.
    pub repeat_last_n: i32,
    /// Divides (or, below zero, multiplies) the logit of a token that occurred; 1 does nothing.
    pub repeat_penalty: f32,
    /// Subtracted from the logit of a token that occurred.
    pub presence_penalty: f32,
    /// Subtracted from a token's logit for each time it occurred.
    pub frequency_penalty: f32,
    /// The same seed, prompt and options give the same answer; `None` draws a new one each time.
    pub seed: Option<u64>,
    /// Texts at which the answer ends; they are not part of it.
    pub stop: Vec<String>,
    /// Most tokens to generate; -1 until the model ends, -2 until the context is full.
    pub num_predict: i64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.0,
            typical_p: 1.0,
            repeat_last_n: 64,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: None,
            stop: Vec::new(),
            num_predict: -1,
        }
    }
}

/// An option whose value makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OptionError {
    /// A number out of bounds.
    #[error("option \"{name}\" must be between {low} and {high}, got {got}")]
    Range { name: &'static str, low: f64, high: f64, got: f64 },
    /// More stop sequences than can be watched for.
    #[error("option \"stop\" takes at most {STOPS_MAX} sequences, got {0}")]
    TooManyStops(usize),
    /// A stop sequence that is empty or too long.
    #[error("option \"stop\" takes sequences of 1 to {STOP_BYTES_MAX} bytes, got one of {0}")]
    StopLength(usize),
}

impl Options {
    /// Whether every option has a value that the sampler can work with.
    pub fn check(&self) -> Result<(), OptionError> {
        let float = |name, value: f32, low: f32, high: f32| {
            range(name, f64::from(value), f64::from(low), f64::from(high))
        };
        float("temperature", self.temperature, 0.0, TEMPERATURE_MAX)?;
        float("top_p", self.top_p, 0.0, 1.0)?;
        float("min_p", self.min_p, 0.0, 1.0)?;
        float("typical_p", self.typical_p, 0.0, 1.0)?;
        float("repeat_penalty", self.repeat_penalty, REPEAT_PENALTY_MIN, PENALTY_MAX)?;
        float("presence_penalty", self.presence_penalty, -PENALTY_MAX, PENALTY_MAX)?;
        float("frequency_penalty", self.frequency_penalty, -PENALTY_MAX, PENALTY_MAX)?;
        let last_n = f64::from(self.repeat_last_n);
        range("repeat_last_n", last_n, -1.0, f64::from(REPEAT_LAST_N_MAX))?;
        // -2 is the least that means something; above, every count is bounded by the context.
        range("num_predict", self.num_predict as f64, -2.0, i64::MAX as f64)?;
        self.check_stops()
    }

    fn check_stops(&self) -> Result<(), OptionError> {
        if self.stop.len() > STOPS_MAX {
            return Err(OptionError::TooManyStops(self.stop.len()));
        }
        match self.stop.iter().find(|stop| stop.is_empty() || stop.len() > STOP_BYTES_MAX) {
            Some(stop) => Err(OptionError::StopLength(stop.len())),
            None => Ok(()),
        }
    }
}

/// NaN is in no range.
fn range(name: &'static str, got: f64, low: f64, high: f64) -> Result<(), OptionError> {
    if (low..=high).contains(&got) {
        Ok(())
    } else {
        Err(OptionError::Range { name, low, high, got: shortest(got) })
    }
}

/// The f64 that prints as the f32 it came from does: 1.1, not 1.100000023841858.
fn shortest(value: f64) -> f64 {
    (value as f32).to_string().parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(change: impl FnOnce(&mut Options), want: Expect) {
        let mut options = Options::default();
        change(&mut options);
        want.assert_eq(&match options.check() {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.to_string(),
        });
    }

    #[test]
    fn a_bad_value_is_named_with_its_bounds() {
        check(|_| (), expect!["ok"]);
        check(|o| o.top_p = 3.0, expect![[r#"option "top_p" must be between 0 and 1, got 3"#]]);
        check(
            |o| o.temperature = -0.1,
            expect![[r#"option "temperature" must be between 0 and 100, got -0.1"#]],
        );
        check(
            |o| o.min_p = f32::NAN,
            expect![[r#"option "min_p" must be between 0 and 1, got NaN"#]],
        );
        check(
            |o| o.repeat_last_n = -2,
            expect![[r#"option "repeat_last_n" must be between -1 and 1048576, got -2"#]],
        );
        check(|o| o.num_predict = i64::MAX, expect!["ok"]);
    }

    #[test]
    fn stops_are_bounded() {
        check(
            |o| o.stop = vec![String::new()],
            expect![[r#"option "stop" takes sequences of 1 to 1024 bytes, got one of 0"#]],
        );
        check(
            |o| o.stop = vec!["x".repeat(STOP_BYTES_MAX + 1)],
            expect![[r#"option "stop" takes sequences of 1 to 1024 bytes, got one of 1025"#]],
        );
        check(
            |o| o.stop = vec!["x".to_owned(); STOPS_MAX + 1],
            expect![[r#"option "stop" takes at most 64 sequences, got 65"#]],
        );
    }

    #[test]
    fn absent_fields_have_the_defaults() {
        let options: Options = serde_json::from_str(r#"{"seed":7}"#).expect("valid");
        assert_eq!(options, Options { seed: Some(7), ..Options::default() });
    }
}
