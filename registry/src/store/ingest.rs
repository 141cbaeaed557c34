//! Uncommitted content: an [`Ingest`] knows what its bytes must hash to, an [`Upload`] learns it last.

use super::{Store, StoreError, durable, guard, spool::Spool, temporary::Temporary};
use crate::Digest;

/// What stat(2) counts a file's space in, whatever the file system.
const STAT_BLOCK_BYTES: u64 = 512;

/// A blob that is arriving. Dropping it keeps the partial file for a later resume.
#[derive(Debug)]
pub struct Ingest {
    spool: Spool,
    claim: Claim,
}

/// The right to write one digest's partial file, one holder in a process at a time.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) store: Store,
    pub(super) digest: Digest,
}

impl Claim {
    pub(super) fn new(store: &Store, digest: &Digest) -> Result<Claim, StoreError> {
        if guard(&store.0.writers).insert(*digest) {
            Ok(Claim { store: store.clone(), digest: *digest })
        } else {
            Err(StoreError::Busy { digest: *digest })
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        guard(&self.store.0.writers).remove(&self.digest);
    }
}

impl Store {
    /// Starts, or resumes, writing a blob. What an earlier ingest left is hashed again first, which takes
    /// a second or so per gigabyte.
    pub fn ingest(&self, digest: &Digest) -> Result<Ingest, StoreError> {
        self.check_writable()?;
        let claim = Claim::new(self, digest)?;
        self.drop_foreign_partial(digest)?;
        self.drop_holes(digest)?;
        let spool = Spool::open(self.paths().partial(digest))?;
        Ok(Ingest { spool, claim })
    }

    /// The bytes that a partial file of the blob takes on the disk, its holes left out.
    pub fn partial_size(&self, digest: &Digest) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let there = |file: std::fs::Metadata| file.len().min(file.blocks() * STAT_BLOCK_BYTES);
        std::fs::metadata(self.paths().partial(digest)).map_or(0, there)
    }

    /// Cuts a partial file with holes off at the first one: an ingest only adds at the end.
    fn drop_holes(&self, digest: &Digest) -> Result<(), StoreError> {
        if !self.paths().journal().exists() {
            return Ok(());
        }
        let journal = self.journal()?;
        let Some(entry) = journal.load(digest)? else { return Ok(()) };
        let path = self.paths().partial(digest);
        if path.exists() {
            let file = durable::open_own(&path)?;
            durable::set_len(&file, &path, entry.durable.covered_until(0).unwrap_or(0))?;
        }
        journal.forget(digest)
    }

    /// Ollama's partial files have holes, and a journal that says where. We cannot resume one, and
    /// writing into it would make the journal lie; so both go.
    pub(super) fn drop_foreign_partial(&self, digest: &Digest) -> Result<(), StoreError> {
        let mut number = 0;
        while durable::remove(&self.paths().foreign_journal(digest, number))? {
            durable::remove(&self.paths().partial(digest))?;
            number += 1;
        }
        Ok(())
    }

    /// Starts writing bytes whose digest comes at the end.
    pub(crate) fn upload(&self) -> Result<Upload, StoreError> {
        self.check_writable()?;
        let temporary = self.temporary();
        let spool = Spool::open(temporary.path().to_owned())?;
        Ok(Upload { store: self.clone(), spool, _temporary: temporary })
    }
}

impl Ingest {
    /// The bytes that are there; the next write comes after them.
    pub fn offset(&self) -> u64 {
        self.spool.offset()
    }

    /// Adds the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.spool.append(bytes)
    }

    /// Throws away what is there and starts over.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        self.spool.restart()
    }

    /// Verifies the bytes and publishes the blob. On a mismatch the partial file is gone.
    pub fn commit(self) -> Result<(), StoreError> {
        let Ingest { spool, claim } = self;
        spool.publish(&claim.digest, &claim.store.paths().blob(&claim.digest))
    }

    /// Deletes the partial file.
    pub fn discard(self) {
        self.spool.remove();
    }
}

/// Bytes that someone sends us. They are gone with it, unless [`Upload::commit`] published them.
#[derive(Debug)]
pub(crate) struct Upload {
    store: Store,
    spool: Spool,
    _temporary: Temporary,
}

impl Upload {
    pub(crate) fn offset(&self) -> u64 {
        self.spool.offset()
    }

    /// A second handle on the bytes, for reading them at their offsets while more arrive.
    pub(crate) fn reader(&self) -> Result<std::fs::File, StoreError> {
        self.spool.reader()
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.spool.append(bytes)
    }

    pub(crate) fn commit(self, digest: &Digest) -> Result<(), StoreError> {
        self.spool.publish(digest, &self.store.paths().blob(digest))
    }
}
