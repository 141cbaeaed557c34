//! The disk as tests see it: every operation of a store in order, and any of them failing on demand.
//!
//! A test watches a folder. From then on each operation below it is noted before it happens, and the n-th
//! can be made to fail instead. [`Watch::after_power_loss`] builds what a disk would hold had the power
//! gone after any number of operations: nothing that was not synced, or only some of it.

use super::journal::{Entry, Journal};
use crate::Digest;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// One change that a program asks of the disk.
#[derive(Clone, Debug)]
pub(in crate::store) enum Op {
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    SetLength(PathBuf, u64),
    SyncFile(PathBuf),
    SyncFolder(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    /// SQLite's commits are durable when they return; what matters is their place in the order.
    Journal(Digest, Option<Entry>),
}

/// A watched folder.
#[derive(Debug)]
pub(crate) struct Watch {
    root: PathBuf,
    log: Mutex<Vec<Op>>,
    /// The number of the operation that fails, and how.
    fails: Option<(usize, io::ErrorKind)>,
}

static WATCHES: Mutex<Vec<Arc<Watch>>> = Mutex::new(Vec::new());

impl Watch {
    pub(crate) fn start(root: &Path, fails: Option<(usize, io::ErrorKind)>) -> Arc<Watch> {
        let watch = Arc::new(Watch { root: root.to_owned(), log: Mutex::default(), fails });
        WATCHES.lock().unwrap().push(Arc::clone(&watch));
        watch
    }

    pub(crate) fn stop(&self) {
        WATCHES.lock().unwrap().retain(|watch| watch.root != self.root);
    }

    pub(crate) fn operations(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    /// How many bytes the first `count` operations wrote to the file called `name`.
    pub(crate) fn bytes_written(&self, name: &str, count: usize) -> u64 {
        let log = self.log.lock().unwrap();
        let written = log.iter().take(count).map(|op| match op {
            Op::Write(path, _, bytes) if path.ends_with(name) => bytes.len() as u64,
            _ => 0,
        });
        written.sum()
    }

    fn note(&self, op: Op) -> io::Result<()> {
        let mut log = self.log.lock().unwrap();
        log.push(op);
        match self.fails {
            Some((at, kind)) if log.len() == at + 1 => Err(kind.into()),
            _ => Ok(()),
        }
    }

    /// Writes into `target` what is left after the first `count` operations and a power cut. Writes that
    /// were not synced are lost; with `torn`, every other one of them is not. The same goes for names.
    pub(crate) fn after_power_loss(&self, count: usize, torn: bool, target: &Path) {
        let log = self.log.lock().unwrap();
        let mut disk = Disk::default();
        log.iter().take(count).for_each(|op| disk.apply(op));
        for (path, bytes) in disk.left(torn) {
            let path = target.join(path.strip_prefix(&self.root).unwrap());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let journal = Journal::open(&target.join("dsk-transfers.db")).unwrap();
        for (digest, entry) in disk.journal {
            journal.save(&digest, &entry).unwrap();
        }
    }
}

/// Notes an operation at `path`; an error when it is to fail.
pub(in crate::store) fn note(path: &Path, op: impl FnOnce() -> Op) -> io::Result<()> {
    let watches = WATCHES.lock().unwrap().clone();
    match watches.iter().find(|watch| path.starts_with(&watch.root)) {
        Some(watch) => watch.note(op()),
        None => Ok(()),
    }
}

/// What the platters hold and what only the page cache does.
#[derive(Default)]
struct Disk {
    files: Vec<Contents>,
    /// Names as programs see them, and as the disk has them.
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    journal: BTreeMap<Digest, Entry>,
}

#[derive(Default)]
struct Contents {
    durable: Vec<u8>,
    /// Since the last sync.
    pending: Vec<Change>,
}

enum Change {
    Write(u64, Vec<u8>),
    SetLength(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::SetLength(length) => bytes.resize(*length as usize, 0),
            Change::Write(offset, new) => {
                let (start, end) = (*offset as usize, *offset as usize + new.len());
                bytes.resize(bytes.len().max(end), 0);
                bytes[start..end].copy_from_slice(new);
            }
        }
    }
}

impl Disk {
    fn file(&mut self, path: &Path) -> &mut Contents {
        let next = self.files.len();
        let index = *self.names.entry(path.to_owned()).or_insert(next);
        if index == next {
            self.files.push(Contents::default());
        }
        &mut self.files[index]
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(path) => drop(self.file(path)),
            Op::Write(path, offset, bytes) => {
                self.file(path).pending.push(Change::Write(*offset, bytes.clone()));
            }
            Op::SetLength(path, length) => {
                self.file(path).pending.push(Change::SetLength(*length));
            }
            Op::SyncFile(path) => {
                let file = self.file(path);
                let pending = std::mem::take(&mut file.pending);
                pending.iter().for_each(|change| change.apply(&mut file.durable));
            }
            Op::Rename(from, to) => {
                if let Some(index) = self.names.remove(from) {
                    self.names.insert(to.clone(), index);
                }
            }
            Op::Remove(path) => drop(self.names.remove(path)),
            Op::SyncFolder(folder) => {
                let here = |path: &Path| path.parent() == Some(folder);
                self.durable_names.retain(|path, _| !here(path));
                let now = self.names.iter().filter(|(path, _)| here(path));
                self.durable_names.extend(now.map(|(path, index)| (path.clone(), *index)));
            }
            Op::Journal(digest, Some(entry)) => {
                self.journal.insert(*digest, entry.clone());
            }
            Op::Journal(digest, None) => drop(self.journal.remove(digest)),
        }
    }

    fn left(&self, torn: bool) -> Vec<(PathBuf, Vec<u8>)> {
        let names = if torn { &self.names } else { &self.durable_names };
        let contents = |(path, index): (&PathBuf, &usize)| {
            let file = &self.files[*index];
            let mut bytes = file.durable.clone();
            let kept = file.pending.iter().step_by(2).filter(|_| torn);
            kept.for_each(|change| change.apply(&mut bytes));
            (path.clone(), bytes)
        };
        names.iter().map(contents).collect()
    }
}
