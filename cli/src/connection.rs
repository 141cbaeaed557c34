//! The connection of a verb to the daemon.

use std::future::Future;

use anyhow::Context as _;
use dsk_daemon_api::Client;

use crate::args::Shared;
use crate::endpoint::{self, Target};
use crate::folders::process_env;

/// A client of the daemon, and how its endpoint was chosen.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) target: Target,
}

impl Connection {
    /// Chooses the endpoint. Nothing is sent yet.
    pub(crate) fn open(shared: &Shared) -> anyhow::Result<Connection> {
        let target = endpoint::resolve(shared.host.as_deref(), &process_env)?;
        let client = Client::connect(&target.endpoint)?;
        Ok(Connection { client, target })
    }
}

/// Runs a client verb: one thread is enough for one conversation.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the asynchronous runtime did not start")?;
    runtime.block_on(work)
}

/// Completes on Ctrl-C, and never where it cannot be caught.
pub(crate) async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
