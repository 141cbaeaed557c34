//! Collecting what crashes, abandoned transfers and uploads left behind.
//!
//! What a manifest names, what a pull may still be resumed with and what is in use stays. The rest goes
//! once it is old enough to belong to nobody who is still at work.

use super::{
    Store, StoreError, durable, guard,
    paths::{BlobFile, classify},
};
use crate::{Digest, failpoints::step};
use std::{
    collections::HashSet,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// How old an unreferenced blob or a temporary file must be: a client uploads blobs before it names them.
const BLOB_AGE_MIN: Duration = Duration::from_secs(60 * 60);
/// How old a partial download must be: it may be resumed for a week.
const PARTIAL_AGE_MIN: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What a collection may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcOptions {
    /// Only says what would go.
    pub dry_run: bool,
    /// How old unreferenced blobs, links and temporary files must be.
    pub blob_age_min: Duration,
    /// How old partial downloads must be, counted from their last byte.
    pub partial_age_min: Duration,
    /// The time that ages are counted from.
    pub now: SystemTime,
}

impl Default for GcOptions {
    fn default() -> GcOptions {
        GcOptions {
            dry_run: false,
            blob_age_min: BLOB_AGE_MIN,
            partial_age_min: PARTIAL_AGE_MIN,
            now: SystemTime::now(),
        }
    }
}

/// What kind of thing was collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GarbageKind {
    /// A blob that nothing names.
    Blob,
    /// The first bytes of a blob whose download was given up.
    Partial,
    /// A file that a crash left.
    Temporary,
    /// A link to a user's file that nothing names; the file itself stays.
    Link,
    /// The manifest of a pull that was given up.
    Pull,
}

/// One thing that was collected, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Garbage {
    /// What it is.
    pub kind: GarbageKind,
    /// The digest, the model's name or the file's name.
    pub what: String,
    /// The bytes that this frees.
    pub bytes: u64,
}

/// What a collection took, or would take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Each of them.
    pub items: Vec<Garbage>,
}

impl Collected {
    /// The bytes of all of them.
    pub fn bytes(&self) -> u64 {
        self.items.iter().map(|item| item.bytes).sum()
    }

    /// How many there are of a kind.
    pub fn count(&self, kind: GarbageKind) -> usize {
        self.items.iter().filter(|item| item.kind == kind).count()
    }
}

/// A folder that is looked through, and what is known to be in use.
struct Collector<'a> {
    store: &'a Store,
    options: &'a GcOptions,
    /// What manifests name.
    used: HashSet<Digest>,
    /// What pulls may be resumed with.
    resumable: HashSet<Digest>,
    found: Collected,
}

impl Store {
    /// Deletes what nobody needs and is old enough. Fails, and deletes nothing, when a manifest cannot
    /// be read: the blobs it names are not known then.
    pub fn gc(&self, options: &GcOptions) -> Result<Collected, StoreError> {
        if !options.dry_run {
            self.check_writable()?;
        }
        let _changing = guard(&self.0.manifests);
        let expired = self.expired_pulls(options)?;
        let mut found = Collected::default();
        for name in &expired {
            let (kind, what) = (GarbageKind::Pull, name.to_string());
            found.items.push(Garbage { kind, what, bytes: 0 });
        }
        let (used, resumable) = (self.referenced_by_manifests()?, self.resumable(&expired)?);
        if !options.dry_run {
            expired.iter().try_for_each(|name| self.forget_pull(name))?;
        }
        let mut collector = Collector { store: self, options, used, resumable, found };
        collector.blobs()?;
        collector.links()?;
        Ok(collector.found)
    }
}

impl Collector<'_> {
    fn blobs(&mut self) -> Result<(), StoreError> {
        let folder = self.store.paths().blobs();
        for (path, file_name) in files(&folder)? {
            let kind = match classify(&file_name) {
                BlobFile::Blob(digest) if self.is_free(&digest) => GarbageKind::Blob,
                BlobFile::Partial(digest) | BlobFile::Journal(digest)
                    if !self.store.in_use(&digest) && !self.resumable.contains(&digest) =>
                {
                    GarbageKind::Partial
                }
                BlobFile::Temporary if !self.store.is_live(&path) => GarbageKind::Temporary,
                _ => continue,
            };
            self.take(kind, &path, file_name)?;
        }
        self.sync(&folder)
    }

    fn links(&mut self) -> Result<(), StoreError> {
        let folder = self.store.paths().links();
        for (path, file_name) in files(&folder)? {
            if matches!(classify(&file_name), BlobFile::Blob(digest) if self.is_free(&digest)) {
                self.take(GarbageKind::Link, &path, file_name)?;
            }
        }
        self.sync(&folder)
    }

    fn is_free(&self, digest: &Digest) -> bool {
        !self.used.contains(digest)
            && !self.resumable.contains(digest)
            && !self.store.in_use(digest)
    }

    fn take(&mut self, kind: GarbageKind, path: &Path, what: String) -> Result<(), StoreError> {
        let age_min = match kind {
            GarbageKind::Partial => self.options.partial_age_min,
            _ => self.options.blob_age_min,
        };
        let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
        if !metadata.is_file() || !is_older(&metadata, self.options.now, age_min) {
            return Ok(());
        }
        if !self.options.dry_run {
            if !durable::remove(path)? {
                return Ok(());
            }
            step("prune-file");
        }
        let bytes = if kind == GarbageKind::Link { 0 } else { metadata.len() };
        self.found.items.push(Garbage { kind, what, bytes });
        Ok(())
    }

    fn sync(&self, folder: &Path) -> Result<(), StoreError> {
        if self.options.dry_run || !folder.is_dir() {
            return Ok(());
        }
        durable::sync_folder(folder)
    }
}

/// Whether the file was last written at least `age_min` before `now`. One from the future has no age: it
/// stays until the clock has caught up.
pub(super) fn is_older(metadata: &fs::Metadata, now: SystemTime, age_min: Duration) -> bool {
    let age = metadata.modified().ok().and_then(|modified| now.duration_since(modified).ok());
    age.is_some_and(|age| age >= age_min)
}

/// The files of a folder by name, in order; none when there is no such folder.
pub(super) fn files(folder: &Path) -> Result<Vec<(PathBuf, String)>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io(folder, error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| StoreError::io(folder, error))?;
        // The store makes no name that is not UTF-8.
        found.extend(entry.file_name().into_string().map(|name| (entry.path(), name)));
    }
    found.sort();
    Ok(found)
}
