//! The life of a daemon: open, serve, drain.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use dsk_daemon_engine::mmap;
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{
    Config, Listeners, Peer,
    listeners::OwnedSocket,
    logs::Ring,
    service::{Service, ServiceError},
    systemd, upkeep, watch,
};

#[cfg(test)]
mod tests;

/// Connections served at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4096;
/// How long a client may take to send a request's headers, or to begin the next request.
const HEADERS: Duration = Duration::from_secs(30);
/// Most bytes of a request's headers that are read before it is refused.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// The pause after a connection could not be accepted: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// After this long, what starting needed is not needed again soon.
const SETTLED: Duration = Duration::from_secs(2);
/// How long runners and transfers get to wind down once no request runs any more.
const WIND_DOWN: Duration = Duration::from_secs(5);

/// Why a daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Its parts cannot be brought up.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// A socket cannot be used.
    #[error(transparent)]
    Listen(#[from] crate::ListenError),
}

/// Runs a daemon on `listeners`, whose log `logs` keeps, until `shutdown`, then drains: running requests get
/// [`Config::drain`] to finish, models are unloaded, sockets removed.
pub async fn run(
    config: Config,
    logs: Ring,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) -> Result<(), DaemonError> {
    let opened = tokio::task::spawn_blocking(move || Service::open(config, logs)).await;
    let service = opened.map_err(|error| ServiceError::Runner(io::Error::other(error)))??;
    let router = crate::http::router(Arc::clone(&service));
    serve(service, router, listeners, shutdown).await;
    Ok(())
}

/// [`run`] with its parts brought up already.
pub(crate) async fn serve(
    service: Arc<Service>,
    router: Router,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) {
    let mut background = JoinSet::new();
    background.spawn(watch::watch(Arc::downgrade(&service)));
    background.spawn(upkeep::daily(Arc::downgrade(&service)));
    background.spawn(systemd::watchdog(service.scheduler.clone()));
    let place = listeners.describe();
    let connections = Connections::new(router);
    let mut accepting = accept_all(listeners, &connections);
    tracing::info!(models = %service.config.models.display(), "listening on {place}");
    systemd::ready(&format!("listening on {place}"));
    background.spawn(settle());

    shutdown.await;

    tracing::info!("shutting down");
    systemd::stopping();
    // Dropping the listeners refuses new connections and removes the socket's file.
    accepting.shutdown().await;
    connections.drain(service.config.drain).await;
    let wind_down = async { tokio::join!(service.scheduler.drain(), service.transfers.stop()) };
    if tokio::time::timeout(WIND_DOWN, wind_down).await.is_err() {
        tracing::warn!("some requests or transfers were cut off");
    }
    background.shutdown().await;
}

/// The runtime for [`run`], in a process that does nothing else. To be called before other threads start.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    mmap::one_heap();
    tokio::runtime::Runtime::new()
}

/// Gives back what only starting needed.
async fn settle() {
    tokio::time::sleep(SETTLED).await;
    let release = || {
        mmap::trim_heap();
        mmap::release_code();
    };
    let _ = tokio::task::spawn_blocking(release).await;
}

fn accept_all(listeners: Listeners, connections: &Connections) -> JoinSet<()> {
    let mut accepting = JoinSet::new();
    for listener in listeners.tcp {
        let connections = connections.clone();
        accepting.spawn(async move {
            loop {
                let permit = connections.permit().await;
                match listener.accept().await {
                    Ok((stream, client)) => {
                        // Tokens are small and should not wait for each other.
                        let _ = stream.set_nodelay(true);
                        let server = stream.local_addr().unwrap_or(client);
                        connections.serve(stream, Peer::Tcp { client, server }, permit);
                    }
                    Err(error) => accept_failed(&error).await,
                }
            }
        });
    }
    for socket in listeners.unix {
        accepting.spawn(accept_unix(socket, connections.clone()));
    }
    accepting
}

async fn accept_unix(socket: OwnedSocket, connections: Connections) {
    loop {
        let permit = connections.permit().await;
        match socket.listener.accept().await {
            Ok((stream, _)) => connections.serve(stream, Peer::Unix, permit),
            Err(error) => accept_failed(&error).await,
        }
    }
}

async fn accept_failed(error: &io::Error) {
    tracing::warn!(%error, "a connection was not accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// The open connections.
#[derive(Clone)]
struct Connections {
    router: Router,
    free: Arc<Semaphore>,
    graceful: Arc<GracefulShutdown>,
    /// Ends what did not end by itself.
    cut: CancellationToken,
}

impl Connections {
    fn new(router: Router) -> Connections {
        let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let (graceful, cut) = (Arc::default(), CancellationToken::new());
        Connections { router, free, graceful, cut }
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.free).acquire_owned().await;
        permit.expect("the semaphore is never closed")
    }

    fn serve<S>(&self, stream: S, peer: Peer, permit: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.router.clone();
        let answer = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            let router = router.clone();
            async move { router.oneshot(request).await }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .max_buf_size(HEADER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), answer);
        let watched = self.graceful.watcher().watch(connection);
        let cut = self.cut.clone();
        tokio::spawn(async move {
            if let Some(Err(error)) = cut.run_until_cancelled(watched).await {
                tracing::debug!(%error, ?peer, "a connection ended badly");
            }
            drop(permit);
        });
    }

    /// Lets running requests finish, for `limit` at most.
    async fn drain(self, limit: Duration) {
        let running = self.graceful.count();
        let Ok(graceful) = Arc::try_unwrap(self.graceful) else { return };
        if tokio::time::timeout(limit, graceful.shutdown()).await.is_err() {
            tracing::warn!(running, ?limit, "requests were still running");
            self.cut.cancel();
        }
    }
}
