//! Who uses how many bytes of the store.

use super::{
    Store, StoreError,
    gc::files,
    paths::{BlobFile, classify},
};
use crate::{Digest, Name};
use std::{
    collections::{HashMap, HashSet},
    fs,
    io::ErrorKind,
    path::Path,
    time::SystemTime,
};

/// The bytes of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelUsage {
    /// The model.
    pub name: Name,
    /// The bytes of all its blobs, as its manifest says.
    pub bytes: u64,
    /// Of those, what no other model has.
    pub own_bytes: u64,
    /// Of those, what lies in a file of the user's.
    pub linked_bytes: u64,
    /// Whether a blob is missing.
    pub damaged: bool,
}

/// The bytes of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// By model, in the order of their names.
    pub models: Vec<ModelUsage>,
    /// All blobs, each once.
    pub blob_bytes: u64,
    /// How many there are.
    pub blobs: u64,
    /// Of those, what several models share.
    pub shared_bytes: u64,
    /// Of those, what no model names: left by crashes, or of a pull that has not ended.
    pub unreferenced_bytes: u64,
    /// The first bytes of blobs that are still to come, and temporary files.
    pub partial_bytes: u64,
    /// What verifications put aside.
    pub quarantine_bytes: u64,
    /// Files of the user's that models are linked to.
    pub linked_bytes: u64,
    /// What the file system has left.
    pub free_bytes: u64,
}

/// The blobs that are there, with their sizes.
#[derive(Default)]
struct Present {
    own: HashMap<Digest, u64>,
    linked: HashMap<Digest, u64>,
}

impl Present {
    fn size(&self, digest: &Digest) -> Option<u64> {
        self.own.get(digest).or_else(|| self.linked.get(digest)).copied()
    }
}

impl Store {
    /// Adds up what lies in the store. Reads every manifest and no blob.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let (present, partial_bytes) = self.present()?;
        let models = self.list()?;
        let mut users: HashMap<Digest, u64> = HashMap::new();
        for model in &models {
            for blob in model.manifest.blobs() {
                *users.entry(blob.digest).or_default() += 1;
            }
        }
        let own = |wanted: &dyn Fn(u64) -> bool| -> u64 {
            let all = present.own.iter();
            let users = |digest| users.get(digest).copied().unwrap_or(0);
            all.filter(|(digest, _)| wanted(users(digest))).map(|(_, size)| size).sum()
        };
        Ok(Usage {
            blob_bytes: own(&|_| true),
            blobs: present.own.len() as u64,
            shared_bytes: own(&|users| users > 1),
            unreferenced_bytes: own(&|users| users == 0),
            partial_bytes,
            quarantine_bytes: bytes_of(&self.paths().quarantine())?,
            linked_bytes: present.linked.values().sum(),
            free_bytes: self.free_bytes()?,
            models: models.iter().map(|model| model_usage(model, &users, &present)).collect(),
        })
    }

    /// The digests of all blobs that are here, linked ones among them. Looks at names only.
    pub fn digests(&self) -> Result<HashSet<Digest>, StoreError> {
        let mut found = HashSet::new();
        for folder in [self.paths().blobs(), self.paths().links()] {
            for (_, file_name) in files(&folder)? {
                if let BlobFile::Blob(digest) = classify(&file_name) {
                    found.insert(digest);
                }
            }
        }
        Ok(found)
    }

    /// When a blob or a link last appeared or went, by the times of their folders.
    pub fn blobs_changed(&self) -> Result<SystemTime, StoreError> {
        let time = |folder: &Path| match fs::metadata(folder).and_then(|it| it.modified()) {
            Ok(time) => Ok(time),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(SystemTime::UNIX_EPOCH),
            Err(error) => Err(StoreError::io(folder, error)),
        };
        Ok(time(&self.paths().blobs())?.max(time(&self.paths().links())?))
    }

    fn present(&self) -> Result<(Present, u64), StoreError> {
        let (mut present, mut partial_bytes) = (Present::default(), 0);
        for (path, file_name) in files(&self.paths().blobs())? {
            // As a reader finds it: a blob may be a link to where it lies, and what is no file is none.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            match classify(&file_name) {
                BlobFile::Blob(digest) if metadata.is_file() => {
                    present.own.insert(digest, metadata.len());
                }
                BlobFile::Temporary => partial_bytes += metadata.len(),
                _ => {}
            }
        }
        partial_bytes += self.partials()?.iter().map(|partial| partial.bytes).sum::<u64>();
        for (_, file_name) in files(&self.paths().links())? {
            let BlobFile::Blob(digest) = classify(&file_name) else { continue };
            if let Ok(Some(size)) =
                self.linked(&digest).and_then(|link| link.map(|link| link.check()).transpose())
            {
                present.linked.insert(digest, size);
            }
        }
        Ok((present, partial_bytes))
    }
}

fn model_usage(
    model: &super::StoredManifest,
    users: &HashMap<Digest, u64>,
    present: &Present,
) -> ModelUsage {
    let blobs = model.manifest.blobs();
    let sum = |wanted: &dyn Fn(&Digest) -> bool| -> u64 {
        blobs.iter().filter(|blob| wanted(&blob.digest)).map(|blob| blob.size).sum()
    };
    ModelUsage {
        name: model.name.clone(),
        bytes: sum(&|_| true),
        own_bytes: sum(&|digest| users.get(digest) == Some(&1)),
        linked_bytes: sum(&|digest| {
            !present.own.contains_key(digest) && present.linked.contains_key(digest)
        }),
        damaged: blobs.iter().any(|blob| present.size(&blob.digest) != Some(blob.size)),
    }
}

/// The bytes of the files in a folder.
fn bytes_of(folder: &Path) -> Result<u64, StoreError> {
    let sizes = files(folder)?.into_iter().map(|(path, _)| fs::symlink_metadata(path));
    Ok(sizes.map(|metadata| metadata.map_or(0, |metadata| metadata.len())).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        GcOptions,
        fixture::{name, put_model, scratch},
    };

    #[test]
    fn every_byte_is_counted_where_it_belongs() {
        let scratch = scratch();
        let store = &scratch.store;
        put_model(store, "a", b"weights of a");
        put_model(store, "b", b"weights of b!");
        store.put_blob(b"orphan").unwrap();
        store.ingest(&Digest::of(b"rest")).unwrap().write(b"re").unwrap();
        put_model(store, "c", b"broken");
        let elsewhere = scratch.folder.path().join("elsewhere");
        let linked = store.blob_path(&Digest::of(b"weights of b!"));
        fs::rename(&linked, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &linked).unwrap();
        let broken = Digest::of(b"broken");
        fs::write(store.blob_path(&broken), "brokem").unwrap();
        store.verify(Some(&[name("c")]), &|_| {}, &|| false).unwrap();
        let usage = store.usage().unwrap();
        let models: Vec<_> =
            usage.models.iter().map(|m| (m.bytes, m.own_bytes, m.damaged)).collect();
        assert_eq!(models, [(30, 12, false), (31, 13, false), (24, 6, true)]);
        assert_eq!((usage.blobs, usage.blob_bytes), (5, 12 + 13 + 6 + 18));
        assert_eq!((usage.shared_bytes, usage.unreferenced_bytes), (18, 6));
        assert_eq!((usage.partial_bytes, usage.quarantine_bytes, usage.linked_bytes), (2, 6, 0));
        assert!(usage.free_bytes > 0);
        assert!(!store.digests().unwrap().contains(&broken));
        assert_eq!(store.gc(&GcOptions::default()).unwrap().items, []);
    }
}
