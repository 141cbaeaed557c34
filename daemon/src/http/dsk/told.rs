//! Work that tells how far it is, line by line, to the client that asked for it.

use axum::body::Bytes;
use dsk_daemon_api::{ApiError, ErrorCode};
use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::http::ollama::NDJSON;
use crate::http::reply::{self, Native};

/// Lines that wait for a slow client; further figures are left out.
const UNREAD_MAX: usize = 64;

/// One line, or the refusal that ends the work.
type Line<T> = Result<T, ApiError>;

/// The way to the client.
#[derive(Debug)]
pub(crate) struct Teller<T>(mpsc::Sender<Line<T>>);

impl<T> Clone for Teller<T> {
    fn clone(&self) -> Teller<T> {
        Teller(self.0.clone())
    }
}

impl<T> Teller<T> {
    /// Sends a line that must not be lost.
    pub(crate) async fn tell(&self, line: T) {
        // A client that is gone is noticed by whoever does the work.
        let _gone = self.0.send(Ok(line)).await;
    }

    /// Sends a line that a later one replaces.
    pub(crate) fn figure(&self, line: T) {
        let _full = self.0.try_send(Ok(line));
    }

    /// Whether the client has left.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.is_closed()
    }

    /// Ends when the client has left.
    pub(crate) async fn gone(&self) {
        self.0.closed().await;
    }
}

/// Does the work in the background and answers with its lines. A refusal before the first line is a
/// status, a later one the last line.
pub(crate) async fn answer<T, W, F>(work: W) -> Native
where
    T: Serialize + Send + 'static,
    W: FnOnce(Teller<T>) -> F,
    F: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    let (sender, mut lines) = mpsc::channel(UNREAD_MAX);
    let running = work(Teller(sender.clone()));
    tokio::spawn(async move {
        if let Err(error) = running.await {
            let _gone = sender.send(Err(error)).await;
        }
    });
    let first = lines.recv().await.ok_or(ErrorCode::Internal)??;
    let rest = stream::unfold(lines, |mut lines| async move {
        let line = lines.recv().await?;
        Some((frame(line), lines))
    });
    let rest = stream::once(async move { reply::line(&first) }).chain(rest);
    Ok(reply::stream(NDJSON, rest))
}

fn frame<T: Serialize>(line: Line<T>) -> Bytes {
    match line {
        Ok(line) => reply::line(&line),
        Err(error) => {
            reply::log(&error);
            reply::line(&error.native())
        }
    }
}
