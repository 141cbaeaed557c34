//! `dsk list`: the models that are here.

use clap::Args;
use dsk_daemon_api::ollama::LocalModel;
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
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

pub(crate) async fn list(
    shared: &Shared,
    args: &ListArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let mut models = Connection::open(shared)?.client.tags().await?.models;
    if let Some(prefix) = &args.prefix {
        let prefix = prefix.to_lowercase();
        models.retain(|model| model.name.to_lowercase().starts_with(&prefix));
    }
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
                modified.map_or_else(|_| "-".to_owned(), |then| units::ago(then, now)),
            ]
        })
        .collect();
    table::render(&["NAME", "ID", "SIZE", "MODIFIED"], &rows)
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
