//! `dsk registry serve`: a folder of models, the daemon's own store, or another registry's models, for
//! other machines, over HTTP.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use dsk_daemon::config::{Config, Files, Overrides, ProcessEnv};
use dsk_registry::server::{self, ServerOptions, Tokens, Upstream};
use dsk_registry::{Store, StoreLock};
use tokio::net::TcpListener;
use url::Url;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::folders::process_env;
use crate::signals;
use crate::terminal::Terminal;

/// What is logged unless DSK_LOG says otherwise.
const LOG_DEFAULT: &str = "info";
/// Largest file of tokens, in bytes.
const TOKEN_FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Subcommand)]
pub(crate) enum RegistryVerb {
    /// Serve models over HTTP, for `dsk pull HOST:PORT/MODEL` and any OCI client
    Serve(RegistryServeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RegistryServeArgs {
    /// The address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// The folder of models; made if it is not there. With --upstream, its cache; default DSK_HOME/registry
    #[arg(long, value_name = "DIR", required_unless_present_any = ["from_store", "upstream"])]
    root: Option<PathBuf>,
    /// Serve the daemon's models as well; they are only read, and the daemon may be running
    #[arg(long)]
    from_store: bool,
    /// Fetch what is not here from this registry, and keep it; pushes are refused then
    #[arg(long, value_name = "URL")]
    upstream: Option<Url>,
    /// Let the upstream be another machine that is reached over plain HTTP
    #[arg(long, requires = "upstream")]
    insecure_upstream: bool,
    /// Who may pull and push: lines of `pull TOKEN` and `push TOKEN`. Clients send the token as a password
    /// or as a bearer token. Without a `pull` line everybody may pull
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Refuse pushes and deletions; the folder may then be one that a daemon uses
    #[arg(long)]
    read_only: bool,
    /// Refuse deletions
    #[arg(long)]
    no_delete: bool,
    /// Take pushes from other machines without tokens
    #[arg(long)]
    insecure_writes: bool,
}

/// What is served.
struct Served {
    store: Store,
    /// Kept while the store is ours to write.
    lock: Option<StoreLock>,
    options: ServerOptions,
}

pub(crate) fn registry(verb: RegistryVerb, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let RegistryVerb::Serve(args) = verb;
    let filter = process_env("DSK_LOG").filter(|filter| !filter.is_empty());
    super::serve::log(filter.as_deref().unwrap_or(LOG_DEFAULT))?;
    let tokens = args.token_file.as_deref().map(tokens).transpose()?.unwrap_or_default();
    check_exposure(&args, &tokens)?;
    let served = open(&args, tokens)?;
    let runtime =
        tokio::runtime::Runtime::new().context("the asynchronous runtime did not start")?;
    runtime.block_on(serve(args.listen, served, terminal)).map(|()| Exit::Success)
}

impl RegistryServeArgs {
    /// Whether anybody at all may push.
    fn takes_writes(&self) -> bool {
        // The daemon's store alone, and a copy of another registry, are only read.
        self.root.is_some() && self.upstream.is_none() && !self.read_only
    }
}

/// Other machines may read what is served, but whoever writes must be known.
fn check_exposure(args: &RegistryServeArgs, tokens: &Tokens) -> Result<(), Failure> {
    let reachable = !args.listen.ip().is_loopback();
    if !reachable || !args.takes_writes() || !tokens.is_empty() || args.insecure_writes {
        return Ok(());
    }
    let message = format!(
        "{} can be reached by other machines, and anybody there could push and delete models",
        args.listen
    );
    Err(Failure::usage(message)
        .hint("add --read-only, or --token-file FILE with a line `push TOKEN`")
        .hint("or --insecure-writes if that is wanted"))
}

/// Reads the tokens. The file's text stays out of every message.
fn tokens(path: &Path) -> anyhow::Result<Tokens> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("cannot read the tokens in {shown}"))?;
    let mode = file.metadata().map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        tracing::warn!(file = %shown, "other users can read the tokens; chmod 600 closes them off");
    }
    let mut text = String::new();
    file.take(TOKEN_FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read the tokens in {shown}"))?;
    Tokens::parse(&text)
        .map_err(|error| Failure::usage(format!("{shown} is no list of tokens: {error}")).into())
}

fn open(args: &RegistryServeArgs, tokens: Tokens) -> anyhow::Result<Served> {
    let config = Config::load(&Overrides::default(), &ProcessEnv, &Files::standard(&ProcessEnv))?;
    let daemons = || Store::open_read_only(&config.models).context("the daemon's models");
    let mut options = ServerOptions {
        read_only: !args.takes_writes(),
        deletes: !args.no_delete,
        tokens,
        ..ServerOptions::default()
    };
    options.upstream = match &args.upstream {
        None => None,
        Some(url) => Some(Upstream::new(url.clone(), args.insecure_upstream)?),
    };
    let root = match (&args.root, options.upstream.is_some()) {
        (None, true) => Some(config.home.join("registry")),
        (root, _) => root.clone(),
    };
    let Some(root) = root else { return Ok(Served { store: daemons()?, lock: None, options }) };
    if args.from_store {
        options.shared = Some(daemons()?);
    }
    // Whoever only reads leaves the store to its owner.
    if options.read_only && options.upstream.is_none() {
        return Ok(Served { store: Store::open_read_only(&root)?, lock: None, options });
    }
    let store = Store::open_in_place(&root, &config.home.join("state"), false)?;
    if !store.is_writable() {
        let message = format!("{} belongs to another program", root.display());
        return Err(Failure::usage(message).hint("--read-only serves it as it is").into());
    }
    let lock = Some(store.lock()?);
    Ok(Served { store, lock, options })
}

async fn serve(address: SocketAddr, served: Served, terminal: &mut Terminal) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        super::serve::bind_failure(&address.to_string(), &error)
            .hint("--listen names another address")
    })?;
    let shutdown = signals::shutdown().context("signals cannot be caught")?;
    terminal.line(&format!("listening on http://{}", listener.local_addr()?))?;
    let Served { store, lock, options } = served;
    let ended = server::serve(listener, store, options, shutdown).await;
    drop(lock);
    ended.context("the registry stopped")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: RegistryServeArgs,
    }

    fn parse(line: &str) -> RegistryServeArgs {
        Line::try_parse_from(line.split_whitespace()).unwrap_or_else(|e| panic!("{line}: {e}")).args
    }

    #[test]
    fn pushes_of_other_machines_need_tokens_or_a_decision() {
        let known = Tokens::parse("push 0123456789abcdef").unwrap();
        let cases = [
            ("serve --root r", true),
            ("serve --root r --listen [::1]:5000", true),
            ("serve --root r --listen 0.0.0.0:5000", false),
            ("serve --root r --listen 192.0.2.1:5000 --from-store", false),
            ("serve --root r --listen 0.0.0.0:5000 --read-only", true),
            ("serve --root r --listen 0.0.0.0:5000 --insecure-writes", true),
            ("serve --from-store --listen 0.0.0.0:5000", true),
            ("serve --root r --listen 0.0.0.0:5000 --upstream https://r.example", true),
        ];
        for (line, allowed) in cases {
            let args = parse(line);
            assert_eq!(check_exposure(&args, &Tokens::default()).is_ok(), allowed, "{line}");
            assert!(check_exposure(&args, &known).is_ok(), "{line}");
        }
    }

    #[test]
    fn something_must_be_served() {
        for line in ["serve", "serve --root r --insecure-upstream", "serve --upstream nowhere"] {
            assert!(Line::try_parse_from(line.split_whitespace()).is_err(), "{line}");
        }
    }
}
