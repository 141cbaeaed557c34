//! `POST /api/dsk/gc`, `GET /api/dsk/df`, `/api/dsk/partials`, `POST /api/dsk/pause`: what lies in the store, and cleaning it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use dsk_daemon_api::store::{
    DfModel, DfResponse, GcItem, GcRequest, GcResponse, PartialPull, PartialsResponse,
    PauseRequest, PauseResponse, RemovePartialRequest, RemovedResponse,
};
use dsk_daemon_api::{ApiError, ErrorCode};
use dsk_registry::{Collected, GarbageKind, GcOptions, Store, StoreError, Unfinished, Usage};

use crate::http::ollama::list::time;
use crate::http::reply::{self, Native};
use crate::http::{Http, body, parse_name, store};

/// `POST /api/dsk/gc`
pub(crate) async fn gc(State(http): State<Arc<Http>>, request: Request) -> Native {
    let body: GcRequest = body::json(request, body::SMALL_BYTES_MAX).await?;
    let mut options = GcOptions { dry_run: body.dry_run, ..GcOptions::default() };
    if let Some(seconds) = body.min_age_seconds {
        options.blob_age_min = Duration::from_secs(seconds);
    }
    let found = store::blocking(&http.service.store, move |store| store.gc(&options)).await?;
    Ok(reply::json(&collected(&found, body.dry_run)))
}

fn collected(found: &Collected, dry_run: bool) -> GcResponse {
    let items = found.items.iter().map(|item| GcItem {
        kind: kind(item.kind).to_owned(),
        what: item.what.clone(),
        bytes: item.bytes,
    });
    GcResponse { dry_run, items: items.collect(), bytes: found.bytes() }
}

fn kind(kind: GarbageKind) -> &'static str {
    match kind {
        GarbageKind::Blob => "blob",
        GarbageKind::Partial => "partial",
        GarbageKind::Temporary => "temporary",
        GarbageKind::Link => "link",
        GarbageKind::Pull => "pull",
    }
}

/// `GET /api/dsk/df`
pub(crate) async fn df(State(http): State<Arc<Http>>) -> Native {
    let usage = store::blocking(&http.service.store, Store::usage).await?;
    Ok(reply::json(&used(&http.service.store, usage)))
}

fn used(store: &Store, usage: Usage) -> DfResponse {
    let models = usage.models.into_iter().map(|model| DfModel {
        name: model.name.to_string(),
        bytes: model.bytes,
        own_bytes: model.own_bytes,
        linked_bytes: model.linked_bytes,
        damaged: model.damaged,
    });
    DfResponse {
        path: store.root().display().to_string(),
        writable: store.is_writable(),
        models: models.collect(),
        blobs: usage.blobs,
        blob_bytes: usage.blob_bytes,
        shared_bytes: usage.shared_bytes,
        unreferenced_bytes: usage.unreferenced_bytes,
        partial_bytes: usage.partial_bytes,
        quarantine_bytes: usage.quarantine_bytes,
        linked_bytes: usage.linked_bytes,
        free_bytes: usage.free_bytes,
    }
}

/// `GET /api/dsk/partials`
pub(crate) async fn partials(State(http): State<Arc<Http>>) -> Native {
    let pulls = store::blocking(&http.service.store, Store::unfinished).await?;
    let transfers = &http.service.transfers;
    let told = |unfinished: Unfinished| {
        let paused = !unfinished.running && transfers.is_paused(&unfinished.name);
        PartialPull { paused, ..pull(unfinished) }
    };
    Ok(reply::json(&PartialsResponse { pulls: pulls.into_iter().map(told).collect() }))
}

/// `POST /api/dsk/pause`: answers when the pull has let go of its files.
pub(crate) async fn pause(State(http): State<Arc<Http>>, request: Request) -> Native {
    let body: PauseRequest = body::json(request, body::SMALL_BYTES_MAX).await?;
    let name = parse_name(&body.model)?;
    if !http.service.transfers.pause(&name).await {
        let message = format!("no pull of '{}' is under way", body.model);
        return Err(ApiError::new(ErrorCode::ModelNotFound, message).into());
    }
    Ok(reply::json(&PauseResponse { model: name.to_string() }))
}

fn pull(pull: Unfinished) -> PartialPull {
    PartialPull {
        name: pull.name.to_string(),
        bytes: pull.bytes,
        bytes_here: pull.bytes_here,
        touched_at: time(pull.touched),
        running: pull.running,
        paused: false,
    }
}

/// `DELETE /api/dsk/partials`: one that is under way is ended first.
pub(crate) async fn remove_partial(State(http): State<Arc<Http>>, request: Request) -> Native {
    let body: RemovePartialRequest = body::json(request, body::SMALL_BYTES_MAX).await?;
    let name = parse_name(&body.model)?;
    http.service.transfers.pause(&name).await;
    let removed =
        store::blocking(&http.service.store, move |store| match store.remove_unfinished(&name) {
            Err(StoreError::NotFound { .. }) => Ok(None),
            removed => removed.map(Some),
        });
    let bytes = removed.await?.ok_or_else(|| {
        let message = format!("no pull of '{}' is unfinished", body.model);
        ApiError::new(ErrorCode::ModelNotFound, message)
    })?;
    Ok(reply::json(&RemovedResponse { bytes }))
}
