//! `POST /api/create`: see [`crate::create`] for what it does.

use std::sync::Arc;

use axum::extract::{Request, State};
use dsk_daemon_api::ollama::{CreateRequest, ProgressLine};
use futures_util::stream;

use super::NDJSON;
use crate::create::Recipe;
use crate::http::reply::{self, Native};
use crate::http::{Http, body, failure, parse_name};

/// The handler. Nothing in it waits for a network, so it is done before the first line goes out,
/// and whatever is refused has a real status.
pub(crate) async fn create(State(http): State<Arc<Http>>, request: Request) -> Native {
    let body: CreateRequest = body::json(request, body::CREATE_BYTES_MAX).await?;
    let name = parse_name(body.target())?;
    let streamed = body.stream.unwrap_or(true);
    let recipe = Recipe::parse(name, body)?;
    let store = http.service.store.clone();
    let made = tokio::task::spawn_blocking(move || recipe.make(&store)).await;
    let statuses = made.map_err(|error| failure::of_task(&error))??;
    let mut lines = statuses.iter().map(|status| ProgressLine::status(status));
    match streamed {
        true => {
            let lines = lines.map(|line| reply::line(&line)).collect::<Vec<_>>();
            Ok(reply::stream(NDJSON, stream::iter(lines)))
        }
        false => Ok(reply::json(&lines.next_back().unwrap_or_default())),
    }
}
