//! What is filed under a tag or a digest: a manifest, or an index of several.

use super::{
    ClientError, IntegrityError, Reference,
    retry::{Failure, Retry},
    session::Session,
    variants::hub,
};
use crate::{Digest, Manifest, ManifestError, manifest::Index, media_type};
use reqwest::header::{ACCEPT, HeaderValue};

/// What a reference leads to.
#[derive(Debug)]
pub(super) enum Found {
    Manifest(Manifest),
    Index(Index),
}

/// A model's manifest.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) manifest: Manifest,
    /// As they came, or were made.
    pub(super) bytes: Vec<u8>,
    /// The configuration's bytes, where the manifest was made here.
    pub(super) config: Option<Vec<u8>>,
}

/// The manifest of a model. Hugging Face has none for those in several files; theirs is made of the list of
/// files.
pub(super) async fn of_model(
    session: &Session<'_>,
    reference: &Reference,
) -> Result<Model, ClientError> {
    let refused = match fetch(session, reference).await {
        Ok((manifest, bytes)) => return Ok(Model { manifest, bytes, config: None }),
        Err(error @ ClientError::Protocol { .. }) if hub::is_hub(session.name.host()) => error,
        Err(error) => return Err(error),
    };
    match hub::manifest_of_parts(session, reference).await? {
        Some((manifest, config)) => {
            hub::learn(session, &manifest);
            let bytes = manifest.to_json();
            Ok(Model { manifest, bytes, config: Some(config) })
        }
        None => Err(refused),
    }
}

/// The manifest, and its bytes as they came.
pub(super) async fn fetch(
    session: &Session<'_>,
    reference: &Reference,
) -> Result<(Manifest, Vec<u8>), ClientError> {
    let types = [media_type::MANIFEST, media_type::OCI_MANIFEST];
    let bytes = bytes(session, reference, &types).await?;
    let manifest = Manifest::from_json(&bytes).map_err(|error| unusable(session, error))?;
    let form = |error| ClientError::Format { name: session.name.to_string(), error };
    manifest.check_model().map_err(form)?;
    Ok((manifest, bytes))
}

/// The manifest or the index.
pub(super) async fn find(
    session: &Session<'_>,
    reference: &Reference,
) -> Result<Found, ClientError> {
    let types = [
        media_type::MANIFEST,
        media_type::OCI_MANIFEST,
        media_type::OCI_INDEX,
        media_type::MANIFEST_LIST,
    ];
    let bytes = bytes(session, reference, &types).await?;
    let found = match Manifest::from_json(&bytes) {
        Err(ManifestError::Index(_)) => Index::from_json(&bytes).map(Found::Index),
        manifest => manifest.map(Found::Manifest),
    };
    found.map_err(|error| unusable(session, error))
}

async fn bytes(
    session: &Session<'_>,
    reference: &Reference,
    types: &[&str],
) -> Result<Vec<u8>, ClientError> {
    let accept = HeaderValue::from_str(&types.join(", ")).expect("media types are plain text");
    let mut retry = Retry::new(session.limits());
    loop {
        match try_bytes(session, reference, &accept).await {
            Ok(bytes) => return Ok(bytes),
            Err(failure) => retry.pause(failure).await?,
        }
    }
}

async fn try_bytes(
    session: &Session<'_>,
    reference: &Reference,
    accept: &HeaderValue,
) -> Result<Vec<u8>, Failure> {
    let mut call = session.get(session.url(&format!("manifests/{reference}")));
    call.headers.insert(ACCEPT, accept.clone());
    let response = session.send(&call).await?;
    if !response.status().is_success() {
        return Err(session.refused(response).await);
    }
    let stated = response.headers().get("docker-content-digest").cloned();
    let bytes = session.body(response, Manifest::BYTES_MAX).await?;
    let max = Manifest::BYTES_MAX;
    let bytes = bytes.ok_or_else(|| unusable(session, ManifestError::TooLarge { max }))?;
    let stated = stated.as_ref().and_then(|value| value.to_str().ok());
    let got = Digest::of(&bytes);
    check_stated(session, stated, got)?;
    if let Reference::Digest(asked) = reference {
        check_stated(session, Some(&asked.to_string()), got)?;
    }
    Ok(bytes)
}

/// A registry that says what the manifest hashes to must be right about it.
fn check_stated(
    session: &Session<'_>,
    stated: Option<&str>,
    got: Digest,
) -> Result<(), ClientError> {
    match stated {
        Some(expected) if expected.starts_with("sha256:") && expected != got.to_string() => {
            let (name, expected) = (session.name.to_string(), crate::digest::excerpt(expected));
            Err(IntegrityError::ManifestDigest { name, expected, got }.into())
        }
        _ => Ok(()),
    }
}

fn unusable(session: &Session<'_>, error: ManifestError) -> ClientError {
    IntegrityError::Manifest { name: session.name.to_string(), error }.into()
}
