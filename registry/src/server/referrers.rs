//! Referrers: `GET /v2/<repository>/referrers/<digest>`, the manifests whose subject has this digest.
//!
//! The answer is an index, empty when there are none; the subject itself need not be here, or not yet.

use super::{
    Answer, App, Body, Response,
    document::Document,
    finish_with, header, listing,
    manifests::{self, Found},
    query,
    route::repository,
};
use crate::{Digest, Name, StoreError, media_type, pump::blocking};
use axum::http::Uri;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// Most bytes of one page's descriptors: annotations can be long.
const PAGE_BYTES_MAX: usize = 2 << 20;

pub(super) async fn list(app: Arc<App>, name: Name, subject: Digest, uri: &Uri) -> Answer {
    let resource = format!("referrers/{subject}");
    if let Some(upstream) = &app.options.upstream
        && let Some(answer) = upstream.list(&name, &resource, uri, media_type::OCI_INDEX).await
    {
        return answer;
    }
    let wanted = query(uri, "artifactType");
    let (looked_in, filter) = (name.clone(), wanted.clone());
    let all = blocking(move || {
        let mut found = BTreeMap::new();
        for store in app.stores() {
            for (_, manifest) in manifests::all(store, &looked_in)? {
                let descriptor = descriptor(&manifest, &subject, filter.as_deref());
                found.extend(descriptor.map(|json| (manifest.digest.to_string(), json)));
            }
        }
        Ok::<_, StoreError>(found)
    })
    .await?;
    let (page, next) = page(all, uri)?;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": page,
    });
    let mut response = Response::builder().header(header::CONTENT_TYPE, media_type::OCI_INDEX);
    if let Some(mut next) = next {
        if let Some(wanted) = &wanted {
            next.append_pair("artifactType", wanted);
        }
        let path = format!("/v2/{}/referrers/{subject}", repository(&name));
        response = response.header(header::LINK, listing::link(&path, &next.finish()));
    }
    if wanted.is_some() {
        response = response.header("oci-filters-applied", "artifactType");
    }
    finish_with(response, Body::from(index.to_string()))
}

/// How an index lists the manifest; None when it is about something else.
fn descriptor(manifest: &Found, subject: &Digest, wanted: Option<&str>) -> Option<Value> {
    let document = Document::parse(&manifest.bytes).ok()?;
    if document.subject != Some(*subject) {
        return None;
    }
    if wanted.is_some() && document.artifact_type.as_deref() != wanted {
        return None;
    }
    let mut descriptor = json!({
        "mediaType": document.media_type,
        "digest": manifest.digest,
        "size": manifest.bytes.len(),
    });
    if let Some(artifact_type) = document.artifact_type {
        descriptor["artifactType"] = artifact_type.into();
    }
    if !document.annotations.is_empty() {
        descriptor["annotations"] = json!(document.annotations);
    }
    Some(descriptor)
}

type Next = url::form_urlencoded::Serializer<'static, String>;

/// The descriptors after `last`, as many as `n` and the bytes allow.
fn page(
    all: BTreeMap<String, Value>,
    uri: &Uri,
) -> Result<(Vec<Value>, Option<Next>), super::Problem> {
    let (count, last) = (listing::count(uri)?, query(uri, "last").unwrap_or_default());
    let (mut page, mut bytes, mut reached) = (Vec::new(), 0, None);
    for (digest, descriptor) in all.into_iter().filter(|(digest, _)| *digest > last) {
        let full = page.len() >= count || bytes >= PAGE_BYTES_MAX;
        if full {
            return Ok((page, reached.map(|last: String| listing::next(count, &last))));
        }
        bytes += descriptor.to_string().len();
        page.push(descriptor);
        reached = Some(digest);
    }
    Ok((page, None))
}
