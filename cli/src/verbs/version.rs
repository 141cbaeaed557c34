//! `dsk version`: this command's, and the daemon's if it answers.

use clap::Args;
use serde_json::json;

use crate::args::Shared;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::terminal::Terminal;

/// This command's version.
pub(crate) const OURS: &str = env!("CARGO_PKG_VERSION");

#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn version(
    shared: &Shared,
    args: &VersionArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let connection = Connection::open(shared)?;
    let endpoint = connection.target.endpoint.to_string();
    let daemon = connection.client.dsk_version().await;
    if args.json {
        let daemon = daemon.ok().map(|daemon| {
            json!({"endpoint": endpoint, "version": daemon.version, "ollama": daemon.ollama})
        });
        terminal.json_pretty(&json!({"dsk": OURS, "daemon": daemon}))?;
        return Ok(Exit::Success);
    }
    terminal.line(&format!("dsk {OURS}"))?;
    match daemon {
        Ok(daemon) => {
            let (version, ollama) = (daemon.version, daemon.ollama);
            terminal.line(&format!("daemon {version} at {endpoint} (Ollama API {ollama})"))?;
            if version != OURS {
                terminal.note("warning: this command and the daemon are of different versions");
            }
        }
        Err(error) => terminal.note(&format!("daemon: {error}")),
    }
    Ok(Exit::Success)
}
