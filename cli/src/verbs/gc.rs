//! `dsk gc`: deletes what no model needs.

use clap::Args;
use dsk_daemon_api::store::{GcRequest, GcResponse};

use crate::args::Shared;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::terminal::Terminal;
use crate::{table, units};

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Only show what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// Take unreferenced blobs that are this many seconds old; 3600 unless given
    #[arg(long, value_name = "SECONDS")]
    min_age: Option<u64>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn gc(
    shared: &Shared,
    args: &GcArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let request = GcRequest { dry_run: args.dry_run, min_age_seconds: args.min_age };
    let found = Connection::open(shared)?.client.gc(&request).await?;
    if args.json {
        terminal.json_pretty(&found)?;
        return Ok(Exit::Success);
    }
    if !found.items.is_empty() {
        terminal.data(&render(&found))?;
    }
    terminal.note(&summary(&found));
    Ok(Exit::Success)
}

fn render(found: &GcResponse) -> String {
    let rows: Vec<Vec<String>> = found
        .items
        .iter()
        .map(|item| vec![item.kind.clone(), units::bytes(item.bytes), item.what.clone()])
        .collect();
    table::render(&["KIND", "SIZE", "WHAT"], &rows)
}

fn summary(found: &GcResponse) -> String {
    let bytes = units::bytes(found.bytes);
    match (found.items.is_empty(), found.dry_run) {
        (true, _) => "nothing to delete".to_owned(),
        (false, true) => format!("would free {bytes}"),
        (false, false) => format!("freed {bytes}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsk_daemon_api::store::GcItem;
    use expect_test::expect;

    #[test]
    fn what_was_collected() {
        let item = |kind: &str, what: &str, bytes| GcItem {
            kind: kind.to_owned(),
            what: what.to_owned(),
            bytes,
        };
        let items = vec![item("blob", "sha256-0a8c", 4_683_087_332), item("pull", "m:latest", 0)];
        let mut found = GcResponse { dry_run: true, items, bytes: 4_683_087_332 };
        expect![[r#"
            KIND    SIZE      WHAT
            blob    4.7 GB    sha256-0a8c
            pull    0 B       m:latest
        "#]]
        .assert_eq(&render(&found));
        assert_eq!(summary(&found), "would free 4.7 GB");
        found.dry_run = false;
        assert_eq!(summary(&found), "freed 4.7 GB");
        assert_eq!(summary(&GcResponse::default()), "nothing to delete");
    }
}
