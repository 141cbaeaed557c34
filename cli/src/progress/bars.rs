//! One indicatif bar per blob, one for all of them when they are several, and a spinner for each step
//! without bytes.

use std::collections::HashMap;
use std::time::Duration;

use dsk_daemon_api::ollama::ProgressLine;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// More blobs than this share one bar: a screen is not longer.
const BARS_MAX: usize = 32;

/// The bars of one transfer.
#[derive(Debug)]
pub(crate) struct Bars {
    all: MultiProgress,
    blobs: HashMap<String, ProgressBar>,
    step: Option<(String, ProgressBar)>,
    /// All blobs together: with several side by side, the rate and the time left that matter.
    total: Option<ProgressBar>,
}

impl Bars {
    pub(crate) fn new() -> Bars {
        Bars { all: MultiProgress::new(), blobs: HashMap::new(), step: None, total: None }
    }

    pub(crate) fn update(&mut self, line: &ProgressLine) {
        match (&line.digest, line.total) {
            (Some(digest), Some(total)) => {
                self.end_step();
                let known = self.blobs.len();
                let bar = self.blob(digest, &line.status, total);
                bar.set_length(total);
                bar.set_position(line.completed.unwrap_or(0).min(total));
                if line.completed.is_some_and(|completed| completed >= total) {
                    bar.finish();
                }
                self.sum(self.blobs.len() > known);
            }
            _ => self.begin_step(&line.status),
        }
    }

    /// Brings the bar of all blobs up to date; what a new one had already is no progress.
    fn sum(&mut self, appeared: bool) {
        if self.blobs.len() < 2 {
            return;
        }
        let total = self.total.get_or_insert_with(|| {
            self.all.add(ProgressBar::new(0).with_style(blob_style()).with_message("total"))
        });
        total.set_length(self.blobs.values().filter_map(ProgressBar::length).sum());
        total.set_position(self.blobs.values().map(ProgressBar::position).sum());
        if appeared {
            total.reset_eta();
        }
    }

    pub(crate) fn finish(&mut self) {
        self.end_step();
        for bar in self.blobs.values().chain(&self.total).filter(|bar| !bar.is_finished()) {
            bar.abandon();
        }
    }

    fn blob(&mut self, digest: &str, label: &str, total: u64) -> ProgressBar {
        if let Some(bar) = self.blobs.get(digest) {
            return bar.clone();
        }
        let bar = ProgressBar::new(total).with_style(blob_style()).with_message(label.to_owned());
        let bar = match &self.total {
            _ if self.blobs.len() >= BARS_MAX => bar,
            Some(total) => self.all.insert_before(total, bar),
            None => self.all.add(bar),
        };
        self.blobs.insert(digest.to_owned(), bar.clone());
        bar
    }

    fn begin_step(&mut self, status: &str) {
        if self.step.as_ref().is_some_and(|(name, _)| name == status) {
            return;
        }
        self.end_step();
        let spinner = ProgressBar::new_spinner().with_style(step_style());
        let spinner = self.all.add(spinner).with_message(status.to_owned());
        // The last line is an end, not a step that takes time.
        if status == "success" {
            spinner.finish();
        } else {
            spinner.enable_steady_tick(TICK);
            self.step = Some((status.to_owned(), spinner));
        }
    }

    fn end_step(&mut self) {
        if let Some((_, spinner)) = self.step.take() {
            spinner.finish();
        }
    }
}

fn blob_style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{msg} {percent:>3}% {wide_bar} {decimal_bytes:>9}/{decimal_total_bytes:<9} \
         {decimal_bytes_per_sec:>11} {eta:>4}",
    )
    .expect("the template is constant and every test parses it")
    .progress_chars("━━╌")
}

fn step_style() -> ProgressStyle {
    ProgressStyle::with_template("{msg} {spinner}")
        .expect("the template is constant and every test parses it")
        .tick_strings(&["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "✓"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::ProgressDrawTarget;

    fn blob(completed: u64) -> ProgressLine {
        ProgressLine {
            status: "pulling 970aa74c0a90".into(),
            digest: Some("sha256:970aa74c0a90".into()),
            total: Some(1000),
            completed: Some(completed),
        }
    }

    fn hidden() -> Bars {
        let bars = Bars::new();
        bars.all.set_draw_target(ProgressDrawTarget::hidden());
        bars
    }

    #[test]
    fn a_blob_has_one_bar_that_ends_with_its_last_byte() {
        let mut bars = hidden();
        bars.update(&ProgressLine::status("pulling manifest"));
        let manifest = bars.step.as_ref().map(|(_, spinner)| spinner.clone()).unwrap();
        assert!(!manifest.is_finished());
        bars.update(&blob(250));
        assert!(manifest.is_finished() && bars.step.is_none());
        let bar = bars.blobs["sha256:970aa74c0a90"].clone();
        assert_eq!((bar.position(), bar.length(), bar.is_finished()), (250, Some(1000), false));
        bars.update(&blob(1000));
        assert_eq!((bar.position(), bar.is_finished()), (1000, true));
        assert_eq!(bars.blobs.len(), 1);
    }

    #[test]
    fn several_blobs_have_a_total() {
        let mut bars = hidden();
        bars.update(&blob(250));
        assert!(bars.total.is_none());
        let other = ProgressLine { digest: Some("sha256:other".into()), ..blob(1000) };
        bars.update(&other);
        let total = bars.total.clone().unwrap();
        assert_eq!((total.position(), total.length()), (1250, Some(2000)));
        bars.update(&blob(1000));
        assert_eq!(total.position(), 2000);
        bars.finish();
        assert!(total.is_finished());
    }

    #[test]
    fn what_was_interrupted_stops_moving() {
        let mut bars = hidden();
        bars.update(&blob(250));
        bars.finish();
        assert!(bars.blobs.values().all(|bar| bar.is_finished() && bar.position() == 250));
    }

    #[test]
    fn bytes_beyond_the_total_do_not_overflow_the_bar() {
        let mut bars = hidden();
        bars.update(&blob(5000));
        assert_eq!(bars.blobs["sha256:970aa74c0a90"].position(), 1000);
    }
}
