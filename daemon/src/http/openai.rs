//! OpenAI's API, `/v1/*`: the models, and chat completions.

pub(crate) mod chat;
mod frames;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use dsk_daemon_api::openai::{Model, ModelList};
use dsk_registry::Name;

use super::reply::{self, OpenAi};
use super::{Http, failure, store};

/// `GET /v1/models`
pub(crate) async fn models(State(http): State<Arc<Http>>) -> OpenAi {
    let models = http.service.index.refresh(&http.service.store).await;
    let models = models.map_err(|error| failure::of_index(&error))?;
    let data = models.iter().map(|one| model(&one.name, one.modified)).collect();
    Ok(reply::json(&ModelList { object: "list", data }))
}

/// `GET /v1/models/{id}`; an id may hold slashes, as names do.
pub(crate) async fn one_model(State(http): State<Arc<Http>>, Path(id): Path<String>) -> OpenAi {
    let name = Name::parse(&id).map_err(|error| failure::of_name(&error))?;
    let stored = store::find(&http.service.store, name).await?;
    let stored = stored.ok_or_else(|| failure::not_found(&id))?;
    Ok(answer_model(model(&stored.name, stored.modified)))
}

fn answer_model(model: Model) -> Response {
    reply::json(&model)
}

fn model(name: &Name, modified: std::time::SystemTime) -> Model {
    let created = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    Model {
        id: name.to_string(),
        object: "model",
        created: created.try_into().unwrap_or(i64::MAX),
        owned_by: name.namespace().to_owned(),
    }
}
