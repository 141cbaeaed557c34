//! `dsk logs`: the last lines of the daemon's log, its runners' among them.

use clap::Args;
use dsk_daemon_api::status::LogLine;

use crate::args::Shared;
use crate::connection::{Connection, interrupted};
use crate::exit::Exit;
use crate::terminal::{Style, Terminal};

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Only lines about this model
    model: Option<String>,
    /// Go on with new lines until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// How many lines to begin with; the daemon keeps the last 2000
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 100)]
    lines: usize,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn logs(
    shared: &Shared,
    args: &LogsArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let client = Connection::open(shared)?.client;
    let mut lines = client.logs(args.lines, args.model.as_deref(), args.follow).await?;
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            () = interrupted() => return Ok(Exit::Interrupted),
        };
        let Some(line) = line.transpose()? else { return Ok(Exit::Success) };
        if args.json {
            terminal.json(&line)?;
        } else {
            let text = render(&line, &|text, style| terminal.paint(text, style));
            terminal.line(&text)?;
        }
    }
}

fn render(line: &LogLine, paint: &dyn Fn(&str, Style) -> String) -> String {
    let style = match line.level.as_str() {
        "ERROR" => Style::Red,
        "WARN" => Style::Yellow,
        "INFO" => Style::Green,
        _ => Style::Dim,
    };
    let level = paint(&format!("{:>5}", line.level), style);
    let model = line.model.as_ref().map(|model| format!(" [{model}]")).unwrap_or_default();
    let target = paint(&format!("{}:", line.target), Style::Dim);
    // Milliseconds are enough for a person.
    let time = line.time.get(..23).unwrap_or(&line.time);
    format!("{} {level} {target}{model} {}", paint(time, Style::Dim), printable(&line.text))
}

/// The text without control characters: what a runner prints must not drive the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_line() {
        let line = LogLine {
            number: 1,
            time: "2026-05-01T12:00:00.123456789Z".into(),
            level: "WARN".into(),
            target: "dsk_runner".into(),
            model: Some("m:latest".into()),
            text: "odd \u{1b}[2J thing".into(),
        };
        expect!["2026-05-01T12:00:00.123  WARN dsk_runner: [m:latest] odd \u{fffd}[2J thing"]
            .assert_eq(&render(&line, &|text, _| text.to_owned()));
    }
}
