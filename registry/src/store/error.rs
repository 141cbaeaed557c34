//! What can go wrong in the store, by what a caller does about it.

use crate::{Digest, ManifestError};
use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

/// A failed operation of the store; each names the file, the blob or the model.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such model or blob.
    #[error("{what} is not in the store")]
    NotFound {
        /// The model's name or the blob's digest.
        what: String,
    },
    /// The bytes are not the ones asked for.
    #[error("the bytes of {expected} hash to {got}; they were thrown away")]
    DigestMismatch {
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of the bytes.
        got: Digest,
    },
    /// A blob is shorter or longer than a manifest says.
    #[error("{digest} has {got} bytes where {expected} were expected; pull the model again")]
    SizeMismatch {
        /// The blob.
        digest: Digest,
        /// The size that the manifest, or the caller's limit, gives.
        expected: u64,
        /// The size that it has.
        got: u64,
    },
    /// The disk, or the quota, is full.
    #[error("no space left for {}; free some, or set another models folder", path.display())]
    NoSpace {
        /// What was being written.
        path: PathBuf,
    },
    /// The system refuses this user a file or a folder.
    #[error("access to {} is refused: {source}; check its owner and permissions", path.display())]
    Refused {
        /// The file or folder.
        path: PathBuf,
        /// The system's word for it.
        source: io::Error,
    },
    /// The store is another program's, and was not given to us.
    #[error(
        "{} belongs to another program and is only read: start the daemon with --adopt (adopt = true, \
         DSK_ADOPT=1) to let dsk write to it, or choose another models folder", path.display()
    )]
    NotAdopted {
        /// The store's folder.
        path: PathBuf,
    },
    /// A file that a model was linked to cannot be used.
    #[error("the linked file {} {reason}; link it again with: dsk link", path.display())]
    Link {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process owns the store.
    #[error("{} is held by process {pid}; stop it, or use another models folder", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The owner; 0 when it left no id.
        pid: u32,
    },
    /// Another transfer of this process is writing the blob.
    #[error("{digest} is being written by another transfer")]
    Busy {
        /// The blob.
        digest: Digest,
    },
    /// A file of the store does not hold what it should.
    #[error("{} is damaged: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Bytes that were to be stored as a manifest are none.
    #[error("not a manifest that can be stored: {0}")]
    Manifest(#[from] ManifestError),
    /// Any other failure of the file system.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's word for it.
        source: io::Error,
    },
}

impl StoreError {
    /// Sorts a failure of the file system at `path`.
    pub(crate) fn io(path: &Path, source: io::Error) -> StoreError {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::NoSpace { path },
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                StoreError::Refused { path, source }
            }
            _ => StoreError::Io { path, source },
        }
    }

    pub(crate) fn blob_not_found(digest: &Digest) -> StoreError {
        StoreError::NotFound { what: digest.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_closed_folder_are_told_apart() {
        let sorted = |kind: ErrorKind| StoreError::io(Path::new("/m/x"), kind.into());
        assert!(matches!(sorted(ErrorKind::StorageFull), StoreError::NoSpace { .. }));
        assert!(matches!(sorted(ErrorKind::QuotaExceeded), StoreError::NoSpace { .. }));
        assert!(matches!(sorted(ErrorKind::ReadOnlyFilesystem), StoreError::Refused { .. }));
        let read = sorted(ErrorKind::PermissionDenied).to_string();
        assert!(read.starts_with("access to /m/x is refused: "), "{read}");
        assert!(sorted(ErrorKind::BrokenPipe).to_string().starts_with("/m/x: "));
    }
}
