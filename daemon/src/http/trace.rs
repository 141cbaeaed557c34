//! One id and one log line for every request, and a 500 for one that panics.
//!
//! What people ask models is theirs: neither bodies nor query strings are logged.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use dsk_daemon_api::{ApiError, ErrorCode};
use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::Instrument;

use super::account::{Account, Refused};
use super::reply::error_for_path;
use crate::metrics::Metrics;

/// Names a request; taken from the client if it sends one.
const ID_HEADER: &str = "x-request-id";
/// The longest id that is taken from a client.
const ID_BYTES_MAX: usize = 128;

static REQUESTS: AtomicU64 = AtomicU64::new(1);

/// Wraps a request in its span.
pub(crate) async fn request(
    State(metrics): State<Arc<Metrics>>,
    request: Request,
    next: Next,
) -> Response {
    let id = id(&request);
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let account = Account::open(metrics, id.to_str().unwrap_or_default(), route);
    let path = request.uri().path().to_owned();
    let span = tracing::info_span!(
        "request",
        id = id.to_str().unwrap_or_default(),
        method = %request.method(),
        path,
    );
    let began = Instant::now();
    async move {
        let answer = Arc::clone(&account).during(next.run(request));
        let answer = AssertUnwindSafe(answer).catch_unwind().await;
        let mut response = answer.unwrap_or_else(|panic| panicked(&path, panic.as_ref()));
        account.answered(response.extensions().get::<Refused>().copied());
        let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        // For a stream this is when it begins.
        tracing::info!(status = response.status().as_u16(), milliseconds, "answered");
        response.headers_mut().insert(ID_HEADER, id);
        response
    }
    .instrument(span)
    .await
}

/// The client's id if it is a decent one, else the next of ours.
fn id(request: &Request) -> HeaderValue {
    let given = request.headers().get(ID_HEADER).filter(|id| {
        let bytes = id.as_bytes();
        (1..=ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        let number = REQUESTS.fetch_add(1, Ordering::Relaxed);
        let id = HeaderValue::from_str(&format!("dsk-{}-{number}", std::process::id()));
        id.expect("letters, digits and dashes are a header")
    })
}

fn panicked(path: &str, panic: &(dyn std::any::Any + Send)) -> Response {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let cause = format!("a handler panicked: {}", text.unwrap_or("no message"));
    error_for_path(path, ApiError::logged(ErrorCode::Internal, cause))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use axum::{Router, middleware};
    use expect_test::expect;
    use tower::ServiceExt;

    use super::*;

    async fn boom() {
        panic!("secret");
    }

    #[tokio::test]
    async fn a_panic_is_a_500_that_tells_nothing() {
        let metrics = Arc::<Metrics>::default();
        let traced = middleware::from_fn_with_state(metrics, request);
        let router = Router::new().route("/", get(boom)).layer(traced);
        let request = Request::builder().header(ID_HEADER, "mine").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()[ID_HEADER]),
            (500, &HeaderValue::from_static("mine"))
        );
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        expect![[
            r#"{"error":"internal error; the daemon's log has the cause","code":"internal"}"#
        ]]
        .assert_eq(std::str::from_utf8(&body).unwrap());
    }

    #[test]
    fn odd_ids_are_replaced() {
        for odd in ["", "a b", &"x".repeat(200)] {
            let request = Request::builder().header(ID_HEADER, odd).body(Body::empty()).unwrap();
            assert!(id(&request).to_str().unwrap().starts_with("dsk-"), "{odd:?}");
        }
    }
}
