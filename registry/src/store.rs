//! The content store: blobs under their hash, manifests under their name, in Ollama's layout.
//!
//! Everything is plain blocking file I/O; async callers use `spawn_blocking`. The order of a pull makes
//! any prefix of it safe to lose: bytes are hashed as they go to a partial file; once they verify, fsync,
//! rename to the final name, fsync of the folder; the manifest comes last and by one rename. So a final
//! name always means the right bytes, and a listed model always has its blobs.

mod blobs;
mod durable;
mod error;
mod gc;
mod ingest;
mod lock;
mod manifests;
mod paths;
mod shelf;
mod spool;
#[cfg(test)]
mod tests;

pub use error::StoreError;
pub use gc::Pruned;
pub use ingest::Ingest;
pub(crate) use ingest::Upload;
pub use lock::StoreLock;
pub use manifests::StoredManifest;
pub(crate) use shelf::Place;

use crate::Digest;
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
    /// Blobs with a writer: one digest has one partial file.
    writers: Mutex<HashSet<Digest>>,
    /// Blobs that a transfer relies on and no manifest names yet, with the number of their pins.
    pins: Mutex<HashMap<Digest, usize>>,
    /// Held to change which manifests there are, and to delete what none of them names.
    manifests: Mutex<()>,
    /// Numbers temporary files.
    temporaries: AtomicU64,
}

impl Store {
    /// Opens the store at `root`, making its folders when they are missing.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        let paths = Paths::new(root);
        for folder in [paths.root(), &paths.blobs(), &paths.manifests()] {
            durable::create_folders(folder)?;
            durable::check_writable(folder)?;
        }
        Ok(Store(Arc::new(Inner {
            paths,
            writers: Mutex::default(),
            pins: Mutex::default(),
            manifests: Mutex::default(),
            temporaries: AtomicU64::default(),
        })))
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

    /// Keeps `digests` from being deleted as unused while the pin lives: a pull holds one for the blobs
    /// that its manifest will name.
    pub fn pin(&self, digests: impl IntoIterator<Item = Digest>) -> Pin {
        let digests: Vec<Digest> = digests.into_iter().collect();
        let mut pins = guard(&self.0.pins);
        for digest in &digests {
            *pins.entry(*digest).or_default() += 1;
        }
        drop(pins);
        Pin { store: self.clone(), digests }
    }

    fn paths(&self) -> &Paths {
        &self.0.paths
    }

    /// Whether a transfer of this process needs the blob.
    fn in_use(&self, digest: &Digest) -> bool {
        guard(&self.0.pins).contains_key(digest) || guard(&self.0.writers).contains(digest)
    }

    /// A path for a temporary file of this process that no other uses.
    fn temporary(&self) -> PathBuf {
        let number = self.0.temporaries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.paths().temporary(std::process::id(), number)
    }
}

/// Digests that are in use; see [`Store::pin`].
#[derive(Debug)]
pub struct Pin {
    store: Store,
    digests: Vec<Digest>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = guard(&self.store.0.pins);
        for digest in &self.digests {
            match pins.get_mut(digest) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(pins.remove(digest)),
            }
        }
    }
}

/// Locks a mutex whose contents are whole between any two statements, so a panic elsewhere is no reason
/// to stop.
pub(crate) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
