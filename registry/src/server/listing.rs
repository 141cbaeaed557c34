//! Lists, in pages: `/v2/_catalog` and `/v2/<repository>/tags/list`, with `n` and `last`.

use super::{
    Answer, App, Body, Response,
    error::{Code, Problem},
    finish_with, header,
    manifests::is_digest_tag,
    query,
    route::repository,
};
use crate::{DEFAULT_HOST, Name, pump::blocking};
use axum::http::Uri;
use serde_json::json;
use std::collections::BTreeSet;

/// Most entries of one page.
const PAGE_MAX: usize = 1000;

pub(super) async fn catalog(app: &App, uri: &Uri) -> Answer {
    let store = app.store.clone();
    let names = blocking(move || store.names()).await?;
    let served = names.iter().filter(|name| name.host() == DEFAULT_HOST);
    let all: BTreeSet<String> = served.map(repository).collect();
    let (page, next) = page(all.into_iter().collect(), uri)?;
    answer(json!({ "repositories": page }), next.map(|next| format!("/v2/_catalog?{next}")))
}

pub(super) async fn tags(app: &App, name: Name, uri: &Uri) -> Answer {
    let (store, model) = (app.store.clone(), name.clone());
    let tags = blocking(move || store.tags(&model)).await?;
    if tags.is_empty() {
        return Err(Problem::new(Code::NameUnknown, "no such repository"));
    }
    let visible = tags.iter().map(Name::tag).filter(|tag| !is_digest_tag(tag));
    let (page, next) = page(visible.map(str::to_owned).collect(), uri)?;
    let name = repository(&name);
    let next = next.map(|next| format!("/v2/{name}/tags/list?{next}"));
    answer(json!({ "name": name, "tags": page }), next)
}

/// The entries after `last`, at most `n`; and, when there are more, the query that goes on.
fn page(mut entries: Vec<String>, uri: &Uri) -> Result<(Vec<String>, Option<String>), Problem> {
    entries.sort();
    if let Some(last) = query(uri, "last") {
        entries.retain(|entry| *entry > last);
    }
    let count = match query(uri, "n") {
        None => PAGE_MAX,
        Some(text) => text
            .parse::<usize>()
            .map(|n| n.min(PAGE_MAX))
            .map_err(|_| Problem::new(Code::NameInvalid, "n must be a number of entries"))?,
    };
    let more = entries.len() > count;
    entries.truncate(count);
    let next = entries.last().filter(|_| more).map(|last| format!("n={count}&last={last}"));
    Ok((entries, next))
}

fn answer(list: serde_json::Value, next: Option<String>) -> Answer {
    let mut response = Response::builder().header(header::CONTENT_TYPE, "application/json");
    if let Some(next) = next {
        response = response.header(header::LINK, format!("<{next}>; rel=\"next\""));
    }
    finish_with(response, Body::from(list.to_string()))
}
