//! Sizes, times and durations as people read them.

use std::time::Duration;

use jiff::Timestamp;

const KILO: u64 = 1000;
const MINUTE_S: i64 = 60;
const HOUR_S: i64 = 60 * MINUTE_S;
const DAY_S: i64 = 24 * HOUR_S;
const WEEK_S: i64 = 7 * DAY_S;
const MONTH_S: i64 = 30 * DAY_S;
const YEAR_S: i64 = 365 * DAY_S;

/// Decimal units, as disks and Ollama's tables count: `4.7 GB`, `98 MB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KB", "MB", "GB", "TB", "PB"];
    let (mut unit, mut scale) = (0, 1_u64);
    while unit + 1 < UNITS.len() && count / scale >= KILO {
        scale *= KILO;
        unit += 1;
    }
    let value = count as f64 / scale as f64;
    if unit > 0 && value < 10.0 {
        format!("{value:.1} {}", UNITS[unit])
    } else {
        format!("{value:.0} {}", UNITS[unit])
    }
}

/// A number of bytes as flags take it, in powers of 1024: `500K`, `1.5M`, `10485760`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a number of bytes: write 500K, 10M, 1.5G");
    let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err(wrong()),
    };
    let bytes = number.parse::<f64>().map_err(|_| wrong())? * (1_u64 << shift) as f64;
    if bytes >= 1.0 { Ok(bytes as u64) } else { Err(wrong()) }
}

/// A time in the past, counted from `now`: `3 days ago`.
pub(crate) fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - then.as_second();
    if seconds < 5 { "just now".to_owned() } else { format!("{} ago", span(seconds)) }
}

/// The largest whole unit of a number of seconds.
fn span(seconds: i64) -> String {
    let (count, unit) = match seconds {
        s if s < MINUTE_S => (s, "second"),
        s if s < HOUR_S => (s / MINUTE_S, "minute"),
        s if s < DAY_S => (s / HOUR_S, "hour"),
        s if s < WEEK_S => (s / DAY_S, "day"),
        s if s < MONTH_S => (s / WEEK_S, "week"),
        s if s < YEAR_S => (s / MONTH_S, "month"),
        s => (s / YEAR_S, "year"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// A duration to three digits: `1.24s`, `312ms`, `2m05s`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        s if s < 0.000_001 => format!("{}ns", time.as_nanos()),
        s if s < 0.001 => format!("{:.1}µs", s * 1e6),
        s if s < 1.0 => format!("{:.1}ms", s * 1e3),
        s if s < 60.0 => format!("{s:.2}s"),
        _ => {
            let (minutes, rest) = (time.as_secs() / 60, time.as_secs() % 60);
            if minutes < 60 {
                format!("{minutes}m{rest:02}s")
            } else {
                format!("{}h{:02}m", minutes / 60, minutes % 60)
            }
        }
    }
}

/// A duration to the second, for times that are guesses: `6s`, `2m05s`.
pub(crate) fn whole_seconds(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds < 60 => format!("{seconds}s"),
        seconds => duration(Duration::from_secs(seconds)),
    }
}

/// How many of something per second, 0 where no time passed.
pub(crate) fn rate(count: u64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_they_are_written() {
        let read = ["1", "500K", "1.5M", "2G"].map(|text| parse_bytes(text).unwrap());
        assert_eq!(read, [1, 512_000, 1_572_864, 2_147_483_648]);
        for bad in ["", "0", "-1", "M", "1T", "1MB", "1..2", "0.1"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 KB"),
            (9_949, "9.9 KB"),
            (98_000_000, "98 MB"),
            (4_683_087_332, "4.7 GB"),
            (u64::MAX, "18447 PB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn times() {
        let now: Timestamp = "2026-05-01T12:00:00Z".parse().unwrap();
        let cases = [
            ("2026-05-01T11:59:58Z", "just now"),
            ("2026-05-01T11:59:00Z", "1 minute ago"),
            ("2026-05-01T10:00:00Z", "2 hours ago"),
            ("2026-04-28T12:00:00Z", "3 days ago"),
            ("2026-04-10T12:00:00Z", "3 weeks ago"),
            ("2025-12-01T12:00:00Z", "5 months ago"),
            ("2020-05-01T12:00:00Z", "6 years ago"),
        ];
        for (then, text) in cases {
            assert_eq!(ago(then.parse().unwrap(), now), text);
        }
    }

    #[test]
    fn durations() {
        let cases = [
            (Duration::from_nanos(12), "12ns"),
            (Duration::from_micros(12), "12.0µs"),
            (Duration::from_millis(312), "312.0ms"),
            (Duration::from_millis(1240), "1.24s"),
            (Duration::from_secs(125), "2m05s"),
            (Duration::from_secs(3725), "1h02m"),
        ];
        for (time, text) in cases {
            assert_eq!(duration(time), text);
        }
    }
}
