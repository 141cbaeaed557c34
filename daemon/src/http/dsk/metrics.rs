//! `GET /metrics`: what is counted, for Prometheus and for gateways that scale on it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::ps::device;
use crate::http::Http;
use crate::metrics::{Seen, TEXT_TYPE};
use crate::scheduler::{Resident, ResidentState};

/// The handler.
pub(crate) async fn text(State(http): State<Arc<Http>>) -> Response {
    let resident = http.service.scheduler.resident().await;
    let seen: Vec<Seen> = resident.iter().map(seen).collect();
    ([(header::CONTENT_TYPE, TEXT_TYPE)], http.service.metrics.render(&seen)).into_response()
}

/// What the gauges show of a model.
fn seen(model: &Resident) -> Seen {
    let held = device(model);
    let kinds =
        [("weights", held.weights_bytes), ("kv", held.kv_bytes), ("other", held.other_bytes)];
    let bytes = kinds.map(|(kind, bytes)| (held.device.clone(), kind, bytes)).to_vec();
    Seen {
        model: model.name.to_string(),
        state: state(model.state),
        kv_limit: model.context_length.into(),
        bytes,
    }
}

/// The word for a state, in labels and answers.
pub(crate) fn state(state: ResidentState) -> &'static str {
    match state {
        ResidentState::Loading => "loading",
        ResidentState::Ready => "ready",
        ResidentState::Stopping => "stopping",
    }
}
