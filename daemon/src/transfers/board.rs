//! Where a transfer stands: the latest line of every step and blob.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dsk_registry::{Digest, Progress};
use tokio::sync::watch;

use super::TransferError;

/// The state of one transfer.
#[derive(Debug)]
pub(super) struct Board {
    lines: Mutex<Lines>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Lines {
    entries: Vec<Entry>,
    version: u64,
    end: Option<End>,
}

#[derive(Debug)]
struct Entry {
    line: Progress,
    changed: u64,
    appeared: u64,
}

type End = Result<(), Arc<TransferError>>;

/// What changed since a caller last looked, the oldest change first.
#[derive(Debug)]
pub(super) struct News {
    pub(super) lines: Vec<Progress>,
    pub(super) version: u64,
    pub(super) end: Option<End>,
}

impl Default for Board {
    fn default() -> Board {
        Board { lines: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl Board {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a line; it takes the place of the one about the same step or blob.
    pub(super) fn put(&self, line: Progress) {
        let mut lines = self.lines();
        lines.version += 1;
        let changed = lines.version;
        let same = lines.entries.iter_mut().find(|entry| subject(&entry.line) == subject(&line));
        match same {
            Some(entry) => (entry.line, entry.changed) = (line, changed),
            None => lines.entries.push(Entry { line, changed, appeared: changed }),
        }
        self.changes.send_replace(changed);
    }

    /// Notes the end; the first one counts.
    pub(super) fn end(&self, end: End) {
        let mut lines = self.lines();
        lines.version += 1;
        lines.end.get_or_insert(end);
        self.changes.send_replace(lines.version);
    }

    /// Tells of every change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn since(&self, version: u64) -> News {
        let lines = self.lines();
        let mut news: Vec<_> = lines.entries.iter().filter(|e| e.changed > version).collect();
        news.sort_by_key(|entry| entry.changed);
        News {
            lines: news.into_iter().map(|entry| entry.line.clone()).collect(),
            version: lines.version,
            end: lines.end.clone(),
        }
    }

    /// Whether a step or blob appeared, or the end came, rather than new figures of an old one.
    pub(super) fn has_step_since(&self, version: u64) -> bool {
        let lines = self.lines();
        lines.end.is_some() || lines.entries.iter().any(|entry| entry.appeared > version)
    }
}

/// What a line is about; every note is about something else.
fn subject(line: &Progress) -> (std::mem::Discriminant<Progress>, Option<Digest>) {
    let digest = match line {
        Progress::Note(text) => Some(Digest::of(text.as_bytes())),
        Progress::Blob { digest, .. }
        | Progress::Verifying { digest }
        | Progress::Pushing { digest, .. } => Some(*digest),
        _ => None,
    };
    (std::mem::discriminant(line), digest)
}
