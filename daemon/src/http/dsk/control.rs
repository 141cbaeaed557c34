//! `POST /api/dsk/pin`, `unpin`, `yield` and `resume`: what a person decides about memory.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use dsk_daemon_api::status::{
    PinRequest, PinResponse, ResumeResponse, YieldRequest, YieldResponse,
};
use dsk_daemon_api::{ApiError, ErrorCode};
use dsk_registry::Name;

use crate::http::reply::{self, Native};
use crate::http::{Http, body, failure, parse_name, store};

/// A longer time to wait for running requests is a mistake.
const WITHIN_SECONDS_MAX: f64 = 86_400.0;

/// `POST /api/dsk/pin`: the model stays in memory once its next request has loaded it.
pub(crate) async fn pin(State(http): State<Arc<Http>>, request: Request) -> Native {
    let name = named(&http, request).await?;
    let known = is_pinned(&http, &name).await;
    if !http.service.scheduler.pin(&name).await {
        let message = "too many models are pinned: unpin one first";
        return Err(ApiError::new(ErrorCode::Overloaded, message).into());
    }
    let model = name.to_string();
    Ok(reply::json(&PinResponse { model, pinned: true, changed: !known }))
}

/// `POST /api/dsk/unpin`: the model leaves again as others do.
pub(crate) async fn unpin(State(http): State<Arc<Http>>, request: Request) -> Native {
    let body: PinRequest = body::json(request, body::SMALL_BYTES_MAX).await?;
    // A pinned model may have been deleted: its pin must still be removable.
    let name = parse_name(&body.model)?;
    let changed = http.service.scheduler.unpin(&name).await;
    Ok(reply::json(&PinResponse { model: name.to_string(), pinned: false, changed }))
}

async fn named(http: &Http, request: Request) -> Result<Name, ApiError> {
    let body: PinRequest = body::json(request, body::SMALL_BYTES_MAX).await?;
    let name = parse_name(&body.model)?;
    let found = store::find(&http.service.store, name).await?;
    found.map(|found| found.name).ok_or_else(|| failure::not_found(&body.model))
}

async fn is_pinned(http: &Http, name: &Name) -> bool {
    let status = http.service.scheduler.status().await;
    status.is_some_and(|status| status.pinned.contains(name))
}

/// `POST /api/dsk/yield`: all memory is given away; answers when it is free.
pub(crate) async fn yield_all(State(http): State<Arc<Http>>, request: Request) -> Native {
    let body: YieldRequest = body::json(request, body::SMALL_BYTES_MAX).await?;
    let freed = http.service.scheduler.yield_now(within(body.within_seconds)?).await;
    Ok(reply::json(&YieldResponse { models: freed.models as u64, bytes: freed.bytes }))
}

fn within(seconds: Option<f64>) -> Result<Option<Duration>, ApiError> {
    let Some(seconds) = seconds else { return Ok(None) };
    if !(0.0..=WITHIN_SECONDS_MAX).contains(&seconds) {
        let message = format!("within_seconds must be from 0 to {WITHIN_SECONDS_MAX}");
        return Err(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    Ok(Some(Duration::from_secs_f64(seconds)))
}

/// `POST /api/dsk/resume`: takes the memory back.
pub(crate) async fn resume(State(http): State<Arc<Http>>) -> Native {
    let resumed = http.service.scheduler.resume().await;
    Ok(reply::json(&ResumeResponse { resumed }))
}
