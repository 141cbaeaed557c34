//! A push: the blobs that the registry lacks, side by side, then the manifest.

use super::{
    Client, ClientError, Progress, Report, TransferOptions,
    retry::{Failure, Retry},
    session::{Call, Session},
};
use crate::{
    Descriptor, Digest, Manifest, ManifestFormat, Name, Store, StoreError, StoredManifest,
    pump::blocking,
    repack::{self, RepackError},
};
use bytes::Bytes;
use futures_util::{FutureExt, TryStreamExt, future::BoxFuture, stream};
use payload::{Content, Paces, pushing};
use reqwest::{
    Body, Method, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use std::{collections::BTreeMap, sync::Arc};
use upload::Upload;

mod payload;
mod upload;

/// How registries say what a manifest's bytes hash to.
const CONTENT_DIGEST: &str = "docker-content-digest";

pub(super) async fn run(
    client: &Client,
    store: &Store,
    name: &Name,
    options: &TransferOptions,
    report: Report<'_>,
) -> Result<(), ClientError> {
    let (source, wanted, format) = (store.clone(), name.clone(), options.format);
    let (parcel, mounts) = blocking(move || {
        let stored = source.manifest(&wanted)?;
        let stored = stored.ok_or_else(|| ClientError::NotFound { name: wanted.to_string() })?;
        let parcel = Parcel::of(&source, stored, format)?;
        let mounts = parcel.mounts(&source, &wanted);
        Ok::<_, ClientError>((parcel, mounts))
    })
    .await?;
    // A removal meanwhile must not take what is being sent.
    let _pin = store.pin(parcel.blobs.iter().map(|blob| blob.digest));
    parcel.notes.iter().for_each(|note| report(Progress::Note(note.clone())));
    let session = Session::open_to_push(client, name, options).await?;
    let paces = payload::paces(client, options.limit_rate);
    let push = Push { session, report, paces, mounts };
    if push.has_manifest(&parcel).await {
        parcel.blobs.iter().for_each(|blob| report(pushing(blob, blob.size)));
    } else {
        push.send_all(store, &parcel).await?;
        report(Progress::PushingManifest);
        let mut retry = Retry::new(push.session.limits());
        while let Err(failure) = push.put_manifest(&parcel).await {
            retry.pause(failure).await?;
        }
    }
    report(Progress::Success);
    Ok(())
}

/// What is to be sent.
struct Parcel {
    /// The manifest's bytes.
    bytes: Vec<u8>,
    content_type: String,
    blobs: Vec<Descriptor>,
    /// The configuration, where it was written anew.
    config: Option<(Digest, Bytes)>,
    /// What whoever pushes should know.
    notes: Vec<String>,
}

impl Parcel {
    /// The model as it is stored, or in another format. Blocking.
    fn of(
        store: &Store,
        stored: StoredManifest,
        format: Option<ManifestFormat>,
    ) -> Result<Parcel, ClientError> {
        let StoredManifest { manifest, bytes, .. } = &stored;
        let whole = |manifest: &Manifest, bytes: &[u8]| Parcel {
            bytes: bytes.to_vec(),
            content_type: manifest.content_type().to_owned(),
            blobs: manifest.blobs(),
            config: None,
            notes: Vec::new(),
        };
        let Some(format) = format else { return Ok(whole(manifest, bytes)) };
        let unusable = |error| ClientError::Format { name: stored.name.to_string(), error };
        let packed = repack::repack(store, &stored, format).map_err(|error| match error {
            RepackError::Manifest(error) => unusable(error),
            RepackError::Store(error) => error.into(),
        })?;
        let manifest = Manifest::from_json(&packed.manifest).map_err(unusable)?;
        let config = Some((manifest.config.digest, packed.config.into()));
        let note = |what: &String| format!("{what} is left out: the format has no place for it");
        let notes = packed.left_out.iter().map(note).collect();
        Ok(Parcel { config, notes, ..whole(&manifest, &packed.manifest) })
    }

    /// Other repositories at the same host that may have the blobs: those that the layers name as where
    /// they are from, and the other models here. Blocking.
    fn mounts(&self, store: &Store, name: &Name) -> BTreeMap<Digest, Name> {
        let repository = |name: &Name| [name.namespace(), name.model()].map(str::to_owned);
        let other = |of: &Name| of.host() == name.host() && repository(of) != repository(name);
        let mut mounts = BTreeMap::new();
        let stored = store.list().unwrap_or_default();
        for model in stored.iter().filter(|model| other(&model.name)) {
            for blob in model.manifest.blobs() {
                mounts.entry(blob.digest).or_insert_with(|| model.name.clone());
            }
        }
        let layers = Manifest::from_json(&self.bytes).map(|manifest| manifest.layers);
        for layer in layers.unwrap_or_default() {
            let from = layer.from.as_deref().and_then(|from| Name::parse(from).ok());
            mounts.extend(from.filter(other).map(|from| (layer.digest, from)));
        }
        mounts
    }

    async fn content(&self, store: &Store, digest: Digest) -> Result<Content, ClientError> {
        match &self.config {
            Some((config, bytes)) if *config == digest => Ok(Content::Memory(bytes.clone())),
            _ => {
                let store = store.clone();
                let open = move || Ok((store.open_blob(&digest)?, store.blob_path(&digest)));
                let (file, path) = blocking(open).await.map_err(|error: StoreError| error)?;
                Ok(Content::File(Arc::new(file), path))
            }
        }
    }
}

/// One push.
struct Push<'a> {
    session: Session<'a>,
    report: Report<'a>,
    paces: Paces,
    mounts: BTreeMap<Digest, Name>,
}

impl Push<'_> {
    fn repository_with(&self, digest: &Digest) -> Option<&Name> {
        self.mounts.get(digest)
    }

    /// Whether the registry has this very manifest under the name, and with it all blobs.
    async fn has_manifest(&self, parcel: &Parcel) -> bool {
        let url = self.session.url(&format!("manifests/{}", self.session.name.tag()));
        let mut call = self.session.call(Method::HEAD, url);
        let Ok(media_type) = HeaderValue::from_str(&parcel.content_type) else { return false };
        call.headers.insert(ACCEPT, media_type);
        let Ok(response) = self.session.send(&call).await else { return false };
        let there = digest_of(response.headers());
        response.status() == StatusCode::OK && there == Some(Digest::of(&parcel.bytes))
    }

    /// Sends the blobs side by side, as many as there are connections for; the first error ends all.
    async fn send_all(&self, store: &Store, parcel: &Parcel) -> Result<(), ClientError> {
        // Boxed and collected first: the stream then holds no closure whose lifetimes must be inferred.
        let runs: Vec<Result<BoxFuture<'_, _>, ClientError>> =
            parcel.blobs.iter().map(|blob| Ok(self.send(store, parcel, blob).boxed())).collect();
        let connections = self.session.limits().connections.max(1);
        stream::iter(runs).try_buffer_unordered(connections).try_collect().await
    }

    async fn send(
        &self,
        store: &Store,
        parcel: &Parcel,
        blob: &Descriptor,
    ) -> Result<(), ClientError> {
        let content = parcel.content(store, blob.digest).await?;
        Upload::new(self, blob, content).run().await
    }

    async fn put_manifest(&self, parcel: &Parcel) -> Result<(), Failure> {
        let session = &self.session;
        let body = || Body::from(parcel.bytes.clone());
        let url = session.url(&format!("manifests/{}", session.name.tag()));
        let mut call = Call { body: Some(&body), ..session.call(Method::PUT, url) };
        let media_type = HeaderValue::from_str(&parcel.content_type).map_err(|_| {
            session.protocol("the manifest's media type cannot be sent in a header".to_owned())
        })?;
        call.headers.insert(CONTENT_TYPE, media_type);
        let response = session.send(&call).await?;
        if !response.status().is_success() {
            return Err(session.refused(response).await);
        }
        match digest_of(response.headers()) {
            Some(digest) if digest != Digest::of(&parcel.bytes) => {
                let reason = format!("it has stored another manifest than was sent: {digest}");
                Err(session.protocol(reason).into())
            }
            _ => Ok(()),
        }
    }
}

fn digest_of(headers: &HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}
