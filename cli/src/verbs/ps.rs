//! `dsk ps`: the models that are in memory.

use clap::Args;
use dsk_daemon_api::ollama::RunningModel;
use jiff::Timestamp;

use super::list::id;
use crate::args::Shared;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::terminal::Terminal;
use crate::{table, units};

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

pub(crate) async fn ps(
    shared: &Shared,
    args: &PsArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let models = Connection::open(shared)?.client.ps().await?.models;
    if args.json {
        terminal.json_pretty(&models)?;
    } else {
        terminal.data(&render(&models, Timestamp::now()))?;
    }
    Ok(Exit::Success)
}

fn render(models: &[RunningModel], now: Timestamp) -> String {
    let rows: Vec<Vec<String>> = models
        .iter()
        .map(|model| {
            let expires = model.expires_at.parse::<Timestamp>();
            vec![
                model.name.clone(),
                id(&model.digest),
                units::bytes(model.size),
                processor(model.size, model.size_vram),
                model.context_length.to_string(),
                expires.map_or_else(|_| "-".to_owned(), |then| units::until(then, now)),
            ]
        })
        .collect();
    table::render(&["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"], &rows)
}

/// Where a model's bytes lie: `100% CPU`, `100% GPU` or `48%/52% CPU/GPU`.
fn processor(size: u64, vram: u64) -> String {
    match (size, vram) {
        (0, _) => "Unknown".to_owned(),
        (_, 0) => "100% CPU".to_owned(),
        (size, vram) if vram >= size => "100% GPU".to_owned(),
        (size, vram) => {
            let cpu = ((size - vram) as f64 / size as f64 * 100.0).round();
            format!("{cpu}%/{}% CPU/GPU", 100.0 - cpu)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn the_table() {
        let model = RunningModel {
            name: "smollm2:135m".into(),
            digest: "9077fe9d2ae1a4a41a868836b56b8163".into(),
            size: 412_000_000,
            size_vram: 0,
            context_length: 4096,
            expires_at: "2026-05-01T12:04:30Z".into(),
            ..RunningModel::default()
        };
        let now = "2026-05-01T12:00:00Z".parse().unwrap();
        expect![[r#"
            NAME            ID              SIZE      PROCESSOR    CONTEXT    UNTIL
            smollm2:135m    9077fe9d2ae1    412 MB    100% CPU     4096       4 minutes from now
        "#]]
        .assert_eq(&render(&[model], now));
    }

    #[test]
    fn places_of_a_model() {
        let cases = [
            (0, 0, "Unknown"),
            (10, 0, "100% CPU"),
            (10, 10, "100% GPU"),
            (100, 52, "48%/52% CPU/GPU"),
        ];
        for (size, vram, text) in cases {
            assert_eq!(processor(size, vram), text);
        }
    }
}
