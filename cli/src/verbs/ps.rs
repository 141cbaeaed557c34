//! `dsk ps`: what is in memory, and who waits for it.

use std::time::Duration;

use clap::Args;
use dsk_daemon_api::status::{ResidentModel, Residents, WaitingRequest};

use super::list::id;
use crate::args::Shared;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::terminal::Terminal;
use crate::{table, units};

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Print a JSON array of the models; `dsk top --once --json` has the queue too
    #[arg(long)]
    json: bool,
}

pub(crate) async fn ps(
    shared: &Shared,
    args: &PsArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let residents = Connection::open(shared)?.client.residents().await?;
    if args.json {
        terminal.json_pretty(&residents.models)?;
    } else {
        terminal.data(&render(&residents))?;
    }
    Ok(Exit::Success)
}

const HEADER: &[&str] =
    &["NAME", "ID", "STATE", "SIZE", "PROCESSOR", "CONTEXT", "SLOTS", "TOK/S", "UNTIL"];

/// The models as a table, then the queue, then what a person should know.
pub(crate) fn render(residents: &Residents) -> String {
    let rows: Vec<Vec<String>> = residents.models.iter().map(row).collect();
    let mut text = table::render(HEADER, &rows);
    if !residents.waiting.is_empty() {
        text += &format!("\n{}", table::render(&QUEUE_HEADER, &queue(&residents.waiting)));
    }
    let mut notes: Vec<String> = residents.notes.clone();
    if residents.yielded {
        notes.push("the memory was given away: `dsk yield --resume` takes it back".to_owned());
    }
    if residents.pressed {
        notes.push("other programs need memory: nothing is loaded until they need less".to_owned());
    }
    for note in notes {
        text += &format!("\n{note}\n");
    }
    text
}

fn row(model: &ResidentModel) -> Vec<String> {
    vec![
        model.name.clone(),
        id(&model.digest),
        state(model),
        units::bytes(size(model)),
        processor(model),
        if model.context_length == 0 { "-".into() } else { model.context_length.to_string() },
        format!("{}/{}", model.slots.in_use, model.slots.total),
        model.output_tokens_per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}")),
        until(model),
    ]
}

fn size(model: &ResidentModel) -> u64 {
    model.devices.iter().map(|device| device.total()).fold(0, u64::saturating_add)
}

/// `ready`, or `loading 40%`.
fn state(model: &ResidentModel) -> String {
    match model.load_progress {
        Some(part) => format!("{} {:.0}%", model.state, f64::from(part) * 100.0),
        None => model.state.clone(),
    }
}

/// Where a model's bytes lie: `100% CPU`, `100% GPU` or `48%/52% CPU/GPU`.
fn processor(model: &ResidentModel) -> String {
    let total = size(model);
    let on_cpu = model.devices.iter().filter(|device| device.device == "cpu");
    let cpu = on_cpu.map(|device| device.total()).fold(0, u64::saturating_add);
    match (total, cpu) {
        (0, _) => "Unknown".to_owned(),
        (total, cpu) if cpu == total => "100% CPU".to_owned(),
        (_, 0) => "100% GPU".to_owned(),
        (total, cpu) => {
            let share = (cpu as f64 / total as f64 * 100.0).round();
            format!("{share}%/{}% CPU/GPU", 100.0 - share)
        }
    }
}

fn until(model: &ResidentModel) -> String {
    match model.keep_alive_seconds {
        _ if model.pinned => "pinned".to_owned(),
        _ if model.state == "stopping" => "stopping".to_owned(),
        None => "forever".to_owned(),
        Some(seconds) => units::whole_seconds(time(seconds)),
    }
}

const QUEUE_HEADER: [&str; 4] = ["WAITING", "MODEL", "WAITED", "EXPECTED"];

fn queue(waiting: &[WaitingRequest]) -> Vec<Vec<String>> {
    let row = |one: &WaitingRequest| {
        vec![
            one.position.to_string(),
            one.model.clone(),
            units::whole_seconds(time(one.waited_seconds)),
            units::whole_seconds(time(one.expected_seconds)),
        ]
    };
    waiting.iter().map(row).collect()
}

/// Seconds of an answer; what is no time is none.
fn time(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use dsk_daemon_api::status::{DeviceBytes, Slots};
    use expect_test::expect;

    fn model(name: &str) -> ResidentModel {
        ResidentModel {
            name: name.into(),
            digest: "9077fe9d2ae1a4a41a868836b56b8163".into(),
            state: "ready".into(),
            keep_alive_seconds: Some(299.6),
            context_length: 4096,
            devices: vec![DeviceBytes {
                device: "cpu".into(),
                weights_bytes: 200_000_000,
                kv_bytes: 200_000_000,
                other_bytes: 12_000_000,
            }],
            slots: Slots { in_use: 1, total: 1 },
            output_tokens_per_second: Some(41.26),
            ..ResidentModel::default()
        }
    }

    /// One of everything.
    pub(in crate::verbs) fn residents() -> Residents {
        let loading = ResidentModel {
            state: "loading".into(),
            load_progress: Some(0.4),
            context_length: 0,
            slots: Slots { in_use: 0, total: 1 },
            output_tokens_per_second: None,
            ..model("qwen:7b")
        };
        Residents {
            models: vec![model("smollm2:135m"), ResidentModel { pinned: true, ..loading }],
            waiting: vec![WaitingRequest {
                model: "qwen:7b".into(),
                position: 1,
                waited_seconds: 3.2,
                expected_seconds: 12.0,
            }],
            notes: vec!["runs on the CPU: this version has no GPU executor (present: X)".into()],
            ..Residents::default()
        }
    }

    #[test]
    fn the_tables() {
        expect![[r#"
            NAME            ID              STATE          SIZE      PROCESSOR    CONTEXT    SLOTS    TOK/S    UNTIL
            smollm2:135m    9077fe9d2ae1    ready          412 MB    100% CPU     4096       1/1      41.3     4m59s
            qwen:7b         9077fe9d2ae1    loading 40%    412 MB    100% CPU     -          0/1      -        pinned

            WAITING    MODEL      WAITED    EXPECTED
            1          qwen:7b    3s        12s

            runs on the CPU: this version has no GPU executor (present: X)
        "#]]
        .assert_eq(&render(&residents()));
    }

    #[test]
    fn nothing_in_memory() {
        let text = render(&Residents { yielded: true, ..Residents::default() });
        expect![[r#"
            NAME    ID    STATE    SIZE    PROCESSOR    CONTEXT    SLOTS    TOK/S    UNTIL

            the memory was given away: `dsk yield --resume` takes it back
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn places_of_a_model() {
        let on = |device: &str, bytes| DeviceBytes {
            device: device.into(),
            weights_bytes: bytes,
            ..DeviceBytes::default()
        };
        let cases = [
            (vec![], "Unknown"),
            (vec![on("cpu", 10)], "100% CPU"),
            (vec![on("cpu", 0), on("cuda:0", 10)], "100% GPU"),
            (vec![on("cpu", 48), on("cuda:0", 52)], "48%/52% CPU/GPU"),
        ];
        for (devices, text) in cases {
            assert_eq!(processor(&ResidentModel { devices, ..ResidentModel::default() }), text);
        }
    }
}
