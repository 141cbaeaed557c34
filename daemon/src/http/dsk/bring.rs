//! `POST /api/dsk/link` and `/api/dsk/import`: a file of this machine becomes a model. `/api/dsk/files`
//! and `/api/dsk/blobs/{digest}`: what a model is made of, on its way out.
//!
//! A request that names a path is taken from this machine only, and whatever is wrong with the file gets
//! one answer: the API is no way to find out what lies on the disk.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use dsk_daemon_api::ollama::{CreateRequest, ProgressLine};
use dsk_daemon_api::store::{BringRequest, FilesRequest, FilesResponse, ModelFile};
use dsk_daemon_api::{ApiError, ErrorCode};
use dsk_daemon_engine::gguf::Gguf;
use dsk_registry::oci_layout::{self, LayoutError};
use dsk_registry::{Digest, ImportMode, Name, Pin, Shard, Store, StoreError, StoredManifest};
use futures_util::stream;
use tokio_util::io::ReaderStream;

use super::told::{Teller, answer};
use crate::Peer;
use crate::create::Recipe;
use crate::http::reply::{self, Native};
use crate::http::{Http, body, failure, parse_name, store};

/// The shortest time between two figures.
const INTERVAL: Duration = Duration::from_millis(100);
/// The file that makes a folder an OCI layout.
const LAYOUT_MARK: &str = "oci-layout";
/// Bytes of a blob that are sent at once.
const PIECE_BYTES: usize = 256 << 10;

/// How a file is brought in.
#[derive(Debug, Clone, Copy)]
enum How {
    Link,
    Import(ImportMode),
}

/// `POST /api/dsk/link`: the file stays where it is.
pub(crate) async fn link(
    State(http): State<Arc<Http>>,
    peer: Option<Extension<Peer>>,
    request: Request,
) -> Native {
    bring(http, peer, request, |_| How::Link).await
}

/// `POST /api/dsk/import`: the file is copied, or gets a second name.
pub(crate) async fn import(
    State(http): State<Arc<Http>>,
    peer: Option<Extension<Peer>>,
    request: Request,
) -> Native {
    let how = |body: &BringRequest| {
        How::Import(if body.hard_link { ImportMode::HardLink } else { ImportMode::Copy })
    };
    bring(http, peer, request, how).await
}

async fn bring(
    http: Arc<Http>,
    peer: Option<Extension<Peer>>,
    request: Request,
    how: impl FnOnce(&BringRequest) -> How,
) -> Native {
    refuse_from_elsewhere(peer)?;
    let body: BringRequest = body::json(request, body::SMALL_BYTES_MAX).await?;
    let (name, how) = (parse_name(&body.model)?, how(&body));
    let path = PathBuf::from(&body.path);
    if !path.is_absolute() {
        let message = "`path` must be absolute: the daemon's folder is not the caller's";
        return Err(ApiError::new(ErrorCode::InvalidRequest, message).into());
    }
    let store = http.service.store.clone();
    answer(move |teller| async move {
        let done = tokio::task::spawn_blocking(move || make(&store, &name, &path, how, &teller));
        done.await.map_err(|error| failure::of_task(&error))?
    })
    .await
}

fn refuse_from_elsewhere(peer: Option<Extension<Peer>>) -> Result<(), ApiError> {
    match peer {
        Some(Extension(Peer::Tcp { client, .. })) if !client.ip().to_canonical().is_loopback() => {
            let message = "files are brought in from the daemon's own machine only";
            Err(ApiError::new(ErrorCode::Forbidden, message))
        }
        _ => Ok(()),
    }
}

/// Looks at the header, brings the file in, and names it. Blocking.
fn make(
    store: &Store,
    name: &Name,
    path: &FilePath,
    how: How,
    teller: &Teller<ProgressLine>,
) -> Result<(), ApiError> {
    if let (How::Import(_), true) = (how, path.join(LAYOUT_MARK).is_file()) {
        teller.figure(ProgressLine::status("reading the layout"));
        oci_layout::import(store, path, None, name).map_err(|error| of_layout(path, error))?;
        teller.figure(ProgressLine::status("success"));
        return Ok(());
    }
    // One of several files stands for the model that they are together.
    let paths = Shard::paths(path);
    let total = header_of(&paths)?;
    let (mut files, mut before, mut pins) = (BTreeMap::new(), 0, Vec::new());
    let figures = Figures { teller, total, told: Mutex::default() };
    for (number, path) in paths.iter().enumerate() {
        let told = |done| figures.tell(before + done);
        let brought = match how {
            How::Link => store.link_file(path, &told),
            How::Import(mode) => store.import_file(path, mode, &told),
        };
        let (digest, pin) = brought.map_err(|error| of_bringing(path, &error))?;
        pins.push(pin);
        before += store.blob_size(&digest).ok().flatten().unwrap_or(0);
        files.insert(format!("{number:05}.gguf"), digest.to_string());
    }
    let request = CreateRequest { files, ..CreateRequest::default() };
    for status in Recipe::parse(name.clone(), request)?.make(store)? {
        teller.figure(ProgressLine::status(&status));
    }
    drop(pins);
    Ok(())
}

/// The length of files whose headers are those of one model.
fn header_of(paths: &[PathBuf]) -> Result<u64, ApiError> {
    for path in paths {
        let unusable = |cause: String| {
            tracing::debug!(path = %path.display(), cause, "a file was not brought in");
            let message = format!("{} is no GGUF file that the daemon can read", path.display());
            ApiError::new(ErrorCode::InvalidModel, message)
        };
        let metadata = std::fs::metadata(path).map_err(|error| unusable(error.to_string()))?;
        if !metadata.is_file() {
            return Err(unusable("not a file".to_owned()));
        }
        Gguf::open(path).map_err(|error| unusable(error.to_string()))?;
    }
    // That they are GGUF files is known by now; what they say of each other is no secret of the disk's.
    let joined = Gguf::open_all(paths).and_then(|gguf| gguf.check_complete().map(|()| gguf));
    let joined =
        joined.map_err(|error| ApiError::new(ErrorCode::InvalidModel, error.to_string()))?;
    Ok(joined.file_len())
}

/// The store's own refusals are told as they are; what the file system says only the log hears.
fn of_bringing(path: &FilePath, error: &StoreError) -> ApiError {
    match error {
        StoreError::Io { path: at, .. } | StoreError::Refused { path: at, .. } if at == path => {
            let message = format!("{} cannot be read by the daemon", path.display());
            ApiError {
                internal: Some(error.to_string()),
                ..ApiError::new(ErrorCode::InvalidModel, message)
            }
        }
        error => failure::of_store(error),
    }
}

fn of_layout(path: &FilePath, error: LayoutError) -> ApiError {
    match error {
        LayoutError::Store(error) => failure::of_store(&error),
        LayoutError::Manifest { .. } => ApiError::new(ErrorCode::InvalidModel, error.to_string()),
        error => {
            let message = format!("{} is no OCI layout of one model", path.display());
            let internal = Some(error.to_string());
            ApiError { internal, ..ApiError::new(ErrorCode::InvalidModel, message) }
        }
    }
}

/// How much of the file is hashed.
struct Figures<'a> {
    teller: &'a Teller<ProgressLine>,
    total: u64,
    told: Mutex<Option<Instant>>,
}

impl Figures<'_> {
    fn tell(&self, done: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|at| at.elapsed() < INTERVAL) && done < self.total {
            return;
        }
        *told = Some(Instant::now());
        let (total, completed) = (Some(self.total), Some(done));
        let status = "hashing".to_owned();
        self.teller.figure(ProgressLine { status, digest: None, total, completed });
    }
}

/// `POST /api/dsk/files`: what a model is made of.
pub(crate) async fn files(State(http): State<Arc<Http>>, request: Request) -> Native {
    let body: FilesRequest = body::json(request, body::SMALL_BYTES_MAX).await?;
    let found = store::find(&http.service.store, parse_name(&body.model)?).await?;
    let found = found.ok_or_else(|| failure::not_found(&body.model))?;
    Ok(reply::json(&described(&found)))
}

fn described(stored: &StoredManifest) -> FilesResponse {
    let layers = stored.manifest.layers.iter().map(|layer| ModelFile {
        media_type: layer.media_type.clone(),
        kind: layer.kind().to_owned(),
        part: layer.shard().map(|shard| shard.number),
        digest: layer.digest.to_string(),
        bytes: layer.size,
    });
    FilesResponse {
        name: stored.name.to_string(),
        manifest: String::from_utf8_lossy(&stored.bytes).into_owned(),
        files: layers.collect(),
    }
}

/// `GET /api/dsk/blobs/{digest}`: the bytes, pinned until the last is sent.
pub(crate) async fn blob(State(http): State<Arc<Http>>, Path(digest): Path<String>) -> Native {
    let digest: Digest = digest.parse().map_err(|error| failure::of_digest(&error))?;
    let pin = http.service.store.pin([digest]);
    let opened = store::blocking(&http.service.store, move |store| {
        let size = store.blob_size(&digest)?;
        size.map(|size| Ok((store.open_blob(&digest)?, size))).transpose()
    });
    let (file, size) = opened.await?.ok_or_else(|| {
        ApiError::new(ErrorCode::BlobNotFound, format!("blob \"{digest}\" not found"))
    })?;
    Ok(sent(tokio::fs::File::from_std(file), size, pin))
}

fn sent(file: tokio::fs::File, size: u64, pin: Pin) -> Response {
    use futures_util::StreamExt;
    let pieces = ReaderStream::with_capacity(file, PIECE_BYTES);
    let pieces = stream::unfold((pieces, pin), |(mut pieces, pin)| async move {
        let piece: std::io::Result<Bytes> = pieces.next().await?;
        Some((piece, (pieces, pin)))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}
