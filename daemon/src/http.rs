//! The HTTP API: routes, and what every request passes on its way to them.
//!
//! ```text
//! request -> trace (id, log line, counts, panic -> 500) -> guard (Host, Origin, CORS) -> route
//! ```
//!
//! [`ollama`], [`openai`] and [`dsk`] are dialects: they translate between the wire types of
//! `dsk_daemon_api` and the engine's one conversation type, and hold no state. What they share stands
//! beside them: [`account`] of each request, [`body`] in, [`options`] and [`conversation`] to the engine, [`answer`] from its
//! events, [`failure`] and [`reply`] out.

mod account;
mod answer;
mod body;
mod conversation;
#[cfg(test)]
mod disconnect_tests;
mod dsk;
#[cfg(test)]
mod dsk_tests;
mod facts;
mod failure;
mod guard;
mod inference;
mod ollama;
mod openai;
mod options;
mod reply;
mod store;
#[cfg(test)]
pub(crate) mod testing;
mod trace;

use std::sync::Arc;

use axum::routing::{delete, get, head, post};
use axum::{Router, middleware};
use dsk_daemon_api::{ApiError, ErrorCode};
use dsk_registry::Name;

use crate::Service;
use crate::models::ModelSpec;
use facts::FactsCache;
pub(crate) use failure::of_store;
use guard::Guard;
use inference::Model;

/// What the handlers share.
pub(crate) struct Http {
    service: Arc<Service>,
    facts: FactsCache,
    /// Held by the verification that is under way.
    verifying: Arc<tokio::sync::Mutex<()>>,
}

/// The whole API. Requests carry the [`crate::Peer`] they came from.
pub(crate) fn router(service: Arc<Service>) -> Router {
    let hostname = sysinfo::System::host_name().unwrap_or_default();
    let guard = Guard::new(service.config.host, &hostname, &service.config.origins);
    let metrics = Arc::clone(&service.metrics);
    let http = Arc::new(Http { service, facts: FactsCache::default(), verifying: Arc::default() });
    native_routes()
        .merge(openai_routes())
        .merge(dsk_routes())
        .fallback(reply::not_found)
        .method_not_allowed_fallback(reply::method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::new(guard), guard::check))
        .layer(middleware::from_fn_with_state(metrics, trace::request))
        .with_state(http)
}

/// Ollama's routes. `get` answers HEAD as well.
fn native_routes() -> Router<Arc<Http>> {
    Router::new()
        .route("/", get(ollama::root))
        .route("/api/version", get(ollama::version))
        .route("/api/tags", get(ollama::list::tags))
        .route("/api/ps", get(ollama::list::ps))
        .route("/api/show", post(ollama::show::show))
        .route("/api/copy", post(ollama::manage::copy))
        .route("/api/delete", delete(ollama::manage::delete))
        .route("/api/pull", post(ollama::transfer::pull))
        .route("/api/push", post(ollama::transfer::push))
        .route("/api/create", post(ollama::create::create))
        .route("/api/blobs/{digest}", head(ollama::blobs::exists).post(ollama::blobs::upload))
        .route("/api/generate", post(ollama::generate::generate))
        .route("/api/chat", post(ollama::chat::chat))
        .route("/api/embed", post(ollama::manage::embed))
        .route("/api/embeddings", post(ollama::manage::embed))
}

fn openai_routes() -> Router<Arc<Http>> {
    Router::new()
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{*id}", get(openai::one_model))
        .route("/v1/chat/completions", post(openai::chat::completions))
}

fn dsk_routes() -> Router<Arc<Http>> {
    Router::new()
        .route("/metrics", get(dsk::metrics::text))
        .route("/ui", get(dsk::page))
        .route("/api/dsk/version", get(dsk::version))
        .route("/api/dsk/machine", get(dsk::machine))
        .route("/api/dsk/status", get(dsk::status))
        .route("/api/dsk/logs", get(dsk::logs::logs))
        .route("/api/dsk/fit", post(dsk::fit::fit))
        .route("/api/dsk/ps", get(dsk::ps::ps))
        .route("/api/dsk/pin", post(dsk::control::pin))
        .route("/api/dsk/unpin", post(dsk::control::unpin))
        .route("/api/dsk/yield", post(dsk::control::yield_all))
        .route("/api/dsk/resume", post(dsk::control::resume))
        .merge(store_routes())
}

fn store_routes() -> Router<Arc<Http>> {
    let partials = get(dsk::upkeep::partials).delete(dsk::upkeep::remove_partial);
    Router::new()
        .route("/api/dsk/gc", post(dsk::upkeep::gc))
        .route("/api/dsk/df", get(dsk::upkeep::df))
        .route("/api/dsk/partials", partials)
        .route("/api/dsk/pause", post(dsk::upkeep::pause))
        .route("/api/dsk/verify", post(dsk::verify::verify))
        .route("/api/dsk/link", post(dsk::bring::link))
        .route("/api/dsk/import", post(dsk::bring::import))
        .route("/api/dsk/blobs/{digest}", get(dsk::bring::blob))
        .route("/api/dsk/files", post(dsk::bring::files))
}

impl Http {
    /// The model a request names: 400 without a name or with a bad one, 404 when it is not here.
    async fn model(&self, text: &str) -> Result<Model, ApiError> {
        let name = parse_name(text)?;
        let spec = ModelSpec::resolve_async(&self.service.store, &name).await;
        let spec = Arc::new(spec.map_err(|error| failure::of_models(text, &error))?);
        let facts = self.facts.of(&self.service, &spec).await?;
        Ok(Model { spec, facts })
    }
}

/// A name as a request gives it.
fn parse_name(text: &str) -> Result<Name, ApiError> {
    if text.trim().is_empty() {
        return Err(ApiError::new(ErrorCode::InvalidRequest, "model is required"));
    }
    Name::parse(text).map_err(|error| failure::of_name(&error))
}

#[cfg(test)]
mod tests;
