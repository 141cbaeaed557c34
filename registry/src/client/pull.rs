//! A pull: manifest, blobs, name; then the blobs that only the old manifest needed.

use super::{
    Client, ClientError, Progress, Reference, Report, TransferOptions,
    download::{Budget, rate::Pace},
    fetch::Fetch,
    manifest::{self, Model},
    session::Session,
    signatures,
    variants::hub,
};
use crate::{
    Descriptor, Digest, Manifest, Name, Pin, Store, StoreError, StoredManifest, pump::blocking,
};
use futures_util::{FutureExt, TryStreamExt, future::BoxFuture, stream};
use std::{collections::BTreeSet, sync::Arc};

pub(super) async fn run(
    client: &Client,
    store: &Store,
    name: &Name,
    (options, budget): (&TransferOptions, &Arc<Budget>),
    report: Report<'_>,
) -> Result<StoredManifest, ClientError> {
    store.check_writable()?;
    report(Progress::Manifest);
    let session = Session::open(client, name, options).await?;
    let reference = options.from.clone().unwrap_or_else(|| Reference::Tag(name.tag().to_owned()));
    let Model { manifest, bytes, config } = manifest::of_model(&session, &reference).await?;
    let signed = signatures::check(&session, &manifest, Digest::of(&bytes), report);
    session.aside(signed).await?;
    let _pin = store.pin([manifest.config.digest]);
    if let Some(config) = config {
        let store = store.clone();
        blocking(move || store.put_blob(&config).map(drop)).await?;
    }
    complete(&session, store, (&manifest, bytes), budget, report).await
}

/// Fetches what a model of the store lacks, by its own manifest: a tag may mean another by now. The name is
/// left alone, for it may have been pulled anew or removed meanwhile.
pub(super) async fn repair(
    client: &Client,
    store: &Store,
    name: &Name,
    (options, budget): (&TransferOptions, &Arc<Budget>),
    report: Report<'_>,
) -> Result<StoredManifest, ClientError> {
    store.check_writable()?;
    let stored = store.manifest(name)?;
    let stored = stored.ok_or_else(|| StoreError::NotFound { what: name.to_string() })?;
    let session = Session::open(client, name, options).await?;
    if hub::is_hub(name.host()) {
        hub::learn(&session, &stored.manifest);
    }
    let blobs = stored.manifest.blobs();
    let pin = store.pin(digests(&stored));
    check_space(store, &blobs)?;
    fetch_all(&session, store, &blobs, budget, report).await?;
    drop(pin);
    let (store, name) = (store.clone(), name.clone());
    blocking(move || repaired(&store, &name, &stored)).await
}

/// The model by now; what was fetched in vain for one that is another, or none, goes.
fn repaired(
    store: &Store,
    name: &Name,
    before: &StoredManifest,
) -> Result<StoredManifest, ClientError> {
    let now = store.manifest(name)?;
    if now.as_ref().is_none_or(|now| now.digest != before.digest) {
        store.remove_unused(digests(before))?;
    }
    Ok(now.ok_or_else(|| StoreError::NotFound { what: name.to_string() })?)
}

/// What one transfer may take of connections, memory and the link.
pub(super) fn budget(client: &Client, options: &TransferOptions) -> Arc<Budget> {
    let pace = Arc::new(Pace::new(options.limit_rate));
    Arc::new(Budget::new(&client.limits, [Arc::clone(&client.pace), pace]))
}

/// Fetches the blobs that are not here, then gives the model its name.
async fn complete(
    session: &Session<'_>,
    store: &Store,
    (manifest, bytes): (&Manifest, Vec<u8>),
    budget: &Arc<Budget>,
    report: Report<'_>,
) -> Result<StoredManifest, ClientError> {
    let name = session.name;
    let _pin = gather(session, store, (&manifest.blobs(), &bytes), budget, report).await?;
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

/// Fetches the blobs that are not here. `note` is the manifest that says meanwhile what they are for. Until
/// another names them, only the pin keeps a removal or a collection from taking them.
pub(super) async fn gather(
    session: &Session<'_>,
    store: &Store,
    (blobs, note): (&[Descriptor], &[u8]),
    budget: &Arc<Budget>,
    report: Report<'_>,
) -> Result<Pin, ClientError> {
    let pin = store.pin(blobs.iter().map(|blob| blob.digest));
    check_space(store, blobs)?;
    // What is fetched is kept, shown and resumed from now on, should this end before its time.
    let (noted, of, note) = (store.clone(), session.name.clone(), note.to_vec());
    blocking(move || noted.note_pull(&of, &note)).await?;
    fetch_all(session, store, blobs, budget, report).await?;
    Ok(pin)
}

/// Fetches the blobs side by side, as many as there are connections for; the first error ends all.
async fn fetch_all(
    session: &Session<'_>,
    store: &Store,
    blobs: &[Descriptor],
    budget: &Arc<Budget>,
    report: Report<'_>,
) -> Result<(), ClientError> {
    let fetches: Vec<_> =
        blobs.iter().map(|blob| Fetch { session, store, blob, budget, report }).collect();
    // Boxed and collected first: the stream then holds no closure whose lifetimes must be inferred.
    let runs: Vec<Result<BoxFuture<'_, _>, ClientError>> =
        fetches.iter().map(|fetch| Ok(fetch.run().boxed())).collect();
    let running = stream::iter(runs);
    running.try_buffer_unordered(session.limits().connections.max(1)).try_collect().await
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
