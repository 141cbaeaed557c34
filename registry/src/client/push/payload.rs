//! The bytes of a blob on their way out: read piece by piece, counted, and held to the rate limits.

use crate::{
    Descriptor, StoreError,
    client::{
        Client, Progress,
        download::rate::Pace,
        retry::Failure,
        session::{Call, Session},
    },
    pump::blocking,
};
use bytes::Bytes;
use futures_util::stream;
use md5::{Digest as _, Md5};
use reqwest::{Body, Response, header::CONTENT_LENGTH};
use std::{
    fs::File,
    ops::Range,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// Bytes read from the disk at once.
const READ_BYTES: u64 = 128 << 10;
/// How fast a registry reads again what it was sent before it says that all is well, in bytes per second.
const REREAD_RATE: u64 = 20 << 20;
/// How often an upload's progress is looked at.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Where a blob's bytes are.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// In the store.
    File(Arc<File>, PathBuf),
    /// In memory: what was written anew for another format.
    Memory(Bytes),
}

impl Content {
    /// Reads bytes of it. Blocking.
    pub(super) fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        match self {
            Content::Memory(bytes) => {
                let end = range.end.min(bytes.len() as u64);
                Ok(bytes.slice(range.start.min(end) as usize..end as usize))
            }
            Content::File(file, path) => {
                let mut piece = vec![0; (range.end - range.start) as usize];
                let read = file.read_exact_at(&mut piece, range.start);
                read.map_err(|error| StoreError::io(path, error))?;
                Ok(piece.into())
            }
        }
    }

    /// The MD5 of some of its bytes. Blocking.
    pub(super) fn md5(&self, range: Range<u64>) -> Result<[u8; 16], StoreError> {
        let (mut sum, mut at) = (Md5::new(), range.start);
        while at < range.end {
            let next = range.end.min(at + READ_BYTES);
            sum.update(self.read(at..next)?);
            at = next;
        }
        Ok(sum.finalize().into())
    }
}

/// The limits that the bytes of one push share with others.
pub(super) type Paces = [Arc<Pace>; 2];

pub(super) fn paces(client: &Client, limit_rate: Option<u64>) -> Paces {
    [Arc::clone(&client.pace), Arc::new(Pace::new(limit_rate))]
}

/// Bytes that leave at once. At a low rate they are fewer: none waits for longer than a second, and the
/// registry sees that something comes.
fn piece_bytes(paces: &Paces) -> u64 {
    paces.iter().map(|pace| pace.second()).fold(READ_BYTES, u64::min)
}

/// How long a registry may take over this many bytes once it has them all, beside what any answer takes.
pub(super) fn reread(bytes: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / REREAD_RATE)
}

/// One request's share of a blob.
#[derive(Debug)]
pub(super) struct Payload {
    content: Content,
    pub(super) range: Range<u64>,
    paces: Paces,
    /// The bytes that have left so far.
    sent: Arc<AtomicU64>,
    /// When the next ones are due: until then it is us who wait.
    due: Arc<Mutex<Option<Instant>>>,
    /// What kept the bytes from being read.
    failed: Arc<Mutex<Option<StoreError>>>,
}

impl Payload {
    pub(super) fn new(content: &Content, range: Range<u64>, paces: &Paces) -> Payload {
        let (content, paces) = (content.clone(), paces.clone());
        let (sent, due, failed) = (Arc::default(), Arc::default(), Arc::default());
        Payload { content, range, paces, sent, due, failed }
    }

    pub(super) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// From the first byte, however much of it an earlier body brought.
    fn body(&self) -> Body {
        self.sent.store(0, Ordering::Relaxed);
        let (content, end) = (self.content.clone(), self.range.end);
        let (paces, sent) = (self.paces.clone(), Arc::clone(&self.sent));
        let (due, failed) = (Arc::clone(&self.due), Arc::clone(&self.failed));
        let most = piece_bytes(&paces);
        let pieces = stream::try_unfold(self.range.start, move |at| {
            let (content, paces, sent) = (content.clone(), paces.clone(), Arc::clone(&sent));
            let (due, failed) = (Arc::clone(&due), Arc::clone(&failed));
            async move {
                if at >= end {
                    return Ok::<_, Unreadable>(None);
                }
                let next = end.min(at + most);
                for turn in paces.iter().filter_map(|pace| pace.turn(next - at)) {
                    *due.lock().unwrap_or_else(PoisonError::into_inner) = Some(turn.due);
                    turn.wait().await;
                }
                let read = blocking(move || content.read(at..next)).await;
                let piece = read.map_err(|error| {
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    Unreadable
                })?;
                sent.fetch_add(next - at, Ordering::Relaxed);
                Ok(Some((piece, next)))
            }
        });
        Body::wrap_stream(pieces)
    }

    /// Sends it with a request that has everything but the body; reports how far it is and gives up when
    /// nothing moves, or when the answer to all of it takes longer than `reread` beside.
    pub(super) async fn send(
        &self,
        session: &Session<'_>,
        mut call: Call<'_>,
        reread: Duration,
        tell: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Response, Failure> {
        let body = || self.body();
        call.headers.insert(CONTENT_LENGTH, self.len().into());
        call.timeout = None;
        let call = Call { body: Some(&body), ..call };
        let stall = session.limits().stall;
        let (mut request, mut seen) = (std::pin::pin!(session.send(&call)), (0, Instant::now()));
        loop {
            match timeout(REPORT_INTERVAL.min(stall), &mut request).await {
                Ok(response) => return self.unless_unreadable(response),
                Err(_) if self.sent.load(Ordering::Relaxed) != seen.0 => {
                    seen = (self.sent.load(Ordering::Relaxed), Instant::now());
                    tell((self.range.start + seen.0).min(self.range.end));
                }
                Err(_) => self
                    .check_stall(seen, stall, reread)
                    .map_err(|reason| session.unreachable(reason))?,
            }
        }
    }

    /// Whether the registry has stood still for too long, after so many bytes had left by then.
    fn check_stall(
        &self,
        (sent, since): (u64, Instant),
        stall: Duration,
        reread: Duration,
    ) -> Result<(), String> {
        let due = *self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let still = due.map_or(since, |due| due.max(since)).elapsed();
        let all = sent == self.len();
        match if all { stall + reread } else { stall } {
            limit if still < limit => Ok(()),
            limit if all => Err(format!("no answer within {limit:?} to all {sent} bytes")),
            limit => Err(format!("it took no byte for {limit:?}")),
        }
    }

    fn unless_unreadable(&self, sent: Result<Response, Failure>) -> Result<Response, Failure> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        failed.map_or(sent, |error| Err(error.into()))
    }
}

/// The bytes could not be read; the payload has the reason.
#[derive(Debug, thiserror::Error)]
#[error("the bytes to send cannot be read")]
struct Unreadable;

pub(super) fn pushing(blob: &Descriptor, completed: u64) -> Progress {
    Progress::Pushing { digest: blob.digest, total: blob.size, completed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_takes_a_second_at_most() {
        let bytes = |all, one| piece_bytes(&[all, one].map(|rate| Arc::new(Pace::new(rate))));
        assert_eq!(bytes(None, None), READ_BYTES);
        assert_eq!(bytes(None, Some(1 << 30)), READ_BYTES);
        assert_eq!(bytes(Some(1000), Some(2000)), 1000);
        assert_eq!(bytes(None, Some(1)), 1);
    }
}
