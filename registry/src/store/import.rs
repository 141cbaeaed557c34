//! Files that become blobs of the store: cloned where the file system can, else copied, else hard linked.

use super::{
    Pin, Store, StoreError, durable, guard,
    links::{hash, open_plain},
};
use crate::{Digest, Hasher, failpoints::step};
use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Seek, Write},
    path::Path,
};

/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 20;

/// How a file gets into the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImportMode {
    /// Its bytes are the store's own. Where the file system can share them until one side writes, no
    /// byte is copied.
    #[default]
    Copy,
    /// A second name for the user's file. A program that writes to that file in place changes the blob;
    /// a verification finds it. Only on the file system of the store.
    HardLink,
}

impl Store {
    /// Makes a file a blob. `progress` hears the bytes that are hashed. The pin keeps the blob until a
    /// manifest names it: one that is a second name for an old file looks as old as that.
    pub fn import_file(
        &self,
        path: &Path,
        mode: ImportMode,
        progress: &dyn Fn(u64),
    ) -> Result<(Digest, Pin), StoreError> {
        self.check_writable()?;
        let temporary = self.temporary();
        let (digest, file) = match mode {
            ImportMode::Copy => copy(path, temporary.path(), progress)?,
            ImportMode::HardLink => hard_link(path, temporary.path(), progress)?,
        };
        Ok((digest, self.publish_file(&file, temporary.path(), &digest)?))
    }

    /// Copies a blob out of another store, unless it is here. What has rotted there stays there.
    pub(crate) fn import_blob(&self, from: &Store, digest: &Digest) -> Result<Pin, StoreError> {
        let pin = self.pin([*digest]);
        if self.has(digest) {
            return Ok(pin);
        }
        self.check_writable()?;
        let (path, temporary) = (from.blob_path(digest), self.temporary());
        let (got, file) = copy(&path, temporary.path(), &|_| {})?;
        if got != *digest {
            return Err(StoreError::Corrupt { path, reason: format!("its bytes hash to {got}") });
        }
        self.publish_file(&file, temporary.path(), digest)
    }

    /// Gives a complete file its blob's name.
    fn publish_file(&self, file: &File, path: &Path, digest: &Digest) -> Result<Pin, StoreError> {
        step("blob-verified");
        durable::sync_file(file, path)?;
        step("blob-synced");
        let pin = self.pin([*digest]);
        // A collection that saw the blob before the pin has ended by now, and may have taken it.
        let _changing = guard(&self.0.manifests);
        if self.paths().blob(digest).is_file() {
            return Ok(pin);
        }
        durable::rename(path, &self.paths().blob(digest))?;
        step("blob-renamed");
        durable::sync_folder(&self.paths().blobs())?;
        step("blob-published");
        Ok(pin)
    }
}

/// What is hashed is our own copy: the source may change while it is read.
fn copy(
    source: &Path,
    target: &Path,
    progress: &dyn Fn(u64),
) -> Result<(Digest, File), StoreError> {
    let (from, _) = open_plain(source)?;
    let mut to = durable::open_own(target)?;
    step("blob-created");
    if rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
        to.rewind().map_err(|error| StoreError::io(target, error))?;
        return Ok((hash(&to, target, progress)?, to));
    }
    let (mut hasher, mut buffer, mut done) = (Hasher::new(), vec![0; COPY_BYTES], 0);
    loop {
        let count = (&from).read(&mut buffer).map_err(|error| StoreError::io(source, error))?;
        if count == 0 {
            return Ok((hasher.finish(), to));
        }
        to.write_all(&buffer[..count]).map_err(|error| StoreError::io(target, error))?;
        step("blob-written");
        hasher.update(&buffer[..count]);
        done += count as u64;
        progress(done);
    }
}

fn hard_link(
    source: &Path,
    target: &Path,
    progress: &dyn Fn(u64),
) -> Result<(Digest, File), StoreError> {
    let source = fs::canonicalize(source).map_err(|error| StoreError::io(source, error))?;
    open_plain(&source)?;
    fs::hard_link(&source, target).map_err(|error| match error.kind() {
        ErrorKind::CrossesDevices => {
            let reason = "is on another file system than the store, where a hard link cannot lead";
            StoreError::Link { path: source.clone(), reason: reason.to_owned() }
        }
        _ => StoreError::io(target, error),
    })?;
    let (file, link) = open_plain(target)?;
    let digest = hash(&file, target, progress)?;
    link.check()?;
    Ok((digest, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        GcOptions,
        fixture::{scratch, weights},
    };
    use std::{
        os::unix::fs::MetadataExt,
        time::{Duration, SystemTime},
    };

    #[test]
    fn a_file_is_imported_by_copy_and_by_hard_link() {
        for mode in [ImportMode::Copy, ImportMode::HardLink] {
            let scratch = scratch();
            // On the store's file system, and not in its folders.
            let file = scratch.folder.path().join("mine.gguf");
            let bytes = weights(2, 2_500_000);
            fs::write(&file, &bytes).unwrap();
            let heard = std::cell::Cell::new(0);
            let progress = |done| heard.set(done);
            let (digest, _pin) = scratch.store.import_file(&file, mode, &progress).unwrap();
            assert_eq!((digest, heard.get()), (Digest::of(&bytes), 2_500_000), "{mode:?}");
            assert_eq!(scratch.store.read_blob(&digest, 2_500_000).unwrap(), bytes);
            let inode = |path: &Path| fs::metadata(path).unwrap().ino();
            let shared = inode(&file) == inode(&scratch.store.blob_path(&digest));
            assert_eq!(shared, mode == ImportMode::HardLink);
            // A second time changes nothing and leaves nothing.
            scratch.store.import_file(&file, mode, &|_| {}).unwrap();
            assert_eq!(fs::read_dir(scratch.store.paths().blobs()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_write_to_a_hard_linked_file_is_found_by_a_verification() {
        let scratch = scratch();
        let file = scratch.folder.path().join("mine.gguf");
        fs::write(&file, "first").unwrap();
        let imported = scratch.store.import_file(&file, ImportMode::HardLink, &|_| {});
        let (digest, _pin) = imported.unwrap();
        fs::write(&file, "other").unwrap();
        let found = scratch.store.verify(None, &|_| {}, &|| false).unwrap();
        assert_eq!(found.bad.iter().map(|bad| bad.digest).collect::<Vec<_>>(), [digest]);
        // It is the user's file too, and stays.
        assert!(file.exists() && !scratch.store.has(&digest));
    }

    #[test]
    fn fault_35_an_old_file_is_imported_by_hard_link_while_a_collection_runs() {
        let scratch = scratch();
        let file = scratch.folder.path().join("mine.gguf");
        fs::write(&file, weights(2, 2_500_000)).unwrap();
        let year = SystemTime::now() - Duration::from_secs(365 * 24 * 3600);
        File::options().write(true).open(&file).unwrap().set_modified(year).unwrap();
        let collect = || scratch.store.gc(&GcOptions::default()).unwrap().items;
        // It is hashed under a temporary name, which a collection must not take.
        let during = |_: u64| assert_eq!(collect(), []);
        let imported = scratch.store.import_file(&file, ImportMode::HardLink, &during);
        let (digest, pin) = imported.unwrap();
        // Nor the blob, before a manifest names it.
        assert_eq!(collect(), []);
        assert!(scratch.store.has(&digest));
        drop(pin);
        assert_eq!(collect().len(), 1);
        assert!(file.exists());
    }

    #[test]
    fn a_blob_of_another_store_comes_over_when_it_is_whole() {
        let (here, there) = (scratch(), scratch());
        let digest = there.store.put_blob(b"weights").unwrap();
        let _pin = here.store.import_blob(&there.store, &digest).unwrap();
        assert_eq!(here.store.read_blob(&digest, 7).unwrap(), b"weights");
        let rotten = there.store.put_blob(b"rotten").unwrap();
        fs::write(there.store.blob_path(&rotten), "rottem").unwrap();
        let refused = here.store.import_blob(&there.store, &rotten);
        assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
        assert_eq!(fs::read_dir(here.store.paths().blobs()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_imported_leaves_nothing() {
        let scratch = scratch();
        let missing = scratch.folder.path().join("missing");
        for path in [missing.as_path(), scratch.folder.path(), Path::new("/dev/null")] {
            for mode in [ImportMode::Copy, ImportMode::HardLink] {
                assert!(
                    scratch.store.import_file(path, mode, &|_| {}).is_err(),
                    "{path:?} {mode:?}"
                );
            }
        }
        assert_eq!(fs::read_dir(scratch.store.paths().blobs()).unwrap().count(), 0);
    }
}
