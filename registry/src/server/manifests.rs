//! Manifests: `GET HEAD PUT DELETE /v2/<repository>/manifests/<tag or digest>`.
//!
//! An image manifest under a tag is a model of the store. Everything else lies on the store's shelf:
//! indexes, what was put by its digest, and what a tag no longer names, which stays until it is deleted
//! by its digest. A manifest has one form and is sent as it was stored, whatever `Accept` says.

use super::{
    Answer, App, Body, Response, StatusCode,
    document::{Document, Kind},
    error::{Code, Problem},
    finish_with, header, is_current, located, not_modified, receive,
    route::repository,
};
use crate::{
    Descriptor, Digest, Manifest, Name, Pin, Store, StoreError, StoredManifest,
    pump::blocking,
    store::{Place, guard},
};
use axum::{extract::Request, http::request::Parts};
use std::sync::Arc;

/// A manifest as it is served.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
    content_type: String,
}

impl Found {
    /// Bytes from the shelf, which were checked when they came.
    pub(super) fn read(bytes: Vec<u8>) -> Result<Found, Problem> {
        let document = Document::parse(&bytes).map_err(StoreError::Manifest)?;
        let digest = Digest::of(&bytes);
        Ok(Found { bytes, digest, content_type: document.media_type.to_owned() })
    }
}

impl From<StoredManifest> for Found {
    fn from(stored: StoredManifest) -> Found {
        let content_type = stored.manifest.content_type().to_owned();
        Found { bytes: stored.bytes, digest: stored.digest, content_type }
    }
}

pub(super) async fn get(app: Arc<App>, place: Place, request: &Parts) -> Answer {
    let found = match app.options.upstream.clone() {
        Some(upstream) => upstream.manifest(&app, &place).await?,
        None => blocking(move || find(&app, &place)).await?,
    };
    let found = found.ok_or_else(unknown)?;
    let etag = format!("\"{}\"", found.digest);
    if is_current(&request.headers, &etag) {
        return not_modified(&etag, &found.digest);
    }
    let response = Response::builder()
        .header(header::CONTENT_TYPE, found.content_type)
        .header(header::CONTENT_LENGTH, found.bytes.len())
        .header(header::ETAG, etag)
        .header("docker-content-digest", found.digest.to_string());
    finish_with(response, Body::from(found.bytes))
}

fn unknown() -> Problem {
    Problem::new(Code::ManifestUnknown, "no such manifest")
}

/// The manifest at a place, in the first store that has it.
pub(super) fn find(app: &App, place: &Place) -> Result<Option<Found>, Problem> {
    for store in app.stores() {
        if let Some(found) = find_in(store, place)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn find_in(store: &Store, place: &Place) -> Result<Option<Found>, Problem> {
    let shelved = store.shelved(place)?.map(Found::read).transpose()?;
    match place {
        Place::Tag(name) => match shelved {
            Some(found) => Ok(Some(found)),
            None => Ok(store.manifest(name)?.map(Found::from)),
        },
        Place::Digest(repository, digest) => {
            let is_it = |found: &Found| found.digest == *digest;
            match shelved.filter(is_it) {
                Some(found) => Ok(Some(found)),
                None => Ok(all(store, repository)?.into_iter().map(|(_, f)| f).find(is_it)),
            }
        }
    }
}

/// Every readable manifest of a repository, with its place.
pub(super) fn all(store: &Store, repository: &Name) -> Result<Vec<(Place, Found)>, StoreError> {
    let mut found = Vec::new();
    for place in store.shelved_places(repository)? {
        let read = store.shelved(&place)?.and_then(|bytes| Found::read(bytes).ok());
        found.extend(read.map(|manifest| (place, manifest)));
    }
    for name in store.tags(repository)? {
        let read = store.manifest(&name).ok().flatten();
        found.extend(read.map(|stored| (Place::Tag(name), Found::from(stored))));
    }
    Ok(found)
}

pub(super) async fn put(app: Arc<App>, place: Place, request: Request) -> Answer {
    let announced = request.headers().get(header::CONTENT_TYPE);
    let announced = announced.and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    let body = request.into_body();
    let bytes = receive::small(body, Manifest::BYTES_MAX, app.options.body_idle).await?;
    let digest = Digest::of(&bytes);
    if matches!(place, Place::Digest(_, wanted) if wanted != digest) {
        let message = "the manifest's bytes do not hash to the digest in the path";
        return Err(Problem::new(Code::DigestInvalid, message));
    }
    let document = Document::parse(&bytes).map_err(StoreError::Manifest)?;
    document.check_announced(&announced).map_err(StoreError::Manifest)?;
    let subject = document.subject;
    let location = format!("/v2/{}/manifests/{digest}", repository(place.repository()));
    let stored = blocking(move || {
        let _pins = copy_shared(&app, &document.kind)?;
        file(&app, &place, &document, &bytes)
    });
    let stored = stored.await;
    stored.map_err(Problem::in_manifest)?;
    let mut response = located(StatusCode::CREATED, &location, Some(&digest))?;
    if let Some(subject) = subject {
        // This tells the client that it need not keep a list of referrers under a tag itself.
        let subject = subject.to_string().parse();
        let subject = subject.expect("a digest is letters, digits and a colon");
        response.headers_mut().insert("oci-subject", subject);
    }
    Ok(response)
}

/// Copies what only the shared store has of an image: whoever asked was told that it is there, and sent
/// nothing. One image at a time, so that a client that does not wait and asks again has nothing copied twice.
fn copy_shared(app: &App, kind: &Kind) -> Result<Vec<Pin>, Problem> {
    let (Kind::Image(manifest), Some(shared)) = (kind, &app.options.shared) else {
        return Ok(Vec::new());
    };
    let _copying = guard(&app.copying);
    let mut blobs = manifest.blobs();
    blobs.retain(|blob| {
        !app.store.has(&blob.digest)
            && matches!(shared.blob_size(&blob.digest), Ok(Some(size)) if size == blob.size)
    });
    let copy = |blob: &Descriptor| Ok(app.store.import_blob(shared, &blob.digest)?);
    blobs.iter().map(copy).collect()
}

fn file(app: &App, place: &Place, document: &Document, bytes: &[u8]) -> Result<(), Problem> {
    let _changing = guard(&app.changing);
    let store = &app.store;
    if let Kind::Index(named) = &document.kind {
        check_named(app, place.repository(), named)?;
    }
    if let Place::Tag(name) = place
        && let Ok(Some(old)) = find_in(store, place)
        && old.digest != Digest::of(bytes)
    {
        keep(store, name, &old)?;
    }
    match (&document.kind, place) {
        (Kind::Image(_), Place::Tag(name)) => {
            store.put_manifest(name, bytes)?;
            store.unshelve(place)?;
        }
        (Kind::Image(manifest), Place::Digest(..)) => store.shelve_whole(place, manifest, bytes)?,
        (Kind::Index(_), _) => {
            store.shelve(place, bytes)?;
            remove_model(store, place)?;
        }
    }
    Ok(())
}

/// An index names manifests that are there, so whoever resolves it finds what it lists.
fn check_named(app: &App, repository: &Name, named: &[Digest]) -> Result<(), Problem> {
    for digest in named {
        if find(app, &Place::Digest(repository.clone(), *digest))?.is_none() {
            let message = format!("the index names {digest}, which this repository does not have");
            return Err(Problem::new(Code::ManifestBlobUnknown, message));
        }
    }
    Ok(())
}

/// Shelves a manifest that is about to lose its tag, unless it has another place.
fn keep(store: &Store, repository: &Name, found: &Found) -> Result<(), Problem> {
    let places = all(store, repository)?;
    if places.iter().filter(|(_, other)| other.digest == found.digest).count() <= 1 {
        store.shelve(&Place::Digest(repository.clone(), found.digest), &found.bytes)?;
    }
    Ok(())
}

fn remove_model(store: &Store, place: &Place) -> Result<(), StoreError> {
    match place {
        Place::Tag(name) => match store.remove(name) {
            Err(StoreError::NotFound { .. }) => Ok(()),
            other => other.map(drop),
        },
        Place::Digest(..) => Ok(()),
    }
}

/// Deleting a tag leaves its manifest under the digest; deleting the digest deletes it, every tag that
/// has it, and the blobs that nothing else names.
pub(super) async fn delete(app: Arc<App>, place: Place) -> Answer {
    blocking(move || remove(&app, &place)).await?;
    finish_with(Response::builder().status(StatusCode::ACCEPTED), Body::empty())
}

fn remove(app: &App, place: &Place) -> Result<(), Problem> {
    let _changing = guard(&app.changing);
    let store = &app.store;
    app.recent.release(None);
    match place {
        Place::Tag(name) => {
            let found = find_in(store, place)?.ok_or_else(unknown)?;
            keep(store, name, &found)?;
            store.unshelve(place)?;
            remove_model(store, place)?;
        }
        Place::Digest(repository, digest) => {
            let mut places = all(store, repository)?;
            places.retain(|(_, found)| found.digest == *digest);
            let manifest = Manifest::from_json(&places.first().ok_or_else(unknown)?.1.bytes);
            for (place, _) in places {
                store.unshelve(&place)?;
                remove_model(store, &place)?;
            }
            let blobs = manifest.map(|manifest| manifest.blobs()).unwrap_or_default();
            store.remove_unused(blobs.iter().map(|blob| blob.digest))?;
        }
    }
    Ok(())
}
