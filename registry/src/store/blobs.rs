//! Committed blobs: reading, and the short way in for bytes that are in memory.

use super::{Store, StoreError};
use crate::Digest;
use std::{
    fs::{self, File},
    io::{ErrorKind, Read},
    path::PathBuf,
};

impl Store {
    /// Whether the blob is there.
    pub fn has(&self, digest: &Digest) -> bool {
        matches!(self.blob_size(digest), Ok(Some(_)))
    }

    /// The blob's size, None when it is not there. A linked file must be as it was when it was linked.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        for path in [self.paths().blob(digest), self.paths().old_blob(digest)] {
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => return Ok(Some(metadata.len())),
                Ok(_) => {
                    let reason = "it is not a file".to_owned();
                    return Err(StoreError::Corrupt { path, reason });
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::io(&path, error)),
            }
        }
        self.linked(digest)?.map(|link| link.check()).transpose()
    }

    /// Where the blob is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        let own = self.paths().blob(digest);
        if own.exists() {
            return own;
        }
        let old = self.paths().old_blob(digest);
        if old.exists() {
            return old;
        }
        self.linked(digest).ok().flatten().map_or(own, |link| link.path)
    }

    /// Opens the blob for reading.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        // Asked first, so that what is not a plain file is never opened.
        self.blob_size(digest)?.ok_or_else(|| StoreError::blob_not_found(digest))?;
        let path = self.blob_path(digest);
        File::open(&path).map_err(|error| StoreError::io(&path, error))
    }

    /// Reads a small blob whole, and verifies it.
    pub fn read_blob(&self, digest: &Digest, max_bytes: u64) -> Result<Vec<u8>, StoreError> {
        let got = self.blob_size(digest)?.ok_or_else(|| StoreError::blob_not_found(digest))?;
        if got > max_bytes {
            return Err(StoreError::SizeMismatch { digest: *digest, expected: max_bytes, got });
        }
        let (path, mut bytes) = (self.blob_path(digest), Vec::new());
        let read = self.open_blob(digest)?.take(max_bytes).read_to_end(&mut bytes);
        read.map_err(|error| StoreError::io(&path, error))?;
        let found = Digest::of(&bytes);
        if found == *digest {
            return Ok(bytes);
        }
        Err(StoreError::Corrupt { path, reason: format!("its bytes hash to {found}") })
    }

    /// Stores bytes under their digest. Bytes that are there already are not written again.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if self.blob_size(&digest)? != Some(bytes.len() as u64) {
            let mut upload = self.upload()?;
            upload.write(bytes)?;
            upload.commit(&digest)?;
        }
        Ok(digest)
    }
}
