//! Blobs: `GET HEAD DELETE /v2/<repository>/blobs/<digest>`, whole or one range.

use super::{
    Answer, App, Body, Response, StatusCode,
    error::{Code, Problem},
    finish, finish_with, header, is_current, not_modified,
    upstream::{self, Flight},
};
use crate::{Digest, Name, StoreError, pieces::pieces, pump::blocking};
use axum::http::{HeaderMap, Method, request::Parts, response::Builder};
use std::{fs::File, sync::Arc};

/// What a Range header asks of a blob.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// Everything: no range, or one that RFC 9110 lets us ignore.
    Whole,
    /// From the first to the last byte, both included.
    Part(u64, u64),
    /// Nothing that the blob has.
    Outside,
}

/// Where a blob's bytes come from.
enum Source {
    /// A file with all of them.
    File(File),
    /// A file that the upstream's bytes still go into.
    Flight(Flight, Arc<File>),
    /// Nobody wants them, only their number.
    Nowhere,
}

pub(super) async fn get(
    app: Arc<App>,
    repository: Name,
    digest: Digest,
    request: &Parts,
) -> Answer {
    let headers = &request.headers;
    let etag = format!("\"{digest}\"");
    let (source, size) = find(&app, &repository, &digest, request).await?;
    if is_current(headers, &etag) {
        return not_modified(&etag, &digest);
    }
    let response = Response::builder()
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::ETAG, &etag)
        .header("docker-content-digest", digest.to_string());
    match wanted(headers, &etag, size) {
        Wanted::Whole => send(response, source, size, 0, size),
        Wanted::Part(first, last) => {
            let range = format!("bytes {first}-{last}/{size}");
            let response = response.status(StatusCode::PARTIAL_CONTENT);
            let response = response.header(header::CONTENT_RANGE, range);
            send(response, source, size, first, last - first + 1)
        }
        Wanted::Outside => finish(
            response
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{size}")),
        ),
    }
}

/// The blob and its size, from here or from the upstream.
async fn find(
    app: &Arc<App>,
    repository: &Name,
    digest: &Digest,
    request: &Parts,
) -> Result<(Source, u64), Problem> {
    let (looking, wanted) = (Arc::clone(app), *digest);
    let found = blocking(move || open(&looking, &wanted)).await;
    let head = request.method == Method::HEAD;
    match (found, &app.options.upstream) {
        (Ok((file, size)), _) => {
            if head && !app.read_only() {
                // Whoever asks before a push relies on the answer until the manifest comes. What the shared
                // store has is copied then, and held from the first.
                app.recent.hold(&app.store, digest);
            }
            Ok((Source::File(file), size))
        }
        (Err(StoreError::NotFound { .. }), Some(upstream)) if head => {
            Ok((Source::Nowhere, upstream.blob_size(repository, digest).await?))
        }
        (Err(StoreError::NotFound { .. }), Some(upstream)) => {
            let mut flight = upstream.blob(app, repository, digest)?;
            let (file, size) = flight.begun().await?;
            Ok((Source::Flight(flight, file), size))
        }
        (Err(error), _) => Err(error.into()),
    }
}

/// The blob in the first store that has it.
fn open(app: &App, digest: &Digest) -> Result<(File, u64), StoreError> {
    for store in app.stores() {
        if let Some(size) = store.blob_size(digest)? {
            return Ok((store.open_blob(digest)?, size));
        }
    }
    Err(StoreError::blob_not_found(digest))
}

/// Deletes a blob that no manifest names; the others go with their manifests.
pub(super) async fn delete(app: Arc<App>, digest: Digest) -> Answer {
    app.recent.release(Some(&digest));
    let store = app.store.clone();
    let left = blocking(move || {
        store.blob_size(&digest)?.ok_or_else(|| StoreError::blob_not_found(&digest))?;
        store.remove_unused([digest])?;
        Ok::<_, StoreError>(store.has(&digest))
    });
    if left.await? {
        let message = "a manifest names this blob, or a transfer needs it";
        return Err(Problem::new(Code::InUse, message));
    }
    finish(Response::builder().status(StatusCode::ACCEPTED))
}

fn send(response: Builder, source: Source, size: u64, first: u64, length: u64) -> Answer {
    let body = match source {
        Source::File(file) => Body::from_stream(pieces(file, first, length)),
        Source::Flight(flight, file) => {
            Body::from_stream(upstream::stream(flight, file, size, first, length))
        }
        Source::Nowhere => Body::empty(),
    };
    finish_with(response.header(header::CONTENT_LENGTH, length), body)
}

fn wanted(headers: &HeaderMap, etag: &str, size: u64) -> Wanted {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // If-Range asks for the part only of the version that the client has begun with.
    if text(header::IF_RANGE).is_some_and(|version| version != etag) {
        return Wanted::Whole;
    }
    text(header::RANGE).map_or(Wanted::Whole, |range| parse_range(range, size))
}

/// Reads `bytes=5-9`, `bytes=5-` or `bytes=-5`; lists of ranges are answered with the whole.
fn parse_range(header: &str, size: u64) -> Wanted {
    let range = header.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-'));
    let Some((first, last)) = range else { return Wanted::Whole };
    let (first, last) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => return Wanted::Whole,
        (Some(first), Some(last)) => (first, last),
        (Some(first), None) if last.is_empty() => (first, u64::MAX),
        (None, Some(0)) if first.is_empty() => return Wanted::Outside,
        (None, Some(count)) if first.is_empty() => (size.saturating_sub(count), u64::MAX),
        _ => return Wanted::Whole,
    };
    if first < size { Wanted::Part(first, last.min(size - 1)) } else { Wanted::Outside }
}

/// Decimal digits only: a sign, which `parse` would take, is not part of a range.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let cases = [
            ("bytes=0-0", Wanted::Part(0, 0)),
            ("bytes=5-", Wanted::Part(5, 9)),
            ("bytes=5-100", Wanted::Part(5, 9)),
            ("bytes=-3", Wanted::Part(7, 9)),
            ("bytes=-100", Wanted::Part(0, 9)),
            ("bytes=10-", Wanted::Outside),
            ("bytes=-0", Wanted::Outside),
            ("bytes=5-2", Wanted::Whole),
            ("bytes=0-1,4-5", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=99999999999999999999-", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
        ];
        for (header, expected) in cases {
            assert_eq!(parse_range(header, 10), expected, "{header}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Wanted::Outside);
    }
}
