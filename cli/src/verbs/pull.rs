//! `dsk pull` and `dsk push`: models from and to registries, with progress.

use clap::Args;
use dsk_daemon_api::client::Lines;
use dsk_daemon_api::ollama::{ProgressLine, PullRequest};
use dsk_daemon_api::{Client, ClientError};
use serde_json::json;

use crate::args::Shared;
use crate::connection::{Connection, interrupted};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::terminal::Terminal;

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
    args: &TransferArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let client = Connection::open(shared)?.client;
    let resume = format!("the same command goes on from there: dsk pull {}", args.model);
    let request = args.request();
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
