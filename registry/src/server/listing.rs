//! Lists, in pages: `/v2/_catalog` and `/v2/<repository>/tags/list`, with `n` and `last`.

use super::{
    Answer, App, Body, Response,
    error::{Code, Problem},
    finish_with, header, query,
    route::repository,
};
use crate::{DEFAULT_HOST, Name, StoreError, pump::blocking, store::Place};
use axum::http::Uri;
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc};

/// Most entries of one page.
const PAGE_MAX: usize = 1000;

pub(super) async fn catalog(app: Arc<App>, uri: &Uri) -> Answer {
    let all = blocking(move || {
        let mut all = BTreeSet::new();
        for store in app.stores() {
            let names = store.names()?;
            all.extend(names.iter().filter(|name| name.host() == DEFAULT_HOST).map(repository));
            all.extend(store.shelved_repositories()?.iter().map(repository));
        }
        Ok::<_, StoreError>(all)
    });
    let (page, next) = page(all.await?, uri)?;
    answer(json!({ "repositories": page }), next.map(|next| link("/v2/_catalog", &next)))
}

pub(super) async fn tags(app: Arc<App>, name: Name, uri: &Uri) -> Answer {
    if let Some(upstream) = &app.options.upstream
        && let Some(answer) = upstream.list(&name, "tags/list", uri, "application/json").await
    {
        return answer;
    }
    let wanted = name.clone();
    let all = blocking(move || known_tags(&app, &wanted)).await?;
    let all = all.ok_or_else(|| Problem::new(Code::NameUnknown, "no such repository"))?;
    let (page, next) = page(all, uri)?;
    let name = repository(&name);
    let next = next.map(|next| link(&format!("/v2/{name}/tags/list"), &next));
    answer(json!({ "name": name, "tags": page }), next)
}

/// The tags of a repository; None when it has no manifest at all.
fn known_tags(app: &App, name: &Name) -> Result<Option<BTreeSet<String>>, StoreError> {
    let (mut tags, mut known) = (BTreeSet::new(), false);
    for store in app.stores() {
        tags.extend(store.tags(name)?.iter().map(|name| name.tag().to_owned()));
        for place in store.shelved_places(name)? {
            known = true;
            if let Place::Tag(name) = place {
                tags.insert(name.tag().to_owned());
            }
        }
    }
    Ok((known || !tags.is_empty()).then_some(tags))
}

/// The entries after `last`, at most `n`; and, when there are more, the query that goes on.
fn page(all: BTreeSet<String>, uri: &Uri) -> Result<(Vec<String>, Option<String>), Problem> {
    let (count, last) = (count(uri)?, query(uri, "last"));
    let after = |entry: &String| last.as_ref().is_none_or(|last| entry > last);
    let mut page: Vec<String> = all.into_iter().filter(after).take(count + 1).collect();
    let more = page.len() > count;
    page.truncate(count);
    let next = page.last().filter(|_| more).map(|last| next(count, last).finish());
    Ok((page, next))
}

/// The query for the page after `last`, which may be added to.
pub(super) fn next(count: usize, last: &str) -> url::form_urlencoded::Serializer<'static, String> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("n", &count.to_string()).append_pair("last", last);
    query
}

/// The entries that a page may have.
pub(super) fn count(uri: &Uri) -> Result<usize, Problem> {
    let Some(text) = query(uri, "n") else { return Ok(PAGE_MAX) };
    let count = text.parse::<usize>().map(|n| n.min(PAGE_MAX));
    count.map_err(|_| Problem::new(Code::NameInvalid, "n must be a number of entries"))
}

/// The header that leads to the next page.
pub(super) fn link(path: &str, query: &str) -> String {
    format!("<{path}?{query}>; rel=\"next\"")
}

fn answer(list: serde_json::Value, next: Option<String>) -> Answer {
    let mut response = Response::builder().header(header::CONTENT_TYPE, "application/json");
    if let Some(next) = next {
        response = response.header(header::LINK, next);
    }
    finish_with(response, Body::from(list.to_string()))
}
