//! `dsk verify`: reads models again, puts aside what is damaged, and repairs it if asked to.

use clap::Args;
use dsk_daemon_api::store::{BadBlob, VerifyReport, VerifyRequest};

use super::list::id;
use crate::args::Shared;
use crate::connection::{Connection, interrupted};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::terminal::Terminal;
use crate::units;

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The models' names; without any everything in the store
    models: Vec<String>,
    /// Fetch what is damaged from the models' registries
    #[arg(long)]
    repair: bool,
    /// Allow plain HTTP to registries on other machines
    #[arg(long, requires = "repair")]
    insecure: bool,
    /// Print the progress and the report as JSON, one object per line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn verify(
    shared: &Shared,
    args: &VerifyArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let client = Connection::open(shared)?.client;
    let request =
        VerifyRequest { models: args.models.clone(), repair: args.repair, insecure: args.insecure };
    let mut progress = Progress::new(terminal, false);
    let report = async {
        let mut lines = client.verify(&request).await?;
        while let Some(line) = lines.next().await {
            let line = line?;
            if args.json {
                terminal.json(&line)?;
            } else if line.report.is_none() {
                progress.update(terminal, &line.progress)?;
            }
            if let Some(report) = line.report {
                return Ok(report);
            }
        }
        anyhow::bail!("the daemon stopped answering before the verification ended")
    };
    let report = tokio::select! {
        report = report => report,
        () = interrupted() => {
            Err(Failure::new(Exit::Interrupted, "the verification was interrupted").into())
        }
    };
    progress.finish();
    let report = report?;
    if !args.json {
        terminal.data(&render(&report))?;
    }
    Ok(if report.is_whole() { Exit::Success } else { Exit::Integrity })
}

fn render(report: &VerifyReport) -> String {
    let mut text = format!("{} blobs, {}: ", report.blobs, units::bytes(report.bytes));
    text.push_str(&match report.bad.len() {
        0 => "all whole\n".to_owned(),
        1 => "1 is damaged\n".to_owned(),
        count => format!("{count} are damaged\n"),
    });
    report.bad.iter().for_each(|bad| text.push_str(&damage(bad)));
    for model in &report.repaired {
        text.push_str(&format!("repaired '{model}'\n"));
    }
    for failed in &report.failed {
        text.push_str(&format!("could not repair '{}': {}\n", failed.model, failed.error));
    }
    if report.repaired.is_empty() && report.failed.is_empty() && !report.is_whole() {
        text.push_str("dsk verify --repair fetches what is damaged\n");
    }
    text
}

fn damage(bad: &BadBlob) -> String {
    let models = match bad.models.is_empty() {
        true => "no model".to_owned(),
        false => bad.models.join(", "),
    };
    let mut text = format!("{}  of {models}: {}\n", id(&bad.digest), bad.reason);
    if let Some(path) = &bad.moved_to {
        text.push_str(&format!("{:12}  moved to {path}\n", ""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsk_daemon_api::store::FailedRepair;
    use expect_test::expect;

    #[test]
    fn reports() {
        let mut report = VerifyReport { blobs: 3, bytes: 4_683_087_332, ..VerifyReport::default() };
        assert_eq!(render(&report), "3 blobs, 4.7 GB: all whole\n");
        let bad = |models: &[&str], moved_to: Option<&str>| BadBlob {
            digest: "sha256:0a8c266910232fd3291e71e5ba1e058c".to_owned(),
            reason: "its 7 bytes hash to sha256:77".to_owned(),
            moved_to: moved_to.map(str::to_owned),
            models: models.iter().map(|&model| model.to_owned()).collect(),
        };
        report.bad = vec![bad(&["a:latest", "b:latest"], Some("/m/quarantine/sha256-0a8c"))];
        expect![[r#"
            3 blobs, 4.7 GB: 1 is damaged
            0a8c26691023  of a:latest, b:latest: its 7 bytes hash to sha256:77
                          moved to /m/quarantine/sha256-0a8c
            dsk verify --repair fetches what is damaged
        "#]]
        .assert_eq(&render(&report));
        report.bad.push(bad(&[], None));
        report.repaired = vec!["a:latest".to_owned()];
        let error = "cannot reach it".to_owned();
        report.failed = vec![FailedRepair { model: "b:latest".to_owned(), error }];
        assert!(!report.is_whole());
        expect![[r#"
            3 blobs, 4.7 GB: 2 are damaged
            0a8c26691023  of a:latest, b:latest: its 7 bytes hash to sha256:77
                          moved to /m/quarantine/sha256-0a8c
            0a8c26691023  of no model: its 7 bytes hash to sha256:77
            repaired 'a:latest'
            could not repair 'b:latest': cannot reach it
        "#]]
        .assert_eq(&render(&report));
    }
}
