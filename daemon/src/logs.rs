//! The last lines of the log, kept in memory for `dsk logs`.
//!
//! [`Ring`] is a layer of the program's tracing subscriber beside the one that writes to stderr, so
//! it holds what the log filter lets through, the lines of runners among it. It is bounded in lines
//! and in bytes; a reader that is slower than the log misses lines, and sees it by their numbers.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines that are kept.
const LINES_MAX: usize = 2000;
/// Bytes that they may take together.
const BYTES_MAX: usize = 1 << 20;
/// A longer line is cut.
const LINE_BYTES_MAX: usize = 4096;
/// What a line takes beside its text: the entry, and what an allocation costs.
const LINE_BYTES_OVERHEAD: usize = size_of::<Line>() + 32;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Counts up by one from line to line.
    pub number: u64,
    /// When it was written.
    pub time: Timestamp,
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    pub level: &'static str,
    /// Where it comes from: a module, or the name of a kind of event.
    pub target: String,
    /// The model it is about, when it says so.
    pub model: Option<String>,
    /// The message, and the event's other fields as `name=value`.
    pub text: String,
}

/// The last lines. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Ring(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lines: Mutex<Lines>,
    /// The number of the last line.
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<Line>,
    bytes: usize,
    next: u64,
}

impl Default for Inner {
    fn default() -> Inner {
        Inner { lines: Mutex::default(), last: watch::Sender::new(0) }
    }
}

impl Line {
    fn bytes(&self) -> usize {
        let model = self.model.as_ref().map_or(0, String::len);
        self.text.len() + self.target.len() + model + LINE_BYTES_OVERHEAD
    }

    /// Whether a reader who asked for `model`, or for everything, wants it.
    fn concerns(&self, model: Option<&str>) -> bool {
        model.is_none_or(|model| self.model.as_deref() == Some(model))
    }
}

impl Ring {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        // Whole between any two statements that hold the lock.
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, mut line: Line) {
        cut(&mut line.text);
        line.text.shrink_to_fit();
        let mut lines = self.lines();
        lines.next += 1;
        line.number = lines.next;
        lines.bytes += line.bytes();
        lines.kept.push_back(line);
        while lines.kept.len() > LINES_MAX || lines.bytes > BYTES_MAX {
            let Some(oldest) = lines.kept.pop_front() else { break };
            lines.bytes -= oldest.bytes();
        }
        let last = lines.next;
        drop(lines);
        self.0.last.send_replace(last);
    }

    /// The last `count` lines about `model`, or about anything, the oldest first; and the number
    /// of the last line there is.
    #[must_use]
    pub fn tail(&self, count: usize, model: Option<&str>) -> (Vec<Line>, u64) {
        let lines = self.lines();
        let wanted = lines.kept.iter().rev().filter(|line| line.concerns(model)).take(count);
        let mut wanted: Vec<Line> = wanted.cloned().collect();
        wanted.reverse();
        (wanted, lines.next)
    }

    /// The lines after the one of this number, and the number of the last line there is.
    #[must_use]
    pub fn since(&self, number: u64, model: Option<&str>) -> (Vec<Line>, u64) {
        let lines = self.lines();
        let new = lines.kept.iter().filter(|line| line.number > number && line.concerns(model));
        (new.cloned().collect(), lines.next)
    }

    /// Tells the number of the last line, and every change of it.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.last.subscribe()
    }
}

/// Cuts a text that is too long, between two characters.
fn cut(text: &mut String) {
    if text.len() > LINE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(LINE_BYTES_MAX));
        text.push('…');
    }
}

impl<S: Subscriber> Layer<S> for Ring {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let about = event.metadata();
        self.push(Line {
            number: 0,
            time: Timestamp::now(),
            level: about.level().as_str(),
            target: about.target().to_owned(),
            model: fields.model,
            text: format!("{}{}", fields.message, fields.others),
        });
    }
}

/// The fields of an event.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    model: Option<String>,
    others: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            "model" => self.model = Some(value.to_owned()),
            name => self.other(name, format_args!("{value}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "model" => self.model = Some(format!("{value:?}")),
            name => self.other(name, format_args!("{value:?}")),
        }
    }
}

impl Fields {
    fn other(&mut self, name: &str, value: fmt::Arguments<'_>) {
        // Writing into a string does not fail.
        let _ = write!(self.others, " {name}={value}");
    }
}

#[cfg(test)]
mod tests;
