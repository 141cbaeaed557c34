//! Manifests: stored byte for byte, under their name, always with all their blobs.

use super::{Store, StoreError, durable, guard, tree};
use crate::{Digest, Layer, Manifest, Name, failpoints::step};
use std::{
    fs::{self, File},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// A model of the store.
#[derive(Clone, Debug)]
pub struct StoredManifest {
    /// The name it is stored under.
    pub name: Name,
    /// The digest of `bytes`: the model's id.
    pub digest: Digest,
    /// The parsed manifest.
    pub manifest: Manifest,
    /// The manifest as it was received.
    pub bytes: Vec<u8>,
    /// When it was stored.
    pub modified: SystemTime,
}

/// What tells whether a manifest is the one that was seen before, without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The name it is stored under.
    pub name: Name,
    /// When its file was written.
    pub modified: SystemTime,
    /// Its file's length in bytes.
    pub bytes: u64,
    /// Its file's number in the file system: another one after a rename.
    pub inode: u64,
}

impl StoredManifest {
    /// The bytes of all layers and of the configuration.
    pub fn size(&self) -> u64 {
        self.manifest.size()
    }

    /// The first layer of a kind.
    pub fn layer(&self, kind: &str) -> Option<&Layer> {
        self.manifest.layers.iter().find(|layer| layer.kind() == kind)
    }

    /// Every layer of a kind, in order.
    pub fn layers(&self, kind: &str) -> impl Iterator<Item = &Layer> {
        self.manifest.of_kind(kind)
    }
}

impl Store {
    /// Stores a manifest verbatim under `name`, in place of what was there. Every blob it names must be
    /// there with the size it gives.
    pub fn put_manifest(&self, name: &Name, bytes: &[u8]) -> Result<StoredManifest, StoreError> {
        self.check_writable()?;
        let manifest = Manifest::from_json(bytes)?;
        let _changing = guard(&self.0.manifests);
        self.check_blobs(&manifest)?;
        self.write_manifest(&self.paths().manifest(name), bytes)?;
        self.forget_pull(name)?;
        Ok(StoredManifest {
            name: name.clone(),
            digest: Digest::of(bytes),
            manifest,
            bytes: bytes.to_owned(),
            modified: SystemTime::now(),
        })
    }

    /// The model's manifest, None when there is no such model.
    pub fn manifest(&self, name: &Name) -> Result<Option<StoredManifest>, StoreError> {
        self.read_manifest(name, &self.paths().manifest(name))
    }

    /// Every model, by name. What cannot be read is skipped with a warning in the log.
    pub fn list(&self) -> Result<Vec<StoredManifest>, StoreError> {
        let mut models = Vec::new();
        for (name, path) in self.manifest_files()? {
            match self.read_manifest(&name, &path) {
                Ok(found) => models.extend(found),
                Err(error) => tracing::warn!(%name, %error, "skipping a manifest"),
            }
        }
        Ok(models)
    }

    /// A stamp of every manifest, readable or not, by name.
    pub fn stamps(&self) -> Result<Vec<Stamp>, StoreError> {
        use std::os::unix::fs::MetadataExt;
        let mut stamps = Vec::new();
        for (name, path) in self.manifest_files()? {
            // One that was removed this instant is not there.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let (bytes, inode) = (metadata.len(), metadata.ino());
            let modified = metadata.modified().map_err(|error| StoreError::io(&path, error))?;
            stamps.push(Stamp { name, modified, bytes, inode });
        }
        Ok(stamps)
    }

    /// Gives the model `from` the second name `to`.
    pub fn copy(&self, from: &Name, to: &Name) -> Result<StoredManifest, StoreError> {
        let source = self.manifest(from)?;
        let source = source.ok_or_else(|| StoreError::NotFound { what: from.to_string() })?;
        self.put_manifest(to, &source.bytes)
    }

    /// The tags of a model, by name; `name`'s own tag means nothing here.
    pub(crate) fn tags(&self, name: &Name) -> Result<Vec<Name>, StoreError> {
        let parents = [name.host(), name.namespace(), name.model()].map(str::to_owned);
        let mut found = Vec::new();
        tree::walk(&self.paths().model(name), &mut parents.to_vec(), &mut tree::read, &mut found)?;
        found.sort();
        Ok(found.into_iter().map(|(name, _)| name).collect())
    }

    /// The name of every manifest, readable or not.
    pub fn names(&self) -> Result<Vec<Name>, StoreError> {
        Ok(self.manifest_files()?.into_iter().map(|(name, _)| name).collect())
    }

    pub(super) fn check_blobs(&self, manifest: &Manifest) -> Result<(), StoreError> {
        for blob in manifest.blobs() {
            let (digest, expected) = (blob.digest, blob.size);
            match self.blob_size(&digest)? {
                Some(got) if got == expected => {}
                Some(got) => return Err(StoreError::SizeMismatch { digest, expected, got }),
                None => return Err(StoreError::blob_not_found(&digest)),
            }
        }
        Ok(())
    }

    /// The temporary file is complete and durable before it gets the name, and the name is durable
    /// before this returns.
    pub(super) fn write_manifest(&self, target: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        self.check_writable()?;
        let temporary = self.temporary();
        let file = durable::write_new(temporary.path(), bytes)?;
        step("manifest-written");
        durable::sync_file(&file, temporary.path())?;
        step("manifest-synced");
        let folder = target.parent().unwrap_or(self.root());
        durable::create_folders(folder)?;
        step("manifest-folders");
        durable::rename(temporary.path(), target)?;
        step("manifest-renamed");
        durable::sync_folder(folder)?;
        step("manifest-published");
        Ok(())
    }

    pub(super) fn read_manifest(
        &self,
        name: &Name,
        path: &Path,
    ) -> Result<Option<StoredManifest>, StoreError> {
        let Some((bytes, modified)) = read_bounded(path)? else { return Ok(None) };
        let manifest = Manifest::from_json(&bytes).map_err(|error| StoreError::Corrupt {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        let digest = Digest::of(&bytes);
        Ok(Some(StoredManifest { name: name.clone(), digest, manifest, bytes, modified }))
    }

    /// Every file that lies where a manifest lies and is named as one, by name.
    pub(super) fn manifest_files(&self) -> Result<Vec<(Name, PathBuf)>, StoreError> {
        self.0.tree.files_below(&self.paths().manifests())
    }
}

/// The file's bytes and age; None when nothing is there.
pub(super) fn read_bounded(path: &Path) -> Result<Option<(Vec<u8>, SystemTime)>, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(StoreError::io(path, error)),
    }
    let mut bytes = Vec::new();
    let mut read = || {
        let file = File::open(path)?;
        let modified = file.metadata()?.modified()?;
        // One byte more than allowed is enough for the parser to refuse it.
        file.take(Manifest::BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(modified)
    };
    match read() {
        Ok(modified) => Ok(Some((bytes, modified))),
        Err(error) if ErrorKind::NotFound == std::io::Error::kind(&error) => Ok(None),
        Err(error) => Err(StoreError::io(path, error)),
    }
}
