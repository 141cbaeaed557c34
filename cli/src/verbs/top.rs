//! `dsk top`: what is in memory and what it does, drawn anew every second.

use std::time::Duration;

use clap::Args;
use dsk_daemon_api::Client;
use dsk_daemon_api::status::{DaemonStatus, ResidentModel, Residents};

use crate::args::Shared;
use crate::connection::{Connection, interrupted};
use crate::exit::Exit;
use crate::terminal::Terminal;
use crate::{table, units};

/// The time between two frames.
const EVERY: Duration = Duration::from_secs(1);
/// Puts the cursor at the top left and clears what is below it.
const REDRAW: &str = "\x1b[H\x1b[2J";

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Print one frame and end, as it does where the output is no terminal
    #[arg(long)]
    once: bool,
    /// Print one JSON object per second
    #[arg(long)]
    json: bool,
}

pub(crate) async fn top(
    shared: &Shared,
    args: &TopArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let client = Connection::open(shared)?.client;
    let live = !args.once && (args.json || terminal.out_is_tty());
    loop {
        frame(&client, args, live, terminal).await?;
        if !live {
            return Ok(Exit::Success);
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = interrupted() => return Ok(Exit::Interrupted),
        }
    }
}

async fn frame(
    client: &Client,
    args: &TopArgs,
    live: bool,
    terminal: &mut Terminal,
) -> anyhow::Result<()> {
    let residents = client.residents().await?;
    if args.json {
        return terminal.json(&residents);
    }
    let status = client.status().await?;
    let redraw = if live { REDRAW } else { "" };
    let text = fitted(&render(&status, &residents), live.then(|| terminal.columns()));
    Ok(terminal.data(&format!("{redraw}{text}"))?)
}

fn render(status: &DaemonStatus, residents: &Residents) -> String {
    let memory = residents.memory;
    let used = memory.total_bytes.saturating_sub(memory.available_bytes);
    let uptime = units::whole_seconds(Duration::from_secs(status.uptime_seconds));
    let mut text = format!("dsk {}, pid {}, up {uptime}\n", status.version, status.pid);
    text += &format!(
        "memory: {} of {} used, {} by models, {} promised to them, {} kept for others\n\n",
        units::bytes(used),
        units::bytes(memory.total_bytes),
        units::bytes(status.memory.loaded_bytes),
        units::bytes(memory.promised_bytes),
        units::bytes(memory.reserve_bytes),
    );
    text += &super::ps::render(residents);
    let rows: Vec<Vec<String>> = residents.models.iter().map(work).collect();
    text += &format!("\n{}", table::render(WORK_HEADER, &rows));
    text
}

const WORK_HEADER: &[&str] =
    &["WORK", "WAITING", "CACHE", "PROMPT TOK/S", "TOK/S", "PROMPTS", "ANSWERS", "IDLE"];

/// What a model does and has done.
fn work(model: &ResidentModel) -> Vec<String> {
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"));
    let idle = Duration::try_from_secs_f64(model.idle_seconds).unwrap_or_default();
    vec![
        model.name.clone(),
        model.waiting.to_string(),
        format!("{}/{}", model.kv_tokens_used, model.kv_tokens_limit),
        rate(model.prompt_tokens_per_second),
        rate(model.output_tokens_per_second),
        model.prompt_tokens.to_string(),
        model.output_tokens.to_string(),
        if model.slots.in_use > 0 { "-".to_owned() } else { units::whole_seconds(idle) },
    ]
}

/// Lines cut to the terminal's width: one that wraps would shift all below it.
fn fitted(text: &str, columns: Option<usize>) -> String {
    let Some(columns) = columns else { return text.to_owned() };
    text.lines().map(|line| line.chars().take(columns).chain(['\n']).collect::<String>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsk_daemon_api::status::{Memory, MemoryBudget};
    use expect_test::expect;

    #[test]
    fn a_frame() {
        let status = DaemonStatus {
            version: "0.1.0".into(),
            pid: 7,
            uptime_seconds: 3725,
            models_path: "/m".into(),
            memory: Memory { loaded_bytes: 824_000_000, ..Memory::default() },
            models: 2,
            loaded: 2,
            running: 1,
        };
        let memory = MemoryBudget {
            total_bytes: 16_000_000_000,
            available_bytes: 12_000_000_000,
            promised_bytes: 100_000_000,
            reserve_bytes: 1_000_000_000,
        };
        let residents = Residents { memory, ..super::super::ps::tests::residents() };
        expect![[r#"
            dsk 0.1.0, pid 7, up 1h02m
            memory: 4.0 GB of 16 GB used, 824 MB by models, 100 MB promised to them, 1.0 GB kept for others

            NAME            ID              STATE          SIZE      PROCESSOR    CONTEXT    SLOTS    TOK/S    UNTIL
            smollm2:135m    9077fe9d2ae1    ready          412 MB    100% CPU     4096       1/1      41.3     4m59s
            qwen:7b         9077fe9d2ae1    loading 40%    412 MB    100% CPU     -          0/1      -        pinned

            WAITING    MODEL      WAITED    EXPECTED
            1          qwen:7b    3s        12s

            runs on the CPU: this version has no GPU executor (present: X)

            WORK            WAITING    CACHE    PROMPT TOK/S    TOK/S    PROMPTS    ANSWERS    IDLE
            smollm2:135m    0          0/0      -               41.3     0          0          -
            qwen:7b         0          0/0      -               -        0          0          0s
        "#]]
        .assert_eq(&render(&status, &residents));
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        assert_eq!(fitted("abc\nde\n", Some(2)), "ab\nde\n");
        assert_eq!(fitted("abc\n", None), "abc\n");
    }
}
