//! Ollama's native API, `/api/*`: each file is one group of its endpoints.

pub(crate) mod blobs;
pub(crate) mod chat;
pub(crate) mod create;
pub(crate) mod generate;
pub(crate) mod list;
pub(crate) mod manage;
pub(crate) mod show;
pub(crate) mod transfer;

use axum::Json;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use dsk_daemon_api::ollama::{Metrics, QueuePlace, VersionResponse};
use dsk_daemon_engine::{Done, FinishReason};
use jiff::Timestamp;

use super::answer::Moment;
use crate::scheduler::Place;

/// The version of Ollama whose API this is. Clients compare it: some refuse less than 0.6.4.
pub(crate) const OLLAMA_VERSION: &str = "0.12.6";

/// The Content-Type of a stream of lines.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// `GET /`: what health probes everywhere look for.
pub(crate) async fn root() -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], "Ollama is running").into_response()
}

/// `GET /api/version`
pub(crate) async fn version() -> Json<VersionResponse> {
    Json(VersionResponse { version: OLLAMA_VERSION.to_owned() })
}

/// RFC 3339 with nine digits and `Z`, as Go writes it.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    format!("{time:.9}")
}

/// The word for how an answer ended.
fn done_reason(reason: FinishReason) -> String {
    match reason {
        FinishReason::Stop => "stop".to_owned(),
        FinishReason::Length => "length".to_owned(),
    }
}

fn queue_place(place: Place) -> QueuePlace {
    let expected_seconds = place.expected_wait.as_secs_f64();
    QueuePlace { position: place.position as u64, expected_seconds }
}

/// The numbers of an answer's last line.
fn metrics(done: &Done, moment: &Moment) -> Metrics {
    Metrics {
        total_duration: nanoseconds(moment.total),
        load_duration: nanoseconds(moment.load),
        prompt_eval_count: done.usage.prompt_tokens.into(),
        prompt_eval_duration: done.usage.prompt_ns,
        eval_count: done.usage.output_tokens.into(),
        eval_duration: done.usage.output_ns,
    }
}

/// The numbers of a load.
fn load_metrics(load: std::time::Duration, total: std::time::Duration) -> Metrics {
    Metrics {
        total_duration: nanoseconds(total),
        load_duration: nanoseconds(load),
        ..Metrics::default()
    }
}

fn nanoseconds(duration: std::time::Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}
