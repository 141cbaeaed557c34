//! Manifests: `GET HEAD PUT DELETE /v2/<repository>/manifests/<tag or digest>`.
//!
//! The store files manifests under tags only. One that is put by digest gets the tag `sha256-<hex>`,
//! which lists of tags leave out.

use super::{
    Answer, App, Body, Response, StatusCode,
    error::{Code, Problem},
    finish_with, header, located, receive,
    route::{Reference, repository},
};
use crate::{Digest, Manifest, Name, Store, StoreError, StoredManifest, pump::blocking};

/// The tag of a manifest that has no other.
fn digest_tag(digest: &Digest) -> String {
    format!("sha256-{}", digest.hex())
}

/// Whether the tag is only the place of a manifest that was put by digest.
pub(super) fn is_digest_tag(tag: &str) -> bool {
    tag.starts_with("sha256-") && tag.parse::<Digest>().is_ok()
}

pub(super) async fn get(app: &App, reference: Reference) -> Answer {
    let store = app.store.clone();
    let stored = blocking(move || find(&store, &reference)).await?;
    let digest = stored.digest.to_string();
    let response = Response::builder()
        .header(header::CONTENT_TYPE, stored.manifest.content_type())
        .header(header::CONTENT_LENGTH, stored.bytes.len())
        .header(header::ETAG, format!("\"{digest}\""))
        .header("docker-content-digest", digest);
    finish_with(response, Body::from(stored.bytes))
}

fn find(store: &Store, reference: &Reference) -> Result<StoredManifest, Problem> {
    let found = match reference {
        Reference::Tag(name) => store.manifest(name)?,
        Reference::Digest(repository, digest) => {
            tagged(store, repository, digest)?.into_iter().next()
        }
    };
    found.ok_or_else(|| Problem::new(Code::ManifestUnknown, "no such manifest"))
}

/// Every tag of the repository whose manifest has this digest.
fn tagged(
    store: &Store,
    repository: &Name,
    digest: &Digest,
) -> Result<Vec<StoredManifest>, StoreError> {
    let tags = store.tags(repository)?.into_iter();
    let readable = tags.filter_map(|name| store.manifest(&name).ok().flatten());
    Ok(readable.filter(|stored| stored.digest == *digest).collect())
}

pub(super) async fn put(app: &App, reference: Reference, body: Body) -> Answer {
    let bytes = receive::small(body, Manifest::BYTES_MAX, app.options.body_idle).await?;
    let name = match reference {
        Reference::Tag(name) => name,
        Reference::Digest(repository, digest) => {
            if Digest::of(&bytes) != digest {
                let message = "the manifest's bytes do not hash to the digest in the path";
                return Err(Problem::new(Code::DigestInvalid, message));
            }
            let name = repository.with_tag(&digest_tag(&digest));
            name.map_err(|error| Problem::internal(&error))?
        }
    };
    let store = app.store.clone();
    let stored = blocking(move || store.put_manifest(&name, &bytes)).await;
    let stored = stored.map_err(|error| Problem::from(error).in_manifest())?;
    let location = format!("/v2/{}/manifests/{}", repository(&stored.name), stored.digest);
    located(StatusCode::CREATED, &location, Some(&stored.digest))
}

/// Deleting a tag deletes that tag; deleting a digest deletes every tag that has it.
pub(super) async fn delete(app: &App, reference: Reference) -> Answer {
    let store = app.store.clone();
    blocking(move || remove(&store, &reference)).await?;
    finish_with(Response::builder().status(StatusCode::ACCEPTED), Body::empty())
}

fn remove(store: &Store, reference: &Reference) -> Result<(), Problem> {
    let names = match reference {
        Reference::Tag(name) => vec![name.clone()],
        Reference::Digest(repository, digest) => {
            tagged(store, repository, digest)?.into_iter().map(|stored| stored.name).collect()
        }
    };
    let unknown = || Problem::new(Code::ManifestUnknown, "no such manifest");
    if names.is_empty() {
        return Err(unknown());
    }
    for name in names {
        match store.remove(&name) {
            Err(StoreError::NotFound { .. }) => return Err(unknown()),
            other => other?,
        };
    }
    Ok(())
}
