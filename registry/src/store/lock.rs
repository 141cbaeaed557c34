//! One process owns a store.
//!
//! The lock belongs to the open file description, so it ends with the process however that ends, and a
//! child that inherits no descriptor does not keep it. The file stays: deleting it would let two
//! processes lock two files of one name.

use super::{StoreError, durable};
use std::{
    fs::{self, File, TryLockError},
    io::Write,
    path::Path,
};

/// The ownership of a store; dropping it gives the store free.
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
}

impl StoreLock {
    pub(super) fn acquire(path: &Path) -> Result<StoreLock, StoreError> {
        let file = durable::open_own(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked { path: path.to_owned(), pid: owner(path) });
            }
            Err(TryLockError::Error(error)) => return Err(StoreError::io(path, error)),
        }
        let note = || {
            file.set_len(0)?;
            writeln!(&file, "{}", std::process::id())
        };
        note().map_err(|error| StoreError::io(path, error))?;
        Ok(StoreLock { _file: file })
    }
}

/// The process id in the lock file, 0 when there is none yet.
fn owner(path: &Path) -> u32 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
