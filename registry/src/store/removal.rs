//! Removing a model, with the blobs that nothing else names.
//!
//! A blob is deleted only when every manifest could be read and none names it, no pull that may still be
//! resumed wants it, and nothing in this process has it pinned.

use super::{Store, StoreError, durable, guard, paths::MANIFEST_FOLDERS};
use crate::{Digest, Name, failpoints::step};
use std::{collections::HashSet, fs, io::ErrorKind, path::Path};

impl Store {
    /// Deletes a model, then the blobs that no other model names; returns the bytes freed. Blobs in use
    /// stay until [`Store::remove_condemned`] or a collection.
    pub fn remove(&self, name: &Name) -> Result<u64, StoreError> {
        self.check_writable()?;
        let _changing = guard(&self.0.manifests);
        let path = self.paths().manifest(name);
        // A damaged manifest can be removed as well; which blobs were its own is then a collection's matter.
        let blobs = match self.read_manifest(name, &path) {
            Ok(Some(stored)) => stored.manifest.blobs(),
            Ok(None) => return Err(StoreError::NotFound { what: name.to_string() }),
            Err(StoreError::Corrupt { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        durable::remove(&path)?;
        step("remove-manifest");
        remove_empty_folders(&path, &self.paths().manifests())?;
        self.sweep(blobs.iter().map(|blob| blob.digest))
    }

    /// Deletes those of `digests` that nothing names; returns the bytes freed.
    pub fn remove_unused(
        &self,
        digests: impl IntoIterator<Item = Digest>,
    ) -> Result<u64, StoreError> {
        self.check_writable()?;
        let _changing = guard(&self.0.manifests);
        self.sweep(digests)
    }

    /// Deletes what was in use when its model was removed and is not any more; returns the bytes freed
    /// and how many blobs are still in use.
    pub fn remove_condemned(&self) -> Result<(u64, usize), StoreError> {
        let condemned = std::mem::take(&mut *guard(&self.0.condemned));
        if condemned.is_empty() {
            return Ok((0, 0));
        }
        let freed = self.remove_unused(condemned)?;
        Ok((freed, guard(&self.0.condemned).len()))
    }

    /// The caller holds the lock on the manifests.
    pub(super) fn sweep(
        &self,
        digests: impl IntoIterator<Item = Digest>,
    ) -> Result<u64, StoreError> {
        let used = match self.referenced() {
            Ok(used) => used,
            Err(error) => {
                tracing::warn!(%error, "keeping blobs: not every manifest can be read");
                return Ok(0);
            }
        };
        let mut freed = 0;
        for digest in digests {
            if used.contains(&digest) {
                continue;
            }
            if self.in_use(&digest) {
                guard(&self.0.condemned).insert(digest);
                continue;
            }
            freed += self.delete_blob(&digest)?;
        }
        durable::sync_folder(&self.paths().blobs())?;
        Ok(freed)
    }

    /// Deletes a blob under each of its names, and the note of a link; never the file that is linked.
    /// Returns the bytes freed.
    fn delete_blob(&self, digest: &Digest) -> Result<u64, StoreError> {
        let mut freed = 0;
        for path in [self.paths().blob(digest), self.paths().old_blob(digest)] {
            let size = fs::symlink_metadata(&path).map_or(0, |metadata| metadata.len());
            if durable::remove(&path)? {
                freed += size;
                step("remove-blob");
            }
        }
        if durable::remove(&self.paths().link(digest))? {
            step("remove-link");
        }
        Ok(freed)
    }

    /// Every digest that a manifest names, or a pull that may be resumed.
    pub(super) fn referenced(&self) -> Result<HashSet<Digest>, StoreError> {
        let mut used = self.referenced_by_manifests()?;
        used.extend(self.resumable(&[])?);
        Ok(used)
    }

    /// Every digest that a manifest names, a model's or one on the shelf.
    pub(super) fn referenced_by_manifests(&self) -> Result<HashSet<Digest>, StoreError> {
        let mut used: HashSet<Digest> = self.shelved_blobs()?.into_iter().collect();
        for (name, path) in self.manifest_files()? {
            if let Some(stored) = self.read_manifest(&name, &path)? {
                used.extend(stored.manifest.blobs().iter().map(|blob| blob.digest));
            }
        }
        Ok(used)
    }
}

/// Makes the removal of a file durable, and takes the folders above it that it leaves empty.
pub(super) fn remove_empty_folders(file: &Path, top: &Path) -> Result<(), StoreError> {
    for folder in file.ancestors().skip(1).take(MANIFEST_FOLDERS) {
        match fs::remove_dir(folder) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // Only an empty folder can be removed this way; another tag keeps it.
            Err(_) => return durable::sync_folder(folder),
        }
    }
    durable::sync_folder(top)
}
