//! `dsk cp`: gives a model a second name.

use clap::Args;
use serde_json::json;

use crate::args::Shared;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::terminal::Terminal;

#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// The name of a model
    source: String,
    /// The name it shall have as well
    destination: String,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn cp(
    shared: &Shared,
    args: &CpArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let CpArgs { source, destination, json } = args;
    Connection::open(shared)?.client.copy(source, destination).await?;
    if *json {
        terminal.json(&json!({"source": source, "destination": destination}))?;
    } else {
        terminal.line(&format!("copied '{source}' to '{destination}'"))?;
    }
    Ok(Exit::Success)
}
