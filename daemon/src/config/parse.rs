//! The text of single values.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use dsk_registry::Name;
use url::Url;

use super::{RUNNER_TIMEOUT_MAX, RUNNER_TIMEOUT_MIN};
use crate::keep_alive::KeepAlive;

pub(super) fn from_str<T: std::str::FromStr>(text: &str) -> Result<T, String>
where
    T::Err: fmt::Display,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}

pub(super) fn absolute(text: &str, home: Option<&Path>) -> Result<PathBuf, String> {
    let path = match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(text),
    };
    std::path::absolute(&path).map_err(|error| format!("{text:?} is no path: {error}"))
}

pub(super) fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

pub(super) fn registry(text: &str) -> Result<Option<Url>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Some(url)),
        _ => Err(format!("{text:?} is not an http:// or https:// address")),
    }
}

pub(super) fn number(text: &str, max: usize) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(number) if number <= max => Ok(number),
        _ => Err(format!("{text:?} is not a whole number from 0 to {max}")),
    }
}

/// A duration that is long enough to answer in and short enough to be waited for.
pub(super) fn runner_timeout(text: &str) -> Result<Duration, String> {
    match from_str::<KeepAlive>(text)?.duration() {
        Some(time) if (RUNNER_TIMEOUT_MIN..=RUNNER_TIMEOUT_MAX).contains(&time) => Ok(time),
        _ => Err(format!("{text:?} is not from 1s to 10m")),
    }
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(format!("{text:?} is not true or false")),
    }
}

/// Names separated by commas.
pub(super) fn names(text: &str) -> Result<Vec<Name>, String> {
    let parse = |item: String| Name::parse(&item).map_err(|error| format!("{item:?}: {error}"));
    list(text).into_iter().map(parse).collect()
}

/// Bytes, such as `1.5G`, `512MiB` or `0`; `auto` is `None`.
pub(super) fn bytes(text: &str) -> Result<Option<u64>, String> {
    if text == "auto" {
        return Ok(None);
    }
    let wrong = || format!("{text:?} is not a number of bytes: write auto, 0, 512M, 1.5GiB");
    let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let shift = match unit.trim().trim_end_matches("iB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    let number = number.parse::<f64>().map_err(|_| wrong())?;
    Ok(Some((number * (1u64 << shift) as f64) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_every_form() {
        let mut shown = String::new();
        for text in
            ["auto", "0", "1000", "512M", "512MB", "1.5GiB", "2 T", "1K", "-1", "G", "1x", "1..2"]
        {
            let parsed = bytes(text).map_or("refused".to_owned(), |bytes| format!("{bytes:?}"));
            shown += &format!("{text}={parsed} ");
        }
        assert_eq!(
            shown,
            "auto=None 0=Some(0) 1000=Some(1000) 512M=Some(536870912) 512MB=Some(536870912) \
             1.5GiB=Some(1610612736) 2 T=Some(2199023255552) 1K=Some(1024) -1=refused G=refused \
             1x=refused 1..2=refused "
        );
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(names("a, b:x").map(|names| names.len()), Ok(2));
        assert!(names("a,../b").is_err_and(|error| error.contains("../b")));
    }
}
