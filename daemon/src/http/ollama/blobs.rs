//! `HEAD` and `POST /api/blobs/{digest}`: files a client uploads for a create.
//!
//! An upload streams straight into an ingest of the store, which hashes it and gives it its name
//! only when the hash is the digest. At no time is more than [`PIECES_WAITING_MAX`] pieces in memory.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use bytes::Bytes;
use dsk_daemon_api::{ApiError, ErrorCode};
use dsk_registry::{Digest, Store, StoreError};
use tokio::sync::mpsc;

use crate::http::body::{self, Pieces};
use crate::http::reply::Native;
use crate::http::{Http, failure, store};

/// How many pieces of a body wait for the disk.
const PIECES_WAITING_MAX: usize = 16;
/// What an upload leaves free on the disk.
const RESERVE_BYTES: u64 = 64 << 20;

/// `HEAD`: whether the blob is here.
pub(crate) async fn exists(
    State(http): State<Arc<Http>>,
    Path(digest): Path<String>,
) -> Native<StatusCode> {
    let digest = parse(&digest)?;
    let has = store::blocking(&http.service.store, move |store| Ok(store.has(&digest))).await?;
    match has {
        true => Ok(StatusCode::OK),
        false => Err(absent(&digest).into()),
    }
}

/// The blob is not here.
pub(crate) fn absent(digest: &Digest) -> ApiError {
    ApiError::new(ErrorCode::BlobNotFound, format!("blob \"{digest}\" not found"))
}

/// `POST`: 201 when the blob is new, 200 when it was here.
pub(crate) async fn upload(
    State(http): State<Arc<Http>>,
    Path(digest): Path<String>,
    request: Request,
) -> Native<StatusCode> {
    let digest = parse(&digest)?;
    let store = http.service.store.clone();
    let facts = store::blocking(&store, move |store| Ok((store.has(&digest), store.free_bytes()?)));
    let (has, free) = facts.await?;
    if has {
        return Ok(StatusCode::OK);
    }
    let max = free.saturating_sub(RESERVE_BYTES);
    if body::declared_length(&request).is_some_and(|length| length > max) {
        return Err(full(max).into());
    }
    receive(store, digest, Pieces::new(request.into_body()), max).await?;
    Ok(StatusCode::CREATED)
}

fn parse(text: &str) -> Result<Digest, ApiError> {
    text.parse().map_err(|error| failure::of_digest(&error))
}

fn full(max: u64) -> ApiError {
    let message = format!("the blob is larger than the {max} bytes that are free for it");
    ApiError::new(ErrorCode::NoSpace, message)
}

/// Passes the body to a thread that writes, and waits for its verdict.
async fn receive(store: Store, digest: Digest, mut body: Pieces, max: u64) -> Result<(), ApiError> {
    let (sender, pieces) = mpsc::channel(PIECES_WAITING_MAX);
    let writer = tokio::task::spawn_blocking(move || write(&store, &digest, pieces));
    let mut received = 0;
    let sent = loop {
        match body.next().await {
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
            Ok(Some(piece)) => {
                received += piece.len() as u64;
                if received > max {
                    break Err(full(max));
                }
                // A writer that is gone says why below.
                if sender.send(Some(piece)).await.is_err() {
                    break Ok(());
                }
            }
        }
    };
    if sent.is_ok() {
        let _gone = sender.send(None).await;
    }
    drop(sender);
    let written = writer.await.map_err(|error| failure::of_task(&error))?;
    sent?;
    written.map_err(|error| failure::of_store(&error))
}

/// Writes pieces until `None`, which says that the body came whole; without it the client went
/// away and what came is thrown away.
fn write(
    store: &Store,
    digest: &Digest,
    mut pieces: mpsc::Receiver<Option<Bytes>>,
) -> Result<(), StoreError> {
    let mut ingest = store.ingest(digest)?;
    if ingest.offset() > 0 {
        // What an earlier pull left: this body starts from the beginning.
        ingest.restart()?;
    }
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Some(bytes) => ingest.write(&bytes)?,
            None => return ingest.commit(),
        }
    }
    ingest.discard();
    Ok(())
}
