//! Answers: errors in the shape of each dialect, JSON objects, streams.

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::http::header::{self, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use dsk_daemon_api::{ApiError, ErrorCode};
use futures_util::Stream;
use serde::Serialize;
use serde_json::Value;

use super::account::Refused;

/// What a handler of the native API returns.
pub(crate) type Native<T = Response> = Result<T, NativeError>;
/// What a handler of the OpenAI API returns.
pub(crate) type OpenAi<T = Response> = Result<T, OpenAiError>;

/// An error that is written in the native shape.
#[derive(Debug)]
pub(crate) struct NativeError(pub(crate) ApiError);

/// An error that is written in OpenAI's shape.
#[derive(Debug)]
pub(crate) struct OpenAiError(pub(crate) ApiError);

impl<E: Into<ApiError>> From<E> for NativeError {
    fn from(error: E) -> NativeError {
        NativeError(error.into())
    }
}

impl<E: Into<ApiError>> From<E> for OpenAiError {
    fn from(error: E) -> OpenAiError {
        OpenAiError(error.into())
    }
}

impl IntoResponse for NativeError {
    fn into_response(self) -> Response {
        refuse(&self.0, &self.0.native())
    }
}

impl IntoResponse for OpenAiError {
    fn into_response(self) -> Response {
        refuse(&self.0, &self.0.openai())
    }
}

fn refuse(error: &ApiError, body: &Value) -> Response {
    log(error);
    let status = StatusCode::from_u16(error.code.status());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Extension(Refused(error.code)), json(body)).into_response();
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Writes down what the client is not told, and what was the daemon's own fault.
pub(crate) fn log(error: &ApiError) {
    let code = error.code.name();
    if error.code.status() >= 500 {
        tracing::error!(code, cause = error.internal, "{}", error.message);
    } else {
        tracing::debug!(code, cause = error.internal, "{}", error.message);
    }
}

/// An error in the shape of the dialect a path belongs to.
pub(crate) fn error_for_path(path: &str, error: ApiError) -> Response {
    match path.starts_with("/v1/") {
        true => OpenAiError(error).into_response(),
        false => NativeError(error).into_response(),
    }
}

/// The answer for a path nobody serves.
pub(crate) async fn not_found(uri: Uri) -> Response {
    let message = format!("no such endpoint: {}", uri.path());
    error_for_path(uri.path(), ApiError::new(ErrorCode::RouteNotFound, message))
}

/// The answer for a path that is served, but not for this method. The router adds `Allow`.
pub(crate) async fn method_not_allowed(method: axum::http::Method, uri: Uri) -> Response {
    let message = format!("{method} is not allowed on {}", uri.path());
    error_for_path(uri.path(), ApiError::new(ErrorCode::MethodNotAllowed, message))
}

/// An object as a whole body.
pub(crate) fn json(value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("wire types have string keys and no failing parts");
    with_type("application/json; charset=utf-8", Body::from(body))
}

/// An object as one line of a stream.
pub(crate) fn line(value: &impl Serialize) -> Bytes {
    let mut line =
        serde_json::to_vec(value).expect("wire types have string keys and no failing parts");
    line.push(b'\n');
    line.into()
}

/// An object as one server-sent event.
pub(crate) fn event(value: &impl Serialize) -> Bytes {
    let mut event = b"data: ".to_vec();
    event.extend_from_slice(&line(value));
    event.push(b'\n');
    event.into()
}

/// A body that comes in pieces.
pub(crate) fn stream<S>(content_type: &'static str, pieces: S) -> Response
where
    S: Stream<Item = Bytes> + Send + 'static,
{
    use futures_util::StreamExt;
    let body = Body::from_stream(pieces.map(Ok::<_, std::convert::Infallible>));
    let mut response = with_type(content_type, body);
    // A proxy that buffers would turn a stream into a wait.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn with_type(content_type: &'static str, body: Body) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], body).into_response()
}
