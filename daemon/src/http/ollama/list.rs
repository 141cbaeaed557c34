//! `GET /api/tags` and `GET /api/ps`: what is in the store, and what is in memory.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use dsk_daemon_api::ollama::{Details, LocalModel, PsResponse, RunningModel, TagsResponse};
use jiff::Timestamp;

use super::rfc3339;
use crate::http::reply::{self, Native};
use crate::http::{Http, failure};
use crate::index::IndexedModel;
use crate::scheduler::Resident;

/// What a model that never leaves tells clients that want a time: a hundred years.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// What this version serves; a model may be able to do more.
const SERVED: &[&str] = &["completion", "insert", "thinking"];

/// `GET /api/tags`
pub(crate) async fn tags(State(http): State<Arc<Http>>) -> Native {
    let models = http.service.index.refresh(&http.service.store).await;
    let models = models.map_err(|error| failure::of_index(&error))?;
    Ok(reply::json(&TagsResponse { models: models.into_iter().map(local).collect() }))
}

fn local(model: IndexedModel) -> LocalModel {
    LocalModel {
        name: model.name.to_string(),
        model: model.name.to_string(),
        modified_at: time(model.modified),
        size: model.size,
        digest: model.digest.hex(),
        capabilities: served(&model.capabilities),
        damaged: model.damaged,
        details: details(model),
    }
}

/// The abilities a client can make use of now: one that is listed and then refused is worse than
/// one that is not listed.
pub(super) fn served(capabilities: &[String]) -> Vec<String> {
    capabilities.iter().filter(|one| SERVED.contains(&one.as_str())).cloned().collect()
}

/// What a model is, in strings.
pub(super) fn details(model: IndexedModel) -> Details {
    Details {
        parent_model: String::new(),
        format: model.format,
        family: model.family,
        families: model.families,
        parameter_size: model.parameter_size,
        quantization_level: model.quantization,
    }
}

/// A file's time on the wire.
pub(crate) fn time(time: SystemTime) -> String {
    rfc3339(Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// `GET /api/ps`
pub(crate) async fn ps(State(http): State<Arc<Http>>) -> Native {
    let mut resident = http.service.scheduler.resident().await;
    // `None` never expires, so it comes first.
    resident.sort_by_key(|model| {
        (model.expires_at.is_some(), Reverse(model.expires_at), model.name.clone())
    });
    Ok(reply::json(&PsResponse { models: resident.into_iter().map(running).collect() }))
}

fn running(model: Resident) -> RunningModel {
    let expires = model.expires_at.unwrap_or_else(|| SystemTime::now() + FOREVER);
    RunningModel {
        name: model.name.to_string(),
        model: model.name.to_string(),
        size: model.size_bytes,
        digest: model.digest.hex(),
        expires_at: time(expires),
        size_vram: model.size_vram,
        context_length: model.context_length.into(),
        details: Details {
            parent_model: String::new(),
            format: model.config.model_format,
            family: model.config.model_family,
            families: model.config.model_families,
            parameter_size: model.config.model_type,
            quantization_level: model.config.file_type,
        },
    }
}
