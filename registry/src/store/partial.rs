//! A blob that arrives in any order: a file with holes, and a journal of what the disk has of it.
//!
//! Bytes are written where they belong. [`Partial::sync`] makes what was written durable, then records it,
//! in that order. What it takes to get the final name is the digest of all bytes, which the caller
//! computes as they arrive.

use super::{
    Store, StoreError, durable, guard,
    ingest::Claim,
    journal::{Entry, Journal},
};
use crate::{Digest, digest::HashState, extents::Extents, failpoints::step};
use rustix::{fs::SeekFrom, io::Errno};
use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, Mutex},
};

/// The partial file of one blob, held by one transfer at a time.
#[derive(Debug)]
pub(crate) struct Partial {
    file: File,
    path: PathBuf,
    size: u64,
    /// None for a blob so small that nothing is lost with it.
    journal: Option<Arc<Journal>>,
    state: Mutex<State>,
    claim: Claim,
}

#[derive(Debug, Default)]
struct State {
    /// What the file holds, durable or not.
    written: Extents,
    validator: Option<String>,
    /// Of all bytes, once they are hashed.
    marks: Vec<HashState>,
}

impl Store {
    /// Opens the journal, and drops the entries of files that are gone.
    pub(super) fn journal(&self) -> Result<Arc<Journal>, StoreError> {
        let mut opened = guard(&self.0.journal);
        if let Some(journal) = &*opened {
            return Ok(Arc::clone(journal));
        }
        let journal = Arc::new(Journal::open(&self.paths().journal())?);
        for digest in journal.digests()? {
            if !self.paths().partial(&digest).exists() {
                journal.forget(&digest)?;
            }
        }
        for digest in journal.marked()? {
            // A damaged blob that was put aside needs its marks most.
            let paths = [self.paths().blob(&digest), self.paths().quarantined(&digest, 0)];
            if !paths.iter().any(|path| path.exists()) {
                journal.forget_marks(&digest)?;
            }
        }
        *opened = Some(Arc::clone(&journal));
        Ok(journal)
    }

    /// Begins a blob of `size` bytes, or goes on with one. With `journaled`, what is synced survives any
    /// crash; without, at most a beginning of the file does.
    pub(crate) fn partial(
        &self,
        digest: &Digest,
        size: u64,
        journaled: bool,
    ) -> Result<Partial, StoreError> {
        self.check_writable()?;
        let claim = Claim::new(self, digest)?;
        self.drop_foreign_partial(digest)?;
        let journal = (journaled || self.paths().journal().exists()).then(|| self.journal());
        let journal = journal.transpose()?;
        let entry = journal.as_ref().map(|journal| journal.load(digest)).transpose()?.flatten();
        let path = self.paths().partial(digest);
        let file = durable::open_own(&path)?;
        step("blob-created");
        let state = Mutex::new(State::default());
        let journal = journal.filter(|_| journaled || entry.is_some());
        let partial = Partial { file, path, size, journal, state, claim };
        partial.recall(entry)?;
        Ok(partial)
    }
}

impl Partial {
    /// Finds out what an earlier transfer left, and makes the entry that the first write needs.
    fn recall(&self, entry: Option<Entry>) -> Result<(), StoreError> {
        let length = self.file.metadata().map_err(|error| self.error(error))?.len();
        let same = entry.filter(|entry| entry.size == self.size);
        let (written, validator) = match same {
            _ if length > self.size => (Extents::default(), None),
            Some(entry) => {
                let mut there = entry.durable;
                there.remove(length..u64::MAX);
                (there, entry.validator)
            }
            // Nobody recorded anything: a beginning without holes may be good, its digest will tell.
            None => (Extents::of(0..self.first_hole(length)?), None),
        };
        if written.is_empty() && length > 0 {
            durable::set_len(&self.file, &self.path, 0)?;
        }
        *guard(&self.state) = State { written, validator, marks: Vec::new() };
        if self.journal.is_some() {
            // The name must be durable before an entry may say what it leads to.
            if let Some(folder) = self.path.parent() {
                durable::sync_folder(folder)?;
            }
            self.sync()?;
            step("blob-journaled");
        }
        Ok(())
    }

    /// Where nothing is there yet, begins with what is right of a damaged blob that was put aside, as much
    /// of it as is copied before `stop` says so.
    pub(crate) fn salvage(&self, stop: &dyn Fn() -> bool) -> Result<(), StoreError> {
        let Some(journal) = self.journal.as_ref().filter(|_| self.written().is_empty()) else {
            return Ok(());
        };
        let (blob, into) = ((&self.claim.digest, self.size), (&self.file, self.path.as_path()));
        let right = self.claim.store.salvage(blob, journal, into, stop)?;
        if !right.is_empty() {
            guard(&self.state).written = right;
            self.sync()?;
        }
        Ok(())
    }

    /// The bytes before the first hole.
    fn first_hole(&self, length: u64) -> Result<u64, StoreError> {
        match rustix::fs::seek(&self.file, SeekFrom::Hole(0)) {
            Ok(hole) => Ok(hole.min(length)),
            // Past the end, or a file system that does not know.
            Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => Ok(length),
            Err(error) => Err(self.error(error.into())),
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// What is there.
    pub(crate) fn written(&self) -> Extents {
        guard(&self.state).written.clone()
    }

    /// Where the written range that holds the byte at `position` ends.
    pub(crate) fn written_until(&self, position: u64) -> Option<u64> {
        guard(&self.state).written.covered_until(position)
    }

    /// What the source said of the version that the bytes are of.
    pub(crate) fn validator(&self) -> Option<String> {
        guard(&self.state).validator.clone()
    }

    /// Notes the version; the next sync records it.
    pub(crate) fn set_validator(&self, validator: Option<String>) {
        guard(&self.state).validator = validator;
    }

    /// Notes where the hash of all bytes stood on its way.
    pub(crate) fn set_marks(&self, marks: Vec<HashState>) {
        guard(&self.state).marks = marks;
    }

    /// Writes bytes where they belong. After an error they do not count as written.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        durable::write_at(&self.file, &self.path, bytes, offset)?;
        guard(&self.state).written.insert(offset..offset + bytes.len() as u64);
        step("blob-written");
        Ok(())
    }

    /// Reads back what was written.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), StoreError> {
        self.file.read_exact_at(bytes, offset).map_err(|error| self.error(error))
    }

    /// Waits until the disk has what was written so far, then records it. Does nothing for a blob that
    /// has no journal.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let (durable, validator) = {
            let state = guard(&self.state);
            (state.written.clone(), state.validator.clone())
        };
        if !durable.is_empty() {
            durable::sync_data(&self.file, &self.path)?;
        }
        step("range-synced");
        let entry = Entry { size: self.size, validator, durable };
        journal.save(&self.claim.digest, &entry)?;
        step("range-recorded");
        Ok(())
    }

    /// Gives up all bytes but these.
    pub(crate) fn keep(&self, kept: Extents) -> Result<(), StoreError> {
        if kept.is_empty() {
            durable::set_len(&self.file, &self.path, 0)?;
        }
        guard(&self.state).written = kept;
        self.sync()
    }

    /// Publishes the blob, whose bytes hash to `got`. On a mismatch everything stays as it is.
    pub(crate) fn publish(&self, got: Digest) -> Result<(), StoreError> {
        let expected = self.claim.digest;
        if got != expected || !guard(&self.state).written.covers(&(0..self.size)) {
            return Err(StoreError::DigestMismatch { expected, got });
        }
        durable::set_len(&self.file, &self.path, self.size)?;
        durable::publish(&self.file, &self.path, &self.claim.store.paths().blob(&expected))?;
        self.save_marks();
        self.forget()?;
        Ok(())
    }

    /// Losing them costs a repair some bytes, so an error is not one of the blob's.
    fn save_marks(&self) {
        let marks = std::mem::take(&mut guard(&self.state).marks);
        let journal = self.journal.as_ref().filter(|_| !marks.is_empty());
        let saved = journal.map(|journal| journal.save_marks(&self.claim.digest, &marks));
        if let Some(Err(error)) = saved {
            tracing::warn!(%error, "a repair of this blob would fetch all of it");
        }
    }

    /// Deletes the file and what the journal says of it.
    pub(crate) fn discard(&self) -> Result<(), StoreError> {
        durable::remove(&self.path)?;
        self.forget()
    }

    fn forget(&self) -> Result<(), StoreError> {
        if let Some(journal) = &self.journal {
            journal.forget(&self.claim.digest)?;
            step("blob-forgotten");
        }
        Ok(())
    }

    fn error(&self, error: std::io::Error) -> StoreError {
        StoreError::io(&self.path, error)
    }
}
