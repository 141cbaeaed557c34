//! `dsk registry serve`: a folder of models for other machines, over HTTP.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use dsk_registry::Store;
use dsk_registry::server::{self, ServerOptions};
use tokio::net::TcpListener;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::folders::process_env;
use crate::signals;
use crate::terminal::Terminal;

/// What is logged unless DSK_LOG says otherwise.
const LOG_DEFAULT: &str = "info";

#[derive(Debug, Subcommand)]
pub(crate) enum RegistryVerb {
    /// Serve a folder of models over HTTP, for `dsk pull HOST:PORT/MODEL`
    Serve(RegistryServeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RegistryServeArgs {
    /// The address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// The folder of models; made if it is not there
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Refuse pushes; the folder may then be one that a daemon uses
    #[arg(long)]
    read_only: bool,
    /// Listen on an address that other machines reach, without TLS and without passwords
    #[arg(long)]
    insecure: bool,
}

pub(crate) fn registry(verb: RegistryVerb, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let RegistryVerb::Serve(args) = verb;
    if !args.listen.ip().is_loopback() && !args.insecure {
        let message = format!(
            "{} can be reached by other machines, and this registry has no passwords and no TLS",
            args.listen
        );
        return Err(Failure::usage(message).hint("add --insecure if that is wanted").into());
    }
    let store = Store::open(&args.root)?;
    // Whoever only reads leaves the store to its owner.
    let lock = if args.read_only { None } else { Some(store.lock()?) };
    let filter = process_env("DSK_LOG").filter(|filter| !filter.is_empty());
    super::serve::log(filter.as_deref().unwrap_or(LOG_DEFAULT))?;
    let runtime =
        tokio::runtime::Runtime::new().context("the asynchronous runtime did not start")?;
    let served = runtime.block_on(serve(args, store, terminal));
    drop(lock);
    served.map(|()| Exit::Success)
}

async fn serve(
    args: RegistryServeArgs,
    store: Store,
    terminal: &mut Terminal,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        super::serve::bind_failure(&args.listen.to_string(), &error)
            .hint("--listen names another address")
    })?;
    let shutdown = signals::shutdown().context("signals cannot be caught")?;
    terminal.line(&format!("listening on http://{}", listener.local_addr()?))?;
    let options = ServerOptions { read_only: args.read_only, ..ServerOptions::default() };
    server::serve(listener, store, options, shutdown).await.context("the registry stopped")
}
