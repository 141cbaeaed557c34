//! `dsk df`: what takes how much of the disk.

use clap::Args;
use dsk_daemon_api::store::DfResponse;

use crate::args::Shared;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::terminal::Terminal;
use crate::{table, units};

#[derive(Debug, Args)]
pub(crate) struct DfArgs {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn df(
    shared: &Shared,
    args: &DfArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let usage = Connection::open(shared)?.client.df().await?;
    if args.json {
        terminal.json_pretty(&usage)?;
    } else {
        terminal.data(&render(&usage))?;
    }
    Ok(Exit::Success)
}

fn render(usage: &DfResponse) -> String {
    let rows: Vec<Vec<String>> = usage
        .models
        .iter()
        .map(|model| {
            let shared = model.bytes.saturating_sub(model.own_bytes);
            let place = match (model.damaged, model.linked_bytes) {
                (true, _) => "damaged",
                (false, 0) => "",
                (false, _) => "linked",
            };
            let sizes = [model.bytes, model.own_bytes, shared].map(units::bytes);
            [vec![model.name.clone()], sizes.to_vec(), vec![place.to_owned()]].concat()
        })
        .collect();
    let mut text = table::render(&["NAME", "SIZE", "OWN", "SHARED", "NOTE"], &rows);
    text.push('\n');
    text.push_str(&table::block(&usage.path, &totals(usage)));
    text
}

/// The lines below the models; what there is nothing of is left out.
fn totals(usage: &DfResponse) -> Vec<(String, String)> {
    let all = [
        ("blobs", usage.blob_bytes, true),
        ("shared", usage.shared_bytes, false),
        ("unreferenced", usage.unreferenced_bytes, false),
        ("unfinished", usage.partial_bytes, false),
        ("quarantine", usage.quarantine_bytes, false),
        ("linked", usage.linked_bytes, false),
        ("free", usage.free_bytes, true),
    ];
    let shown = all.into_iter().filter(|(_, bytes, always)| *always || *bytes > 0);
    let mut rows: Vec<(String, String)> =
        shown.map(|(what, bytes, _)| (what.to_owned(), units::bytes(bytes))).collect();
    if !usage.writable {
        rows.push(("only read".to_owned(), "it is another program's; see --adopt".to_owned()));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsk_daemon_api::store::DfModel;
    use expect_test::expect;

    #[test]
    fn models_and_totals() {
        let model = |name: &str, bytes, own_bytes, linked_bytes, damaged| DfModel {
            name: name.to_owned(),
            bytes,
            own_bytes,
            linked_bytes,
            damaged,
        };
        let usage = DfResponse {
            path: "/m".to_owned(),
            writable: false,
            models: vec![
                model("a:latest", 5_000_000_000, 4_000_000_000, 0, false),
                model("b:latest", 3_000_000_000, 0, 3_000_000_000, false),
                model("c:latest", 12, 12, 0, true),
            ],
            blobs: 7,
            blob_bytes: 5_000_000_012,
            unreferenced_bytes: 10,
            linked_bytes: 3_000_000_000,
            free_bytes: 90_000_000_000,
            ..DfResponse::default()
        };
        expect![[r#"
            NAME        SIZE      OWN       SHARED    NOTE
            a:latest    5.0 GB    4.0 GB    1.0 GB
            b:latest    3.0 GB    0 B       3.0 GB    linked
            c:latest    12 B      12 B      0 B       damaged

              /m
                blobs           5.0 GB
                unreferenced    10 B
                linked          3.0 GB
                free            90 GB
                only read       it is another program's; see --adopt
        "#]]
        .assert_eq(&render(&usage));
    }
}
