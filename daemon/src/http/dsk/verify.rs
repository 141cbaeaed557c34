//! `POST /api/dsk/verify`: models are read again, and repaired if that is asked for.
//!
//! A client that leaves ends it. One runs at a time: two would only take turns at the disk.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use dsk_daemon_api::ollama::ProgressLine;
use dsk_daemon_api::store::{BadBlob, FailedRepair, VerifyLine, VerifyReport, VerifyRequest};
use dsk_daemon_api::{ApiError, ErrorCode};
use dsk_registry::{Checking, Digest, Name, Progress, TransferOptions, Verification};
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::told::{Teller, answer};
use crate::http::reply::Native;
use crate::http::{Http, body, failure, parse_name, store};

/// The shortest time between two figures of one blob.
const INTERVAL: Duration = Duration::from_millis(100);

/// The handler.
pub(crate) async fn verify(State(http): State<Arc<Http>>, request: Request) -> Native {
    let body: VerifyRequest = body::json(request, body::SMALL_BYTES_MAX).await?;
    let mut models = Vec::new();
    for text in &body.models {
        let found = store::find(&http.service.store, parse_name(text)?).await?;
        models.push(found.ok_or_else(|| failure::not_found(text))?.name);
    }
    let turn = Arc::clone(&http.verifying).try_lock_owned();
    let turn = turn.map_err(|_| ApiError::new(ErrorCode::Busy, "a verification is under way"))?;
    let models = (!models.is_empty()).then_some(models);
    let work = move |teller| run(http, models, body, teller, turn);
    answer(work).await
}

async fn run(
    http: Arc<Http>,
    models: Option<Vec<Name>>,
    request: VerifyRequest,
    teller: Teller<VerifyLine>,
    _turn: OwnedMutexGuard<()>,
) -> Result<(), ApiError> {
    let told = teller.clone();
    let found = store::blocking(&http.service.store, move |store| {
        let figures = Figures::new(&told);
        let progress = |checking: Checking| figures.tell("verifying", checking);
        store.verify(models.as_deref(), &progress, &|| told.is_gone())
    });
    let found = found.await?;
    let mut report = report(&found);
    if request.repair {
        for name in found.damaged() {
            let repaired = match in_the_way(&found, &name) {
                Some(error) => Err(error),
                None => repair(&http, &name, request.insecure, &teller).await,
            };
            let model = name.to_string();
            match repaired {
                Ok(()) => report.repaired.push(model),
                Err(error) => report.failed.push(FailedRepair { model, error: error.message }),
            }
        }
    }
    let progress = ProgressLine::status("success");
    teller.tell(VerifyLine { progress, report: Some(report) }).await;
    Ok(())
}

/// A damaged file of the model that could not be put aside: nothing is fetched while it is there.
fn in_the_way(found: &Verification, name: &Name) -> Option<ApiError> {
    let bad = found.bad.iter().find(|bad| bad.stays && bad.models.contains(name))?;
    let message = format!("{} stays where it is: {}", bad.digest.short(), bad.reason);
    Some(ApiError::new(ErrorCode::InvalidModel, message))
}

/// Fetches what the model lacks from the registry that its name says.
async fn repair(
    http: &Http,
    name: &Name,
    insecure: bool,
    teller: &Teller<VerifyLine>,
) -> Result<(), ApiError> {
    let service = &http.service;
    let options = TransferOptions { insecure, ..TransferOptions::default() };
    let figures = Figures::new(teller);
    let progress = |step: Progress| {
        if let Progress::Blob { digest, total, completed } = step {
            figures.tell("repairing", Checking { digest, bytes: total, done: completed });
        }
    };
    let cancel = CancellationToken::new();
    let repair = service.registry.repair(&service.store, name, &options, progress, &cancel);
    let mut repair = pin!(repair);
    let repaired = tokio::select! {
        repaired = &mut repair => repaired,
        () = teller.gone() => {
            cancel.cancel();
            repair.await
        }
    };
    repaired.map(drop).map_err(|error| failure::of_registry(&error))
}

fn report(found: &Verification) -> VerifyReport {
    let bad = found.bad.iter().map(|bad| BadBlob {
        digest: bad.digest.to_string(),
        reason: bad.reason.clone(),
        moved_to: bad.moved_to.as_ref().map(|path| path.display().to_string()),
        models: bad.models.iter().map(ToString::to_string).collect(),
    });
    let bad = bad.collect();
    VerifyReport { blobs: found.blobs, bytes: found.bytes, bad, ..VerifyReport::default() }
}

/// Figures of blobs on their way to a client, no more of them than it can read.
struct Figures<'a> {
    teller: &'a Teller<VerifyLine>,
    told: Mutex<HashMap<Digest, Instant>>,
}

impl<'a> Figures<'a> {
    fn new(teller: &'a Teller<VerifyLine>) -> Figures<'a> {
        Figures { teller, told: Mutex::default() }
    }

    fn tell(&self, verb: &str, Checking { digest, bytes, done }: Checking) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = told.get(&digest).is_some_and(|at| at.elapsed() < INTERVAL);
        if recent && done < bytes {
            return;
        }
        match done < bytes {
            true => drop(told.insert(digest, Instant::now())),
            false => drop(told.remove(&digest)),
        }
        let progress = ProgressLine {
            status: format!("{verb} {}", digest.short()),
            digest: Some(digest.to_string()),
            total: Some(bytes),
            completed: Some(done),
        };
        self.teller.figure(VerifyLine { progress, report: None });
    }
}
