//! What the user typed: the verbs and the flags that several of them share.

use clap::{Args, Parser, Subcommand};
use dsk_daemon_api::ollama::Think;

use crate::verbs;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "dsk",
    version,
    about = "Pull, run and serve language models on this machine",
    after_help = "dsk help shows more, exit codes and environment variables among it.",
    after_long_help = after_long_help(),
    disable_help_subcommand = false,
    arg_required_else_help = true,
    propagate_version = true,
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) shared: Shared,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags of every verb that talks to the daemon.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Shared {
    /// The daemon's address: HOST:PORT, a URL or unix:/path (for `serve`: where to listen)
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) host: Option<String>,
}

/// One verb per file of `verbs/`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start the daemon
    #[command(visible_alias = "start")]
    Serve(verbs::serve::ServeArgs),
    /// Chat with a model, or have it answer one prompt
    Run(verbs::run::RunArgs),
    /// Fetch a model from a registry, in the variant that suits this machine
    Pull(verbs::pull::PullArgs),
    /// Show what this machine can run, and how fast
    Fit(verbs::fit::FitArgs),
    /// Send a model to a registry
    Push(verbs::pull::PushArgs),
    /// List the models that are here
    #[command(visible_alias = "ls")]
    List(verbs::list::ListArgs),
    /// List the models that are in memory
    Ps(verbs::ps::PsArgs),
    /// Show what a model is
    Show(verbs::show::ShowArgs),
    /// Watch what is in memory and what it does
    Top(verbs::top::TopArgs),
    /// Keep a model in memory until it is unpinned or stopped
    Pin(verbs::pin::PinArgs),
    /// Let a pinned model leave memory again as others do
    Unpin(verbs::pin::PinArgs),
    /// Take all models out of memory and load none until --resume
    Yield(verbs::pin::YieldArgs),
    /// Show the last lines of the daemon's log
    Logs(verbs::logs::LogsArgs),
    /// Take a model out of memory
    Stop(verbs::stop::StopArgs),
    /// Make a model of GGUF files where they lie, without copying them
    Link(verbs::link::LinkArgs),
    /// Copy GGUF files, or the model of an OCI layout, into the store
    Import(verbs::link::ImportArgs),
    /// Write a model to files that other programs read
    Export(verbs::export::ExportArgs),
    /// Read models again and put aside what is damaged
    Verify(verbs::verify::VerifyArgs),
    /// Show what takes how much of the disk
    Df(verbs::df::DfArgs),
    /// Delete what no model needs
    Gc(verbs::gc::GcArgs),
    /// Delete models
    Rm(verbs::rm::RmArgs),
    /// Give a model a second name
    Cp(verbs::cp::CpArgs),
    /// Make a model from a Modelfile
    Create(verbs::create::CreateArgs),
    /// Serve models to other machines
    #[command(subcommand)]
    Registry(verbs::registry::RegistryVerb),
    /// Find out what is wrong with this machine, the configuration or the daemon
    Doctor(verbs::doctor::DoctorArgs),
    /// Measure how fast a model runs here, or how well it predicts a text
    Bench(verbs::bench::BenchArgs),
    /// Show every setting, its value and where the value comes from
    Config(verbs::config::ConfigArgs),
    /// Show the version of this command and of the daemon
    Version(verbs::version::VersionArgs),
    /// Print the completion script for a shell
    Completion(verbs::completion::CompletionArgs),
    /// Hold one model; the daemon starts these itself
    #[command(hide = true)]
    Runner,
}

/// Parses `--think` and `/set think`.
pub(crate) fn think(text: &str) -> Result<Think, String> {
    let value = match text {
        "true" | "false" => serde_json::Value::Bool(text == "true"),
        level => serde_json::Value::from(level),
    };
    serde_json::from_value(value)
        .map_err(|_| format!("'{text}' is none of true, false, low, medium, high, max"))
}

fn after_long_help() -> String {
    format!("{}\n{ENVIRONMENT}", crate::exit::help_section())
}

const ENVIRONMENT: &str = "\
Environment:
  DSK_HOST, OLLAMA_HOST      The daemon's address; default 127.0.0.1:11434
  DSK_HOME                   Everything the daemon keeps
  DSK_MODELS, OLLAMA_MODELS  The models; default DSK_HOME/models
  DSK_ADOPT                  Write to models that another program filled; default false
  DSK_KEEP_ALIVE             How long an idle model stays in memory; default 5m
  DSK_REGISTRY               The registry that serves names without a host
  DSK_SIGNATURES             What is asked of signatures: off, warn, require; default off
  DSK_TRUSTED_KEYS           Files of the public keys whose signatures count
  DSK_LOCK_FILE              Pins each name to what was first pulled as it
  DSK_LOG                    What `dsk serve` logs: error, warn, info, debug, trace
  DSK_LOG_FORMAT             How it writes them: text, json
  NO_COLOR, CLICOLOR=0       No colour; CLICOLOR_FORCE=1 forces it

`dsk config` shows every setting and where its value comes from.
";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_long_help_documents_exit_codes_and_environment() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("130  interrupted"), "{help}");
        assert!(help.contains("DSK_MODELS"), "{help}");
    }

    #[test]
    fn every_visible_verb_is_described() {
        for verb in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
            assert!(verb.get_about().is_some(), "{} has no description", verb.get_name());
        }
    }

    #[test]
    fn aliases_and_flags_parse() {
        let cases = [
            "dsk ls",
            "dsk start",
            "dsk --host h:1 list --json",
            "dsk list smol --host h:1",
            "dsk run m",
            "dsk pull m --quant q5_K_M --dry-run --machine m.json --json",
            "dsk pull m --limit-rate 10M",
            "dsk pull m@sha256:00 --lock dsk.lock --update-lock",
            "dsk pull --pause m --json",
            "dsk push m --format modelpack --limit-rate 10M --json",
            "dsk fit",
            "dsk fit deepseek-r1 --ctx 8192 --kv q8_0 --quant q4_K_M --machine m.json --json",
            "dsk run m say hello --think --verbose --keepalive 10m",
            "dsk run m --think=false --hidethinking --nowordwrap",
            "dsk rm a b c",
            "dsk show m --modelfile",
            "dsk show m -v",
            "dsk create m -f Modelfile -q Q4_K_M",
            "dsk registry serve --listen 127.0.0.1:0 --root /tmp/r --read-only",
            "dsk registry serve --from-store --upstream https://r.example --token-file t",
            "dsk completion fish",
            "dsk gc --dry-run --min-age 0 --json",
            "dsk df --json",
            "dsk verify a b --repair --json",
            "dsk verify",
            "dsk link a.gguf folder --json",
            "dsk link a.gguf --as me/a:1",
            "dsk import a.gguf --as a --hard-link",
            "dsk export m folder --as gguf",
            "dsk export m folder --as oci-layout --json",
            "dsk export m folder --as modelpack",
            "dsk list --partial --json",
            "dsk rm --partial m",
            "dsk bench m -p 512 -n 128 -d 0 -t 2 -b 8 -r 5 --isa avx2 --kv q8_0 --json",
            "dsk bench m --perplexity t.txt --ctx 512 --chunks 4 --save-logits l.bin",
            "dsk top --once --json",
            "dsk pin m",
            "dsk unpin m --json",
            "dsk yield --within 2.5",
            "dsk yield --resume",
            "dsk logs",
            "dsk logs -f -n 5 m --json",
            "dsk runner",
        ];
        for case in cases {
            let parsed = Cli::try_parse_from(case.split_whitespace());
            assert!(parsed.is_ok(), "{case}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        let cases = [
            "dsk",
            "dsk nope",
            "dsk run",
            "dsk rm",
            "dsk cp a",
            "dsk run m --think=hard",
            "dsk pull m --machine m.json",
            "dsk pull m --limit-rate fast",
            "dsk pull m --pause --dry-run",
            "dsk push m --format zip",
            "dsk fit a b",
            "dsk fit m --kv f8",
            "dsk show m --license --template",
            "dsk registry",
            "dsk completion tcsh-like",
            "dsk pin",
            "dsk yield --within -1",
            "dsk yield --resume --within 1",
            "dsk bench",
            "dsk link",
            "dsk export m folder --as zip",
            "dsk gc --min-age -1",
            "dsk bench m -b 0",
            "dsk bench m --kv f8",
            "dsk bench m --perplexity t.txt",
            "dsk bench m --ctx 512",
        ];
        for case in cases {
            assert!(Cli::try_parse_from(case.split_whitespace()).is_err(), "{case}");
        }
    }

    #[test]
    fn levels_of_thinking() {
        use dsk_daemon_api::ollama::ThinkLevel;
        assert_eq!(think("true"), Ok(Think::Switch(true)));
        assert_eq!(think("high"), Ok(Think::Level(ThinkLevel::High)));
        assert!(think("").is_err());
    }
}
