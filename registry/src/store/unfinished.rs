//! Pulls that have not ended: which, how far they are, and giving them up.
//!
//! A pull notes its manifest before the first byte. Until it ends, or is given up, or lies untouched for
//! a week, the blobs it already has are kept, and it can be shown and resumed.

use super::{
    GcOptions, Store, StoreError, StoredManifest, durable,
    gc::{files, is_older},
    guard,
    paths::{BlobFile, classify},
    removal::remove_empty_folders,
    tree,
};
use crate::{Digest, Name};
use std::{collections::HashSet, fs, time::SystemTime};

/// A pull that has not ended.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// The model that it is to make.
    pub name: Name,
    /// The bytes of all its blobs.
    pub bytes: u64,
    /// Of those, what is on the disk.
    pub bytes_here: u64,
    /// When it last began or a byte of it last came.
    pub touched: SystemTime,
    /// Whether a transfer of this process is at work on it.
    pub running: bool,
}

/// The first bytes of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialBlob {
    /// What it is to become.
    pub digest: Digest,
    /// The bytes that it takes on the disk.
    pub bytes: u64,
    /// When a byte of it last came.
    pub touched: SystemTime,
}

impl Store {
    /// Notes that a pull of `name` has begun, whose manifest has these bytes.
    pub fn note_pull(&self, name: &Name, manifest: &[u8]) -> Result<(), StoreError> {
        self.check_writable()?;
        // A removal takes the folders that it empties.
        let _changing = guard(&self.0.manifests);
        let (temporary, target) = (self.temporary(), self.paths().pull(name));
        durable::write_new(temporary.path(), manifest)?;
        // A crash that loses this costs the listing of a pull, so nothing waits for the disk.
        target.parent().map_or(Ok(()), durable::create_folders)?;
        durable::rename(temporary.path(), &target)
    }

    /// Every pull that has not ended, by name.
    pub fn unfinished(&self) -> Result<Vec<Unfinished>, StoreError> {
        let pulls = self.unfinished_manifests()?;
        pulls.into_iter().map(|pull| self.progress_of(pull)).collect()
    }

    fn progress_of(&self, pull: StoredManifest) -> Result<Unfinished, StoreError> {
        let (mut bytes_here, mut touched, mut running) = (0, pull.modified, false);
        for blob in pull.manifest.blobs() {
            running |= guard(&self.0.writers).contains(&blob.digest);
            if self.has(&blob.digest) {
                bytes_here += blob.size;
            } else if let Some(partial) = self.partial_blob(&blob.digest) {
                bytes_here += partial.bytes.min(blob.size);
                touched = touched.max(partial.touched);
            }
        }
        let (name, bytes) = (pull.name.clone(), pull.size());
        Ok(Unfinished { name, bytes, bytes_here, touched, running })
    }

    /// Every blob of which only the first bytes are here.
    pub fn partials(&self) -> Result<Vec<PartialBlob>, StoreError> {
        let all = files(&self.paths().blobs())?;
        let digests = all.iter().filter_map(|(_, file_name)| match classify(file_name) {
            BlobFile::Partial(digest) => Some(digest),
            _ => None,
        });
        Ok(digests.filter_map(|digest| self.partial_blob(&digest)).collect())
    }

    /// A file with holes counts what it takes, not how long it is.
    fn partial_blob(&self, digest: &Digest) -> Option<PartialBlob> {
        use std::os::unix::fs::MetadataExt;
        /// What `st_blocks` counts, whatever the file system's own unit.
        const BLOCK_BYTES: u64 = 512;
        let metadata = fs::symlink_metadata(self.paths().partial(digest)).ok()?;
        let bytes = metadata.len().min(metadata.blocks().saturating_mul(BLOCK_BYTES));
        Some(PartialBlob { digest: *digest, bytes, touched: metadata.modified().ok()? })
    }

    /// Gives a pull up: its partial files go, and its blobs that nothing else names; returns the bytes
    /// freed. Fails while a transfer is at work on it.
    pub fn remove_unfinished(&self, name: &Name) -> Result<u64, StoreError> {
        self.check_writable()?;
        let _changing = guard(&self.0.manifests);
        let all = self.unfinished_manifests()?;
        let Some(pull) = all.iter().find(|pull| pull.name == *name) else {
            return Err(StoreError::NotFound { what: format!("an unfinished pull of {name}") });
        };
        let digests: Vec<Digest> = pull.manifest.blobs().iter().map(|blob| blob.digest).collect();
        if let Some(digest) = digests.iter().find(|digest| guard(&self.0.writers).contains(digest))
        {
            return Err(StoreError::Busy { digest: *digest });
        }
        self.forget_pull(name)?;
        let others = self.referenced()?;
        let mut freed = 0;
        for digest in digests.iter().filter(|digest| !others.contains(digest)) {
            let bytes = self.partial_blob(digest).map_or(0, |partial| partial.bytes);
            if durable::remove(&self.paths().partial(digest))? {
                freed += bytes;
            }
        }
        Ok(freed + self.sweep(digests)?)
    }

    /// Forgets the note of a pull, which ended or was given up.
    pub(super) fn forget_pull(&self, name: &Name) -> Result<(), StoreError> {
        let path = self.paths().pull(name);
        match durable::remove(&path)? {
            true => remove_empty_folders(&path, &self.paths().pulls()),
            false => Ok(()),
        }
    }

    /// The manifests of all pulls that have not ended. One that cannot be read names nothing.
    pub(super) fn unfinished_manifests(&self) -> Result<Vec<StoredManifest>, StoreError> {
        let mut found = Vec::new();
        let mut files = Vec::new();
        tree::walk(&self.paths().pulls(), &mut Vec::new(), &mut tree::read, &mut files)?;
        files.sort();
        for (name, path) in files {
            match self.read_manifest(&name, &path) {
                Ok(pull) => found.extend(pull),
                Err(error) => tracing::warn!(%name, %error, "skipping the note of a pull"),
            }
        }
        Ok(found)
    }

    /// The pulls that have lain untouched for too long.
    pub(super) fn expired_pulls(&self, options: &GcOptions) -> Result<Vec<Name>, StoreError> {
        let mut pulls = self.unfinished_manifests()?;
        pulls.retain(|pull| {
            let blobs = pull.manifest.blobs();
            let at_work = blobs.iter().any(|blob| self.in_use(&blob.digest));
            let partials = blobs.iter().map(|blob| self.paths().partial(&blob.digest));
            let mut files = partials.chain([self.paths().pull(&pull.name)]);
            let old = |path| {
                let metadata = fs::symlink_metadata(path);
                metadata.map_or(true, |file| is_older(&file, options.now, options.partial_age_min))
            };
            !at_work && files.all(old)
        });
        Ok(pulls.into_iter().map(|pull| pull.name).collect())
    }

    /// The blobs that pulls can still be resumed with, apart from pulls that are given up.
    pub(super) fn resumable(&self, given_up: &[Name]) -> Result<HashSet<Digest>, StoreError> {
        let mut wanted = HashSet::new();
        for pull in self.unfinished_manifests()? {
            if !given_up.contains(&pull.name) {
                wanted.extend(pull.manifest.blobs().iter().map(|blob| blob.digest));
            }
        }
        Ok(wanted)
    }
}
