//! Bodies of requests: bounded in size and in time, JSON whatever their Content-Type says.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header;
use dsk_daemon_api::{ApiError, ErrorCode};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

/// The largest body of a request that holds a conversation.
pub(crate) const CONVERSATION_BYTES_MAX: usize = 64 << 20;
/// The largest body of a create, which may hold licences and a template.
pub(crate) const CREATE_BYTES_MAX: usize = 8 << 20;
/// The largest body of every other JSON request.
pub(crate) const SMALL_BYTES_MAX: usize = 1 << 20;
/// The longest silence inside a body.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Reads a request's body as JSON of type `T`.
pub(crate) async fn json<T: DeserializeOwned>(request: Request, max: usize) -> Result<T, ApiError> {
    let bytes = read(request, max).await?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::new(ErrorCode::InvalidRequest, "missing request body"));
    }
    serde_json::from_slice(&bytes).map_err(|error| not_understood(&error))
}

/// The text names the line and column, which `serde_json` adds to every error.
fn not_understood(error: &serde_json::Error) -> ApiError {
    match error.classify() {
        Category::Data => {
            ApiError::new(ErrorCode::InvalidRequest, format!("invalid request: {error}"))
        }
        _ => ApiError::new(ErrorCode::InvalidJson, format!("the body is not valid JSON: {error}")),
    }
}

async fn read(request: Request, max: usize) -> Result<Vec<u8>, ApiError> {
    if declared_length(&request).is_some_and(|length| length > max as u64) {
        return Err(too_large(max));
    }
    let mut bytes = Vec::new();
    let mut pieces = Pieces::new(request.into_body());
    while let Some(piece) = pieces.next().await? {
        if bytes.len() + piece.len() > max {
            return Err(too_large(max));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// The length a client says its body has.
pub(crate) fn declared_length(request: &Request) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(max: usize) -> ApiError {
    let message = format!("the body is larger than {} MiB", max >> 20);
    ApiError::new(ErrorCode::BodyTooLarge, message)
}

/// A body piece by piece, for what is too large to be held.
pub(crate) struct Pieces(axum::body::BodyDataStream);

impl Pieces {
    pub(crate) fn new(body: Body) -> Pieces {
        Pieces(body.into_data_stream())
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        match tokio::time::timeout(SILENCE_MAX, self.0.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(piece))) => Ok(Some(piece)),
            Ok(Some(Err(error))) => Err(ApiError::new(
                ErrorCode::InvalidRequest,
                format!("the body broke off: {error}"),
            )),
            Err(_elapsed) => Err(ErrorCode::BodyTimeout.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::Value;

    use super::*;

    async fn check(body: &'static str, expected: Expect) {
        let request = Request::new(Body::from(body));
        let error =
            json::<std::collections::BTreeMap<String, bool>>(request, 64).await.unwrap_err();
        expected.assert_eq(&format!("{} {}", error.code.status(), error.message));
    }

    #[tokio::test]
    async fn what_is_not_understood_says_where() {
        check(" \n", expect!["400 missing request body"]).await;
        check(
            "{\"a\":\n nope}",
            expect!["400 the body is not valid JSON: expected ident at line 2 column 3"],
        )
        .await;
        check(
            "{\"a\": true",
            expect![
                "400 the body is not valid JSON: EOF while parsing an object at line 1 column 10"
            ],
        )
        .await;
        check("{\"a\": 3}", expect!["400 invalid request: invalid type: integer `3`, expected a boolean at line 1 column 7"]).await;
    }

    #[tokio::test]
    async fn bodies_end_at_their_limit() {
        let body = format!("\"{}\"", "x".repeat(1 << 20));
        let error =
            json::<Value>(Request::new(Body::from(body)), SMALL_BYTES_MAX).await.unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (ErrorCode::BodyTooLarge, "the body is larger than 1 MiB")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_is_given_up() {
        let body =
            Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let error = json::<Value>(Request::new(body), 64).await.unwrap_err();
        assert_eq!(error.code.status(), 408);
    }
}
