//! OCI image layouts: a folder with the blobs of some manifests and an index that names them.
//!
//! ```text
//! <folder>/
//!   oci-layout              {"imageLayoutVersion":"1.0.0"}
//!   index.json              an index; the annotation org.opencontainers.image.ref.name is a tag
//!   blobs/sha256/<64 hex>   manifests, configurations and layers alike
//! ```
//!
//! Nothing of a layout is believed: only digests make paths, files are plain ones, and each blob's bytes
//! are hashed before the store has it. Nor is the store on the way out: a blob gets its name in the folder
//! once its bytes hashed to it.

use crate::{
    Descriptor, Digest, Hasher, Manifest, ManifestError, ManifestFormat, Name, Store, StoreError,
    StoredManifest,
    manifest::Index,
    media_type,
    repack::{RepackError, repack},
};
use serde_json::json;
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// The file that makes a folder a layout, and what stands in it.
const MARK: (&str, &str) = ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
/// The index.
const INDEX: &str = "index.json";
/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 20;
/// Indexes within indexes that are followed.
const DEPTH_MAX: usize = 2;

/// What an export is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The manifest as it is stored, byte for byte: the model keeps its id.
    OciLayout,
    /// A CNCF ModelPack over the same layers, in an OCI layout: what other tools take.
    ModelPack,
}

/// Why a layout was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The folder is no layout, or lacks something.
    #[error("{} is no usable OCI layout: {reason}", path.display())]
    Layout {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Several models are in it, or not the one that was asked for.
    #[error("{} has {}; say which", path.display(), offers(offered))]
    Choice {
        /// The folder.
        path: PathBuf,
        /// The tags or digests of what is in it.
        offered: Vec<String>,
    },
    /// A manifest that cannot be used.
    #[error("{what} cannot be used: {error}")]
    Manifest {
        /// The model, or the manifest's digest.
        what: String,
        /// Why not.
        error: ManifestError,
    },
    /// A file could not be written.
    #[error("cannot write {}: {error}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The store failed, or has no such model.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn offers(offered: &[String]) -> String {
    match offered {
        [] => "no model".to_owned(),
        [one] => format!("only {one}"),
        several => format!("{} models: {}", several.len(), several.join(", ")),
    }
}

/// Takes a model out of the layout in `folder` and stores it as `name`. `reference` is a tag or a digest
/// of the layout; without one there must be a single model in it. Blocking.
pub fn import(
    store: &Store,
    folder: &Path,
    reference: Option<&str>,
    name: &Name,
) -> Result<StoredManifest, LayoutError> {
    let layout = Layout { folder };
    layout.check_mark()?;
    let index = layout.read(&folder.join(INDEX), Index::BYTES_MAX)?;
    let bytes = layout.choose(&index, reference, DEPTH_MAX)?;
    let unusable = |error| LayoutError::Manifest { what: name.to_string(), error };
    let manifest = Manifest::from_json(&bytes).map_err(unusable)?;
    manifest.check_model().map_err(unusable)?;
    let blobs = manifest.blobs();
    let _pin = store.pin(blobs.iter().map(|blob| blob.digest));
    for blob in &blobs {
        layout.take(store, blob)?;
    }
    Ok(store.put_manifest(name, &bytes)?)
}

/// Writes the model `name` into a layout in `folder`, beside what is there already. Blocking.
pub fn export(
    store: &Store,
    name: &Name,
    folder: &Path,
    format: Format,
) -> Result<Digest, LayoutError> {
    let stored = store.manifest(name)?;
    let stored = stored.ok_or_else(|| StoreError::NotFound { what: name.to_string() })?;
    let _pin = store.pin(stored.manifest.blobs().iter().map(|blob| blob.digest));
    let layout = Layout { folder };
    layout.create()?;
    let (manifest, own_config) = match format {
        Format::OciLayout => (stored.bytes.clone(), true),
        Format::ModelPack => {
            let packed = repack(store, &stored, ManifestFormat::ModelPack);
            let packed = packed.map_err(|error| match error {
                RepackError::Manifest(error) => {
                    LayoutError::Manifest { what: stored.name.to_string(), error }
                }
                RepackError::Store(error) => error.into(),
            })?;
            layout.write(&packed.config)?;
            (packed.manifest, false)
        }
    };
    let config = stored.manifest.config.digest;
    for blob in stored.manifest.blobs() {
        if own_config || blob.digest != config {
            layout.give(store, &blob)?;
        }
    }
    let digest = layout.write(&manifest)?;
    layout.list(&manifest, digest, name.tag())?;
    Ok(digest)
}

/// A folder in this form.
#[derive(Clone, Copy)]
struct Layout<'a> {
    folder: &'a Path,
}

impl Layout<'_> {
    fn wrong(&self, path: &Path, reason: impl ToString) -> LayoutError {
        LayoutError::Layout { path: path.to_owned(), reason: reason.to_string() }
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs/sha256").join(digest.hex())
    }

    fn check_mark(&self) -> Result<(), LayoutError> {
        let path = self.folder.join(MARK.0);
        let text = self.read(&path, Index::BYTES_MAX)?;
        let mark: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| self.wrong(&path, error))?;
        match mark.get("imageLayoutVersion").and_then(serde_json::Value::as_str) {
            Some("1.0.0") => Ok(()),
            _ => Err(self.wrong(&path, "it is not of version 1.0.0")),
        }
    }

    /// A plain file, opened; links, devices and folders are refused before they are.
    fn open(&self, path: &Path) -> Result<(File, u64), LayoutError> {
        let metadata = fs::symlink_metadata(path).map_err(|error| self.wrong(path, error))?;
        if !metadata.is_file() {
            return Err(self.wrong(path, "it is not a plain file"));
        }
        let file = File::open(path).map_err(|error| self.wrong(path, error))?;
        Ok((file, metadata.len()))
    }

    /// A small file, whole.
    fn read(&self, path: &Path, bytes_max: usize) -> Result<Vec<u8>, LayoutError> {
        let (file, _) = self.open(path)?;
        let mut bytes = Vec::new();
        let read = file.take(bytes_max as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.wrong(path, error))?;
        if bytes.len() > bytes_max {
            return Err(self.wrong(path, format!("it has more than {bytes_max} bytes")));
        }
        Ok(bytes)
    }

    /// The manifest that an index has under a reference.
    fn choose(
        &self,
        index: &[u8],
        reference: Option<&str>,
        depth: usize,
    ) -> Result<Vec<u8>, LayoutError> {
        let parsed = Index::from_json(index).map_err(|error| self.wrong(self.folder, error))?;
        let named = |entry: &&crate::manifest::Entry| match reference {
            Some(text) => entry.tag() == Some(text) || entry.digest.to_string() == text,
            None => true,
        };
        let found: Vec<_> = parsed.manifests.iter().filter(named).collect();
        let [entry] = found.as_slice() else {
            let label = |entry: &crate::manifest::Entry| {
                entry.tag().map_or_else(|| entry.digest.to_string(), crate::digest::excerpt)
            };
            let offered = parsed.manifests.iter().map(label).collect();
            return Err(LayoutError::Choice { path: self.folder.to_owned(), offered });
        };
        let path = self.blob(&entry.digest);
        let bytes = self.read(&path, Manifest::BYTES_MAX)?;
        if Digest::of(&bytes) != entry.digest {
            return Err(self.wrong(&path, "its bytes are not those of its name"));
        }
        match Manifest::from_json(&bytes) {
            Err(ManifestError::Index(_)) if depth > 0 => self.choose(&bytes, None, depth - 1),
            _ => Ok(bytes),
        }
    }

    /// Copies a blob into the store, hashed on its way.
    fn take(&self, store: &Store, blob: &Descriptor) -> Result<(), LayoutError> {
        if store.blob_size(&blob.digest)? == Some(blob.size) {
            return Ok(());
        }
        let path = self.blob(&blob.digest);
        let (mut file, size) = self.open(&path)?;
        if size != blob.size {
            let reason = format!("it has {size} bytes, {} in the manifest", blob.size);
            return Err(self.wrong(&path, reason));
        }
        let mut upload = store.upload()?;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let count = file.read(&mut buffer).map_err(|error| self.wrong(&path, error))?;
            if count == 0 {
                return Ok(upload.commit(&blob.digest)?);
            }
            upload.write(&buffer[..count])?;
        }
    }

    fn create(&self) -> Result<(), LayoutError> {
        let path = self.folder.join("blobs/sha256");
        fs::create_dir_all(&path).map_err(|error| LayoutError::Write { path, error })?;
        let mark = self.folder.join(MARK.0);
        replace_with(&mark, MARK.1.as_bytes())
    }

    /// Writes a blob that is in memory.
    fn write(&self, bytes: &[u8]) -> Result<Digest, LayoutError> {
        let digest = Digest::of(bytes);
        replace_with(&self.blob(&digest), bytes)?;
        Ok(digest)
    }

    /// Copies a blob out of the store, unless its bytes are there: a file that an earlier export left may
    /// have rotted since, or have been cut off.
    fn give(&self, store: &Store, blob: &Descriptor) -> Result<(), LayoutError> {
        let path = self.blob(&blob.digest);
        if self.has(blob) {
            return Ok(());
        }
        let (mut source, from) = (store.open_blob(&blob.digest)?, store.blob_path(&blob.digest));
        replace(&path, |target| {
            let got = hash(&mut source, |bytes| target.write_all(bytes))
                .map_err(|error| error.named(&from, &path))?;
            if got == blob.digest {
                return Ok(());
            }
            let reason = format!("its bytes hash to {got}; `dsk verify --repair` fetches it again");
            Err(StoreError::Corrupt { path: from, reason }.into())
        })
    }

    /// Whether the blob's file is there, and whole.
    fn has(&self, blob: &Descriptor) -> bool {
        let Ok((mut file, size)) = self.open(&self.blob(&blob.digest)) else { return false };
        size == blob.size && hash(&mut file, |_| Ok(())).is_ok_and(|got| got == blob.digest)
    }

    /// Notes the manifest in the index, in place of what had the tag.
    fn list(&self, manifest: &[u8], digest: Digest, tag: &str) -> Result<(), LayoutError> {
        let path = self.folder.join(INDEX);
        let mut entries = match path.exists() {
            true => self.entries(&path)?,
            false => Vec::new(),
        };
        let parsed = Manifest::from_json(manifest)
            .map_err(|error| LayoutError::Manifest { what: digest.to_string(), error })?;
        let name = "org.opencontainers.image.ref.name";
        entries.retain(|entry| entry["annotations"][name] != tag);
        entries.push(json!({
            "mediaType": parsed.content_type(),
            "digest": digest,
            "size": manifest.len(),
            "annotations": {(name): tag},
        }));
        let index = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_INDEX,
            "manifests": entries,
        });
        replace_with(&path, index.to_string().as_bytes())
    }

    fn entries(&self, path: &Path) -> Result<Vec<serde_json::Value>, LayoutError> {
        let bytes = self.read(path, Index::BYTES_MAX)?;
        let index: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|error| self.wrong(path, error))?;
        Ok(index["manifests"].as_array().cloned().unwrap_or_default())
    }
}

/// Writes a file beside its place and moves it there once it is filled, so that no half of one has its name.
fn replace(
    path: &Path,
    fill: impl FnOnce(&mut File) -> Result<(), LayoutError>,
) -> Result<(), LayoutError> {
    let failed = |error| LayoutError::Write { path: path.to_owned(), error };
    let folder = path.parent().unwrap_or(Path::new("."));
    let temporary = folder.join(format!(".dsk-{}.tmp", std::process::id()));
    let written = File::create(&temporary).map_err(failed).and_then(|mut file| {
        fill(&mut file)?;
        file.sync_all().and_then(|()| fs::rename(&temporary, path)).map_err(failed)
    });
    written.inspect_err(|_| drop(fs::remove_file(&temporary)))
}

fn replace_with(path: &Path, bytes: &[u8]) -> Result<(), LayoutError> {
    let failed = |error| LayoutError::Write { path: path.to_owned(), error };
    replace(path, |file| file.write_all(bytes).map_err(failed))
}

/// Which side of a copy failed.
enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

impl CopyError {
    fn named(self, from: &Path, to: &Path) -> LayoutError {
        match self {
            CopyError::Read(error) => StoreError::io(from, error).into(),
            CopyError::Write(error) => LayoutError::Write { path: to.to_owned(), error },
        }
    }
}

/// Hashes what is read, and hands it on.
fn hash(
    source: &mut File,
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<Digest, CopyError> {
    let (mut hasher, mut buffer) = (Hasher::new(), vec![0; COPY_BYTES]);
    loop {
        let count = source.read(&mut buffer).map_err(CopyError::Read)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
        sink(&buffer[..count]).map_err(CopyError::Write)?;
    }
}

#[cfg(test)]
mod tests;
