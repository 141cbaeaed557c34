//! One indicatif bar per blob, and a spinner for each step without bytes.

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
}

impl Bars {
    pub(crate) fn new() -> Bars {
        Bars { all: MultiProgress::new(), blobs: HashMap::new(), step: None }
    }

    pub(crate) fn update(&mut self, line: &ProgressLine) {
        match (&line.digest, line.total) {
            (Some(digest), Some(total)) => {
                self.end_step();
                let bar = self.blob(digest, &line.status, total);
                bar.set_length(total);
                bar.set_position(line.completed.unwrap_or(0).min(total));
                if line.completed.is_some_and(|completed| completed >= total) {
                    bar.finish();
                }
            }
            _ => self.begin_step(&line.status),
        }
    }

    pub(crate) fn finish(&mut self) {
        self.end_step();
        for bar in self.blobs.values().filter(|bar| !bar.is_finished()) {
            bar.abandon();
        }
    }

    fn blob(&mut self, digest: &str, label: &str, total: u64) -> ProgressBar {
        if let Some(bar) = self.blobs.get(digest) {
            return bar.clone();
        }
        let bar = ProgressBar::new(total).with_style(blob_style()).with_message(label.to_owned());
        let bar = if self.blobs.len() < BARS_MAX { self.all.add(bar) } else { bar };
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
    .expect("the template is constant and a test draws it")
    .progress_chars("━━╌")
}

fn step_style() -> ProgressStyle {
    ProgressStyle::with_template("{msg} {spinner}")
        .expect("the template is constant and a test draws it")
        .tick_strings(&["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "✓"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::{InMemoryTerm, ProgressDrawTarget};

    #[test]
    fn bars_and_steps_are_drawn() {
        let screen = InMemoryTerm::new(10, 100);
        let mut bars = Bars::new();
        bars.all.set_draw_target(ProgressDrawTarget::term_like(Box::new(screen.clone())));
        let blob = |completed| ProgressLine {
            status: "pulling 970aa74c0a90".into(),
            digest: Some("sha256:970aa74c0a90".into()),
            total: Some(1000),
            completed: Some(completed),
        };
        bars.update(&ProgressLine::status("pulling manifest"));
        bars.update(&blob(250));
        bars.update(&blob(1000));
        bars.update(&ProgressLine::status("success"));
        bars.finish();
        let text = screen.contents();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(lines[0], "pulling manifest ✓");
        assert!(lines[1].starts_with("pulling 970aa74c0a90 100% ━"), "{text}");
        assert_eq!(lines[2], "success ✓");
    }
}
