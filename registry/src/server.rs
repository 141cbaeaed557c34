//! The embedded registry: OCI Distribution 1.1 over a store.
//!
//! It serves the models under [`DEFAULT_HOST`](crate::DEFAULT_HOST), so a store that pulls have filled
//! can be shared as it is: `library/smollm2` here is `smollm2` there. A repository is a namespace and a
//! model, nothing deeper. Indexes and artifacts of any type are kept as well, beside the models. Unless
//! there are [`Tokens`], whoever reaches the address may read and, unless it is read-only, write.

mod access;
mod blobs;
mod document;
mod error;
mod listing;
mod manifests;
mod receive;
mod recent;
mod referrers;
mod route;
mod serve;
#[cfg(test)]
mod tests;
mod uploads;
mod upstream;

pub use access::{Tokens, TokensError};
pub use serve::serve;
pub use upstream::Upstream;

use crate::Store;
use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::any,
};
use error::{Code, Problem};
use recent::Recent;
use route::Route;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use uploads::Uploads;

/// How the registry behaves.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Refuses everything that writes.
    pub read_only: bool,
    /// Takes deletions.
    pub deletes: bool,
    /// A second store to read from, such as a daemon's; never written to. What a pushed manifest names of
    /// it is copied.
    pub shared: Option<Store>,
    /// The registry to fetch from what is not here. Such a registry takes no pushes.
    pub upstream: Option<Upstream>,
    /// Who may pull and push.
    pub tokens: Tokens,
    /// How long a blob is kept that a client sent, or asked about, for a manifest to come.
    pub hold: Duration,
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
            deletes: true,
            shared: None,
            upstream: None,
            tokens: Tokens::default(),
            hold: Duration::from_secs(60 * 60),
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
    recent: Recent,
    /// Held to change what the manifests of a repository are.
    changing: Mutex<()>,
    /// Held to copy blobs of the shared store.
    copying: Mutex<()>,
}

impl App {
    fn new(store: Store, options: ServerOptions) -> App {
        let uploads = Uploads::new(options.uploads_max, options.upload_idle);
        let recent = Recent::new(options.hold);
        let (changing, copying) = Default::default();
        App { store, options, uploads, recent, changing, copying }
    }

    /// Where manifests and blobs are looked for, in this order.
    fn stores(&self) -> impl Iterator<Item = &Store> {
        [&self.store].into_iter().chain(&self.options.shared)
    }

    /// Deletes what nobody needs any more: uploads and fetches that broke off, blobs that no manifest
    /// came for. A store that is only read is left to its owner.
    fn collect(&self) {
        if self.options.read_only && self.options.upstream.is_none() {
            return;
        }
        self.recent.release(None);
        self.uploads.expire();
        let collected =
            self.store.remove_condemned().and_then(|_| self.store.gc(&crate::GcOptions::default()));
        match collected {
            Ok(collected) if collected.items.is_empty() => {}
            Ok(collected) => tracing::info!(bytes = collected.bytes(), "collected what is unused"),
            Err(error) => tracing::warn!(%error, "cannot collect what is unused"),
        }
    }

    fn read_only(&self) -> bool {
        self.options.read_only || self.options.upstream.is_some()
    }
}

/// What a handler gives back.
type Answer = Result<Response, Problem>;

/// The registry's routes over `store`.
pub fn router(store: Store, options: ServerOptions) -> Router {
    routes(Arc::new(App::new(store, options)))
}

fn routes(app: Arc<App>) -> Router {
    Router::new()
        .route("/v2", any(version))
        .route("/v2/", any(version))
        .route("/v2/{*path}", any(dispatch))
        .fallback(async || Problem::new(Code::NotFound, "a registry has only /v2/"))
        .with_state(app)
}

/// Tells clients that they found a registry of this version.
async fn version(State(app): State<Arc<App>>, request: Request) -> Response {
    let answer = match access::allow(&app, &request) {
        Ok(()) if access::reads(request.method()) => {
            ([(header::CONTENT_TYPE, "application/json")], "{}").into_response()
        }
        Ok(()) => unsupported().into_response(),
        Err(problem) => problem.into_response(),
    };
    with_version(answer)
}

async fn dispatch(
    State(app): State<Arc<App>>,
    Path(path): Path<String>,
    request: Request,
) -> Response {
    let method = request.method().clone();
    let answer = match access::allow(&app, &request) {
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

async fn handle(app: Arc<App>, path: &str, request: Request) -> Answer {
    let reads = access::reads(request.method());
    let route = Route::parse(path).map_err(|problem| match problem.code {
        // A tag that cannot be is one that nobody has put.
        Code::TagInvalid if reads => Problem::new(Code::ManifestUnknown, "no such manifest"),
        _ => problem,
    })?;
    if reads {
        read(app, route, &request.into_parts().0).await
    } else {
        write(app, route, request).await
    }
}

async fn read(app: Arc<App>, route: Route, request: &Parts) -> Answer {
    match route {
        Route::Catalog => listing::catalog(app, &request.uri).await,
        Route::Tags(repository) => listing::tags(app, repository, &request.uri).await,
        Route::Referrers(repository, subject) => {
            referrers::list(app, repository, subject, &request.uri).await
        }
        Route::Manifest(place) => manifests::get(app, place, request).await,
        Route::Blob(repository, digest) => blobs::get(app, repository, digest, request).await,
        Route::Upload(repository, id) => uploads::status(&app, &repository, &id),
        Route::Uploads(_) => Err(unsupported()),
    }
}

async fn write(app: Arc<App>, route: Route, request: Request) -> Answer {
    match (route, request.method().as_str()) {
        (Route::Manifest(place), "PUT") => manifests::put(app, place, request).await,
        (Route::Manifest(_) | Route::Blob(..), "DELETE") if !app.options.deletes => {
            Err(Problem::new(Code::Unsupported, "this registry deletes nothing"))
        }
        (Route::Manifest(place), "DELETE") => manifests::delete(app, place).await,
        (Route::Blob(_, digest), "DELETE") => blobs::delete(app, digest).await,
        (Route::Uploads(repository), "POST") => uploads::start(app, repository, request).await,
        (Route::Upload(repository, id), "PATCH") => {
            uploads::append(app, repository, id, request).await
        }
        (Route::Upload(repository, id), "PUT") => {
            uploads::complete(app, repository, id, request).await
        }
        (Route::Upload(repository, id), "DELETE") => uploads::cancel(&app, &repository, &id),
        _ => Err(unsupported()),
    }
}

fn unsupported() -> Problem {
    Problem::new(Code::Unsupported, "this resource does not take this method")
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

/// Whether the client has this version already: `If-None-Match` lists it.
fn is_current(headers: &HeaderMap, etag: &str) -> bool {
    let listed = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut listed = listed.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    listed.any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
    })
}

fn not_modified(etag: &str, digest: &crate::Digest) -> Answer {
    let response = Response::builder().status(StatusCode::NOT_MODIFIED);
    let response = response.header("docker-content-digest", digest.to_string());
    finish(response.header(header::ETAG, etag))
}

/// The value of a query parameter.
fn query(uri: &axum::http::Uri, key: &str) -> Option<String> {
    let pairs = url::form_urlencoded::parse(uri.query()?.as_bytes());
    pairs.into_iter().find(|(name, _)| name == key).map(|(_, value)| value.into_owned())
}
