//! One file of a server that is no registry: its size is asked for, its digest was known before.

use super::{
    Client, ClientError, Report, TransferOptions,
    download::{Budget, source::content_range},
    endpoint, pull,
    retry::{Failure, Retry},
    session::Session,
};
use crate::{Descriptor, Digest, Layer, Manifest, Name, Pin, Store, media_type};
use reqwest::{
    Response,
    header::{
        ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName,
        HeaderValue, RANGE,
    },
};
use std::{fmt, sync::Arc};
use url::Url;

/// The largest file that is believed in, in bytes: what the larger file systems can hold.
const FILE_BYTES_MAX: u64 = 16 << 40;

/// A model file at an address, and what it must hash to.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WebFile {
    /// An `http` or `https` URL without credentials; its query may be a signature.
    pub url: Url,
    /// The digest of its bytes, from whoever is trusted for that.
    pub digest: Digest,
}

impl fmt::Debug for WebFile {
    /// Without the query, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WebFile { url, digest } = self;
        write!(f, "WebFile({}{}, {digest})", endpoint::host_of(url), url.path())
    }
}

/// A file that is in the store now.
#[derive(Debug)]
pub struct Fetched {
    /// Its digest and size.
    pub blob: Descriptor,
    /// Keeps it there until a manifest names it.
    pub pin: Pin,
}

pub(super) async fn run(
    client: &Client,
    store: &Store,
    (name, file): (&Name, &WebFile),
    (options, budget): (&TransferOptions, &Arc<Budget>),
    report: Report<'_>,
) -> Result<Fetched, ClientError> {
    store.check_writable()?;
    let session = Session::of_file(client, name, file, options)?;
    let size = match store.blob_size(&file.digest)? {
        Some(size) => size,
        None => size(&session, file).await?,
    };
    let layer = Layer::new(media_type::MODEL, file.digest, size);
    let blob = layer.descriptor();
    // Stands for the model until its file is here and says more.
    let note = Manifest::new(blob.clone(), vec![layer]).to_json();
    let blobs = std::slice::from_ref(&blob);
    let pin = pull::gather(&session, store, (blobs, &note), budget, report).await?;
    Ok(Fetched { blob, pin })
}

async fn size(session: &Session<'_>, file: &WebFile) -> Result<u64, ClientError> {
    let mut retry = Retry::new(session.limits());
    loop {
        match try_size(session, file).await {
            Ok(size) => return Ok(size),
            Err(failure) => retry.pause(failure).await?,
        }
    }
}

/// Asks for the first byte: unlike a HEAD, that is answered wherever the file itself is, by signed URLs too.
async fn try_size(session: &Session<'_>, file: &WebFile) -> Result<u64, Failure> {
    let mut call = session.get(file.url.clone());
    call.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    call.headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
    let response = session.send(&call).await?;
    let stated = match response.status().as_u16() {
        200 => response.content_length(),
        206 => text(response.headers(), CONTENT_RANGE).and_then(content_range).and_then(|at| at.2),
        404 | 410 => {
            let (host, path) = (session.host(), file.url.path().to_owned());
            return Err(ClientError::NoFile { host, path }.into());
        }
        _ => return Err(session.refused(response).await),
    };
    check_kind(session, &response)?;
    let size = stated.filter(|size| (1..=FILE_BYTES_MAX).contains(size));
    let unknown = || session.protocol("it does not say how large the file is".to_owned());
    Ok(size.ok_or_else(unknown)?)
}

/// The bytes as they are, and not a page about them.
fn check_kind(session: &Session<'_>, response: &Response) -> Result<(), ClientError> {
    let header = |name| text(response.headers(), name).unwrap_or_default();
    if !matches!(header(CONTENT_ENCODING), "" | "identity") {
        return Err(session.protocol("it compresses the file unasked".to_owned()));
    }
    if header(CONTENT_TYPE).to_ascii_lowercase().starts_with("text/html") {
        let reason = "it sends a web page, not a file; is it the address of the download itself?";
        return Err(session.protocol(reason.to_owned()));
    }
    Ok(())
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
