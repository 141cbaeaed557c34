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

    /// The blob's size, None when it is not there.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let path = self.blob_path(digest);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
            Ok(_) => Err(StoreError::Corrupt { path, reason: "it is not a file".to_owned() }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io(&path, error)),
        }
    }

    /// Where the blob is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.paths().blob(digest)
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
