//! A push: the blobs that the registry lacks, then the manifest.

use super::{
    Client, ClientError, Progress, Report, TransferOptions,
    retry::{Failure, Retry},
    session::{Call, Session},
};
use crate::{Descriptor, Name, Store, StoredManifest, pump::blocking};
use futures_util::TryStreamExt;
use reqwest::{
    Body, Method, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION},
};
use std::{
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio_util::io::ReaderStream;
use url::Url;

/// Bytes read from the disk at once.
const READ_BYTES: usize = 256 << 10;
/// How often an upload's progress is looked at.
const REPORT_INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);

pub(super) async fn run(
    client: &Client,
    store: &Store,
    name: &Name,
    options: &TransferOptions,
    report: Report<'_>,
) -> Result<(), ClientError> {
    let (source, wanted) = (store.clone(), name.clone());
    let stored = blocking(move || source.manifest(&wanted)).await?;
    let stored = stored.ok_or_else(|| ClientError::NotFound { name: name.to_string() })?;
    // A removal meanwhile must not take what is being sent.
    let _pin = store.pin(stored.manifest.blobs().iter().map(|blob| blob.digest));
    let session = Session::open_to_push(client, name, options).await?;
    for blob in stored.manifest.blobs() {
        send_blob(&session, store, &blob, report).await?;
    }
    report(Progress::PushingManifest);
    let mut retry = Retry::new(session.limits());
    while let Err(failure) = put_manifest(&session, &stored).await {
        retry.pause(failure).await?;
    }
    report(Progress::Success);
    Ok(())
}

async fn put_manifest(session: &Session<'_>, stored: &StoredManifest) -> Result<(), Failure> {
    let body = || Body::from(stored.bytes.clone());
    let url = session.url(&format!("manifests/{}", stored.name.tag()));
    let mut call = Call { body: Some(&body), ..session.call(Method::PUT, url) };
    let media_type = HeaderValue::from_str(stored.manifest.content_type());
    let media_type = media_type.map_err(|_| {
        session.protocol("the manifest's media type cannot be sent in a header".to_owned())
    })?;
    call.headers.insert(CONTENT_TYPE, media_type);
    expect_success(session, session.send(&call).await?).await.map(drop)
}

async fn send_blob(
    session: &Session<'_>,
    store: &Store,
    blob: &Descriptor,
    report: Report<'_>,
) -> Result<(), ClientError> {
    let mut retry = Retry::new(session.limits());
    loop {
        match try_blob(session, store, blob, report).await {
            Ok(()) => break,
            Err(failure) => retry.pause(failure).await?,
        }
    }
    report(pushing(blob, blob.size));
    Ok(())
}

fn pushing(blob: &Descriptor, completed: u64) -> Progress {
    Progress::Pushing { digest: blob.digest, total: blob.size, completed }
}

async fn try_blob(
    session: &Session<'_>,
    store: &Store,
    blob: &Descriptor,
    report: Report<'_>,
) -> Result<(), Failure> {
    let head = session.call(Method::HEAD, session.blob_url(&blob.digest));
    if session.send(&head).await?.status() == StatusCode::OK {
        return Ok(());
    }
    let mut location = start_upload(session).await?;
    location.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
    let sent = Arc::new(AtomicU64::new(0));
    let (path, counter) = (store.clone(), Arc::clone(&sent));
    let file = blocking({
        let digest = blob.digest;
        move || path.open_blob(&digest)
    })
    .await?;
    let body = || body_of(&file, &counter);
    let mut call = Call { body: Some(&body), timeout: None, ..session.call(Method::PUT, location) };
    call.headers.insert(CONTENT_LENGTH, HeaderValue::from(blob.size));
    call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let watched = watch(session, blob, &sent, report, session.send(&call)).await?;
    expect_success(session, watched).await.map(drop)
}

/// Where to send the bytes to.
async fn start_upload(session: &Session<'_>) -> Result<Url, Failure> {
    let url = session.url("blobs/uploads/");
    let mut call = session.call(Method::POST, url.clone());
    call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    let response = expect_success(session, session.send(&call).await?).await?;
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.and_then(|location| url.join(location).ok());
    let location = location
        .ok_or_else(|| session.protocol("it starts an upload without a Location".to_owned()))?;
    session.check_redirect(&url, &location)?;
    Ok(location)
}

/// The file from its first byte, counting what leaves.
fn body_of(file: &File, counter: &Arc<AtomicU64>) -> Body {
    use std::io::Seek;
    counter.store(0, Ordering::Relaxed);
    let file = file.try_clone().and_then(|mut file| file.rewind().map(|()| file));
    let counter = Arc::clone(counter);
    let stream = futures_util::stream::once(async move {
        Ok::<_, std::io::Error>(ReaderStream::with_capacity(
            tokio::fs::File::from_std(file?),
            READ_BYTES,
        ))
    });
    Body::wrap_stream(stream.try_flatten().inspect_ok(move |chunk| {
        counter.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    }))
}

/// Reports while the request is under way, and gives it up when nothing moves.
async fn watch(
    session: &Session<'_>,
    blob: &Descriptor,
    sent: &AtomicU64,
    report: Report<'_>,
    request: impl Future<Output = Result<Response, Failure>>,
) -> Result<Response, Failure> {
    let stall = session.limits().stall;
    let (mut request, mut seen) = (std::pin::pin!(request), (0, tokio::time::Instant::now()));
    loop {
        match tokio::time::timeout(REPORT_INTERVAL.min(stall), &mut request).await {
            Ok(response) => return response,
            Err(_) if sent.load(Ordering::Relaxed) != seen.0 => {
                seen = (sent.load(Ordering::Relaxed), tokio::time::Instant::now());
                report(pushing(blob, seen.0.min(blob.size)));
            }
            Err(_) if seen.1.elapsed() >= stall => {
                return Err(session.unreachable(format!("it took no byte for {stall:?}")));
            }
            Err(_) => {}
        }
    }
}

async fn expect_success(session: &Session<'_>, response: Response) -> Result<Response, Failure> {
    if response.status().is_success() { Ok(response) } else { Err(session.refused(response).await) }
}
