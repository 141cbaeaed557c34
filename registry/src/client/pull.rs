//! A pull: manifest, blobs, name; then the blobs that only the old manifest needed.

use super::{
    Client, ClientError, IntegrityError, Progress, Report, TransferOptions,
    fetch::Fetch,
    retry::{Failure, Retry},
    session::Session,
};
use crate::{
    Descriptor, Digest, Manifest, Name, Store, StoredManifest, media_type, pump::blocking,
};
use reqwest::header::{ACCEPT, HeaderValue};
use std::collections::BTreeSet;

/// Both shapes of manifest that [`Manifest`] reads.
fn accepted() -> HeaderValue {
    let types = format!("{}, {}", media_type::MANIFEST, media_type::OCI_MANIFEST);
    HeaderValue::from_str(&types).expect("media types are plain text")
}

pub(super) async fn run(
    client: &Client,
    store: &Store,
    name: &Name,
    options: &TransferOptions,
    report: Report<'_>,
) -> Result<StoredManifest, ClientError> {
    report(Progress::Manifest);
    let session = Session::open(client, name, options).await?;
    let (manifest, bytes) = fetch_manifest(&session).await?;
    let blobs = manifest.blobs();
    // Until the manifest names them, nothing else keeps a removal or a prune from taking the blobs.
    let _pin = store.pin(blobs.iter().map(|blob| blob.digest));
    check_space(store, &blobs)?;
    for blob in &blobs {
        Fetch { session: &session, store, blob, report }.run().await?;
    }
    report(Progress::WritingManifest);
    let (stored, unused) = publish(store, name, bytes).await?;
    if !unused.is_empty() {
        report(Progress::RemovingUnused);
        let store = store.clone();
        blocking(move || store.remove_unused(unused)).await?;
    }
    report(Progress::Success);
    Ok(stored)
}

async fn fetch_manifest(session: &Session<'_>) -> Result<(Manifest, Vec<u8>), ClientError> {
    let mut retry = Retry::new(session.limits());
    let bytes = loop {
        match try_manifest(session).await {
            Ok(bytes) => break bytes,
            Err(failure) => retry.pause(failure).await?,
        }
    };
    let manifest = Manifest::from_json(&bytes).map_err(|error| unusable(session.name, error))?;
    Ok((manifest, bytes))
}

async fn try_manifest(session: &Session<'_>) -> Result<Vec<u8>, Failure> {
    let mut call = session.get(session.url(&format!("manifests/{}", session.name.tag())));
    call.headers.insert(ACCEPT, accepted());
    let response = session.send(&call).await?;
    if !response.status().is_success() {
        return Err(session.refused(response).await);
    }
    let stated = response.headers().get("docker-content-digest").cloned();
    let bytes = session.body(response, Manifest::BYTES_MAX).await?.ok_or_else(|| {
        let max = Manifest::BYTES_MAX;
        unusable(session.name, crate::ManifestError::TooLarge { max })
    })?;
    let stated = stated.as_ref().and_then(|value| value.to_str().ok());
    check_stated(session.name, stated, Digest::of(&bytes))?;
    Ok(bytes)
}

/// A registry that says what the manifest hashes to must be right about it.
fn check_stated(name: &Name, stated: Option<&str>, got: Digest) -> Result<(), ClientError> {
    match stated {
        Some(expected) if expected.starts_with("sha256:") && expected != got.to_string() => {
            let (name, expected) = (name.to_string(), crate::digest::excerpt(expected));
            Err(IntegrityError::ManifestDigest { name, expected, got }.into())
        }
        _ => Ok(()),
    }
}

fn unusable(name: &Name, error: crate::ManifestError) -> ClientError {
    IntegrityError::Manifest { name: name.to_string(), error }.into()
}

/// Fails before the first byte when the disk cannot take the last one.
fn check_space(store: &Store, blobs: &[Descriptor]) -> Result<(), ClientError> {
    let mut needed = 0;
    for blob in blobs {
        if store.blob_size(&blob.digest)? != Some(blob.size) {
            needed += blob.size.saturating_sub(store.partial_size(&blob.digest));
        }
    }
    let available = store.free_bytes()?;
    if needed <= available {
        return Ok(());
    }
    let path = store.root().to_owned();
    Err(ClientError::NoSpace { path, needed: Some(needed), available: Some(available) })
}

/// Gives the model its name; also returns what only its old manifest named.
async fn publish(
    store: &Store,
    name: &Name,
    bytes: Vec<u8>,
) -> Result<(StoredManifest, Vec<Digest>), ClientError> {
    let (store, name) = (store.clone(), name.clone());
    let publish = move || {
        // A manifest that cannot be read names nothing that could be told from others' blobs.
        let old = store.manifest(&name).ok().flatten();
        let new = store.put_manifest(&name, &bytes)?;
        let kept: BTreeSet<Digest> = digests(&new).collect();
        let unused = old.iter().flat_map(digests).filter(|digest| !kept.contains(digest)).collect();
        Ok((new, unused))
    };
    blocking(publish).await
}

fn digests(stored: &StoredManifest) -> impl Iterator<Item = Digest> + use<> {
    stored.manifest.blobs().into_iter().map(|blob| blob.digest)
}
