//! A file that grows at its end and is hashed as it grows: what an ingest and an upload have in common.

use super::{StoreError, durable};
use crate::{Digest, Hasher, failpoints::step};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

/// Bytes read at once when a partial file is hashed again.
const REHASH_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    path: PathBuf,
    hasher: Hasher,
    offset: u64,
}

impl Spool {
    /// Opens the file, and hashes what it already holds: a crash may have left anything there, so only
    /// the bytes themselves say how far it came.
    pub(super) fn open(path: PathBuf) -> Result<Spool, StoreError> {
        let file = durable::open_own(&path)?;
        step("blob-created");
        let mut spool = Spool { file, path, hasher: Hasher::new(), offset: 0 };
        spool.rehash()?;
        Ok(spool)
    }

    fn rehash(&mut self) -> Result<(), StoreError> {
        let mut buffer = vec![0; REHASH_BYTES];
        loop {
            let count = (&self.file).read(&mut buffer).map_err(|error| self.error(error))?;
            if count == 0 {
                return Ok(());
            }
            self.hasher.update(&buffer[..count]);
            self.offset += count as u64;
        }
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn reader(&self) -> Result<File, StoreError> {
        self.file.try_clone().map_err(|error| self.error(error))
    }

    /// Adds bytes at the end. After an error nothing counts as written, and the same bytes may come again.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        durable::write_at(&self.file, &self.path, bytes, self.offset)?;
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
        step("blob-written");
        Ok(())
    }

    /// Forgets every byte.
    pub(super) fn restart(&mut self) -> Result<(), StoreError> {
        durable::set_len(&self.file, &self.path, 0)?;
        self.hasher = Hasher::new();
        self.offset = 0;
        Ok(())
    }

    /// Verifies the bytes and gives the file its final name, in the order that survives a crash at any
    /// point. Bytes that are not `expected` are deleted.
    pub(super) fn publish(self, expected: &Digest, target: &Path) -> Result<(), StoreError> {
        let got = self.hasher.clone().finish();
        if got != *expected {
            self.remove();
            return Err(StoreError::DigestMismatch { expected: *expected, got });
        }
        // A failed append may have left bytes past the end that the hash does not know.
        durable::set_len(&self.file, &self.path, self.offset)?;
        durable::publish(&self.file, &self.path, target)
    }

    /// Deletes the file. Failing to is harmless: a prune takes it later.
    pub(super) fn remove(&self) {
        if let Err(error) = durable::remove(&self.path) {
            tracing::warn!(%error, "cannot remove a partial file");
        }
    }

    fn error(&self, error: std::io::Error) -> StoreError {
        StoreError::io(&self.path, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_counts_nothing_as_written() {
        let path = PathBuf::from("/dev/full");
        let file = File::options().write(true).open(&path).unwrap();
        let mut spool = Spool { file, path, hasher: Hasher::new(), offset: 0 };
        let error = spool.append(b"bytes").unwrap_err();
        assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
        assert_eq!(spool.offset(), 0);
        assert_eq!(spool.hasher.finish(), Digest::of(b""));
    }
}
