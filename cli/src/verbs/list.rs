//! `dsk list`: the models that are here.

use clap::Args;
use dsk_daemon_api::ollama::LocalModel;
use dsk_daemon_api::store::PartialPull;
use jiff::Timestamp;

use crate::args::Shared;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::terminal::Terminal;
use crate::{table, units};

/// Characters of a digest that a person sees.
pub(crate) const ID_CHARACTERS: usize = 12;

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only models whose name begins with this
    prefix: Option<String>,
    /// Show the pulls that have not ended instead; dsk pull goes on with one, dsk rm --partial gives it up
    #[arg(long)]
    partial: bool,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

pub(crate) async fn list(
    shared: &Shared,
    args: &ListArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let client = Connection::open(shared)?.client;
    let prefix = args.prefix.as_deref().unwrap_or_default().to_lowercase();
    let wanted = |name: &str| name.to_lowercase().starts_with(&prefix);
    if args.partial {
        let mut pulls = client.partials().await?.pulls;
        pulls.retain(|pull| wanted(&pull.name));
        match args.json {
            true => terminal.json_pretty(&pulls)?,
            false => terminal.data(&render_partial(&pulls, Timestamp::now()))?,
        }
        return Ok(Exit::Success);
    }
    let mut models = client.tags().await?.models;
    models.retain(|model| wanted(&model.name));
    if args.json {
        terminal.json_pretty(&models)?;
    } else {
        terminal.data(&render(&models, Timestamp::now()))?;
    }
    Ok(Exit::Success)
}

/// The table, as of `now`.
pub(crate) fn render(models: &[LocalModel], now: Timestamp) -> String {
    let rows: Vec<Vec<String>> = models
        .iter()
        .map(|model| {
            let modified = model.modified_at.parse::<Timestamp>();
            vec![
                model.name.clone(),
                id(&model.digest),
                units::bytes(model.size),
                match model.damaged {
                    true => "damaged: dsk verify --repair".to_owned(),
                    false => modified.map_or_else(|_| "-".to_owned(), |then| units::ago(then, now)),
                },
            ]
        })
        .collect();
    table::render(&["NAME", "ID", "SIZE", "MODIFIED"], &rows)
}

/// The table of pulls that have not ended.
fn render_partial(pulls: &[PartialPull], now: Timestamp) -> String {
    let row = |pull: &PartialPull| {
        let percent = pull.bytes_here.saturating_mul(100) / pull.bytes.max(1);
        let touched = pull.touched_at.parse::<Timestamp>();
        let state = match pull.running {
            true => "under way".to_owned(),
            false => touched.map_or_else(|_| "-".to_owned(), |then| units::ago(then, now)),
        };
        let state = if pull.paused { format!("{state}, paused") } else { state };
        vec![pull.name.clone(), units::bytes(pull.bytes), format!("{percent}%"), state]
    };
    table::render(
        &["NAME", "SIZE", "HERE", "LAST BYTE"],
        &pulls.iter().map(row).collect::<Vec<_>>(),
    )
}

/// The short form of a digest.
pub(crate) fn id(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(ID_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn the_table_of_unfinished_pulls() {
        let pull = |name: &str, bytes_here, running| PartialPull {
            name: name.to_owned(),
            bytes: 4_683_087_332,
            bytes_here,
            touched_at: "2026-05-01T10:00:00Z".to_owned(),
            running,
            paused: !running,
        };
        let pulls = [pull("a:latest", 2_341_543_666, false), pull("b:7b", 0, true)];
        expect![[r#"
            NAME        SIZE      HERE    LAST BYTE
            a:latest    4.7 GB    50%     2 hours ago, paused
            b:7b        4.7 GB    0%      under way
        "#]]
        .assert_eq(&render_partial(&pulls, "2026-05-01T12:00:00Z".parse().unwrap()));
    }

    #[test]
    fn the_table() {
        let model = |name: &str, digest: &str, size, modified: &str| LocalModel {
            name: name.into(),
            digest: digest.into(),
            size,
            modified_at: modified.into(),
            ..LocalModel::default()
        };
        let models = [
            model(
                "smollm2:135m",
                "9077fe9d2ae1a4a41a868836b56b8163",
                270_898_672,
                "2026-05-01T10:00:00Z",
            ),
            model(
                "host:5000/me/q:latest",
                "sha256:0a8c266910232fd3291e71e5ba1e058c",
                4_683_087_332,
                "?",
            ),
        ];
        let now = "2026-05-01T12:00:00Z".parse().unwrap();
        expect![[r#"
            NAME                     ID              SIZE      MODIFIED
            smollm2:135m             9077fe9d2ae1    271 MB    2 hours ago
            host:5000/me/q:latest    0a8c26691023    4.7 GB    -
        "#]]
        .assert_eq(&render(&models, now));
    }
}
