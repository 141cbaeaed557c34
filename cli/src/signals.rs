//! The signals that end a server: the first one shuts it down in order, the second at once.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Exit;

/// Listens for SIGINT and SIGTERM from now on; the returned future ends with the first of them.
pub(crate) fn shutdown() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        // Whoever asks twice does not want to wait for requests that are still running.
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            std::process::exit(i32::from(Exit::Interrupted.code()));
        });
    })
}
