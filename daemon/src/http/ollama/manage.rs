//! `POST /api/copy`, `DELETE /api/delete`, and the embeddings that are refused.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use dsk_daemon_api::ollama::{CopyRequest, DeleteRequest, ShowRequest};
use dsk_daemon_api::{ApiError, ErrorCode};
use dsk_registry::Name;

use crate::http::reply::Native;
use crate::http::{Http, body, failure, parse_name, store};
use crate::upkeep;

/// `POST /api/copy`
pub(crate) async fn copy(State(http): State<Arc<Http>>, request: Request) -> Native<StatusCode> {
    let body: CopyRequest = body::json(request, body::SMALL_BYTES_MAX).await?;
    let source = named(&body.source, "source")?;
    let destination = named(&body.destination, "destination")?;
    let found = store::find(&http.service.store, source).await?;
    let found = found.ok_or_else(|| failure::not_found(&body.source))?;
    store::blocking(&http.service.store, move |store| store.copy(&found.name, &destination))
        .await?;
    Ok(StatusCode::OK)
}

fn named(text: &str, field: &str) -> Result<Name, ApiError> {
    Name::parse(text).map_err(|error| {
        ApiError::new(ErrorCode::InvalidName, format!("{field} {text:?} is invalid: {error}"))
    })
}

/// `DELETE /api/delete`: a model in memory is unloaded first.
pub(crate) async fn delete(State(http): State<Arc<Http>>, request: Request) -> Native<StatusCode> {
    let body: DeleteRequest = body::json(request, body::SMALL_BYTES_MAX).await?;
    let name = parse_name(body.target())?;
    let found = store::find(&http.service.store, name).await?;
    let found = found.ok_or_else(|| failure::not_found(body.target()))?;
    http.service.scheduler.unload(&found.name).await;
    store::blocking(&http.service.store, move |store| store.remove(&found.name)).await?;
    upkeep::release_later(&http.service);
    Ok(StatusCode::OK)
}

/// `POST /api/embed` and `/api/embeddings`: no model of this version makes embeddings.
pub(crate) async fn embed(State(http): State<Arc<Http>>, request: Request) -> Native<Response> {
    let body: ShowRequest = body::json(request, body::CONVERSATION_BYTES_MAX).await?;
    http.model(body.target()).await?;
    Ok(crate::http::reply::NativeError(failure::incapable(body.target(), "embeddings"))
        .into_response())
}
