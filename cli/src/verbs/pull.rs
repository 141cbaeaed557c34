//! `dsk pull` and `dsk push`: models from and to registries, with progress.

use std::path::PathBuf;

use clap::Args;
use dsk_daemon_api::client::Lines;
use dsk_daemon_api::fit::PullChoice;
use dsk_daemon_api::ollama::{ProgressLine, PullRequest};
use dsk_daemon_api::{Client, ClientError};
use serde_json::json;

use crate::args::Shared;
use crate::connection::{Connection, interrupted};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::terminal::Terminal;
use crate::units;
use crate::verbs::fit::machine_in;

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    #[command(flatten)]
    transfer: TransferArgs,
    /// Take this quantization, such as q5_K_M, of those the source offers
    #[arg(long, value_name = "QUANT")]
    quant: Option<String>,
    /// Bytes per second to fetch at most: 10M, 500K
    #[arg(long, value_name = "BYTES", value_parser = units::parse_bytes)]
    limit_rate: Option<u64>,
    /// Only say which variant would be pulled, and why
    #[arg(long)]
    dry_run: bool,
    /// Choose for the machine that this file describes, as `dsk fit --machine` reads it
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    machine: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// The model's name: [HOST/][NAMESPACE/]MODEL[:TAG]
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
    let client = Connection::open(shared)?.client;
    let mut request = args.transfer.request();
    request.quant.clone_from(&args.quant);
    request.limit_rate = args.limit_rate;
    let args = match args {
        PullArgs { dry_run: true, machine, .. } => {
            request.machine = machine.as_deref().map(machine_in).transpose()?;
            return dry_run(&client, &request, args.transfer.json, terminal).await;
        }
        PullArgs { transfer, .. } => transfer,
    };
    let resume = format!("the same command goes on from there: dsk pull {}", args.model);
    let lines = client.pull(&request);
    follow(lines, Interrupted::new("pull", resume), args.json, terminal).await
}

pub(crate) async fn push(
    shared: &Shared,
    args: &TransferArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let client = Connection::open(shared)?.client;
    let resume = format!("the same command sends what is missing: dsk push {}", args.model);
    let request = args.request();
    let lines = client.push(&request);
    follow(lines, Interrupted::new("push", resume), args.json, terminal).await
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
