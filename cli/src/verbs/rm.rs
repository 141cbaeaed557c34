//! `dsk rm`: deletes models.

use clap::Args;
use serde_json::json;

use crate::args::Shared;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::failure;
use crate::terminal::Terminal;

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// The models' names
    #[arg(required = true)]
    models: Vec<String>,
    /// Give up pulls of these names that have not ended, and keep the models
    #[arg(long)]
    partial: bool,
    /// Print one JSON object per deleted model
    #[arg(long)]
    json: bool,
}

/// Deletes every model that it can; the first failure decides the exit code.
pub(crate) async fn rm(
    shared: &Shared,
    args: &RmArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let client = Connection::open(shared)?.client;
    let mut exit = Exit::Success;
    for model in &args.models {
        let deleted = match args.partial {
            true => client.remove_partial(model).await.map(drop),
            false => client.delete(model).await,
        };
        match deleted {
            Ok(()) if args.json => terminal.json(&json!({"deleted": model}))?,
            Ok(()) => terminal.line(&format!("deleted '{model}'"))?,
            Err(error) => {
                let failed = failure::report(terminal, &error.into());
                exit = if exit == Exit::Success { failed } else { exit };
            }
        }
    }
    Ok(exit)
}
