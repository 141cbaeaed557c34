//! What a pull-through cache asks of the registry before it: manifests, blobs and lists as they are.

use super::{
    Client, ClientError, IntegrityError, Reference, TransferOptions,
    download::source::content_range,
    retry::{Failure, Retry},
    session::Session,
};
use crate::{Digest, Manifest, ManifestError, Name, media_type};
use bytes::Bytes;
use reqwest::{
    Method, Response,
    header::{
        ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap,
        HeaderValue, IF_NONE_MATCH, RANGE,
    },
};

/// A source that brought this many bytes has its failures before that forgotten.
const GAIN_BYTES: u64 = 1 << 20;
/// Largest list, in bytes.
const LIST_BYTES_MAX: usize = 4 << 20;

/// The answer about a manifest.
#[derive(Debug)]
pub(crate) enum Relayed {
    /// The one that is known already.
    Unchanged,
    /// Another one, whose bytes hash to what was asked for.
    Found(Vec<u8>),
    /// There is none.
    Absent,
}

/// One repository of the upstream.
#[derive(Debug)]
pub(crate) struct Relay<'a>(Session<'a>);

impl<'a> Relay<'a> {
    pub(crate) async fn open(
        client: &'a Client,
        name: &'a Name,
        insecure: bool,
    ) -> Result<Relay<'a>, ClientError> {
        let options = TransferOptions { insecure, ..TransferOptions::default() };
        Ok(Relay(Session::open(client, name, &options).await?))
    }

    /// The manifest of a reference, unless it is still the `known` one.
    pub(crate) async fn manifest(
        &self,
        reference: &Reference,
        known: Option<&Digest>,
    ) -> Result<Relayed, ClientError> {
        let mut retry = Retry::new(self.0.limits());
        loop {
            match self.try_manifest(reference, known).await {
                Ok(relayed) => return Ok(relayed),
                Err(failure) => retry.pause(failure).await?,
            }
        }
    }

    async fn try_manifest(
        &self,
        reference: &Reference,
        known: Option<&Digest>,
    ) -> Result<Relayed, Failure> {
        let mut call = self.0.get(self.0.url(&format!("manifests/{reference}")));
        for kind in [
            media_type::OCI_MANIFEST,
            media_type::MANIFEST,
            media_type::OCI_INDEX,
            media_type::MANIFEST_LIST,
        ] {
            call.headers.append(ACCEPT, HeaderValue::from_static(kind));
        }
        if let Some(known) = known {
            call.headers.insert(IF_NONE_MATCH, plain(&format!("\"{known}\"")));
        }
        let response = self.0.send(&call).await?;
        match response.status().as_u16() {
            304 if known.is_some() => return Ok(Relayed::Unchanged),
            404 => return Ok(Relayed::Absent),
            200 => {}
            _ => return Err(self.0.refused(response).await),
        }
        let body = self.0.body(response, Manifest::BYTES_MAX).await?;
        let (name, max) = (self.0.name.to_string(), Manifest::BYTES_MAX);
        let large = || IntegrityError::Manifest {
            name: name.clone(),
            error: ManifestError::TooLarge { max },
        };
        let bytes = body.ok_or_else(|| ClientError::from(large()))?;
        let got = Digest::of(&bytes);
        match reference {
            Reference::Digest(expected) if *expected != got => {
                let expected = expected.to_string();
                let wrong = IntegrityError::ManifestDigest { name, expected, got };
                Err(ClientError::from(wrong).into())
            }
            _ => Ok(Relayed::Found(bytes)),
        }
    }

    /// The size of a blob, None when there is no such blob.
    pub(crate) async fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, ClientError> {
        let mut retry = Retry::new(self.0.limits());
        loop {
            let call = self.0.call(Method::HEAD, self.0.blob_url(digest));
            let failure = match self.0.send(&call).await {
                Ok(response) if response.status().as_u16() == 404 => return Ok(None),
                Ok(response) if response.status().is_success() => {
                    // The length of a body that a HEAD does not have: only the header knows it.
                    let length = response.headers().get(CONTENT_LENGTH);
                    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
                    return length.map(Some).ok_or_else(|| self.lengthless());
                }
                Ok(response) => self.0.refused(response).await,
                Err(failure) => failure,
            };
            retry.pause(failure).await?;
        }
    }

    fn lengthless(&self) -> ClientError {
        self.0.protocol("a blob without a Content-Length".to_owned())
    }

    /// A list of the repository, such as `tags/list`, with the query that was asked; None when the
    /// upstream has no such list.
    pub(crate) async fn list(
        &self,
        resource: &str,
        query: Option<&str>,
    ) -> Result<Option<(HeaderMap, Vec<u8>)>, ClientError> {
        let mut url = self.0.url(resource);
        url.set_query(query);
        let attempt = async {
            let response = self.0.send(&self.0.get(url)).await?;
            if !response.status().is_success() {
                return Ok(None);
            }
            let headers = response.headers().clone();
            let body = self.0.body(response, LIST_BYTES_MAX).await?;
            Ok::<_, Failure>(body.map(|body| (headers, body)))
        };
        attempt.await.map_err(|failure| failure.error)
    }

    /// Begins to read a blob; None when there is no such blob.
    pub(crate) async fn blob(self, digest: Digest) -> Result<Option<Blob<'a>>, ClientError> {
        let mut retry = Retry::new(self.0.limits());
        loop {
            match self.request(&digest, 0).await {
                Ok(None) => return Ok(None),
                Ok(Some(response)) => {
                    let size = response.content_length().ok_or_else(|| self.lengthless())?;
                    return Ok(Some(Blob {
                        digest,
                        size,
                        offset: 0,
                        gained: 0,
                        response: Some(response),
                        retry,
                        relay: self,
                    }));
                }
                Err(failure) => retry.pause(failure).await?,
            }
        }
    }

    /// Asks for a blob's bytes from `offset` on.
    async fn request(&self, digest: &Digest, offset: u64) -> Result<Option<Response>, Failure> {
        let mut call = self.0.get(self.0.blob_url(digest));
        call.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if offset > 0 {
            call.headers.insert(RANGE, plain(&format!("bytes={offset}-")));
        }
        let response = self.0.send(&call).await?;
        if response.headers().get(CONTENT_ENCODING).is_some_and(|value| value != "identity") {
            return Err(self.0.protocol("it compresses blobs unasked".to_owned()).into());
        }
        match response.status().as_u16() {
            200 | 206 => Ok(Some(response)),
            404 => Ok(None),
            _ => Err(self.0.refused(response).await),
        }
    }
}

/// A blob that is being read from its first byte to its last, over as many requests as that takes.
#[derive(Debug)]
pub(crate) struct Blob<'a> {
    relay: Relay<'a>,
    digest: Digest,
    size: u64,
    offset: u64,
    /// Bytes since the last failure.
    gained: u64,
    response: Option<Response>,
    retry: Retry<'a>,
}

impl Blob<'_> {
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The next bytes, None after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while self.offset < self.size {
            match self.read().await {
                Ok(Some(chunk)) => {
                    self.offset += chunk.len() as u64;
                    self.gained += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                Ok(None) => {}
                Err(failure) => {
                    self.response = None;
                    if std::mem::take(&mut self.gained) >= GAIN_BYTES {
                        self.retry.reset();
                    }
                    self.retry.pause(failure).await?;
                }
            }
        }
        Ok(None)
    }

    /// Bytes of the running response; None when a new one was begun.
    async fn read(&mut self) -> Result<Option<Bytes>, Failure> {
        let session = &self.relay.0;
        let Some(response) = &mut self.response else {
            let response = self.relay.request(&self.digest, self.offset).await?;
            let response =
                response.ok_or_else(|| session.protocol("the blob is gone".to_owned()))?;
            self.check_part(&response)?;
            self.response = Some(response);
            return Ok(None);
        };
        let chunk = session.chunk(response).await?;
        let chunk = chunk.ok_or_else(|| {
            session.unreachable(format!("it broke off at byte {} of {}", self.offset, self.size))
        })?;
        let got = self.offset + chunk.len() as u64;
        if got > self.size {
            let (host, digest, expected) = (session.host(), self.digest, self.size);
            let wrong = IntegrityError::Size { host, digest, expected, got };
            return Err(ClientError::from(wrong).into());
        }
        Ok(Some(chunk))
    }

    /// A later request must go on exactly where the one before stopped.
    fn check_part(&self, response: &Response) -> Result<(), Failure> {
        let header = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let fits = match header.and_then(content_range) {
            Some((first, _, total)) => {
                first == self.offset && total.is_none_or(|total| total == self.size)
            }
            None => self.offset == 0,
        };
        if fits {
            return Ok(());
        }
        let reason = format!("another part of {} than the one asked for", self.digest);
        Err(self.relay.0.protocol(reason).into())
    }
}

fn plain(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("digests and digits are plain text")
}
