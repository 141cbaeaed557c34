//! `dsk serve`: the daemon in this process: configuration, logging, listeners, signals.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use dsk_daemon::Listeners;
use dsk_daemon::config::{Config, Files, Key, LogFormat, Overrides, ProcessEnv};
use dsk_daemon::logs::Ring;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

use crate::args::Shared;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::folders::process_env;
use crate::signals;
use crate::terminal::wants_colour;

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    flags: ConfigFlags,
    /// Leave the terminal's session; `dsk run` starts the daemon so
    #[arg(long, hide = true)]
    detached: bool,
}

/// A flag for every setting of the daemon; what is not given comes from elsewhere.
#[derive(Debug, Default, Args)]
pub(crate) struct ConfigFlags {
    /// The folder of everything the daemon keeps
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// The folder of models
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Write to a folder of models that another program, such as Ollama, filled; from then on it is dsk's
    #[arg(long)]
    adopt: bool,
    /// The Unix socket to listen on, or `none`
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// How long an idle model stays in memory: 5m, 1h30m, 0, -1 for ever
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    keep_alive: Option<String>,
    /// The least time an idle model stays, whatever its request says
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    keep_alive_min: Option<String>,
    /// The most; -1 sets no limit
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    keep_alive_max: Option<String>,
    /// Models that stay once they are loaded, separated by commas
    #[arg(long, value_name = "MODELS")]
    pinned: Option<String>,
    /// Browser origins to allow beside the built-in ones, separated by commas
    #[arg(long, value_name = "ORIGINS")]
    origins: Option<String>,
    /// The registry that serves names without a host
    #[arg(long, value_name = "URL")]
    registry: Option<String>,
    /// Bytes per second that all pulls together may fetch: 10M, 500K; 0 for no limit
    #[arg(long, value_name = "BYTES")]
    limit_rate: Option<String>,
    /// How many models may be in memory at once; 0 lets memory decide
    #[arg(long, value_name = "COUNT")]
    max_loaded: Option<String>,
    /// Memory left to other programs: 2GiB, 512M, 0, or auto
    #[arg(long, value_name = "BYTES")]
    memory_reserve: Option<String>,
    /// How many requests may wait for a model
    #[arg(long, value_name = "COUNT")]
    max_queue: Option<String>,
    /// Tokens of context where neither request nor model says; 0 lets the engine decide
    #[arg(long, value_name = "TOKENS")]
    context_length: Option<String>,
    /// How long a working model's process may be silent before it is ended: 15s, 1m
    #[arg(long, value_name = "DURATION")]
    runner_timeout: Option<String>,
    /// What to log: error, warn, info, debug, trace, or directives per module
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// How the log is written: text, or json for programs that gather logs
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Listen on an address that other machines reach, without passwords
    #[arg(long)]
    insecure_bind: bool,
}

impl ConfigFlags {
    /// The strongest layer of the configuration.
    pub(crate) fn overrides(&self, shared: &Shared) -> Overrides {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|p| p.display().to_string());
        let mut overrides = Overrides::default();
        overrides
            .set(Key::Host, shared.host.clone())
            .set(Key::Home, path(&self.home))
            .set(Key::Models, path(&self.models))
            .set(Key::Adopt, self.adopt.then_some("true"))
            .set(Key::Socket, path(&self.socket))
            .set(Key::KeepAlive, self.keep_alive.clone())
            .set(Key::KeepAliveMin, self.keep_alive_min.clone())
            .set(Key::KeepAliveMax, self.keep_alive_max.clone())
            .set(Key::Pinned, self.pinned.clone())
            .set(Key::Origins, self.origins.clone())
            .set(Key::Registry, self.registry.clone())
            .set(Key::LimitRate, self.limit_rate.clone())
            .set(Key::MaxLoaded, self.max_loaded.clone())
            .set(Key::MemoryReserve, self.memory_reserve.clone())
            .set(Key::MaxQueue, self.max_queue.clone())
            .set(Key::ContextLength, self.context_length.clone())
            .set(Key::RunnerTimeout, self.runner_timeout.clone())
            .set(Key::Log, self.log.clone())
            .set(Key::LogFormat, self.log_format.clone())
            .set(Key::InsecureBind, self.insecure_bind.then_some("true"));
        overrides
    }
}

/// How long files that are being written when everything else has ended may take.
const LAST_THREADS_WAIT: Duration = Duration::from_secs(5);

pub(crate) fn serve(shared: &Shared, args: &ServeArgs) -> anyhow::Result<Exit> {
    if args.detached {
        rustix::process::setsid().context("cannot leave the terminal's session")?;
    }
    let overrides = args.flags.overrides(shared);
    let config = Config::load(&overrides, &ProcessEnv, &Files::standard(&ProcessEnv))?;
    let logs = Ring::default();
    start_log(&config.log, config.log_format, Some(logs.clone()))?;
    let runtime = dsk_daemon::runtime().context("the asynchronous runtime did not start")?;
    let done = runtime.block_on(async {
        let listeners = Listeners::bind(&config).await?;
        let shutdown = signals::shutdown().context("signals cannot be caught")?;
        dsk_daemon::run(config, logs, listeners, shutdown).await?;
        Ok(Exit::Success)
    });
    // A thread that hangs in a GPU's driver must not keep the daemon from ending.
    runtime.shutdown_timeout(LAST_THREADS_WAIT);
    done
}

/// Sends the log to stderr, for the verbs that run a server or an engine of their own.
pub(crate) fn log(filter: &str) -> Result<(), Failure> {
    start_log(filter, LogFormat::Text, None)
}

/// Sends the log to stderr and, for the daemon, into the ring that `dsk logs` reads.
fn start_log(filter: &str, format: LogFormat, ring: Option<Ring>) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::usage(format!("the log filter {filter:?} is wrong: {error}"))
            .hint("write a level (info) or directives (info,dsk_registry=debug)")
    })?;
    let subscriber = tracing_subscriber::registry().with(ring.with_filter(filter.clone()));
    // Setting it a second time in one process would be a mistake of ours; the first one stays.
    let _ = subscriber.with(to_stderr(format).with_filter(filter)).try_init();
    Ok(())
}

/// Lines coloured for a person, without times for the journal, which has its own; or JSON.
fn to_stderr<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let lines = fmt::layer().with_writer(io::stderr);
    if format == LogFormat::Json {
        return lines.json().flatten_event(true).boxed();
    }
    let lines = lines.with_ansi(wants_colour(&process_env, io::stderr().is_terminal()));
    if stderr_is_journal() { lines.without_time().boxed() } else { lines.boxed() }
}

/// Whether stderr is the journal that the service manager opened. Every program of a desktop
/// session inherits the variable; only the device and inode in it tell whose stderr is meant.
fn stderr_is_journal() -> bool {
    let Some(journal) = process_env("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(io::stderr())
        .is_ok_and(|stat| journal == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// An address that cannot be listened on.
pub(crate) fn bind_failure(address: &str, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            Failure::new(Exit::Unavailable, format!("{address} is in use by another program"))
        }
        _ => Failure::new(Exit::General, format!("cannot listen on {address}: {error}")),
    }
}
