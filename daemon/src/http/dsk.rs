//! dsk's own endpoints: the status page, and what it shows.

pub(crate) mod bring;
pub(crate) mod control;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod ps;
mod told;
pub(crate) mod upkeep;
pub(crate) mod verify;

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use dsk_daemon_api::status::{DaemonStatus, DskVersion, Memory};

use super::ollama::OLLAMA_VERSION;
use super::reply::{self, Native};
use super::{Http, store};
use crate::hardware;

pub(crate) mod fit;

/// dsk's own version.
const DSK_VERSION: &str = env!("CARGO_PKG_VERSION");
/// The page: one file, and nothing from anywhere else.
const PAGE: &str = include_str!("../../web/index.html");
/// The page runs its own script and talks to its own daemon; nothing may frame it.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
    script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// `GET /ui`
pub(crate) async fn page() -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, Html(PAGE)).into_response()
}

/// `GET /api/dsk/version`
pub(crate) async fn version() -> Response {
    reply::json(&DskVersion { version: DSK_VERSION.to_owned(), ollama: OLLAMA_VERSION.to_owned() })
}

/// `GET /api/dsk/machine`
pub(crate) async fn machine(State(http): State<Arc<Http>>) -> Response {
    reply::json(&*http.service.machine.machine().await)
}

/// `GET /api/dsk/status`
pub(crate) async fn status(State(http): State<Arc<Http>>) -> Native {
    let service = &http.service;
    let models = store::blocking(&service.store, dsk_registry::Store::names).await?;
    let resident = service.scheduler.resident().await;
    let memory = hardware::Memory::read();
    Ok(reply::json(&DaemonStatus {
        version: DSK_VERSION.to_owned(),
        pid: std::process::id(),
        uptime_seconds: service.started.elapsed().as_secs(),
        models_path: service.store.root().display().to_string(),
        memory: Memory {
            total_bytes: memory.total,
            available_bytes: memory.available,
            daemon_bytes: hardware::process_memory(std::process::id()).unwrap_or(0),
            loaded_bytes: resident.iter().map(|model| model.size_bytes).sum(),
        },
        models: models.len() as u64,
        loaded: resident.len() as u64,
        running: resident.iter().map(|model| model.in_use as u64).sum(),
    }))
}
