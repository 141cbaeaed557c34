//! Temporary files, which go with the value that stands for them.

use super::{Store, durable, guard};
use std::path::{Path, PathBuf};

/// A path of its own for a file that this process writes. No collection takes the file however old it looks,
/// as a second name for a user's file does; unless it was renamed it is gone once the value is dropped.
#[derive(Debug)]
pub(super) struct Temporary {
    store: Store,
    path: PathBuf,
}

impl Store {
    /// A path for a temporary file that no other uses. One of the last process with this one's id, as every
    /// process of a container has, may lie there since a crash.
    pub(super) fn temporary(&self) -> Temporary {
        let mut live = guard(&self.0.live);
        loop {
            let number = self.0.temporaries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let path = self.paths().temporary(std::process::id(), number);
            if path.symlink_metadata().is_err() && live.insert(path.clone()) {
                return Temporary { store: self.clone(), path };
            }
        }
    }

    /// Whether this process still works on the temporary file.
    pub(super) fn is_live(&self, path: &Path) -> bool {
        guard(&self.0.live).contains(path)
    }
}

impl Temporary {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Failing to is harmless: a collection takes it later.
        if self.path.symlink_metadata().is_ok()
            && let Err(error) = durable::remove(&self.path)
        {
            tracing::warn!(%error, "cannot remove a temporary file");
        }
        guard(&self.store.0.live).remove(&self.path);
    }
}
