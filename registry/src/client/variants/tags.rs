//! The list of a repository's tags, in pages, as far as one believes it.

use crate::client::{
    ClientError,
    retry::{Failure, Retry},
    session::Session,
};
use reqwest::{
    Response,
    header::{HeaderMap, LINK},
};
use serde::Deserialize;
use std::collections::BTreeSet;
use url::Url;

/// Bytes of one page.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// Pages that are asked for.
pub(super) const PAGES_MAX: usize = 16;
/// Tags that are kept; the rest is left out.
const TAGS_MAX: usize = 10_000;

#[derive(Deserialize)]
struct Page {
    tags: Option<Vec<String>>,
}

/// The tags that could be part of a name, or None where the registry keeps no list.
pub(super) async fn list(session: &Session<'_>) -> Result<Option<Vec<String>>, ClientError> {
    let mut url = session.url("tags/list");
    url.set_query(Some("n=1000"));
    let mut pages = Pages::new(url);
    let mut tags = Vec::new();
    while let Some(url) = pages.next.take() {
        let Some((bytes, headers)) = get(session, &url).await? else {
            return Ok((pages.seen.len() > 1).then_some(tags));
        };
        let page: Page = serde_json::from_slice(&bytes)
            .map_err(|error| session.protocol(format!("its list of tags is malformed: {error}")))?;
        let new = page.tags.unwrap_or_default();
        tags.extend(new.into_iter().filter(|tag| session.name.with_tag(tag).is_ok()));
        if tags.len() >= TAGS_MAX {
            tracing::warn!(name = %session.name, "more tags than {TAGS_MAX}: the rest is left out");
            tags.truncate(TAGS_MAX);
            break;
        }
        pages.follow(session, &url, &headers)?;
    }
    Ok(Some(tags))
}

/// Where a list in pages goes on.
#[derive(Debug)]
pub(in crate::client) struct Pages {
    pub(in crate::client) next: Option<Url>,
    seen: BTreeSet<Url>,
}

impl Pages {
    pub(in crate::client) fn new(first: Url) -> Pages {
        Pages { seen: BTreeSet::from([first.clone()]), next: Some(first) }
    }

    /// Notes the page that the `Link` header of the page at `from` names, if it names one.
    pub(in crate::client) fn follow(
        &mut self,
        session: &Session<'_>,
        from: &Url,
        headers: &HeaderMap,
    ) -> Result<(), ClientError> {
        let Some(target) = headers.get(LINK).and_then(|value| next_in(value.to_str().ok()?)) else {
            return Ok(());
        };
        let next = from.join(target).ok().filter(|next| next.origin() == from.origin());
        let next = next.ok_or_else(|| session.protocol("its list leads elsewhere".to_owned()))?;
        if !self.seen.insert(next.clone()) {
            return Err(session.protocol("its list goes round in a circle".to_owned()));
        }
        if self.seen.len() > PAGES_MAX {
            tracing::warn!(name = %session.name, "more pages than {PAGES_MAX}: the rest is left out");
            return Ok(());
        }
        self.next = Some(next);
        Ok(())
    }
}

/// The target of `rel="next"` in a `Link` header.
fn next_in(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let next = |parameter: &str| matches!(parameter.trim(), "rel=\"next\"" | "rel=next");
        parameters.split(';').any(next).then_some(target)
    })
}

/// The body and headers of a page, or None where there is no such list for us.
pub(in crate::client) async fn get(
    session: &Session<'_>,
    url: &Url,
) -> Result<Option<(Vec<u8>, HeaderMap)>, ClientError> {
    let mut retry = Retry::new(session.limits());
    loop {
        match try_get(session, url).await {
            Ok(page) => return Ok(page),
            Err(failure) => retry.pause(failure).await?,
        }
    }
}

async fn try_get(
    session: &Session<'_>,
    url: &Url,
) -> Result<Option<(Vec<u8>, HeaderMap)>, Failure> {
    let response: Response = session.send(&session.get(url.clone())).await?;
    match response.status().as_u16() {
        200 => {}
        400 | 401 | 403 | 404 | 405 | 501 => return Ok(None),
        _ => return Err(session.refused(response).await),
    }
    let headers = response.headers().clone();
    let body = session.body(response, PAGE_BYTES_MAX).await?;
    let body = body.ok_or_else(|| {
        session.protocol(format!("a page of its list is larger than {PAGE_BYTES_MAX} bytes"))
    })?;
    Ok(Some((body, headers)))
}

#[cfg(test)]
mod tests {
    use super::next_in;

    #[test]
    fn links() {
        let cases = [
            ("</v2/a/b/tags/list?n=2&last=x>; rel=\"next\"", Some("/v2/a/b/tags/list?n=2&last=x")),
            ("<https://h/x>; rel=next", Some("https://h/x")),
            ("<https://h/0>; rel=\"first\", <https://h/1>; rel=\"next\"", Some("https://h/1")),
            ("<https://h/0>; rel=\"first\"", None),
            ("", None),
            ("<", None),
            ("next", None),
        ];
        for (header, target) in cases {
            assert_eq!(next_in(header), target, "{header}");
        }
    }
}
