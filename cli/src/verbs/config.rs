//! `dsk config`: every setting of the daemon, its value, and where the value comes from.

use clap::Args;
use dsk_daemon::config::{Config, Files, ProcessEnv, Setting};
use serde_json::json;

use super::serve::ConfigFlags;
use crate::args::Shared;
use crate::exit::Exit;
use crate::table;
use crate::terminal::Terminal;

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: ConfigFlags,
}

pub(crate) fn config(
    shared: &Shared,
    args: &ConfigArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let overrides = args.flags.overrides(shared);
    let config = Config::load(&overrides, &ProcessEnv, &Files::standard(&ProcessEnv))?;
    let settings = config.table();
    if args.json {
        let rows: Vec<_> = settings
            .iter()
            .map(|setting| {
                let (value, origin) = (&setting.value, setting.origin.to_string());
                json!({"key": setting.key.name(), "value": value, "origin": origin})
            })
            .collect();
        terminal.json_pretty(&rows)?;
    } else {
        terminal.data(&render(&settings))?;
    }
    Ok(Exit::Success)
}

fn render(settings: &[Setting]) -> String {
    let rows: Vec<Vec<String>> = settings
        .iter()
        .map(|setting| {
            let value = if setting.value.is_empty() { "-" } else { &setting.value };
            vec![setting.key.name().to_owned(), value.to_owned(), setting.origin.to_string()]
        })
        .collect();
    table::render(&["SETTING", "VALUE", "ORIGIN"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsk_daemon::config::{Key, Overrides};
    use expect_test::expect;
    use std::collections::BTreeMap;

    #[test]
    fn every_setting_with_its_origin() {
        let env: BTreeMap<String, String> = [
            ("HOME", "/home/me"),
            ("OLLAMA_KEEP_ALIVE", "10m"),
            ("XDG_RUNTIME_DIR", "/run/user/1000"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let mut overrides = Overrides::default();
        overrides.set(Key::Host, Some("127.0.0.1:4000"));
        let config = Config::load(&overrides, &env, &Files::default()).unwrap();
        expect![[r#"
            SETTING           VALUE                               ORIGIN
            home              /home/me/.local/share/dsk           default
            models            /home/me/.local/share/dsk/models    default
            adopt             false                               default
            host              127.0.0.1:4000                      flag
            socket            /run/user/1000/dsk.sock             default
            keep_alive        10m                                 environment OLLAMA_KEEP_ALIVE
            keep_alive_min    0s                                  default
            keep_alive_max    -1                                  default
            pinned            -                                   default
            origins           -                                   default
            registry          -                                   default
            limit_rate        0                                   default
            private_hosts     -                                   default
            signatures        off                                 default
            trusted_keys      -                                   default
            lock_file         -                                   default
            max_loaded        0                                   default
            memory_reserve    auto                                default
            max_queue         512                                 default
            context_length    0                                   default
            runner_timeout    15s                                 default
            log               info                                default
            log_format        text                                default
            insecure_bind     false                               default
        "#]]
        .assert_eq(&render(&config.table()));
    }
}
