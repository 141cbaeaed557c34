//! Progress as plain lines: each step once, each blob every few seconds and at its end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dsk_daemon_api::ollama::ProgressLine;

use crate::units;

/// How often a blob that moves gets a line.
const INTERVAL: Duration = Duration::from_secs(5);

/// Turns progress lines into the few that a log should have.
#[derive(Debug)]
pub(crate) struct Lines {
    last_print: Instant,
    step: String,
    blobs: HashMap<String, Blob>,
}

/// Where a blob was when it was first seen, for its rate; a resumed one starts above zero.
#[derive(Debug)]
struct Blob {
    since: Instant,
    from: u64,
    done: bool,
}

impl Lines {
    pub(crate) fn new(now: Instant) -> Lines {
        Lines { last_print: now, step: String::new(), blobs: HashMap::new() }
    }

    /// The lines to print now, mostly none.
    pub(crate) fn update(&mut self, line: &ProgressLine, now: Instant) -> Vec<String> {
        match (&line.digest, line.total) {
            (Some(digest), Some(total)) => {
                let completed = line.completed.unwrap_or(0).min(total);
                self.blob(digest, &line.status, completed, total, now).into_iter().collect()
            }
            _ if line.status == self.step => Vec::new(),
            _ => {
                self.step.clone_from(&line.status);
                vec![line.status.clone()]
            }
        }
    }

    fn blob(
        &mut self,
        digest: &str,
        status: &str,
        completed: u64,
        total: u64,
        now: Instant,
    ) -> Option<String> {
        let first = Blob { since: now, from: completed, done: false };
        let blob = self.blobs.entry(digest.to_owned()).or_insert(first);
        if blob.done {
            return None;
        }
        blob.done = completed >= total;
        if !blob.done && now.duration_since(self.last_print) < INTERVAL {
            return None;
        }
        let time = now.duration_since(blob.since);
        let rate = units::rate(completed.saturating_sub(blob.from), time);
        if !blob.done {
            self.last_print = now;
        }
        Some(render(status, completed, total, rate))
    }
}

/// `pulling 970aa74c0a90:  45% 12 MB/27 MB 3.1 MB/s 5s left`
fn render(status: &str, completed: u64, total: u64, rate: f64) -> String {
    let percent = if total == 0 { 100 } else { completed as u128 * 100 / u128::from(total) };
    let (done, all) = (units::bytes(completed), units::bytes(total));
    let mut text = format!("{status}: {percent:>3}% {done}/{all}");
    if rate >= 1.0 {
        text.push_str(&format!(" {}/s", units::bytes(rate as u64)));
        if completed < total {
            let left = Duration::from_secs(((total - completed) as f64 / rate) as u64);
            text.push_str(&format!(" {} left", units::whole_seconds(left)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn blob(completed: u64) -> ProgressLine {
        ProgressLine {
            status: "pulling 970aa74c0a90".into(),
            digest: Some("sha256:970aa74c0a90".into()),
            total: Some(27_000_000),
            completed: Some(completed),
        }
    }

    #[test]
    fn a_pull_gets_few_lines() {
        let start = Instant::now();
        let mut lines = Lines::new(start);
        let mut text = Vec::new();
        let mut at = |line: ProgressLine, ms: u64| {
            text.extend(lines.update(&line, start + Duration::from_millis(ms)));
        };
        at(ProgressLine::status("pulling manifest"), 0);
        at(ProgressLine::status("pulling manifest"), 10);
        // 2 MB were there from an earlier try: they do not count as speed.
        for tick in 0..=100 {
            at(blob(2_000_000 + tick * 250_000), 1000 + tick * 100);
        }
        at(blob(27_000_000), 12_000);
        at(ProgressLine::status("success"), 12_100);
        expect![[r#"
            pulling manifest
            pulling 970aa74c0a90:  44% 12 MB/27 MB 2.5 MB/s 6s left
            pulling 970aa74c0a90:  90% 24 MB/27 MB 2.5 MB/s 1s left
            pulling 970aa74c0a90: 100% 27 MB/27 MB 2.5 MB/s
            success"#]]
        .assert_eq(&text.join("\n"));
    }

    #[test]
    fn a_blob_that_is_here_already_is_said_once() {
        let now = Instant::now();
        let mut lines = Lines::new(now);
        assert_eq!(
            lines.update(&blob(27_000_000), now),
            ["pulling 970aa74c0a90: 100% 27 MB/27 MB"]
        );
        assert!(lines.update(&blob(27_000_000), now).is_empty());
    }

    #[test]
    fn an_empty_blob_is_whole() {
        assert_eq!(render("pulling x", 0, 0, 0.0), "pulling x: 100% 0 B/0 B");
    }
}
