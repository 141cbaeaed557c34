//! One blob on its way from the upstream into the store, and those who read it meanwhile.

use super::{failed, unknown_blob};
use crate::{
    Client, ClientError, Digest, Name, Store,
    client::relay::Relay,
    pump::{Pump, blocking},
    server::error::{Code, Problem},
    store::Upload,
};
use bytes::Bytes;
use futures_util::Stream;
use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};
use tokio::sync::watch;

/// Bytes read from the disk at once.
const READ_BYTES: usize = 256 << 10;

/// A running or finished fetch; a clone watches the same one.
#[derive(Clone, Debug)]
pub(in crate::server) struct Flight(watch::Receiver<State>);

/// How far it is.
#[derive(Debug, Default)]
struct State {
    /// The file that it goes into and the blob's size, once the upstream has answered.
    begun: Option<(Arc<File>, u64)>,
    /// Bytes in the file.
    written: u64,
    end: Option<End>,
}

/// How it ended.
#[derive(Clone, Debug)]
enum End {
    Verified,
    Failed(Code, String),
}

/// The writing side: it tells the readers only what is in the file.
#[derive(Debug)]
struct Writer {
    upload: Upload,
    state: Arc<watch::Sender<State>>,
}

impl Writer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), crate::StoreError> {
        self.upload.write(bytes)?;
        let written = self.upload.offset();
        self.state.send_modify(|state| state.written = written);
        Ok(())
    }
}

impl Flight {
    /// Starts the fetch. It goes on when nobody watches: others will ask for the same bytes.
    pub(super) fn begin(
        store: Store,
        client: Client,
        insecure: bool,
        name: Name,
        digest: Digest,
    ) -> Flight {
        let (sender, receiver) = watch::channel(State::default());
        let sender = Arc::new(sender);
        tokio::spawn(async move {
            let fetched = fetch(&sender, &store, &client, insecure, &name, digest).await;
            if let Err(problem) = &fetched {
                tracing::warn!(%digest, reason = problem.message(), "a blob could not be fetched");
            }
            let end = fetched.map_or_else(
                |problem| End::Failed(problem.code, problem.message().to_owned()),
                |()| End::Verified,
            );
            sender.send_modify(|state| state.end = Some(end));
        });
        Flight(receiver)
    }

    pub(super) fn is_running(&self) -> bool {
        // Without a sender the task is gone, whatever it came to.
        self.0.borrow().end.is_none() && self.0.has_changed().is_ok()
    }

    /// Waits until the upstream has answered; gives the size, and the file that the bytes go into.
    pub(in crate::server) async fn begun(&mut self) -> Result<(Arc<File>, u64), Problem> {
        let known = |state: &State| state.begun.is_some() || state.end.is_some();
        let state = self.0.wait_for(known).await.map_err(|error| Problem::internal(&error))?;
        match (&state.begun, &state.end) {
            (_, Some(End::Failed(code, message))) => Err(Problem::new(*code, message.clone())),
            (Some((file, size)), _) => Ok((Arc::clone(file), *size)),
            (None, _) => Err(Problem::new(Code::UpstreamFailed, "the fetch ended too early")),
        }
    }

    /// Waits until there is something to read at `offset`; gives the end of what may be read. The last
    /// byte may be only when the whole was verified: a wrong blob is one that breaks off.
    async fn readable(&mut self, offset: u64, size: u64) -> io::Result<u64> {
        let limit = |state: &State| match state.end {
            Some(End::Verified) => size,
            _ => state.written.min(size.saturating_sub(1)),
        };
        let ready = |state: &State| state.end.is_some() || limit(state) > offset;
        let state = self.0.wait_for(ready).await.map_err(io::Error::other)?;
        match &state.end {
            Some(End::Failed(_, message)) => Err(io::Error::other(message.clone())),
            _ => Ok(limit(&state)),
        }
    }
}

/// The bytes from `first` on, `length` of them, as they arrive.
pub(in crate::server) fn stream(
    flight: Flight,
    file: Arc<File>,
    size: u64,
    first: u64,
    length: u64,
) -> impl Stream<Item = io::Result<Bytes>> {
    let end = first + length;
    futures_util::stream::try_unfold(
        (flight, file, first),
        move |(mut flight, file, at)| async move {
            if at >= end {
                return Ok(None);
            }
            let until = flight.readable(at, size).await?.min(end);
            let count = (until - at).min(READ_BYTES as u64) as usize;
            let reading = Arc::clone(&file);
            let bytes = blocking(move || {
                let mut buffer = vec![0; count];
                reading.read_exact_at(&mut buffer, at).map(|()| Bytes::from(buffer))
            });
            let bytes = bytes.await?;
            let next = at + bytes.len() as u64;
            Ok(Some((bytes, (flight, file, next))))
        },
    )
}

async fn fetch(
    state: &Arc<watch::Sender<State>>,
    store: &Store,
    client: &Client,
    insecure: bool,
    name: &Name,
    digest: Digest,
) -> Result<(), Problem> {
    let upstream = |error: ClientError| failed(&error);
    // Until it is there and a manifest names it, nothing else keeps the blob.
    let _pin = store.pin([digest]);
    let relay = Relay::open(client, name, insecure).await.map_err(upstream)?;
    let blob = relay.blob(digest).await.map_err(upstream)?;
    let mut blob = blob.ok_or_else(unknown_blob)?;
    let (opening, size) = (store.clone(), blob.size());
    let (upload, file) = blocking(move || {
        let upload = opening.upload()?;
        let file = upload.reader()?;
        Ok::<_, crate::StoreError>((upload, file))
    })
    .await?;
    state.send_modify(|state| state.begun = Some((Arc::new(file), size)));
    let pump = Pump::start(Writer { upload, state: Arc::clone(state) }, Writer::write);
    let received = loop {
        match blob.next().await {
            Ok(Some(chunk)) => {
                if !pump.send(chunk).await {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(failed(&error)),
        }
    };
    let (writer, written) = pump.finish().await;
    written?;
    received?;
    blocking(move || writer.upload.commit(&digest)).await.map_err(|error| match error {
        crate::StoreError::DigestMismatch { .. } => {
            Problem::new(Code::UpstreamFailed, format!("the upstream sends wrong bytes: {error}"))
        }
        other => other.into(),
    })
}
