//! One blob on its way to a registry.
//!
//! A blob that the registry has, or can mount from another repository, is not sent. A small one goes in one
//! request. A large one goes in pieces (`PATCH`), and after a failure the registry is asked how many of the
//! bytes it has; a registry that takes no pieces gets it whole. Ollama's registry may send each piece on to
//! a store of its own, and then wants the MD5 of them all at the end.

use super::{
    Push,
    payload::{Content, Payload, pushing, reread},
};
use crate::{
    Descriptor, Name,
    client::{
        ClientError,
        fetch::GAIN_BYTES,
        retry::{Failure, FailureKind, Retry},
        session::{Call, Session},
    },
    pump::blocking,
};
use md5::{Digest as _, Md5};
use reqwest::{
    Method, Response, StatusCode,
    header::{
        CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RANGE,
    },
};
use std::{
    fmt::Write,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use url::Url;

/// A piece is this many times as large as a pull's range: each costs a round trip.
const PIECE_RANGES: u64 = 4;
/// The most pieces of a blob; larger blobs have larger pieces.
const PIECES_MAX: u64 = 1000;
/// The largest smallest piece that a registry can ask for, in bytes.
const PIECE_BYTES_MIN_MAX: u64 = 1 << 30;
/// Where Ollama's registry says to go on.
const UPLOAD_LOCATION: HeaderName = HeaderName::from_static("docker-upload-location");
/// Where an answer may say to go on; Ollama's comes first.
static LOCATIONS: [HeaderName; 2] = [UPLOAD_LOCATION, LOCATION];
/// What is asked of a registry that has a store of its own for the bytes.
const REDIRECT_UPLOADS: HeaderName = HeaderName::from_static("x-redirect-uploads");
/// The smallest piece that a registry takes.
const CHUNK_MIN: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// A blob that is being sent.
pub(super) struct Upload<'a> {
    push: &'a Push<'a>,
    blob: &'a Descriptor,
    content: Content,
    /// Where to go on, while an upload is open.
    open: Option<Open>,
    /// The registry takes no pieces.
    whole: bool,
    /// An upload was given up because of what the registry said.
    given_up: bool,
    /// The most bytes that were told of: progress does not go back.
    told: AtomicU64,
}

/// An upload that the registry has opened.
struct Open {
    location: Url,
    /// The bytes that the registry has.
    offset: u64,
    piece: u64,
    /// The MD5 of each piece, for a registry that wants that.
    sums: Option<Vec<[u8; 16]>>,
    /// A failure came: only the registry knows how far it is.
    doubtful: bool,
}

impl<'a> Upload<'a> {
    pub(super) fn new(push: &'a Push<'a>, blob: &'a Descriptor, content: Content) -> Upload<'a> {
        Upload {
            push,
            blob,
            content,
            open: None,
            whole: false,
            given_up: false,
            told: AtomicU64::new(0),
        }
    }

    fn tell(&self, completed: u64) {
        let before = self.told.fetch_max(completed, Ordering::Relaxed);
        (self.push.report)(pushing(self.blob, before.max(completed)));
    }

    fn session(&self) -> &'a Session<'a> {
        &self.push.session
    }

    /// Brings the blob to the registry.
    pub(super) async fn run(mut self) -> Result<(), ClientError> {
        let mut retry = Retry::new(self.session().limits());
        let mut most = 0;
        while let Err(failure) = self.attempt().await {
            let offset = self.open.as_ref().map_or(0, |open| open.offset);
            if offset >= most + GAIN_BYTES {
                retry.reset();
            }
            most = most.max(offset);
            match (&mut self.open, failure.kind) {
                (_, FailureKind::Fatal) => {}
                // A piece that is counted by its sum is sent again as it was.
                (Some(open), FailureKind::Again(_)) => open.doubtful = open.sums.is_none(),
                (open, _) => *open = None,
            }
            retry.pause(failure).await?;
        }
        self.tell(self.blob.size);
        Ok(())
    }

    async fn attempt(&mut self) -> Result<(), Failure> {
        if self.open.as_ref().is_some_and(|open| open.doubtful) {
            self.ask_status().await?;
        }
        if self.open.is_none() && (self.is_there().await? || self.begin().await?) {
            return Ok(());
        }
        while let Some(range) = self.next_piece() {
            self.send_piece(range).await?;
        }
        self.finish().await
    }

    async fn is_there(&self) -> Result<bool, Failure> {
        let session = self.session();
        let head = session.call(Method::HEAD, session.blob_url(&self.blob.digest));
        Ok(session.send(&head).await?.status() == StatusCode::OK)
    }

    /// Opens an upload; true when the registry takes the blob from another repository instead.
    async fn begin(&mut self) -> Result<bool, Failure> {
        let from = self.push.repository_with(&self.blob.digest).filter(|_| !self.given_up);
        if let Some(from) = from {
            // Whatever is wrong with the other repository is no reason not to send the blob.
            if let Ok(response) = self.post(Some(from)).await {
                match response.status() {
                    StatusCode::CREATED => return Ok(true),
                    StatusCode::ACCEPTED => return self.opened(&response).map(|()| false),
                    status => tracing::debug!(%status, "the registry does not mount the blob"),
                }
            }
        }
        let response = self.post(None).await?;
        match response.status().is_success() {
            true => self.opened(&response).map(|()| false),
            false => Err(self.session().refused(response).await),
        }
    }

    async fn post(&self, from: Option<&Name>) -> Result<Response, Failure> {
        let session = self.session();
        let mut url = session.url("blobs/uploads/");
        if let Some(from) = from {
            let repository = format!("{}/{}", from.namespace(), from.model());
            let digest = self.blob.digest.to_string();
            url.query_pairs_mut().append_pair("mount", &digest).append_pair("from", &repository);
        }
        let mut call = session.call(Method::POST, url);
        call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        session.send(&call).await
    }

    fn opened(&mut self, response: &Response) -> Result<(), Failure> {
        let session = self.session();
        let location = session.location(&session.url("blobs/uploads/"), response, &LOCATIONS)?;
        let location = location
            .ok_or_else(|| session.protocol("it starts an upload without a Location".to_owned()))?;
        let smallest = number(response, &CHUNK_MIN).unwrap_or(0).min(PIECE_BYTES_MIN_MAX);
        let share = self.blob.size.div_ceil(PIECES_MAX);
        let piece = session.limits().range_bytes.max(1).saturating_mul(PIECE_RANGES);
        let sums = response.headers().contains_key(UPLOAD_LOCATION).then(Vec::new);
        let piece = piece.max(share).max(smallest);
        self.open = Some(Open { location, offset: 0, piece, sums, doubtful: false });
        Ok(())
    }

    /// The bytes that the next request brings; none when only the end is missing, or when that brings all.
    fn next_piece(&self) -> Option<Range<u64>> {
        let open = self.open.as_ref()?;
        let pieces = !self.whole && (self.blob.size > open.piece || open.sums.is_some());
        let end = open.offset.saturating_add(open.piece).min(self.blob.size);
        (pieces && open.offset < end).then_some(open.offset..end)
    }

    /// Asks how many bytes have arrived. Where that cannot be told the blob is sent anew.
    async fn ask_status(&mut self) -> Result<(), Failure> {
        let (session, size) = (self.session(), self.blob.size);
        let Some(open) = &mut self.open else { return Ok(()) };
        let from = open.location.clone();
        let response = session.send(&session.get(from.clone())).await?;
        if response.status().is_server_error() || response.status().as_u16() == 429 {
            return Err(session.refused(response).await);
        }
        // `0-0` is the first byte or none, so it is taken for none.
        let there = response.status().is_success().then(|| arrived(&response)).flatten();
        let Some(there) = there.filter(|there| (2..=size).contains(there)) else {
            self.open = None;
            return Ok(());
        };
        (open.offset, open.doubtful) = (there, false);
        if let Some(next) = session.location(&from, &response, &LOCATIONS)? {
            open.location = next;
        }
        Ok(())
    }

    async fn send_piece(&mut self, range: Range<u64>) -> Result<(), Failure> {
        let (session, content) = (self.session(), self.content.clone());
        let Some(open) = &self.open else { return Ok(()) };
        let from = open.location.clone();
        let mut call = session.call(Method::PATCH, from.clone());
        call.follows = false;
        call.headers.insert(CONTENT_RANGE, plain(&format!("{}-{}", range.start, range.end - 1)));
        call.headers.insert(REDIRECT_UPLOADS, HeaderValue::from_static("1"));
        let response = self.send(call, range.clone(), reread(range.end - range.start)).await?;
        let sends_on = response.status() == StatusCode::TEMPORARY_REDIRECT;
        if sends_on {
            self.send_directly(&from, &response, range.clone()).await?;
        } else if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        // A Location beside the other is where this piece belongs.
        let headers = &LOCATIONS[..if sends_on { 1 } else { 2 }];
        let next = session.location(&from, &response, headers)?;
        let Some(open) = &mut self.open else { return Ok(()) };
        open.sums = open.sums.take().or_else(|| (sends_on && range.start == 0).then(Vec::new));
        if let Some(sums) = &mut open.sums {
            let piece = range.clone();
            let sum = blocking(move || content.md5(piece)).await;
            sums.push(sum?);
        }
        // A registry that took less than all of it says so.
        let there =
            arrived(&response).filter(|there| *there > range.start && range.contains(there));
        open.offset = there.filter(|_| open.sums.is_none()).unwrap_or(range.end);
        open.location = next.unwrap_or(from);
        let offset = open.offset;
        self.tell(offset);
        Ok(())
    }

    /// Brings a piece to where the registry wants it, which may be another host: that gets no credentials.
    async fn send_directly(
        &self,
        from: &Url,
        response: &Response,
        range: Range<u64>,
    ) -> Result<(), Failure> {
        let session = self.session();
        let to = session.location(from, response, &LOCATIONS[1..])?;
        let to = to.ok_or_else(|| session.protocol("it sends a piece on to nowhere".to_owned()))?;
        let reread = reread(range.end - range.start);
        let response = self.send(session.call(Method::PUT, to), range, reread).await?;
        match response.status() {
            status if status.is_success() => Ok(()),
            // The address may have expired: the registry is asked for another one.
            status if status.is_client_error() => {
                let reason = format!("a piece was sent on to where it is refused with {status}");
                Err(Failure::again(session.protocol(reason)))
            }
            _ => Err(session.refused(response).await),
        }
    }

    async fn send(
        &self,
        mut call: Call<'_>,
        range: Range<u64>,
        reread: Duration,
    ) -> Result<Response, Failure> {
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let payload = Payload::new(&self.content, range, &self.push.paces);
        payload.send(self.session(), call, reread, &|completed| self.tell(completed)).await
    }

    /// Says what the bytes hash to, and sends those that no piece has brought.
    async fn finish(&mut self) -> Result<(), Failure> {
        let session = self.session();
        let Some(open) = &self.open else { return Ok(()) };
        let mut url = open.location.clone();
        url.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        if let Some(sums) = &open.sums {
            url.query_pairs_mut().append_pair("etag", &etag(sums));
        }
        let (rest, mut call) = (open.offset..self.blob.size, session.call(Method::PUT, url));
        let response = if rest.is_empty() && rest.start > 0 {
            call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            call.timeout = Some(session.limits().stall + reread(self.blob.size));
            session.send(&call).await?
        } else {
            self.send(call, rest, reread(self.blob.size)).await?
        };
        match response.status().is_success() {
            true => Ok(()),
            false => Err(self.refused(response).await),
        }
    }

    /// What it means when the registry does not take bytes.
    async fn refused(&mut self, response: Response) -> Failure {
        let (session, status) = (self.session(), response.status());
        let in_pieces = self.open.as_ref().is_some_and(|open| open.offset > 0);
        match status.as_u16() {
            405 | 411 | 415 | 501 if !self.whole => self.whole = true,
            // It has other bytes than we believed: they are asked for.
            409 | 416 => {
                let reason = format!("it expects other bytes of {} next", self.blob.digest);
                return Failure::again(session.protocol(reason));
            }
            // It has lost the upload, or something went wrong between two pieces.
            400 | 404 | 410 if in_pieces && !self.given_up => self.given_up = true,
            _ => return session.refused(response).await,
        }
        Failure::over(session.protocol(format!("it answers {status} to an upload")))
    }
}

fn plain(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("digits are plain text")
}

fn number(response: &Response, header: &HeaderName) -> Option<u64> {
    response.headers().get(header)?.to_str().ok()?.trim().parse().ok()
}

/// How many bytes have arrived, by a header such as `Range: 0-99`.
fn arrived(response: &Response) -> Option<u64> {
    let range = response.headers().get(RANGE)?.to_str().ok()?.trim();
    let (first, last) = range.strip_prefix("bytes=").unwrap_or(range).split_once('-')?;
    (first == "0").then(|| last.parse::<u64>().ok()?.checked_add(1)).flatten()
}

/// What stores that take blobs in pieces call the whole: the MD5 of the pieces' MD5s, and their number.
fn etag(sums: &[[u8; 16]]) -> String {
    let all = Md5::digest(sums.concat());
    let mut text = String::new();
    for byte in all {
        let _ = write!(text, "{byte:02x}");
    }
    format!("{text}-{}", sums.len())
}
