//! Another program's store, used where it is.
//!
//! Ollama's folder has our layout. It is read as it stands, and nothing below it is written before the
//! user adopts it: the lock lies elsewhere, and whatever would change the store is refused by name. The
//! file `dsk.lock` in a store says that it is ours, by making it or by adoption.

use super::{Store, StoreError, durable, paths::Paths};
use crate::Digest;
use std::{fs, os::unix::ffi::OsStrExt, path::Path};

impl Store {
    /// Opens the store at `root` for a daemon. One that another program filled is only read, with the
    /// lock in the folder `state`, unless `adopt` is set; from then on it is ours.
    pub fn open_in_place(root: &Path, state: &Path, adopt: bool) -> Result<Store, StoreError> {
        if adopt || !is_foreign(root) {
            return Store::open(root);
        }
        durable::create_folders(state)?;
        let place = fs::canonicalize(root).map_err(|error| StoreError::io(root, error))?;
        let key = Digest::of(place.as_os_str().as_bytes());
        let lock = state.join(format!("models-{}.lock", key.short()));
        Ok(Store::with(Paths::new(root).with_lock(lock), false))
    }

    /// Opens the store at `root` to look at it, beside whoever owns it. Nothing is written and nothing
    /// is locked, so what was there a moment ago may be gone.
    pub fn open_read_only(root: &Path) -> Result<Store, StoreError> {
        fs::read_dir(root).map_err(|error| StoreError::io(root, error))?;
        Ok(Store::with(Paths::new(root), false))
    }

    /// Whether this process may change the store.
    pub fn is_writable(&self) -> bool {
        self.0.writable
    }

    /// Fails where nothing may be written.
    pub fn check_writable(&self) -> Result<(), StoreError> {
        match self.0.writable {
            true => Ok(()),
            false => Err(StoreError::NotAdopted { path: self.root().to_owned() }),
        }
    }
}

/// Whether a program other than ours filled the folder.
fn is_foreign(root: &Path) -> bool {
    let paths = Paths::new(root);
    let filled = |folder: &Path| fs::read_dir(folder).is_ok_and(|mut all| all.next().is_some());
    !paths.lock().exists() && (filled(&paths.blobs()) || filled(&paths.manifests()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        GcOptions, ImportMode,
        fixture::{CONFIG, LICENSE, name, put_model, scratch},
    };
    use std::{collections::BTreeMap, path::PathBuf, time::SystemTime};

    /// A store as Ollama leaves it: a model, a download it has not finished, and no file of ours.
    fn ollamas() -> (tempfile::TempDir, Digest) {
        let scratch = scratch();
        put_model(&scratch.store, "m", b"weights");
        let half = Digest::of(b"half");
        fs::write(scratch.store.paths().partial(&half), "ha").unwrap();
        fs::write(scratch.store.paths().foreign_journal(&half, 0), "{}").unwrap();
        (scratch.folder, half)
    }

    fn tree(folder: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(folder).unwrap() {
            let (path, metadata) = entry.map(|e| (e.path(), e.metadata().unwrap())).unwrap();
            if metadata.is_dir() {
                found.extend(tree(&path));
            }
            found.insert(path, (metadata.len(), metadata.modified().unwrap()));
        }
        found
    }

    #[test]
    fn a_foreign_store_is_read_and_never_written() {
        let (folder, half) = ollamas();
        let state = tempfile::tempdir().unwrap();
        let before = tree(folder.path());
        let store = Store::open_in_place(folder.path(), state.path(), false).unwrap();
        let lock = store.lock().unwrap();
        assert_eq!(store.list().unwrap().len(), 1);
        assert_eq!(store.read_blob(&Digest::of(b"weights"), 7).unwrap(), b"weights");
        assert!(store.lease(&name("m")).unwrap().is_some());
        let file = state.path().join("x.gguf");
        fs::write(&file, "x").unwrap();
        let manifest = store.manifest(&name("m")).unwrap().unwrap().bytes;
        let refused: [(&str, Result<(), StoreError>); 10] = [
            ("ingest", store.ingest(&half).map(drop)),
            ("upload", store.upload().map(drop)),
            ("put_blob", store.put_blob(b"new").map(drop)),
            ("put_manifest", store.put_manifest(&name("n"), &manifest).map(drop)),
            ("copy", store.copy(&name("m"), &name("n")).map(drop)),
            ("remove", store.remove(&name("m")).map(drop)),
            ("remove_unused", store.remove_unused([half]).map(drop)),
            ("gc", store.gc(&GcOptions::default()).map(drop)),
            ("import", store.import_file(&file, ImportMode::Copy, &|_| {}).map(drop)),
            ("link", store.link_file(&file, &|_| {}).map(drop)),
        ];
        for (what, result) in refused {
            let text = result.expect_err(what).to_string();
            assert!(text.contains("--adopt"), "{what}: {text}");
        }
        assert_eq!(
            store.gc(&GcOptions { dry_run: true, ..GcOptions::default() }).unwrap().items,
            []
        );
        assert_eq!(store.verify(None, &|_| {}, &|| false).unwrap().bad, []);
        drop(lock);
        assert_eq!(tree(folder.path()), before);
    }

    #[test]
    fn two_daemons_meet_at_the_lock_elsewhere() {
        let (folder, _) = ollamas();
        let state = tempfile::tempdir().unwrap();
        let open = || Store::open_in_place(folder.path(), state.path(), false).unwrap();
        let first = open().lock().unwrap();
        assert!(matches!(open().lock(), Err(StoreError::Locked { .. })));
        drop(first);
        assert!(open().lock().is_ok());
    }

    #[test]
    fn an_adopted_store_stays_ours() {
        let (folder, half) = ollamas();
        let state = tempfile::tempdir().unwrap();
        let store = Store::open_in_place(folder.path(), state.path(), true).unwrap();
        drop(store.lock().unwrap());
        // The choice is remembered by the file in the folder.
        let store = Store::open_in_place(folder.path(), state.path(), false).unwrap();
        assert!(store.is_writable());
        assert_eq!(store.ingest(&half).unwrap().offset(), 0);
        store.remove(&name("m")).unwrap();
    }

    #[test]
    fn an_empty_or_missing_folder_is_ours() {
        let state = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir().unwrap();
        for root in [folder.path().join("missing"), folder.path().to_owned()] {
            assert!(Store::open_in_place(&root, state.path(), false).unwrap().is_writable());
        }
    }

    #[test]
    fn blobs_named_as_in_old_versions_are_read_and_removed() {
        let scratch = scratch();
        let store = &scratch.store;
        put_model(store, "m", b"weights");
        for bytes in [b"weights".as_slice(), LICENSE, CONFIG] {
            let digest = Digest::of(bytes);
            fs::rename(store.paths().blob(&digest), store.paths().old_blob(&digest)).unwrap();
        }
        let digest = Digest::of(b"weights");
        assert_eq!(store.read_blob(&digest, 7).unwrap(), b"weights");
        assert_eq!(store.blob_path(&digest), store.paths().old_blob(&digest));
        assert!(store.copy(&name("m"), &name("n")).is_ok());
        assert_eq!(store.verify(None, &|_| {}, &|| false).unwrap().blobs, 3);
        store.remove(&name("n")).unwrap();
        assert_eq!(store.remove(&name("m")).unwrap(), 7 + 16 + 2);
        assert_eq!(fs::read_dir(store.paths().blobs()).unwrap().count(), 0);
    }
}
