//! `dsk doctor`: looks at everything that usually goes wrong, and says what to do next.

mod checks;
mod daemon;
mod machine;
mod runners;
mod service;

use std::path::{Path, PathBuf};

use clap::Args;
use dsk_daemon::config::{Config, Files, ProcessEnv};
use dsk_daemon::hardware::Machine;
use serde::Serialize;

use super::serve::ConfigFlags;
use crate::args::Shared;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::folders::process_env;
use crate::terminal::{Style, Terminal};

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Also try to reach the registry
    #[arg(long)]
    network: bool,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: ConfigFlags,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    level: Level,
    detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, detail: impl Into<String>) -> Finding {
        Finding { check, level: Level::Ok, detail: detail.into(), next: None }
    }

    fn warn(check: &'static str, detail: impl Into<String>, next: impl Into<String>) -> Finding {
        let next = Some(next.into());
        Finding { check, level: Level::Warn, detail: detail.into(), next }
    }

    fn fail(check: &'static str, detail: impl Into<String>, next: impl Into<String>) -> Finding {
        Finding { level: Level::Fail, ..Finding::warn(check, detail, next) }
    }
}

pub(crate) async fn doctor(
    shared: &Shared,
    args: &DoctorArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let findings = examine(shared, args).await;
    if args.json {
        terminal.json_pretty(&findings)?;
    } else {
        for finding in &findings {
            terminal.data(&render(finding, terminal))?;
        }
    }
    let failed = findings.iter().any(|finding| finding.level == Level::Fail);
    Ok(if failed { Exit::General } else { Exit::Success })
}

async fn examine(shared: &Shared, args: &DoctorArgs) -> Vec<Finding> {
    // `--host` says where the daemon is looked for, not what the configuration should have been.
    let overrides = args.flags.overrides(&Shared::default());
    let files = Files::standard(&ProcessEnv);
    let config = Config::load(&overrides, &ProcessEnv, &files);
    let mut findings = checks::configuration(config.as_ref());
    if let Ok(config) = &config {
        findings.push(checks::folder("home folder", &config.home));
        findings.push(checks::folder("models folder", &config.models));
        findings.push(checks::space(&config.models));
        findings.push(checks::sync_latency(&config.models));
    }
    let connection = Connection::open(shared);
    let models = config.as_ref().ok().map(|config| config.models.as_path());
    let answer = match &connection {
        Ok(connection) => daemon::machine(connection).await,
        Err(_) => None,
    };
    findings.extend(machine::machine(&answer.unwrap_or_else(|| Machine::read(models))));
    let mut pid = None;
    findings.push(match connection {
        Ok(connection) => {
            pid = daemon::process(&connection).await;
            daemon::daemon(&connection).await
        }
        Err(error) => Finding::fail("daemon", format!("{error:#}"), "correct the address"),
    });
    if let Ok(config) = &config {
        findings.push(service::lock(&config.models, pid));
        findings.push(service::exposure(config));
        findings.push(service::origins(config));
        findings.extend(service::ollama_port(config, Path::new("/proc")));
    }
    let home = process_env("HOME").map(PathBuf::from);
    findings.push(service::unit(Path::new("/"), home.as_deref()));
    findings.extend(runners::confinement());
    findings.push(runners::groups(pid));
    findings.push(runners::memlock());
    if args.network {
        let registry = config.as_ref().ok().and_then(|config| config.registry.as_ref());
        findings.push(checks::registry(registry));
        findings.push(checks::clock(registry).await);
    }
    findings
}

fn render(finding: &Finding, terminal: &Terminal) -> String {
    let (word, style) = match finding.level {
        Level::Ok => ("ok  ", Style::Green),
        Level::Warn => ("warn", Style::Yellow),
        Level::Fail => ("fail", Style::Red),
    };
    let word = terminal.paint(word, style);
    let mut text = format!("{word}  {:<14} {}\n", finding.check, finding.detail);
    if let Some(next) = &finding.next {
        text.push_str(&format!("      {:<14} next: {next}\n", ""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn findings_as_text() {
        let (terminal, _) = Terminal::captured();
        let text: String = [
            Finding::ok("memory", "16 GB, 12 GB free"),
            Finding::fail("models folder", "/m cannot be written", "chown it"),
        ]
        .iter()
        .map(|finding| render(finding, &terminal))
        .collect();
        expect![[r#"
            ok    memory         16 GB, 12 GB free
            fail  models folder  /m cannot be written
                                 next: chown it
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn findings_as_json() {
        let finding = Finding::warn("daemon", "none answers", "dsk serve");
        expect![[
            r#"{"check":"daemon","level":"warn","detail":"none answers","next":"dsk serve"}"#
        ]]
        .assert_eq(&serde_json::to_string(&finding).unwrap());
    }
}
