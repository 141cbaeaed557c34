//! The `dsk` command: every verb, the chat prompt, progress and tables.
//!
//! `serve`, `runner`, `registry serve` and `bench` run dsk's libraries in this process; every other
//! verb is a client of the daemon's HTTP API like any editor plugin, and opens no model and no store,
//! save that `export` of an OCI layout reads the daemon's store.
//! `main` is arguments, one verb, one exit code; [`exit`] has the codes and [`failure`] decides
//! which one an error gets.

mod args;
mod chat;
mod connection;
mod endpoint;
mod exit;
mod failure;
mod folders;
mod progress;
mod signals;
mod start;
mod table;
mod terminal;
mod units;
mod verbs;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Verb};
use exit::Exit;
use terminal::Terminal;

fn main() -> ExitCode {
    dsk_registry::arm_failpoints();
    let mut terminal = Terminal::standard();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error).into(),
    };
    if matches!(cli.verb, Verb::Runner) {
        return dsk_daemon::runner::child_main();
    }
    match verbs::dispatch(cli, &mut terminal) {
        Ok(exit) => exit.into(),
        Err(error) => failure::report(&mut terminal, &error).into(),
    }
}

/// Prints clap's message: help and version are data and a success, the rest is wrong usage.
fn usage(error: &clap::Error) -> Exit {
    // Where nobody reads the message, the exit code still tells.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Success }
}
