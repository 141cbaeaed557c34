//! Async bytes into a blocking writer.
//!
//! A body arrives on an async task, hashing and writing block. One thread of the blocking pool per
//! transfer takes the chunks from a short queue, so the network waits for the disk and never the
//! other way round by more than the queue.

use crate::StoreError;
use bytes::Bytes;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
};

/// Chunks that may wait. A chunk is what one read of the socket gave, so this is a few megabytes at most.
const QUEUE_CHUNKS: usize = 32;

/// A writer `W` on a thread of its own.
#[derive(Debug)]
pub(crate) struct Pump<W> {
    queue: mpsc::Sender<Bytes>,
    thread: JoinHandle<(W, Result<(), StoreError>)>,
}

impl<W: Send + 'static> Pump<W> {
    pub(crate) fn start(
        mut writer: W,
        write: fn(&mut W, &[u8]) -> Result<(), StoreError>,
    ) -> Pump<W> {
        let (queue, mut chunks) = mpsc::channel::<Bytes>(QUEUE_CHUNKS);
        let thread = spawn_blocking(move || {
            while let Some(chunk) = chunks.blocking_recv() {
                if let Err(error) = write(&mut writer, &chunk) {
                    return (writer, Err(error));
                }
            }
            (writer, Ok(()))
        });
        Pump { queue, thread }
    }

    /// Queues a chunk; false when the writer has failed, which [`Pump::finish`] then explains.
    pub(crate) async fn send(&self, chunk: Bytes) -> bool {
        self.queue.send(chunk).await.is_ok()
    }

    /// Waits until all chunks are written, and gives the writer back.
    pub(crate) async fn finish(self) -> (W, Result<(), StoreError>) {
        drop(self.queue);
        join(self.thread).await
    }
}

/// Runs blocking work of the store off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    join(spawn_blocking(work)).await
}

pub(crate) async fn join<T>(thread: JoinHandle<T>) -> T {
    match thread.await {
        Ok(value) => value,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is going away, and the waiting task with it.
        Err(_) => std::future::pending().await,
    }
}
