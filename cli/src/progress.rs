//! Progress of transfers on stderr: bars on a terminal, a line every few seconds elsewhere, the
//! daemon's own lines on stdout with `--json`.

mod bars;
mod lines;

use std::time::Instant;

use dsk_daemon_api::ollama::ProgressLine;

use crate::terminal::Terminal;

/// Shows the progress lines of one request.
#[derive(Debug)]
pub(crate) enum Progress {
    Bars(bars::Bars),
    Lines(lines::Lines),
    Json,
}

impl Progress {
    /// The way of showing that fits the terminal. CI systems give a terminal that nobody watches.
    pub(crate) fn new(terminal: &Terminal, json: bool) -> Progress {
        let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
        match json {
            true => Progress::Json,
            false if terminal.err_is_tty() && !ci => Progress::Bars(bars::Bars::new()),
            false => Progress::Lines(lines::Lines::new(Instant::now())),
        }
    }

    /// Shows one line.
    pub(crate) fn update(
        &mut self,
        terminal: &mut Terminal,
        line: &ProgressLine,
    ) -> anyhow::Result<()> {
        match self {
            Progress::Bars(bars) => bars.update(line),
            Progress::Lines(lines) => {
                for text in lines.update(line, Instant::now()) {
                    terminal.note(&text);
                }
            }
            Progress::Json => terminal.json(line)?,
        }
        Ok(())
    }

    /// Leaves the terminal in order, whatever happened.
    pub(crate) fn finish(&mut self) {
        if let Progress::Bars(bars) = self {
            bars.finish();
        }
    }
}
