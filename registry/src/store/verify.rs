//! Verifying blobs: reading each again, and putting aside what is not what its name says.
//!
//! Two blobs are read at a time, at the lowest priority. A bad one is moved to the folder `quarantine`,
//! never deleted: it may be all that is left of it. Its models are damaged then, until a pull or an
//! import brings the blob again.

use super::{
    Store, StoreError, durable,
    gc::files,
    guard,
    links::hash_while,
    paths::{BlobFile, classify},
};
use crate::{Digest, Name, failpoints::step};
use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

/// Blobs read at once.
const AT_ONCE: usize = 2;
/// The lowest priority that a thread can have.
const NICENESS: i32 = 19;

/// How far a verification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checking {
    /// The blob that is read.
    pub digest: Digest,
    /// Its size in bytes.
    pub bytes: u64,
    /// The bytes of it that are read.
    pub done: u64,
}

/// A blob that is not what its name says, or is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadBlob {
    /// What it should be.
    pub digest: Digest,
    /// What is wrong with it.
    pub reason: String,
    /// Where it was put.
    pub moved_to: Option<PathBuf>,
    /// It is still where it was: it could not be read at all, or the store is not ours.
    pub stays: bool,
    /// The models that need it.
    pub models: Vec<Name>,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// How many blobs were read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that are not whole, by digest.
    pub bad: Vec<BadBlob>,
}

impl Verification {
    /// The models that lack a blob, by name.
    pub fn damaged(&self) -> Vec<Name> {
        let mut names: Vec<Name> = self.bad.iter().flat_map(|bad| bad.models.clone()).collect();
        names.sort();
        names.dedup();
        names
    }
}

/// A blob to look at: who needs it, and with how many bytes.
type Task = (Digest, Vec<(Name, u64)>);

impl Store {
    /// Reads the blobs of `models`, or every blob, and moves those that are not whole out of the way.
    /// `progress` is called from two threads; `stop` ends it after the next megabyte or so.
    pub fn verify(
        &self,
        models: Option<&[Name]>,
        progress: &(dyn Fn(Checking) + Sync),
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Verification, StoreError> {
        let tasks = Mutex::new(self.tasks(models)?);
        let found = Mutex::new(Verification::default());
        let told = |checking| {
            progress(checking);
            !stop()
        };
        let work = || -> Result<(), StoreError> {
            lower_priority();
            while let Some(task) = guard(&tasks).pop_front().filter(|_| !stop()) {
                self.verify_one(task, &told, &found)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
            let ended = workers.into_iter().map(|worker| worker.join().expect("it does not panic"));
            ended.collect::<Result<(), StoreError>>()
        })?;
        let mut found = found.into_inner().expect("no worker panicked");
        found.bad.sort_by_key(|bad| bad.digest);
        Ok(found)
    }

    fn tasks(&self, models: Option<&[Name]>) -> Result<VecDeque<Task>, StoreError> {
        let mut tasks: BTreeMap<Digest, Vec<(Name, u64)>> = BTreeMap::new();
        if models.is_none() {
            for folder in [self.paths().blobs(), self.paths().links()] {
                let all = files(&folder)?;
                tasks.extend(all.iter().filter_map(|(_, name)| match classify(name) {
                    BlobFile::Blob(digest) => Some((digest, Vec::new())),
                    _ => None,
                }));
            }
        }
        let wanted = |name: &Name| models.is_none_or(|models| models.contains(name));
        let all = self.list()?;
        for model in &all {
            for blob in model.manifest.blobs() {
                // Another model that needs a blob is damaged as well, whether it was asked for or not.
                if wanted(&model.name) {
                    tasks.entry(blob.digest).or_default();
                }
            }
        }
        for model in all {
            for blob in model.manifest.blobs() {
                let owners = tasks.get_mut(&blob.digest);
                owners.into_iter().for_each(|all| all.push((model.name.clone(), blob.size)));
            }
        }
        Ok(tasks.into_iter().collect())
    }

    fn verify_one(
        &self,
        (digest, owners): Task,
        goes_on: &(dyn Fn(Checking) -> bool + Sync),
        found: &Mutex<Verification>,
    ) -> Result<(), StoreError> {
        let bytes = owners.first().map(|(_, size)| *size);
        let (size, verdict) = self.judge(&digest, bytes, goes_on)?;
        let mut found = guard(found);
        found.blobs += u64::from(size.is_some());
        found.bytes += size.unwrap_or(0);
        if let Some(Verdict { reason, moved_to, stays }) = verdict {
            let models = owners.into_iter().map(|(name, _)| name).collect();
            tracing::warn!(%digest, reason, "a blob is damaged");
            found.bad.push(BadBlob { digest, reason, moved_to, stays, models });
        }
        Ok(())
    }

    /// The blob's size where it could be read, and what is wrong with it where something is. `expected`
    /// is what a manifest says; a blob that no manifest names may vanish meanwhile.
    fn judge(
        &self,
        digest: &Digest,
        expected: Option<u64>,
        goes_on: &(dyn Fn(Checking) -> bool + Sync),
    ) -> Result<(Option<u64>, Option<Verdict>), StoreError> {
        let path = self.blob_path(digest);
        let file = match self.open_blob(digest) {
            Ok(file) => file,
            Err(StoreError::NotFound { .. }) => {
                let missing = || self.verdict("it is missing".to_owned(), None);
                return Ok((None, expected.map(|_| missing())));
            }
            Err(StoreError::Link { reason, .. }) => {
                let moved_to = self.quarantine_link(digest)?;
                let reason = format!("the file it is linked to {reason}");
                return Ok((None, Some(self.verdict(reason, moved_to))));
            }
            Err(error) => {
                let unread = self.verdict(error.to_string(), None);
                return Ok((None, Some(Verdict { stays: true, ..unread })));
            }
        };
        let bytes = file.metadata().map_err(|error| StoreError::io(&path, error))?.len();
        let read =
            hash_while(&file, &path, &|done| goes_on(Checking { digest: *digest, bytes, done }));
        let reason = match read {
            Ok(None) => return Ok((None, None)),
            Ok(Some(got)) if got == *digest => return Ok((Some(bytes), None)),
            Ok(Some(got)) => format!("its {bytes} bytes hash to {got}"),
            Err(error) => error.to_string(),
        };
        let moved_to = self.quarantine(digest, &path, &file)?;
        Ok((Some(bytes), Some(self.verdict(reason, moved_to))))
    }

    fn verdict(&self, reason: String, moved_to: Option<PathBuf>) -> Verdict {
        Verdict { reason, moved_to, stays: !self.is_writable() }
    }

    /// Moves what was read from `path` out of the way, unless something else lies there by now. A linked
    /// file is the user's: only the note of it is moved.
    fn quarantine(
        &self,
        digest: &Digest,
        path: &Path,
        read: &File,
    ) -> Result<Option<PathBuf>, StoreError> {
        if path.parent() != Some(self.paths().blobs().as_path()) {
            return self.quarantine_link(digest);
        }
        let _changing = guard(&self.0.manifests);
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        // Through a symbolic link, which is then what is moved.
        let same = match (read.metadata(), fs::metadata(path)) {
            (Ok(read), Ok(there)) => identity(read) == identity(there),
            _ => false,
        };
        if !same { Ok(None) } else { self.put_aside(digest, path) }
    }

    fn quarantine_link(&self, digest: &Digest) -> Result<Option<PathBuf>, StoreError> {
        let _changing = guard(&self.0.manifests);
        self.put_aside(digest, &self.paths().link(digest))
    }

    fn put_aside(&self, digest: &Digest, path: &Path) -> Result<Option<PathBuf>, StoreError> {
        if !self.is_writable() {
            return Ok(None);
        }
        let folder = self.paths().quarantine();
        durable::create_folders(&folder)?;
        let free = (0..).map(|n| self.paths().quarantined(digest, n)).find(|at| !at.exists());
        let target = free.expect("a folder has fewer entries than there are numbers");
        durable::rename(path, &target)?;
        step("quarantined");
        durable::sync_folder(&folder)?;
        path.parent().map_or(Ok(()), durable::sync_folder)?;
        Ok(Some(target))
    }
}

/// What is wrong with a blob, and what became of it.
struct Verdict {
    reason: String,
    moved_to: Option<PathBuf>,
    stays: bool,
}

/// On Linux a priority belongs to a thread, and this is the caller's own; what a verification reads waits
/// for everybody else.
fn lower_priority() {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "the verification runs at the usual priority");
    }
}

#[cfg(test)]
mod tests;
