//! How long an idle model stays resident: `keep_alive` of the requests and of the configuration.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Anything longer is kept for ever: it is past every uptime, and stays clear of `Instant` overflow.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// How long a model stays resident after its last request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeepAlive {
    /// Unloaded this long after the last use; zero unloads at once.
    For(Duration),
    /// Never unloaded for being idle (any negative value).
    Forever,
}

/// A `keep_alive` that is neither seconds nor a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: write seconds (300), a duration (5m, 1h30m), 0 or -1 (forever)")]
pub struct KeepAliveError(String);

impl KeepAlive {
    /// What applies when nothing says otherwise.
    pub const DEFAULT: KeepAlive = KeepAlive::For(Duration::from_secs(5 * 60));

    /// From a number of seconds; negative is for ever.
    pub fn from_seconds(seconds: f64) -> KeepAlive {
        if seconds < 0.0 {
            return KeepAlive::Forever;
        }
        let duration = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        KeepAlive::from_duration(duration)
    }

    /// The duration, unless it is for ever.
    pub fn duration(self) -> Option<Duration> {
        match self {
            KeepAlive::For(duration) => Some(duration),
            KeepAlive::Forever => None,
        }
    }

    fn from_duration(duration: Duration) -> KeepAlive {
        if duration > LONGEST { KeepAlive::Forever } else { KeepAlive::For(duration) }
    }
}

impl Default for KeepAlive {
    fn default() -> Self {
        KeepAlive::DEFAULT
    }
}

impl FromStr for KeepAlive {
    type Err = KeepAliveError;

    fn from_str(text: &str) -> Result<KeepAlive, KeepAliveError> {
        let trimmed = text.trim();
        if let Ok(seconds) = trimmed.parse::<i64>() {
            return Ok(KeepAlive::from_seconds(seconds as f64));
        }
        let (negative, digits) = match trimmed.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
        };
        let seconds = duration_seconds(digits).ok_or_else(|| KeepAliveError(text.to_owned()))?;
        Ok(KeepAlive::from_seconds(if negative { -seconds } else { seconds }))
    }
}

/// The seconds of a duration such as `1h30m`, `1.5s` or `250ms`.
fn duration_seconds(text: &str) -> Option<f64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, tail) = rest.split_at(number);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        total += value.parse::<f64>().ok()? * unit_seconds(unit)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

impl fmt::Display for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KeepAlive::For(duration) = self else { return f.write_str("-1") };
        let seconds = duration.as_secs();
        match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
            _ if duration.subsec_nanos() > 0 => write!(f, "{}s", duration.as_secs_f64()),
            (0, 0, seconds) => write!(f, "{seconds}s"),
            (0, minutes, 0) => write!(f, "{minutes}m"),
            (hours, 0, 0) => write!(f, "{hours}h"),
            (0, minutes, seconds) => write!(f, "{minutes}m{seconds}s"),
            (hours, minutes, seconds) => write!(f, "{hours}h{minutes}m{seconds}s"),
        }
    }
}

impl<'de> Deserialize<'de> for KeepAlive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<KeepAlive, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Seconds(f64),
            Text(String),
        }
        match Raw::deserialize(deserializer) {
            Ok(Raw::Seconds(seconds)) => Ok(KeepAlive::from_seconds(seconds)),
            Ok(Raw::Text(text)) => text.parse().map_err(de::Error::custom),
            Err(_) => Err(de::Error::custom("keep_alive must be a number of seconds or a string")),
        }
    }
}

impl Serialize for KeepAlive {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn every_form_a_client_sends() {
        let mut table = String::new();
        for text in [
            "5m",
            "300",
            "0",
            "-1",
            "-5m",
            "1h30m",
            "1.5s",
            "250ms",
            "+2h",
            " 10s ",
            "",
            "m",
            "5",
            "5 m",
            "5x",
            "1h-3m",
            "99999999999999999999h",
            "nan",
            "1..2s",
            "1h2",
        ] {
            let parsed = match text.parse::<KeepAlive>() {
                Ok(keep_alive) => keep_alive.to_string(),
                Err(_) => "refused".to_owned(),
            };
            table += &format!("{text:?} -> {parsed}\n");
        }
        expect![[r#"
            "5m" -> 5m
            "300" -> 5m
            "0" -> 0s
            "-1" -> -1
            "-5m" -> -1
            "1h30m" -> 1h30m0s
            "1.5s" -> 1.5s
            "250ms" -> 0.25s
            "+2h" -> 2h
            " 10s " -> 10s
            "" -> refused
            "m" -> refused
            "5" -> 5s
            "5 m" -> refused
            "5x" -> refused
            "1h-3m" -> refused
            "99999999999999999999h" -> -1
            "nan" -> refused
            "1..2s" -> refused
            "1h2" -> refused
        "#]]
        .assert_eq(&table);
    }

    #[test]
    fn json_numbers_and_strings() {
        let parse = |text: &str| serde_json::from_str::<KeepAlive>(text).map_err(|e| e.to_string());
        assert_eq!(parse("30"), Ok(KeepAlive::For(Duration::from_secs(30))));
        assert_eq!(parse("0.5"), Ok(KeepAlive::For(Duration::from_millis(500))));
        assert_eq!(parse("-1"), Ok(KeepAlive::Forever));
        assert_eq!(parse("1e300"), Ok(KeepAlive::Forever));
        assert_eq!(parse("\"1m\""), Ok(KeepAlive::For(Duration::from_secs(60))));
        assert!(parse("true").is_err_and(|e| e.contains("keep_alive must be")));
        assert!(parse("\"soon\"").is_err_and(|e| e.contains("\"soon\"")));
    }
}
