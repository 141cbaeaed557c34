//! Models of files that lie elsewhere: linked, not copied.
//!
//! The user's file stays where it is and is the user's: nothing here writes, moves or deletes it. What is
//! kept is a note with its path, its digest, and by what a change would show: length, time and inode. The
//! note is looked at each time the blob is used, and a file that changed or is gone is refused. So a
//! linked blob has no final name of its own, and what lies under a final name still hashes to it.

use super::{Pin, Store, StoreError, durable, guard};
use crate::{Digest, Hasher};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, Metadata},
    io::{ErrorKind, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The longest note that is read, in bytes: a path has at most 4096.
const NOTE_BYTES_MAX: u64 = 32 * 1024;
/// Bytes read at once to hash a file.
const HASH_BYTES: usize = 1 << 20;

/// The note of a linked file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Link {
    /// Where it is, absolute and without symbolic links.
    pub(super) path: PathBuf,
    /// Its length.
    pub(super) bytes: u64,
    /// When it was last written: seconds since 1970, and nanoseconds.
    modified: (i64, i64),
    /// Its number in the file system.
    inode: u64,
}

impl Link {
    fn of(path: &Path, metadata: &Metadata) -> Link {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Link { path: path.to_owned(), bytes: metadata.len(), modified, inode: metadata.ino() }
    }

    /// The file's length, when it is the file that was linked.
    pub(super) fn check(&self) -> Result<u64, StoreError> {
        let refused = |reason: String| StoreError::Link { path: self.path.clone(), reason };
        let metadata = fs::metadata(&self.path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => refused("is gone".to_owned()),
            _ => refused(format!("cannot be read: {error}")),
        })?;
        if Link::of(&self.path, &metadata) == *self {
            return Ok(self.bytes);
        }
        Err(refused("changed since it was linked".to_owned()))
    }
}

impl Store {
    /// Makes a file elsewhere a blob without copying it: hashes it, and notes where it is. `progress`
    /// hears the bytes that are hashed. The pin keeps the blob until a manifest names it.
    pub fn link_file(
        &self,
        path: &Path,
        progress: &dyn Fn(u64),
    ) -> Result<(Digest, Pin), StoreError> {
        self.check_writable()?;
        let path = fs::canonicalize(path).map_err(|error| StoreError::io(path, error))?;
        let refused =
            |reason: &str| StoreError::Link { path: path.clone(), reason: reason.to_owned() };
        let root = fs::canonicalize(self.root());
        if root.is_ok_and(|root| path.starts_with(root)) {
            return Err(refused("is a file of the store itself"));
        }
        if path.to_str().is_none() {
            return Err(refused("has a name that is not UTF-8"));
        }
        let (file, link) = open_plain(&path)?;
        let digest = hash(&file, &path, progress)?;
        // What was written while it was read is in the hash or is not.
        link.check()?;
        let pin = self.pin([digest]);
        let _changing = guard(&self.0.manifests);
        if !self.paths().blob(&digest).is_file() {
            self.write_link(&digest, &link)?;
        }
        Ok((digest, pin))
    }

    fn write_link(&self, digest: &Digest, link: &Link) -> Result<(), StoreError> {
        let (temporary, folder) = (self.temporary(), self.paths().links());
        let note =
            serde_json::to_vec(link).expect("a path that was found to be UTF-8, and numbers");
        durable::create_folders(&folder)?;
        let file = durable::write_new(temporary.path(), &note)?;
        durable::sync_file(&file, temporary.path())?;
        durable::rename(temporary.path(), &self.paths().link(digest))?;
        durable::sync_folder(&folder)
    }

    /// The note of the file that the blob is linked to, if it is.
    pub(super) fn linked(&self, digest: &Digest) -> Result<Option<Link>, StoreError> {
        let path = self.paths().link(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io(&path, error)),
        };
        let mut note = Vec::new();
        let read = file.take(NOTE_BYTES_MAX).read_to_end(&mut note);
        read.map_err(|error| StoreError::io(&path, error))?;
        let link = serde_json::from_slice(&note);
        link.map(Some).map_err(|error| StoreError::Corrupt { path, reason: error.to_string() })
    }
}

/// Opens what must be a plain file, and says what it is before any of it is read.
pub(super) fn open_plain(path: &Path) -> Result<(File, Link), StoreError> {
    let failed = |error| StoreError::io(path, error);
    // Asked first: a pipe would wait for a writer when it is opened.
    let plain = fs::metadata(path).map_err(failed)?.is_file();
    if !plain {
        let reason = "is not a file".to_owned();
        return Err(StoreError::Link { path: path.to_owned(), reason });
    }
    let file = File::open(path).map_err(failed)?;
    let link = Link::of(path, &file.metadata().map_err(failed)?);
    Ok((file, link))
}

/// Hashes a file from where it stands to its end.
pub(super) fn hash(file: &File, path: &Path, progress: &dyn Fn(u64)) -> Result<Digest, StoreError> {
    let whole = hash_while(file, path, &|done| {
        progress(done);
        true
    });
    Ok(whole?.expect("nobody ended it"))
}

/// [`hash`] for as long as `goes_on` of the bytes that are hashed; none when that ended it.
pub(super) fn hash_while(
    mut file: &File,
    path: &Path,
    goes_on: &dyn Fn(u64) -> bool,
) -> Result<Option<Digest>, StoreError> {
    let (mut hasher, mut buffer, mut done) = (Hasher::new(), vec![0; HASH_BYTES], 0);
    loop {
        let count = file.read(&mut buffer).map_err(|error| StoreError::io(path, error))?;
        if count == 0 {
            return Ok(Some(hasher.finish()));
        }
        hasher.update(&buffer[..count]);
        done += count as u64;
        if !goes_on(done) {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        GcOptions,
        fixture::{CONFIG, LICENSE, Scratch, manifest_of, name, scratch, weights},
    };
    use std::time::{Duration, SystemTime};

    /// A store with the model `m`, whose weights are a file elsewhere.
    fn linked() -> (Scratch, tempfile::TempDir, PathBuf, Digest) {
        let (scratch, elsewhere) = (scratch(), tempfile::tempdir().unwrap());
        let file = elsewhere.path().join("w.gguf");
        let bytes = weights(5, 3_000_000);
        fs::write(&file, &bytes).unwrap();
        let digest = scratch.store.link_file(&file, &|_| {}).unwrap().0;
        assert_eq!(digest, Digest::of(&bytes));
        for blob in [LICENSE, CONFIG] {
            scratch.store.put_blob(blob).unwrap();
        }
        scratch.store.put_manifest(&name("m"), &manifest_of(&bytes).to_json()).unwrap();
        (scratch, elsewhere, file, digest)
    }

    #[test]
    fn a_linked_file_is_used_where_it_lies() {
        let (scratch, _elsewhere, file, digest) = linked();
        let store = &scratch.store;
        let file = fs::canonicalize(file).unwrap();
        assert_eq!(store.blob_path(&digest), file);
        assert_eq!(store.blob_size(&digest).unwrap(), Some(3_000_000));
        assert_eq!(store.read_blob(&digest, 3_000_000).unwrap(), fs::read(&file).unwrap());
        assert!(!store.paths().blob(&digest).exists());
        assert_eq!(store.verify(None, &|_| {}, &|| false).unwrap().bad, []);
    }

    #[test]
    fn a_removal_and_a_collection_leave_the_users_file() {
        let (scratch, _elsewhere, file, digest) = linked();
        let store = &scratch.store;
        let later = SystemTime::now() + Duration::from_secs(1 << 20);
        let options = GcOptions { now: later, ..GcOptions::default() };
        assert_eq!(store.gc(&options).unwrap().items, []);
        assert_eq!(store.remove(&name("m")).unwrap(), 16 + 2);
        assert!(file.exists() && !store.has(&digest));
        store.link_file(&file, &|_| {}).unwrap();
        let found = store.gc(&options).unwrap();
        assert_eq!((found.count(crate::GarbageKind::Link), found.bytes()), (1, 0));
        assert!(file.exists() && !store.has(&digest));
    }

    #[test]
    fn a_file_that_changed_or_is_gone_is_refused() {
        let (scratch, _elsewhere, file, digest) = linked();
        let store = &scratch.store;
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        let touch = |time| File::options().write(true).open(&file).unwrap().set_modified(time);
        let refusal = || store.open_blob(&digest).unwrap_err().to_string();
        touch(time + Duration::from_secs(1)).unwrap();
        assert!(refusal().contains("changed since it was linked"), "{}", refusal());
        touch(time).unwrap();
        assert!(store.open_blob(&digest).is_ok());
        // As many bytes of the same age, in another file.
        let other = file.with_extension("new");
        fs::copy(&file, &other).unwrap();
        File::options().write(true).open(&other).unwrap().set_modified(time).unwrap();
        fs::rename(&other, &file).unwrap();
        assert!(refusal().contains("changed since it was linked"), "{}", refusal());
        fs::remove_file(&file).unwrap();
        assert!(refusal().contains("is gone"), "{}", refusal());
        assert!(!store.has(&digest));
        // Linking it again is what the message says to do.
        fs::write(&file, weights(5, 3_000_000)).unwrap();
        store.link_file(&file, &|_| {}).unwrap();
        assert!(store.has(&digest));
    }

    #[test]
    fn only_plain_files_outside_the_store_are_linked() {
        let (scratch, elsewhere, file, digest) = linked();
        let store = &scratch.store;
        let own = store.blob_path(&Digest::of(LICENSE));
        for path in [own.as_path(), elsewhere.path(), Path::new("/dev/null")] {
            let error = store.link_file(path, &|_| {}).unwrap_err();
            assert!(matches!(error, StoreError::Link { .. }), "{error}");
        }
        let symbolic = elsewhere.path().join("symbolic.gguf");
        std::os::unix::fs::symlink(&file, &symbolic).unwrap();
        assert_eq!(store.link_file(&symbolic, &|_| {}).unwrap().0, digest);
        assert_eq!(store.blob_path(&digest), fs::canonicalize(file).unwrap());
    }

    #[test]
    fn a_note_that_cannot_be_read_is_no_blob() {
        let (scratch, _elsewhere, _file, digest) = linked();
        fs::write(scratch.store.paths().link(&digest), "{").unwrap();
        assert!(matches!(scratch.store.blob_size(&digest), Err(StoreError::Corrupt { .. })));
    }
}
