//! `GET /metrics`: what is counted, for Prometheus and for gateways that scale on it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

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
    let device = || "cpu".to_owned();
    let bytes = match &model.loaded {
        Some(loaded) => vec![
            (device(), "weights", loaded.bytes.weights),
            (device(), "kv", loaded.bytes.kv),
            (device(), "other", loaded.bytes.other),
        ],
        // What is reserved for a load is not known by kind.
        None => vec![(device(), "other", model.size_bytes)],
    };
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
