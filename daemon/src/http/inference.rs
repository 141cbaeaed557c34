//! What chat, generate and completions do alike before an answer begins.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use dsk_daemon_api::{ApiError, ErrorCode};
use dsk_daemon_engine::{self as engine, Event, Loaded, Usage};
use futures_util::{FutureExt, StreamExt};
use serde_json::Value;
use tokio::time::Instant;

use super::account::Record;
use super::answer::{self, Start, Started};
use super::facts::Facts;
use super::{Http, failure};
use crate::KeepAlive;
use crate::index::{Index, Run};
use crate::models::ModelSpec;
use crate::scheduler::{Wants, touched_bytes};

/// The header of a warning.
const WARNING: HeaderName = HeaderName::from_static("x-dsk-warning");

/// A model a request names: its layers, and what its file says of it.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) spec: Arc<ModelSpec>,
    pub(crate) facts: Arc<Facts>,
}

/// What became of a request without a prompt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    /// `load` or `unload`.
    pub(crate) reason: &'static str,
    pub(crate) load: Duration,
    pub(crate) total: Duration,
}

/// A request without a prompt: keep the model in memory, or with `keep_alive` 0 let it go.
pub(crate) async fn load_or_unload(
    http: &Http,
    model: &Model,
    wants: Wants,
) -> Result<Idle, ApiError> {
    let arrived = Instant::now();
    if wants.keep_alive == Some(KeepAlive::For(Duration::ZERO)) {
        http.service.scheduler.unload(&model.spec.name).await;
        return Ok(Idle { reason: "unload", load: Duration::ZERO, total: arrived.elapsed() });
    }
    let lease = http.service.scheduler.acquire(&model.spec, &wants).await?;
    Ok(Idle { reason: "load", load: lease.load_duration, total: arrived.elapsed() })
}

/// Queues for the model, then submits the request and waits for a first sign of it. Dropping it gives
/// everything back.
pub(crate) fn begin(
    http: &Arc<Http>,
    model: Model,
    wants: Wants,
    request: engine::Request,
) -> Start {
    let mut record = Record::open(&http.service.metrics, &model.spec.name);
    let ticket = http.service.scheduler.queue(&model.spec, &wants);
    let (place, index) = (ticket.places(), http.service.index.clone());
    let ready = async move {
        let mut lease = ticket.lease().await.map_err(|error| {
            let error = ApiError::from(error);
            record.refused(error.code);
            error
        })?;
        let load = lease.load_duration;
        record.ready(load);
        let spec = Arc::clone(&model.spec);
        let (loaded, pid) = (lease.loaded().clone(), lease.pid());
        let events = lease.submit(request).inspect(move |event| {
            record.event(event);
            if let Event::Done(done) = event {
                count(&index, &spec, &loaded, pid, &done.usage);
            }
        });
        answer::told(Started { events: events.boxed(), load }).await
    };
    Start { ready: ready.boxed(), place }
}

/// What the caller is told beside the answer: more context than the model was made for is cut.
pub(crate) fn warning(model: &Model, wants: &Wants) -> Option<String> {
    let (asked, most) = (wants.context_length?, model.facts.context_length?);
    (u64::from(asked) > most).then(|| {
        format!(
            "num_ctx {asked} is more than the {most} tokens of {}: {most} are used",
            model.spec.name
        )
    })
}

/// Adds a warning to an answer, as a header that other clients ignore.
pub(crate) fn warned(mut response: Response, warning: Option<String>) -> Response {
    if let Some(value) = warning.and_then(|text| HeaderValue::try_from(text).ok()) {
        response.headers_mut().insert(WARNING, value);
    }
    response
}

/// Counts a request that ended well, and notes how fast it was. An answer never waits for the index.
fn count(index: &Index, spec: &ModelSpec, loaded: &Loaded, pid: Option<u32>, usage: &Usage) {
    let (index, name) = (index.clone(), spec.name.clone());
    let run = Run {
        model: spec.model_digest,
        file_bytes: spec.model_bytes,
        loaded: loaded.clone(),
        load: None,
        usage: *usage,
        resident: pid.and_then(touched_bytes),
    };
    tokio::spawn(async move {
        let counted = index.record_use(&name, &run.usage).await;
        if let Err(error) = counted.and(index.record_run(run).await) {
            tracing::warn!(%error, "a request was not counted");
        }
    });
}

/// Refuses a grammar for the answer; `null` and `""` are none.
pub(crate) fn refuse_format(format: Option<&Value>) -> Result<(), ApiError> {
    match format {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(text)) if text.is_empty() => Ok(()),
        Some(_) => Err(failure::unsupported("format")),
    }
}

/// Refuses probabilities of tokens.
pub(crate) fn refuse_logprobs(asked: Option<bool>, top: Option<i64>) -> Result<(), ApiError> {
    if top.is_some_and(|top| !(0..=20).contains(&top)) {
        let message = "top_logprobs must be between 0 and 20";
        return Err(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    match asked == Some(true) || top.is_some_and(|top| top > 0) {
        true => Err(failure::unsupported("logprobs")),
        false => Ok(()),
    }
}
