//! The embedded registry: OCI Distribution v2 over a store.
//!
//! It serves the models under [`DEFAULT_HOST`](crate::DEFAULT_HOST), so a store that pulls have filled
//! can be shared as it is: `library/smollm2` here is `smollm2` there. A repository is a namespace and a
//! model, nothing deeper. There are no accounts: whoever reaches the address may read and, unless it is
//! read-only, write.

mod blobs;
mod error;
mod listing;
mod manifests;
mod receive;
mod route;
mod serve;
#[cfg(test)]
mod tests;
mod uploads;

pub use serve::serve;

use crate::Store;
use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use error::{Code, Problem};
use route::Route;
use std::{sync::Arc, time::Duration};
use uploads::Uploads;

/// How the registry behaves.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Refuses everything that writes.
    pub read_only: bool,
    /// Uploads that may be open at once.
    pub uploads_max: usize,
    /// How long an open upload may rest before it is thrown away.
    pub upload_idle: Duration,
    /// Without a byte of a request's body for this long, the request is given up.
    pub body_idle: Duration,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            read_only: false,
            uploads_max: 64,
            upload_idle: Duration::from_secs(60 * 60),
            body_idle: Duration::from_secs(60),
        }
    }
}

/// What every handler has.
#[derive(Debug)]
struct App {
    store: Store,
    options: ServerOptions,
    uploads: Uploads,
}

/// What a handler gives back.
type Answer = Result<Response, Problem>;

/// The registry's routes over `store`.
pub fn router(store: Store, options: ServerOptions) -> Router {
    let uploads = Uploads::new(options.uploads_max, options.upload_idle);
    Router::new()
        .route("/v2", get(version))
        .route("/v2/", get(version))
        .route("/v2/{*path}", any(dispatch))
        .fallback(async || Problem::new(Code::NotFound, "a registry has only /v2/"))
        .with_state(Arc::new(App { store, options, uploads }))
}

/// Tells clients that they found a registry of this version.
async fn version() -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    with_version((json, "{}").into_response())
}

async fn dispatch(
    State(app): State<Arc<App>>,
    Path(path): Path<String>,
    request: Request,
) -> Response {
    let method = request.method().clone();
    let answer = match allow(&app, &request) {
        Ok(()) => handle(app, &path, request).await,
        Err(problem) => Err(problem),
    };
    let mut response = answer.unwrap_or_else(Problem::into_response);
    if method == Method::HEAD {
        // The headers stay, Content-Length included.
        *response.body_mut() = Body::empty();
    }
    with_version(response)
}

/// Refuses writes to a read-only registry, and writes that a web page makes in someone's browser.
fn allow(app: &App, request: &Request) -> Result<(), Problem> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(());
    }
    if app.options.read_only {
        return Err(Problem::new(Code::Unsupported, "this registry is read-only"));
    }
    if request.headers().contains_key(header::ORIGIN) {
        return Err(Problem::new(Code::Denied, "a web page may not write to this registry"));
    }
    Ok(())
}

async fn handle(app: Arc<App>, path: &str, request: Request) -> Answer {
    let read = matches!(*request.method(), Method::GET | Method::HEAD);
    match (Route::parse(path)?, request.method().as_str()) {
        (Route::Catalog, _) if read => listing::catalog(&app, request.uri()).await,
        (Route::Tags(repository), _) if read => {
            listing::tags(&app, repository, request.uri()).await
        }
        (Route::Manifest(reference), _) if read => manifests::get(&app, reference).await,
        (Route::Manifest(reference), "PUT") => {
            manifests::put(&app, reference, request.into_body()).await
        }
        (Route::Manifest(reference), "DELETE") => manifests::delete(&app, reference).await,
        (Route::Blob(digest), _) if read => blobs::get(&app, digest, request.headers()).await,
        (Route::Uploads(repository), "POST") => uploads::start(app, repository, request).await,
        (Route::Upload(repository, id), "GET") => uploads::status(&app, &repository, &id),
        (Route::Upload(repository, id), "PATCH") => {
            uploads::append(app, repository, id, request).await
        }
        (Route::Upload(repository, id), "PUT") => {
            uploads::complete(app, repository, id, request).await
        }
        (Route::Upload(repository, id), "DELETE") => uploads::cancel(&app, &repository, &id),
        _ => Err(Problem::new(Code::Unsupported, "this resource does not take this method")),
    }
}

fn with_version(mut response: Response) -> Response {
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert("docker-distribution-api-version", version);
    response
}

/// An empty answer with a place and, when something was stored, its digest.
fn located(status: StatusCode, location: &str, digest: Option<&crate::Digest>) -> Answer {
    let mut response = Response::builder().status(status).header(header::LOCATION, location);
    if let Some(digest) = digest {
        response = response.header("docker-content-digest", digest.to_string());
    }
    finish(response)
}

fn finish(response: axum::http::response::Builder) -> Answer {
    finish_with(response, Body::empty())
}

fn finish_with(response: axum::http::response::Builder, body: Body) -> Answer {
    response.body(body).map_err(|error| Problem::internal(&error))
}

/// The value of a query parameter.
fn query(uri: &axum::http::Uri, key: &str) -> Option<String> {
    let pairs = url::form_urlencoded::parse(uri.query()?.as_bytes());
    pairs.into_iter().find(|(name, _)| name == key).map(|(_, value)| value.into_owned())
}
