//! What the tests of several modules need: a store in a temporary folder, and a small model in it.

use crate::{Descriptor, Layer, Manifest, Name, Store, StoredManifest, media_type};
use tempfile::TempDir;

/// A store that goes with the value.
pub(crate) struct Scratch {
    pub(crate) store: Store,
    pub(crate) folder: TempDir,
}

pub(crate) fn scratch() -> Scratch {
    let folder = tempfile::tempdir().unwrap();
    Scratch { store: Store::open(folder.path()).unwrap(), folder }
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// Bytes that are the same every time and repeat nowhere near.
pub(crate) fn weights(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// A manifest over a model file, a licence that all models share, and an empty configuration.
pub(crate) fn manifest_of(weights: &[u8]) -> Manifest {
    let layer = |media_type: &str, bytes: &[u8]| {
        Layer::new(media_type, crate::Digest::of(bytes), bytes.len() as u64)
    };
    let layers = vec![layer(media_type::MODEL, weights), layer(media_type::LICENSE, LICENSE)];
    let (media_type, digest) = (media_type::CONFIG.to_owned(), crate::Digest::of(CONFIG));
    Manifest::new(Descriptor { media_type, digest, size: CONFIG.len() as u64 }, layers)
}

pub(crate) const LICENSE: &[u8] = b"do what you like";
pub(crate) const CONFIG: &[u8] = b"{}";

/// Puts the blobs and the manifest of such a model into a store.
pub(crate) fn put_model(store: &Store, text: &str, weights: &[u8]) -> StoredManifest {
    for bytes in [weights, LICENSE, CONFIG] {
        store.put_blob(bytes).unwrap();
    }
    store.put_manifest(&name(text), &manifest_of(weights).to_json()).unwrap()
}

/// The invariant of the store: a final name means the right bytes, a listed model has its blobs.
pub(crate) fn assert_whole(store: &Store) {
    for entry in std::fs::read_dir(store.root().join("blobs")).unwrap() {
        let path = entry.unwrap().path();
        let named = path.file_name().unwrap().to_str().unwrap().parse::<crate::Digest>();
        if let Ok(named) = named {
            assert_eq!(crate::Digest::of(&std::fs::read(&path).unwrap()), named);
        }
    }
    for model in store.list().unwrap() {
        for blob in model.manifest.blobs() {
            assert_eq!(store.blob_size(&blob.digest).unwrap(), Some(blob.size));
        }
    }
}
