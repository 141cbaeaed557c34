//! `dsk pin`, `dsk unpin` and `dsk yield`: what stays in memory, and giving all of it away.

use std::time::Duration;

use clap::Args;

use crate::args::Shared;
use crate::connection::{Connection, interrupted};
use crate::exit::Exit;
use crate::terminal::Terminal;
use crate::units;

#[derive(Debug, Args)]
pub(crate) struct PinArgs {
    /// The model's name
    model: String,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct YieldArgs {
    /// Take the memory back, and load again what had to leave
    #[arg(long, conflicts_with = "within")]
    resume: bool,
    /// Cut off requests that still run after this many seconds; without it they end first
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    within: Option<Duration>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Parses a number of seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse().ok().and_then(|number| Duration::try_from_secs_f64(number).ok());
    number.ok_or_else(|| format!("'{text}' is no number of seconds"))
}

pub(crate) async fn pin(
    shared: &Shared,
    args: &PinArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let answer = Connection::open(shared)?.client.pin(&args.model).await?;
    if args.json {
        terminal.json(&answer)?;
    } else {
        let how = if answer.changed { "pinned" } else { "was pinned already:" };
        terminal.note(&format!("{how} '{}'", args.model));
    }
    Ok(Exit::Success)
}

pub(crate) async fn unpin(
    shared: &Shared,
    args: &PinArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let answer = Connection::open(shared)?.client.unpin(&args.model).await?;
    if args.json {
        terminal.json(&answer)?;
    } else {
        let how = if answer.changed { "unpinned" } else { "was not pinned:" };
        terminal.note(&format!("{how} '{}'", args.model));
    }
    Ok(Exit::Success)
}

pub(crate) async fn yield_memory(
    shared: &Shared,
    args: &YieldArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let client = Connection::open(shared)?.client;
    if args.resume {
        let answer = client.resume().await?;
        if args.json {
            terminal.json(&answer)?;
        } else if answer.resumed {
            terminal.note("models may be loaded again");
        } else {
            terminal.note("the memory had not been given away");
        }
        return Ok(Exit::Success);
    }
    let freed = tokio::select! {
        freed = client.yield_memory(args.within) => freed?,
        // The daemon goes on: what runs ends, and nothing is loaded.
        () = interrupted() => return Ok(Exit::Interrupted),
    };
    if args.json {
        terminal.json(&freed)?;
    } else {
        let (models, bytes) = (freed.models, units::bytes(freed.bytes));
        terminal.note(&format!("freed {bytes} of {models} models; dsk yield --resume ends it"));
    }
    Ok(Exit::Success)
}
