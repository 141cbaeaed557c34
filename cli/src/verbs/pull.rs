//! `dsk pull` and `dsk push`: models from and to registries, with progress.

use std::path::{Path, PathBuf};

use clap::Args;
use dsk_daemon_api::client::Lines;
use dsk_daemon_api::fit::PullChoice;
use dsk_daemon_api::ollama::{ProgressLine, PullRequest, PushRequest, SHA256_HELP};
use dsk_daemon_api::{Client, ClientError};
use serde_json::json;
use url::Url;

use crate::args::Shared;
use crate::connection::{Connection, interrupted};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::terminal::Terminal;
use crate::units;
use crate::verbs::fit::machine_in;
use crate::verbs::link::discover::name_of;
use crate::verbs::lock::Locked;

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    #[command(flatten)]
    transfer: TransferArgs,
    /// Take this quantization, such as q5_K_M, of those the source offers
    #[arg(long, value_name = "QUANT")]
    quant: Option<String>,
    /// What the GGUF file at an address must hash to: dsk pull https://HOST/FILE.gguf --sha256 HEX
    #[arg(long, value_name = "HEX", conflicts_with_all = ["quant", "dry_run"])]
    sha256: Option<String>,
    /// The model's name when it comes from an address; without it the name of the file
    #[arg(long = "as", value_name = "NAME", requires = "sha256")]
    name: Option<String>,
    /// Bytes per second to fetch at most: 10M, 500K
    #[arg(long, value_name = "BYTES", value_parser = units::parse_bytes)]
    limit_rate: Option<u64>,
    /// Pull what FILE pins the name to; a name that is not in it is pinned to what is pulled
    #[arg(long, value_name = "FILE", conflicts_with = "sha256")]
    lock: Option<PathBuf>,
    /// Pull what the registry has now, and move the name's pin to it: in FILE, and in the daemon's lock_file
    #[arg(long, conflicts_with = "sha256")]
    update_lock: bool,
    /// End the pull of this model that is under way, wherever it was begun; the next one goes on from there
    #[arg(long, conflicts_with_all = ["quant", "limit_rate", "dry_run", "insecure"])]
    pause: bool,
    /// Only say which variant would be pulled, and why
    #[arg(long)]
    dry_run: bool,
    /// Choose for the machine that this file describes, as `dsk fit --machine` reads it
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    machine: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    #[command(flatten)]
    transfer: TransferArgs,
    /// The manifest's format; without it the model goes as it is stored
    #[arg(long, value_name = "FORMAT", value_parser = ["modelpack", "docker", "ollama"])]
    format: Option<String>,
    /// Bytes per second to send at most: 10M, 500K
    #[arg(long, value_name = "BYTES", value_parser = units::parse_bytes)]
    limit_rate: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// The model's name: [HOST/][NAMESPACE/]MODEL[:TAG]; to pull also one manifest of it, with
    /// @sha256:DIGEST, or the address of a GGUF file
    model: String,
    /// Allow a registry without TLS (this machine's own needs no flag)
    #[arg(long)]
    insecure: bool,
    /// Print the progress as JSON, one object per line
    #[arg(long)]
    json: bool,
}

impl TransferArgs {
    fn request(&self) -> PullRequest {
        request(&self.model, self.insecure)
    }
}

fn request(model: &str, insecure: bool) -> PullRequest {
    PullRequest { model: model.to_owned(), insecure, ..PullRequest::default() }
}

pub(crate) async fn pull(
    shared: &Shared,
    args: &PullArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let file = address_of_file(args)?;
    let client = Connection::open(shared)?.client;
    let mut request = args.transfer.request();
    if let Some(url) = &file {
        request.model = args.name.clone().unwrap_or_else(|| name_of(Path::new(url.path())));
        request.url = Some(url.to_string());
        request.sha256.clone_from(&args.sha256);
    }
    request.quant.clone_from(&args.quant);
    request.limit_rate = args.limit_rate;
    request.update_lock = args.update_lock;
    let locked = args.lock.as_deref().map(|file| Locked::open(file, &mut request)).transpose()?;
    let args = match args {
        PullArgs { pause: true, transfer, .. } => return pause(&client, transfer, terminal).await,
        PullArgs { dry_run: true, machine, .. } => {
            request.machine = machine.as_deref().map(machine_in).transpose()?;
            return dry_run(&client, &request, args.transfer.json, terminal).await;
        }
        PullArgs { transfer, .. } => transfer,
    };
    let resume = match &file {
        Some(_) => "the same command goes on from there".to_owned(),
        None => format!("the same command goes on from there: dsk pull {}", args.model),
    };
    let lines = client.pull(&request);
    let pulled = follow(lines, Interrupted::new("pull", resume), args.json, terminal).await;
    match locked {
        Some(locked) => locked.note(&client, pulled).await,
        None => pulled,
    }
}

/// The address of a file, where the model was not named but pointed at.
fn address_of_file(args: &PullArgs) -> anyhow::Result<Option<Url>> {
    let text = args.transfer.model.as_str();
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let is_gguf = |url: &Url| url.path().to_ascii_lowercase().ends_with(".gguf");
    match (url, &args.sha256) {
        (Some(url), Some(_)) => Ok(Some(url)),
        (Some(url), None) if is_gguf(&url) => {
            let message = "a file from an address is pulled by what it must hash to";
            Err(Failure::usage(message).hint(format!("add --sha256 HEX: {SHA256_HELP}")).into())
        }
        (None, Some(_)) => {
            let message =
                format!("--sha256 goes with the https address of a file, not with {text}");
            Err(Failure::usage(message).into())
        }
        (_, None) => Ok(None),
    }
}

pub(crate) async fn push(
    shared: &Shared,
    args: &PushArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let client = Connection::open(shared)?.client;
    let PushArgs { transfer: args, format, limit_rate } = args;
    let resume = format!("the same command sends what is missing: dsk push {}", args.model);
    let (format, limit_rate) = (format.clone(), *limit_rate);
    let request = PushRequest { format, limit_rate, ..args.request() };
    let lines = client.push(&request);
    follow(lines, Interrupted::new("push", resume), args.json, terminal).await
}

/// Ends a pull that somebody else attends.
async fn pause(
    client: &Client,
    args: &TransferArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let paused = client.pause(&args.model).await?;
    match args.json {
        true => terminal.json(&json!({"paused": paused.model}))?,
        false => terminal.line(&format!(
            "paused '{model}'; dsk pull {model} goes on from there",
            model = paused.model
        ))?,
    }
    Ok(Exit::Success)
}

/// Says what a pull would fetch.
async fn dry_run(
    client: &Client,
    request: &PullRequest,
    json: bool,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let asked = tokio::select! {
        asked = client.pull_choice(request) => asked,
        () = interrupted() => return Ok(Exit::Interrupted),
    };
    let choice = match asked {
        Ok(choice) => choice,
        Err(error) => {
            if json {
                terminal.json(&json!({"error": error.to_string()}))?;
            }
            return Err(error.into());
        }
    };
    if json {
        terminal.json_pretty(&choice)?;
    } else {
        terminal.data(&chosen(&choice))?;
    }
    Ok(Exit::Success)
}

/// The choice in words: which and why, then what would come over the wire.
fn chosen(choice: &PullChoice) -> String {
    let mut text: String = choice.lines.iter().map(|line| format!("{line}\n")).collect();
    let PullChoice { model, reference, bytes, .. } = choice;
    text.push_str(&format!("would pull {reference} as {model}: {}\n", units::bytes(*bytes)));
    text
}

/// Pulls a model that `dsk run` did not find here.
pub(crate) async fn pull_missing(
    client: &Client,
    model: &str,
    insecure: bool,
    terminal: &mut Terminal,
) -> anyhow::Result<()> {
    let resume = format!("the same command goes on from there: dsk run {model}");
    let request = request(model, insecure);
    follow(client.pull(&request), Interrupted::new("pull", resume), false, terminal).await?;
    Ok(())
}

/// What to say when Ctrl-C ends a transfer.
#[derive(Debug)]
pub(crate) struct Interrupted {
    what: &'static str,
    hint: String,
}

impl Interrupted {
    pub(crate) fn new(what: &'static str, hint: String) -> Interrupted {
        Interrupted { what, hint }
    }

    fn failure(&self) -> Failure {
        let message = format!("the {} was interrupted; what is here is kept", self.what);
        Failure::new(Exit::Interrupted, message).hint(self.hint.clone())
    }
}

/// Shows the progress lines of a request until it ends, fails, or Ctrl-C.
pub(crate) async fn follow(
    lines: impl Future<Output = Result<Lines<ProgressLine>, ClientError>>,
    on_interrupt: Interrupted,
    json: bool,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let mut progress = Progress::new(terminal, json);
    let shown = tokio::select! {
        shown = show(lines, &mut progress, terminal) => shown,
        () = interrupted() => Err(on_interrupt.failure().into()),
    };
    progress.finish();
    if let (true, Err(error)) = (json, &shown) {
        terminal.json(&json!({"error": format!("{error:#}")}))?;
    }
    shown.map(|()| Exit::Success)
}

async fn show(
    lines: impl Future<Output = Result<Lines<ProgressLine>, ClientError>>,
    progress: &mut Progress,
    terminal: &mut Terminal,
) -> anyhow::Result<()> {
    let mut lines = lines.await?;
    let mut last = String::new();
    while let Some(line) = lines.next().await {
        let line = line?;
        progress.update(terminal, &line)?;
        last = line.status;
    }
    // A daemon that was killed closes the connection in the middle, which looks like an end.
    anyhow::ensure!(last == "success", "the daemon stopped answering after \"{last}\"");
    Ok(())
}
