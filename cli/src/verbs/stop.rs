//! `dsk stop`: takes a model out of memory.

use clap::Args;
use dsk_daemon_api::ollama::{GenerateRequest, ShowRequest};

use crate::args::Shared;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::terminal::Terminal;

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// The model's name
    model: String,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn stop(
    shared: &Shared,
    args: &StopArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let client = Connection::open(shared)?.client;
    // Without this a wrong name would be an unload of nothing, and a success.
    let show = ShowRequest { model: args.model.clone(), ..ShowRequest::default() };
    client.show(&show).await?;
    // The API's way to unload: an empty prompt that keeps the model for no time.
    let request = GenerateRequest {
        model: args.model.clone(),
        keep_alive: Some(0.into()),
        stream: Some(false),
        ..GenerateRequest::default()
    };
    let last = client.generate(&request).await?.last().await?;
    if args.json {
        terminal.json(&last)?;
    } else {
        terminal.note(&format!("stopped '{}'", args.model));
    }
    Ok(Exit::Success)
}
