//! The terminal: data goes to stdout, progress and errors go to stderr, colour only where wanted.
//!
//! This is the only module that writes to the standard streams.

use std::io::{self, IsTerminal as _, Write};
#[cfg(test)]
use std::sync::{Arc, Mutex};

use serde::Serialize;

/// What [`Terminal`] says when its reader has gone away (`dsk list | head -1`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutputClosed;

impl std::fmt::Display for OutputClosed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the output was closed")
    }
}

impl std::error::Error for OutputClosed {}

/// The few styles used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Style {
    const fn code(self) -> &'static str {
        match self {
            Style::Dim => "2",
            Style::Red => "31",
            Style::Green => "32",
            Style::Yellow => "33",
            Style::Cyan => "36",
        }
    }
}

/// Where one stream goes and whether it takes colour.
struct Channel {
    sink: Box<dyn Write + Send>,
    tty: bool,
    colour: bool,
}

impl Channel {
    fn write(&mut self, text: &str) -> Result<(), OutputClosed> {
        // Any failure to write means the same to us: nobody reads this any more.
        self.sink
            .write_all(text.as_bytes())
            .and_then(|()| self.sink.flush())
            .map_err(|_| OutputClosed)
    }

    fn paint(&self, text: &str, style: Style) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", style.code()) } else { text.to_owned() }
    }
}

/// The three standard streams of this process.
pub(crate) struct Terminal {
    out: Channel,
    err: Channel,
    input_tty: bool,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal").field("out_tty", &self.out.tty).finish_non_exhaustive()
    }
}

/// Columns assumed where the terminal does not tell.
const COLUMNS_DEFAULT: usize = 80;

impl Terminal {
    /// The process's own streams, with colour as its environment asks.
    pub(crate) fn standard() -> Terminal {
        let env = |name: &str| std::env::var(name).ok();
        let (out_tty, err_tty) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Terminal {
            out: Channel {
                sink: Box::new(io::stdout()),
                tty: out_tty,
                colour: wants_colour(&env, out_tty),
            },
            err: Channel {
                sink: Box::new(io::stderr()),
                tty: err_tty,
                colour: wants_colour(&env, err_tty),
            },
            input_tty: io::stdin().is_terminal(),
        }
    }

    /// A terminal that is no terminal: both streams are kept for a test to read.
    #[cfg(test)]
    pub(crate) fn captured() -> (Terminal, Capture) {
        let capture = Capture::default();
        let channel =
            |buffer: &Shared| Channel { sink: Box::new(buffer.clone()), tty: false, colour: false };
        let terminal =
            Terminal { out: channel(&capture.out), err: channel(&capture.err), input_tty: false };
        (terminal, capture)
    }

    /// Writes data as it is.
    pub(crate) fn data(&mut self, text: &str) -> Result<(), OutputClosed> {
        self.out.write(text)
    }

    /// Writes one line of data.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), OutputClosed> {
        self.out.write(&format!("{text}\n"))
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string(value)?;
        Ok(self.line(&text)?)
    }

    /// Writes a value as JSON for a person to read.
    pub(crate) fn json_pretty(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        Ok(self.line(&text)?)
    }

    /// Writes one line to stderr. Where nobody reads it the work goes on all the same.
    pub(crate) fn note(&mut self, text: &str) {
        let _ = self.err.write(&format!("{text}\n"));
    }

    /// Styles text meant for stdout.
    pub(crate) fn paint(&self, text: &str, style: Style) -> String {
        self.out.paint(text, style)
    }

    /// Styles text meant for stderr.
    pub(crate) fn paint_err(&self, text: &str, style: Style) -> String {
        self.err.paint(text, style)
    }

    /// Whether stdout is a person's terminal.
    pub(crate) fn out_is_tty(&self) -> bool {
        self.out.tty
    }

    /// Whether stderr is a person's terminal.
    pub(crate) fn err_is_tty(&self) -> bool {
        self.err.tty
    }

    /// Whether stdin is a person's keyboard.
    pub(crate) fn input_is_tty(&self) -> bool {
        self.input_tty
    }

    /// Columns of the terminal on stdout.
    pub(crate) fn columns(&self) -> usize {
        rustix::termios::tcgetwinsize(io::stdout())
            .map(|size| usize::from(size.ws_col))
            .ok()
            .filter(|columns| *columns > 0)
            .unwrap_or(COLUMNS_DEFAULT)
    }
}

/// NO_COLOR beats CLICOLOR_FORCE beats CLICOLOR; without them colour is for terminals.
pub(crate) fn wants_colour(env: &dyn Fn(&str) -> Option<String>, tty: bool) -> bool {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    if set("NO_COLOR").is_some() {
        return false;
    }
    if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
        return true;
    }
    if set("CLICOLOR").is_some_and(|value| value == "0") {
        return false;
    }
    tty && set("TERM").is_none_or(|term| term != "dumb")
}

/// A buffer that a test and the terminal share.
#[cfg(test)]
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Vec<u8>>>);

#[cfg(test)]
impl Shared {
    /// What was written so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

#[cfg(test)]
impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut buffer = self.0.lock().map_err(|_| io::ErrorKind::BrokenPipe)?;
        buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a captured terminal was given.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct Capture {
    out: Shared,
    err: Shared,
}

#[cfg(test)]
impl Capture {
    pub(crate) fn out(&self) -> String {
        self.out.text()
    }

    pub(crate) fn err(&self) -> String {
        self.err.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_follows_the_environment() {
        type Variables = &'static [(&'static str, &'static str)];
        let cases: [(Variables, bool, bool); 8] = [
            (&[], true, true),
            (&[], false, false),
            (&[("NO_COLOR", "1")], true, false),
            (&[("NO_COLOR", "")], true, true),
            (&[("CLICOLOR_FORCE", "1")], false, true),
            (&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], true, false),
            (&[("CLICOLOR", "0")], true, false),
            (&[("TERM", "dumb")], true, false),
        ];
        for (vars, tty, expected) in cases {
            let env = |name: &str| {
                vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(wants_colour(&env, tty), expected, "{vars:?} tty={tty}");
        }
    }

    #[test]
    fn data_and_notes_go_to_their_own_streams() {
        let (mut terminal, capture) = Terminal::captured();
        terminal.line("data").unwrap();
        terminal.note("progress");
        assert_eq!((capture.out(), capture.err()), ("data\n".into(), "progress\n".into()));
    }
}
