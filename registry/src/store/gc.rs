//! Deleting: a model goes with the blobs that nothing else names.
//!
//! A blob is deleted only when every manifest could be read and none names it, no transfer of this
//! process has it pinned, and (in a prune) it is old enough to belong to no other process's transfer.

use super::{
    Store, StoreError, durable, guard,
    paths::{BlobFile, MANIFEST_FOLDERS, classify},
};
use crate::{Digest, Name, failpoints::step};
use std::{
    collections::HashSet,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

/// How old an unreferenced blob or temporary file must be to be pruned.
const BLOB_AGE_MIN: Duration = Duration::from_secs(60 * 60);
/// How old a partial file must be to be pruned: a download may be resumed for a week.
const PARTIAL_AGE_MIN: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What a prune deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Blobs that no manifest named.
    pub blobs: u64,
    /// Partial and temporary files.
    pub partials: u64,
    /// The bytes of all of them.
    pub bytes: u64,
}

impl Store {
    /// Deletes a model, then the blobs that no other model names; returns the bytes freed.
    pub fn remove(&self, name: &Name) -> Result<u64, StoreError> {
        let _changing = guard(&self.0.manifests);
        let path = self.paths().manifest(name);
        // A damaged manifest can be removed as well; which blobs were its own is then a prune's matter.
        let blobs = match self.read_manifest(name, &path) {
            Ok(Some(stored)) => stored.manifest.blobs(),
            Ok(None) => return Err(StoreError::NotFound { what: name.to_string() }),
            Err(StoreError::Corrupt { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        durable::remove(&path)?;
        step("remove-manifest");
        self.remove_empty_folders(&path)?;
        self.sweep(blobs.iter().map(|blob| blob.digest))
    }

    /// Deletes those of `digests` that no manifest names; returns the bytes freed.
    pub fn remove_unused(
        &self,
        digests: impl IntoIterator<Item = Digest>,
    ) -> Result<u64, StoreError> {
        let _changing = guard(&self.0.manifests);
        self.sweep(digests)
    }

    /// Deletes what crashes and abandoned transfers left behind. Fails, and deletes nothing, when a
    /// manifest cannot be read: the blobs it names are not known then.
    pub fn prune(&self) -> Result<Pruned, StoreError> {
        self.prune_at(SystemTime::now())
    }

    pub(super) fn prune_at(&self, now: SystemTime) -> Result<Pruned, StoreError> {
        let _changing = guard(&self.0.manifests);
        let used = self.referenced()?;
        let folder = self.paths().blobs();
        let mut pruned = Pruned::default();
        for entry in fs::read_dir(&folder).map_err(|error| StoreError::io(&folder, error))? {
            let entry = entry.map_err(|error| StoreError::io(&folder, error))?;
            let file_name = entry.file_name();
            let kind = classify(&file_name.to_string_lossy());
            let Some(bytes) = self.prunable(&kind, &entry, &used, now) else { continue };
            if durable::remove(&entry.path())? {
                step("prune-file");
                pruned.count(&kind, bytes);
            }
        }
        durable::sync_folder(&folder)?;
        Ok(pruned)
    }

    /// The size of a file in `blobs/` that may be deleted, None when it must stay.
    fn prunable(
        &self,
        kind: &BlobFile,
        entry: &fs::DirEntry,
        used: &HashSet<Digest>,
        now: SystemTime,
    ) -> Option<u64> {
        let age_min = match kind {
            BlobFile::Blob(digest) if !used.contains(digest) && !self.in_use(digest) => {
                BLOB_AGE_MIN
            }
            BlobFile::Partial(digest) if !self.in_use(digest) => PARTIAL_AGE_MIN,
            BlobFile::Temporary => BLOB_AGE_MIN,
            _ => return None,
        };
        let metadata = entry.metadata().ok().filter(|metadata| metadata.is_file())?;
        // A file from the future has no age; it stays until the clock has caught up.
        let age = now.duration_since(metadata.modified().ok()?).ok()?;
        (age >= age_min).then_some(metadata.len())
    }

    /// The caller holds the lock on the manifests.
    fn sweep(&self, digests: impl IntoIterator<Item = Digest>) -> Result<u64, StoreError> {
        let used = match self.referenced() {
            Ok(used) => used,
            Err(error) => {
                tracing::warn!(%error, "keeping blobs: not every manifest can be read");
                return Ok(0);
            }
        };
        let mut freed = 0;
        for digest in digests {
            if used.contains(&digest) || self.in_use(&digest) {
                continue;
            }
            let size = self.blob_size(&digest)?.unwrap_or(0);
            if durable::remove(&self.blob_path(&digest))? {
                freed += size;
                step("remove-blob");
            }
        }
        durable::sync_folder(&self.paths().blobs())?;
        Ok(freed)
    }

    /// Every digest that a manifest names, a model's or one on the shelf.
    fn referenced(&self) -> Result<HashSet<Digest>, StoreError> {
        let mut used: HashSet<Digest> = self.shelved_blobs()?.into_iter().collect();
        for (name, path) in self.manifest_files()? {
            if let Some(stored) = self.read_manifest(&name, &path)? {
                used.extend(stored.manifest.blobs().iter().map(|blob| blob.digest));
            }
        }
        Ok(used)
    }

    /// Makes a manifest's removal durable, and takes the folders that it leaves empty.
    fn remove_empty_folders(&self, manifest: &Path) -> Result<(), StoreError> {
        for folder in manifest.ancestors().skip(1).take(MANIFEST_FOLDERS) {
            // Only an empty folder can be removed this way; another tag keeps it.
            if fs::remove_dir(folder).is_err() {
                return durable::sync_folder(folder);
            }
        }
        durable::sync_folder(&self.paths().manifests())
    }
}

impl Pruned {
    fn count(&mut self, kind: &BlobFile, bytes: u64) {
        match kind {
            BlobFile::Blob(_) => self.blobs += 1,
            _ => self.partials += 1,
        }
        self.bytes += bytes;
    }
}
