//! The listening side: connections that are counted, timed, and drained at the end.

use super::{App, ServerOptions, routes};
use crate::{Store, pump::blocking};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::task::AbortOnDropHandle;

/// Connections served at once; the next ones wait in the system's queue.
const CONNECTIONS_MAX: usize = 512;
/// For a request's headers to arrive, which is also how long a connection may idle between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// For running requests to end after the shutdown was asked for.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks for what nobody needs any more.
const COLLECT_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Before accepting again after the system refused, as it does without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the registry until `shutdown` is ready, then lets running requests end.
pub async fn serve(
    listener: TcpListener,
    store: Store,
    options: ServerOptions,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let app = Arc::new(App::new(store, options));
    let router = routes(Arc::clone(&app));
    let collecting = AbortOnDropHandle::new(tokio::spawn(collect(app)));
    let (permits, graceful) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), GracefulShutdown::new());
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => spawn(stream, permit, &router, &graceful),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop((listener, collecting));
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("leaving with requests unfinished");
    }
    Ok(())
}

/// Collects at once, since a crash may have left something, and then every now and then.
async fn collect(app: Arc<App>) {
    let mut interval = tokio::time::interval(COLLECT_INTERVAL);
    loop {
        interval.tick().await;
        let app = Arc::clone(&app);
        blocking(move || app.collect()).await;
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

fn spawn(
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
    router: &Router,
    graceful: &GracefulShutdown,
) {
    // Small answers should not wait for more of them; failing to say so costs only speed.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router.clone());
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection broke off");
        }
        drop(permit);
    });
}
