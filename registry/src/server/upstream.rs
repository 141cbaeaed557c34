//! Pull-through: what is not here is fetched from another registry, and kept.
//!
//! A manifest under a digest never changes; one under a tag is asked about each time, and answered from
//! here when the upstream cannot be reached. A blob is fetched once for all who ask for it. They read it
//! while it arrives, and nobody gets its last byte before it was verified.

mod flight;
#[cfg(test)]
mod tests;

use super::{
    Answer, App, Body, Response,
    document::Document,
    error::{Code, Problem},
    finish_with, header,
    manifests::{self, Found},
    route::repository,
};
use crate::{
    Client, ClientConfig, ClientError, Digest, Limits, Name, Reference,
    client::relay::{Relay, Relayed},
    pump::blocking,
    store::{Place, guard},
};
use axum::http::Uri;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use url::Url;

pub(super) use flight::{Flight, stream};

/// Blobs fetched at once.
const FLIGHTS_MAX: usize = 64;
/// How long an upstream that could not be reached is left alone.
const QUIET: Duration = Duration::from_secs(10);
/// For an answer about a manifest or a list: someone waits who could be answered from here.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// The registry that stands behind this one; a clone is the same one.
#[derive(Clone, Debug)]
pub struct Upstream(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    insecure: bool,
    /// Asks once, briefly.
    asking: Client,
    /// Fetches with patience.
    fetching: Client,
    flights: Mutex<HashMap<Digest, Flight>>,
    quiet_until: Mutex<Option<Instant>>,
}

impl Upstream {
    /// The upstream at `url`; `insecure` allows plain HTTP to other machines.
    pub fn new(url: Url, insecure: bool) -> Result<Upstream, ClientError> {
        Upstream::with_limits(url, insecure, Limits::default())
    }

    fn with_limits(url: Url, insecure: bool, limits: Limits) -> Result<Upstream, ClientError> {
        let config = ClientConfig { registry: Some(url), ..ClientConfig::default() };
        let brief = Limits {
            stall: ASK_TIMEOUT.min(limits.stall),
            connect: ASK_TIMEOUT.min(limits.connect),
            attempts: 1,
            ..limits.clone()
        };
        Ok(Upstream(Arc::new(Inner {
            insecure,
            asking: Client::with_limits(config.clone(), brief)?,
            fetching: Client::with_limits(config, limits)?,
            flights: Mutex::default(),
            quiet_until: Mutex::default(),
        })))
    }

    /// The manifest at a place: the upstream's, else ours.
    pub(super) async fn manifest(
        &self,
        app: &Arc<App>,
        place: &Place,
    ) -> Result<Option<Found>, Problem> {
        let local = find(app, place).await?;
        if matches!(place, Place::Digest(..)) && local.is_some() {
            return Ok(local);
        }
        let known = local.as_ref().map(|found| found.digest);
        match self.ask_manifest(place, known.as_ref()).await {
            Ok(Relayed::Unchanged) => Ok(local),
            Ok(Relayed::Found(bytes)) if Some(Digest::of(&bytes)) == known => Ok(local),
            Ok(Relayed::Found(bytes)) => keep(app, place, bytes).await.map(Some),
            Ok(Relayed::Absent) => {
                // What was only a copy of the upstream's goes with it; a model of our own stays.
                let (store, gone) = (app.store.clone(), place.clone());
                blocking(move || store.unshelve(&gone)).await?;
                find(app, place).await
            }
            Err(error) => match local {
                Some(found) => {
                    tracing::warn!(%error, "answering for the upstream");
                    Ok(Some(found))
                }
                None => Err(failed(&error)),
            },
        }
    }

    async fn ask_manifest(
        &self,
        place: &Place,
        known: Option<&Digest>,
    ) -> Result<Relayed, ClientError> {
        let (name, reference) = match place {
            Place::Tag(name) => (name, Reference::Tag(name.tag().to_owned())),
            Place::Digest(name, digest) => (name, Reference::Digest(*digest)),
        };
        self.ask(async {
            let relay = Relay::open(&self.0.asking, name, self.0.insecure).await?;
            relay.manifest(&reference, known).await
        })
        .await
    }

    /// The upstream's list of a repository; None when ours must do.
    pub(super) async fn list(
        &self,
        name: &Name,
        resource: &str,
        uri: &Uri,
        content_type: &str,
    ) -> Option<Answer> {
        let listed = self.ask(async {
            let relay = Relay::open(&self.0.asking, name, self.0.insecure).await?;
            relay.list(resource, uri.query()).await
        });
        let (headers, body) = listed.await.ok().flatten()?;
        let mut response = Response::builder().header(header::CONTENT_TYPE, content_type);
        let own = format!("</v2/{}/{resource}", repository(name));
        let links = |value: &str| value.starts_with(&own);
        if let Some(link) = headers.get(header::LINK).filter(|v| v.to_str().is_ok_and(links)) {
            response = response.header(header::LINK, link);
        }
        if let Some(applied) = headers.get("oci-filters-applied") {
            response = response.header("oci-filters-applied", applied);
        }
        Some(finish_with(response, Body::from(body)))
    }

    /// The size of a blob that is not here.
    pub(super) async fn blob_size(&self, name: &Name, digest: &Digest) -> Result<u64, Problem> {
        let size = self.ask(async {
            let relay = Relay::open(&self.0.asking, name, self.0.insecure).await?;
            relay.blob_size(digest).await
        });
        let size = size.await.map_err(|error| failed(&error))?;
        size.ok_or_else(unknown_blob)
    }

    /// The fetch of a blob, begun when nobody else has.
    pub(super) fn blob(&self, app: &App, name: &Name, digest: &Digest) -> Result<Flight, Problem> {
        let mut flights = guard(&self.0.flights);
        flights.retain(|_, flight| flight.is_running());
        if let Some(flight) = flights.get(digest) {
            return Ok(flight.clone());
        }
        if flights.len() >= FLIGHTS_MAX {
            return Err(Problem::new(Code::TooManyFetches, "too many blobs are being fetched"));
        }
        let (client, insecure) = (self.0.fetching.clone(), self.0.insecure);
        let flight = Flight::begin(app.store.clone(), client, insecure, name.clone(), *digest);
        flights.insert(*digest, flight.clone());
        Ok(flight)
    }

    /// Asks, unless the upstream could not be reached a moment ago.
    async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        if guard(&self.0.quiet_until).is_some_and(|until| Instant::now() < until) {
            let reason = "it could not be reached a moment ago".to_owned();
            return Err(ClientError::Unreachable { host: "the upstream".to_owned(), reason });
        }
        let answer = question.await;
        let unreachable = matches!(answer, Err(ClientError::Unreachable { .. }));
        *guard(&self.0.quiet_until) = unreachable.then(|| Instant::now() + QUIET);
        answer
    }
}

async fn find(app: &Arc<App>, place: &Place) -> Result<Option<Found>, Problem> {
    let (app, place) = (Arc::clone(app), place.clone());
    blocking(move || manifests::find(&app, &place)).await
}

/// Shelves what the upstream sent. A full disk is no reason not to pass it on.
async fn keep(app: &Arc<App>, place: &Place, bytes: Vec<u8>) -> Result<Found, Problem> {
    if let Err(error) = Document::parse(&bytes) {
        let message = format!("the upstream's manifest cannot be used: {error}");
        return Err(Problem::new(Code::UpstreamFailed, message));
    }
    let (store, place) = (app.store.clone(), place.clone());
    blocking(move || {
        if let Err(error) = store.shelve(&place, &bytes) {
            tracing::warn!(%error, "cannot keep a manifest");
        }
        Found::read(bytes)
    })
    .await
}

fn unknown_blob() -> Problem {
    Problem::new(Code::BlobUnknown, "neither this registry nor its upstream has this blob")
}

/// A failure of the upstream, as the client is told of it.
fn failed(error: &ClientError) -> Problem {
    match error {
        ClientError::NotFound { .. } => unknown_blob(),
        ClientError::NoSpace { .. } => {
            tracing::error!(%error, "the cache's disk is full");
            Problem::new(Code::NoSpace, "the registry's disk is full")
        }
        ClientError::Store(_) => Problem::internal(error),
        _ => Problem::new(Code::UpstreamFailed, format!("the upstream failed: {error}")),
    }
}
