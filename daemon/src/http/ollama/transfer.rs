//! `POST /api/pull` and `POST /api/push`: layers on the move, told in lines.
//!
//! The first lines are held back a moment, so that a model that does not exist is a 404 and not a
//! line in a stream that began with 200. The transfer itself belongs to the daemon: a client that
//! leaves only stops listening.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use dsk_daemon_api::fit::PullChoice;
use dsk_daemon_api::ollama::{ProgressLine, PullRequest, PushRequest, SHA256_HELP};
use dsk_daemon_api::{ApiError, ErrorCode};
use dsk_registry::{Digest, DigestError, ManifestFormat, Name, Progress, Reference, WebFile};
use futures_util::stream::{self, BoxStream, StreamExt};
use url::Url;

use super::NDJSON;
use crate::fit::Ask;
use crate::http::dsk::fit::machine_of;
use crate::http::reply::{self, Native};
use crate::http::{Http, body, failure, parse_name, store};
use crate::transfers::{Pull, Push};
use crate::variants::{Asked, Choice, Planned, Source};

/// How long the first line waits for the registry's first answer.
const HOLD: Duration = Duration::from_secs(3);

/// Progress until the transfer ends, well or not.
type Lines = BoxStream<'static, Result<ProgressLine, ApiError>>;

/// `POST /api/pull`
pub(crate) async fn pull(State(http): State<Arc<Http>>, request: Request) -> Native {
    let body: PullRequest = body::json(request, body::SMALL_BYTES_MAX).await?;
    let (name, digest) = pulled_name(body.target())?;
    let file = file_of(&body)?;
    if body.dry_run {
        return Ok(reply::json(&choice(&http, &name, digest, body).await?));
    }
    if body.format.is_some() {
        let message = "`format` is for a push: a pull takes a model as it is";
        return Err(ApiError::new(ErrorCode::InvalidRequest, message).into());
    }
    if body.machine.is_some() {
        let message = "`machine` goes with `dry_run`: a pull is for the daemon's own machine";
        return Err(ApiError::new(ErrorCode::InvalidRequest, message).into());
    }
    // Before a registry is asked anything.
    http.service.store.check_writable().map_err(|error| failure::of_store(&error))?;
    let PullRequest { insecure, quant, limit_rate, stream, update_lock, .. } = body;
    let asked = Pull { insecure, quant, file, limit_rate, digest, update_lock };
    let progress = http.service.transfers.pull(name, asked);
    let progress = progress.map(|step| step.map_err(|error| failure::of_transfer(&error)));
    let lines = lines(progress.boxed(), Direction::Pull);
    Ok(answer(lines, stream.unwrap_or(true)).await?)
}

/// A name, and the digest behind it if there is one.
fn pulled_name(text: &str) -> Result<(Name, Option<Digest>), ApiError> {
    let Some((name, digest)) = text.split_once('@') else { return Ok((parse_name(text)?, None)) };
    let digest = digest
        .parse()
        .map_err(|error: DigestError| ApiError::new(ErrorCode::InvalidDigest, error.to_string()));
    Ok((parse_name(name)?, Some(digest?)))
}

/// `POST /api/push`
pub(crate) async fn push(State(http): State<Arc<Http>>, request: Request) -> Native {
    let body: PushRequest = body::json(request, body::SMALL_BYTES_MAX).await?;
    let name = parse_name(body.target())?;
    let found = store::find(&http.service.store, name).await?;
    let found = found.ok_or_else(|| failure::not_found(body.target()))?;
    let format = body.format.as_deref().map(format_named).transpose()?;
    let asked = Push { insecure: body.insecure, format, limit_rate: body.limit_rate };
    let progress = http.service.transfers.push(found.name, asked);
    let progress = progress.map(|step| step.map_err(|error| failure::of_transfer(&error)));
    let lines = lines(progress.boxed(), Direction::Push);
    Ok(answer(lines, body.stream.unwrap_or(true)).await?)
}

/// The file that a pull is to fetch instead of a registry's model.
fn file_of(body: &PullRequest) -> Result<Option<WebFile>, ApiError> {
    let refused = |message: String| Err(ApiError::new(ErrorCode::InvalidRequest, message));
    let (url, sha256) = match (&body.url, &body.sha256) {
        (None, None) => return Ok(None),
        (None, Some(_)) => return refused("`sha256` goes with `url`".to_owned()),
        (Some(_), None) => return refused(format!("`url` needs `sha256`: {SHA256_HELP}")),
        (Some(url), Some(sha256)) => (url, sha256),
    };
    if body.quant.is_some() || body.dry_run {
        return refused("`url` is one file: there is nothing to choose".to_owned());
    }
    let url = match Url::parse(url) {
        Ok(url) => url,
        Err(error) => return refused(format!("`url` is no address: {error}")),
    };
    let hex = sha256.trim().trim_start_matches("sha256:").to_ascii_lowercase();
    let digest = format!("sha256:{hex}").parse().map_err(|error| failure::of_digest(&error))?;
    Ok(Some(WebFile { url, digest }))
}

fn format_named(name: &str) -> Result<ManifestFormat, ApiError> {
    ManifestFormat::named(name).ok_or_else(|| {
        let known = ManifestFormat::NAMES.map(|(name, _)| name).join(", ");
        let message = format!("`format` {name:?} is none of {known}");
        ApiError::new(ErrorCode::InvalidRequest, message)
    })
}

/// What a pull would fetch.
async fn choice(
    http: &Http,
    name: &Name,
    digest: Option<Digest>,
    body: PullRequest,
) -> Result<PullChoice, ApiError> {
    let lock_file = http.service.lock_file.clone().filter(|_| !body.update_lock);
    let wanted = match lock_file {
        Some(lock_file) => {
            let wanted = lock_file.wanted_async(name, digest, body.quant.clone()).await;
            wanted.map_err(|error| failure::of_pin(&error))?
        }
        None => digest,
    };
    let asked = match body.machine {
        Some(machine) => {
            let machine = Planned::Elsewhere(Arc::new(machine_of(machine)?));
            Asked { quant: body.quant, machine, ask: Ask::default() }
        }
        None => Asked::here(body.quant, &http.service.machine, &http.service.index).await,
    };
    let source = Source { client: &http.service.registry, name, insecure: body.insecure };
    let choice = match wanted {
        Some(digest) => Choice { from: Some(Reference::Digest(digest)), ..Choice::default() },
        None => source.choose(&asked).await.map_err(|error| failure::of_variant(&error))?,
    };
    // Where there is nothing to choose, the name must still lead somewhere.
    let literal = source.literal(choice.from.clone()).await;
    let variant = literal.map_err(|error| failure::of_registry(&error))?;
    Ok(choice.told(name, &variant))
}

/// Which way the layers go; it only decides words.
#[derive(Debug, Clone, Copy)]
enum Direction {
    Pull,
    Push,
}

fn lines(progress: BoxStream<'static, Result<Progress, ApiError>>, direction: Direction) -> Lines {
    let lines = progress.flat_map(move |step| {
        stream::iter(match step {
            Ok(progress) => told(progress, direction).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    });
    lines.boxed()
}

/// The lines of one step, word for word Ollama's.
fn told(progress: Progress, direction: Direction) -> Vec<ProgressLine> {
    let status = |text: &str| vec![ProgressLine::status(text)];
    match (progress, direction) {
        (Progress::Note(text), _) => status(&text),
        (Progress::Manifest, Direction::Pull) => status("pulling manifest"),
        (Progress::Manifest, Direction::Push) => status("retrieving manifest"),
        (Progress::Blob { digest, total, completed }, _) => {
            vec![blob("pulling", &digest, total, completed)]
        }
        // Blobs are verified as they come, each by itself; clients expect the one line for all.
        (Progress::Verifying { .. }, _) => Vec::new(),
        (Progress::WritingManifest, _) => {
            vec![
                ProgressLine::status("verifying sha256 digest"),
                ProgressLine::status("writing manifest"),
            ]
        }
        (Progress::RemovingUnused, _) => status("removing unused layers"),
        (Progress::Pushing { digest, total, completed }, _) => {
            vec![blob("pushing", &digest, total, completed)]
        }
        (Progress::PushingManifest, _) => status("pushing manifest"),
        (Progress::Success, _) => status("success"),
    }
}

fn blob(verb: &str, digest: &Digest, total: u64, completed: u64) -> ProgressLine {
    ProgressLine {
        status: format!("{verb} {}", digest.short()),
        digest: Some(digest.to_string()),
        total: Some(total),
        completed: Some(completed),
    }
}

/// A stream of lines, or the last one alone.
async fn answer(lines: Lines, streamed: bool) -> Result<Response, ApiError> {
    if streamed { streamed_answer(lines).await } else { last_line(lines).await }
}

async fn streamed_answer(mut lines: Lines) -> Result<Response, ApiError> {
    let mut held = Vec::new();
    let first = tokio::time::timeout(HOLD, async {
        while let Some(line) = lines.next().await {
            let line = line?;
            // Asking for the manifest says nothing yet of whether there is one.
            let asking = line.digest.is_none() && line.status.ends_with(" manifest");
            held.push(line);
            if !asking {
                break;
            }
        }
        Ok::<_, ApiError>(())
    });
    if let Ok(refused) = first.await {
        refused?;
    }
    let rest = stream::iter(held).map(Ok).chain(lines);
    let frames = rest.map(|line| match line {
        Ok(line) => reply::line(&line),
        Err(error) => {
            reply::log(&error);
            reply::line(&error.native())
        }
    });
    Ok(reply::stream(NDJSON, frames))
}

async fn last_line(mut lines: Lines) -> Result<Response, ApiError> {
    let mut last = ProgressLine::default();
    while let Some(line) = lines.next().await {
        last = line?;
    }
    Ok(reply::json(&last))
}

#[cfg(test)]
mod tests;
