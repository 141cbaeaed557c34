//! The content store: blobs under their hash, manifests under their name, in Ollama's layout.
//!
//! Everything is plain blocking file I/O; async callers use `spawn_blocking`. The order of a pull makes
//! any prefix of it safe to lose: bytes are hashed as they go to a partial file; once they verify, fsync,
//! rename to the final name, fsync of the folder; the manifest comes last and by one rename. So a final
//! name always means the right bytes, and a listed model always has its blobs.

mod adoption;
mod blobs;
#[cfg(test)]
pub(crate) mod disk;
mod durable;
mod error;
mod gc;
mod import;
mod ingest;
mod journal;
mod leases;
mod links;
mod lock;
mod manifests;
pub(crate) mod marks;
mod partial;
mod paths;
#[cfg(test)]
mod races;
mod removal;
mod shelf;
mod spool;
mod temporary;
#[cfg(test)]
mod tests;
mod tree;
mod unfinished;
mod usage;
mod verify;

pub use error::StoreError;
pub use gc::{Collected, Garbage, GarbageKind, GcOptions};
pub use import::ImportMode;
pub use ingest::Ingest;
pub(crate) use ingest::Upload;
pub use leases::Pin;
pub use lock::StoreLock;
pub use manifests::{Stamp, StoredManifest};
pub(crate) use partial::Partial;
pub(crate) use shelf::Place;
pub use unfinished::{PartialBlob, Unfinished};
pub use usage::{ModelUsage, Usage};
pub use verify::{BadBlob, Checking, Verification};

use crate::Digest;
use journal::Journal;
use paths::Paths;
use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

/// A folder of models; a clone is another handle to the same store.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    paths: Paths,
    /// Whether this process may change anything below the root.
    writable: bool,
    /// Blobs with a writer: one digest has one partial file.
    writers: Mutex<HashSet<Digest>>,
    /// Blobs that a transfer or a loaded model relies on, with the number of their pins.
    pins: Mutex<HashMap<Digest, usize>>,
    /// Blobs that nothing names any more and that were in use when their model was removed.
    condemned: Mutex<HashSet<Digest>>,
    /// Held to change which manifests there are, and to delete what none of them names.
    manifests: Mutex<()>,
    /// The names of the manifests.
    tree: tree::Tree,
    /// Numbers temporary files.
    temporaries: AtomicU64,
    /// Those that are being written.
    live: Mutex<HashSet<PathBuf>>,
    /// Opened by the first transfer that needs it.
    journal: Mutex<Option<Arc<Journal>>>,
}

impl Store {
    /// Opens the store at `root`, making its folders when they are missing.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        let paths = Paths::new(root);
        for folder in [paths.root(), &paths.blobs(), &paths.manifests()] {
            durable::create_folders(folder)?;
            durable::check_writable(folder)?;
        }
        Ok(Store::with(paths, true))
    }

    fn with(paths: Paths, writable: bool) -> Store {
        Store(Arc::new(Inner {
            paths,
            writable,
            writers: Mutex::default(),
            pins: Mutex::default(),
            condemned: Mutex::default(),
            manifests: Mutex::default(),
            tree: tree::Tree::default(),
            temporaries: AtomicU64::default(),
            live: Mutex::default(),
            journal: Mutex::default(),
        }))
    }

    /// The folder that the store is.
    pub fn root(&self) -> &Path {
        self.paths().root()
    }

    /// Takes the store for this process; the lock goes with the value, or with the process.
    pub fn lock(&self) -> Result<StoreLock, StoreError> {
        StoreLock::acquire(&self.paths().lock())
    }

    /// The bytes that the file system has left for us.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        let path = self.paths().blobs();
        let stat =
            rustix::fs::statvfs(&path).map_err(|error| StoreError::io(&path, error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn paths(&self) -> &Paths {
        &self.0.paths
    }
}

/// Locks a mutex whose contents are whole between any two statements, so a panic elsewhere is no reason
/// to stop.
pub(crate) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
