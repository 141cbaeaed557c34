//! `dsk fit`: what this machine, or another, can run, and how fast.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use dsk_daemon::variants::machine_from;
use dsk_daemon_api::fit::{FitRequest, FitResponse, FitRow, FitShare, FitVerdict};
use serde_json::Value;

use crate::args::Shared;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::terminal::Terminal;
use crate::{table, units};

/// The longest description of a machine that is read, in bytes.
const MACHINE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(crate) struct FitArgs {
    /// A family (deepseek-r1), one model, or nothing for all families and the models that are here
    model: Option<String>,
    /// Tokens of context to plan for
    #[arg(long, value_name = "TOKENS")]
    ctx: Option<u32>,
    /// How keys and values are kept
    #[arg(long, value_name = "FORMAT")]
    kv: Option<Kv>,
    /// This quantization only, such as q5_K_M
    #[arg(long, value_name = "QUANT")]
    quant: Option<String>,
    /// Plan for the machine that this JSON file describes
    #[arg(long, value_name = "FILE")]
    machine: Option<PathBuf>,
    /// Allow a registry without TLS
    #[arg(long)]
    insecure: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kv {
    #[value(name = "f16")]
    F16,
    #[value(name = "q8_0")]
    Q8_0,
}

impl FitArgs {
    fn request(&self) -> anyhow::Result<FitRequest> {
        let kv = self.kv.map(|kv| match kv {
            Kv::F16 => "f16".to_owned(),
            Kv::Q8_0 => "q8_0".to_owned(),
        });
        Ok(FitRequest {
            model: self.model.clone().unwrap_or_default(),
            context: self.ctx,
            kv,
            quant: self.quant.clone(),
            machine: self.machine.as_deref().map(machine_in).transpose()?,
            insecure: self.insecure,
        })
    }
}

pub(crate) async fn fit(
    shared: &Shared,
    args: &FitArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let request = args.request()?;
    let answer = Connection::open(shared)?.client.fit(&request).await?;
    if args.json {
        terminal.json_pretty(&answer)?;
    } else {
        terminal.data(&render(&answer))?;
    }
    let fits = answer.rows.iter().any(|row| row.verdict != FitVerdict::DoesNotFit);
    Ok(if answer.one_model && !fits { Exit::DoesNotFit } else { Exit::Success })
}

/// The machine that a file describes. It is checked here, where an error can name the file.
pub(crate) fn machine_in(path: &Path) -> anyhow::Result<Value> {
    let unread = |error: std::io::Error| {
        let exit = match error.kind() {
            std::io::ErrorKind::NotFound => Exit::NotFound,
            _ => Exit::General,
        };
        Failure::new(exit, format!("cannot read {}: {error}", path.display()))
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unread)?;
    file.take(MACHINE_BYTES_MAX).read_to_string(&mut text).map_err(unread)?;
    let machine = machine_from(&text)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    Ok(serde_json::to_value(machine)?)
}

fn render(answer: &FitResponse) -> String {
    let mut text = table::render(
        &["MODEL", "VARIANT", "FILE", "FIT", "MEMORY", "CONTEXT", "TOK/S"],
        &answer.rows.iter().map(cells).collect::<Vec<_>>(),
    );
    if answer.one_model
        && let Some(row) = answer.rows.iter().find(|row| row.chosen)
    {
        text.push_str(&details(row));
    }
    if let Some(smaller) = &answer.smaller {
        text.push_str(&format!("\n{smaller} would fit\n"));
    }
    text
}

fn cells(row: &FitRow) -> Vec<String> {
    let mark = if row.chosen { " *" } else { "" };
    let memory = match row.verdict {
        FitVerdict::DoesNotFit => {
            format!(
                "{}, {} short",
                units::bytes(row.memory_bytes),
                units::bytes(row.shortfall_bytes)
            )
        }
        _ => units::bytes(row.memory_bytes),
    };
    let speed = row.speeds.as_ref().map(|speeds| format!("{:.1}", speeds.decode_tps));
    let fit = match row.verdict {
        FitVerdict::FullSpeed => "full speed",
        FitVerdict::Partial => "partial",
        FitVerdict::RamOnly => "RAM only",
        FitVerdict::DoesNotFit => "does not fit",
    };
    vec![
        row.model.clone(),
        format!("{}{mark}", row.quant),
        units::bytes(row.file_bytes),
        fit.to_owned(),
        memory,
        row.context.to_string(),
        speed.unwrap_or_else(|| "-".to_owned()),
    ]
}

/// What lies where, and why.
fn details(row: &FitRow) -> String {
    let mut text = String::new();
    if !row.devices.is_empty() {
        let cells = |share: &FitShare| {
            let bytes = [share.weights, share.kv, share.activations, share.runtime, share.total()];
            let mut cells = vec![share.device.clone(), share.layers.to_string()];
            cells.extend(bytes.map(units::bytes));
            cells
        };
        let header = ["DEVICE", "LAYERS", "WEIGHTS", "KV", "BUFFERS", "RUNTIME", "TOTAL"];
        let rows: Vec<_> = row.devices.iter().map(cells).collect();
        text.push_str(&format!("\n{}", table::render(&header, &rows)));
    }
    if let Some(speeds) = &row.speeds {
        text.push_str(&format!(
            "\nloads in {:.1} s, reads {:.0} and writes {:.1} tokens a second ({})\n",
            speeds.load_seconds, speeds.prefill_tps, speeds.decode_tps, speeds.basis
        ));
    }
    let kv = if row.kv.is_empty() { String::new() } else { format!(" in {}", row.kv) };
    text.push_str(&format!("{} with {} tokens of context{kv}:\n", row.quant, row.context));
    text.extend(row.reasons.iter().map(|reason| format!("  {reason}\n")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsk_daemon_api::fit::FitSpeeds;
    use expect_test::expect;

    fn answer() -> FitResponse {
        let devices = vec![FitShare {
            device: "cpu".into(),
            layers: 28,
            weights: 4_680_000_000,
            kv: 469_000_000,
            activations: 71_000_000,
            runtime: 100_000_000,
        }];
        let fits = FitRow {
            model: "deepseek-r1:7b".into(),
            quant: "Q4_K_M".into(),
            file_bytes: 4_680_000_000,
            verdict: FitVerdict::RamOnly,
            context: 8192,
            kv: "f16".into(),
            memory_bytes: devices[0].total(),
            chosen: true,
            speeds: Some(FitSpeeds {
                load_seconds: 4.93,
                prefill_tps: 61.0,
                decode_tps: 9.34,
                basis: "estimated".into(),
            }),
            devices,
            reasons: vec!["Q4_K_M is the best quality that fits in RAM".into()],
            ..FitRow::default()
        };
        let misfit = FitRow {
            model: "deepseek-r1:7b".into(),
            quant: "F16".into(),
            file_bytes: 15_240_000_000,
            context: 2048,
            memory_bytes: 15_500_000_000,
            shortfall_bytes: 8_000_000_000,
            ..FitRow::default()
        };
        FitResponse { one_model: true, rows: vec![fits, misfit], smaller: None }
    }

    #[test]
    fn one_model_with_its_details() {
        expect![[r#"
            MODEL             VARIANT     FILE      FIT             MEMORY                 CONTEXT    TOK/S
            deepseek-r1:7b    Q4_K_M *    4.7 GB    RAM only        5.3 GB                 8192       9.3
            deepseek-r1:7b    F16         15 GB     does not fit    16 GB, 8.0 GB short    2048       -

            DEVICE    LAYERS    WEIGHTS    KV        BUFFERS    RUNTIME    TOTAL
            cpu       28        4.7 GB     469 MB    71 MB      100 MB     5.3 GB

            loads in 4.9 s, reads 61 and writes 9.3 tokens a second (estimated)
            Q4_K_M with 8192 tokens of context in f16:
              Q4_K_M is the best quality that fits in RAM
        "#]]
        .assert_eq(&render(&answer()));
    }

    #[test]
    fn a_family_is_a_table_alone() {
        let answer = FitResponse { one_model: false, ..answer() };
        assert_eq!(render(&answer).lines().count(), 3);
    }

    #[test]
    fn a_machine_is_read_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.json");
        assert!(machine_in(&path).unwrap_err().to_string().contains("cannot read"));
        std::fs::write(&path, "{\"cpu\": 3}").unwrap();
        let error = machine_in(&path).unwrap_err().to_string();
        assert!(error.contains("m.json: the machine cannot be read: invalid type"), "{error}");
    }
}
