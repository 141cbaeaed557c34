//! Asks the daemon and prints the answer as it comes: thinking dim between its two marks, then
//! the text, wrapped at words where a person reads it.

use dsk_daemon_api::ollama::{ChatLine, ChatRequest, Message, Metrics};
use dsk_daemon_api::{Client, ClientError};
use indicatif::{ProgressBar, ProgressFinish};
use std::time::Duration;

use super::session::Turn;
use super::wrap::Wrap;
use crate::connection::interrupted;
use crate::terminal::{OutputClosed, Style, Terminal};
use crate::units;

const THINKING: &str = "Thinking...";
const DONE_THINKING: &str = "...done thinking.";
/// How often the spinner turns that shows that the model is at it.
const TICK: Duration = Duration::from_millis(100);

/// How an answer is shown.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct View {
    pub(crate) hide_thinking: bool,
    /// Columns to wrap at; `None` prints the text as it comes.
    pub(crate) wrap: Option<usize>,
    /// The daemon's lines as they are, instead of text.
    pub(crate) json: bool,
}

/// What came back.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) content: String,
    pub(crate) thinking: String,
    /// Present when the model came to an end by itself.
    pub(crate) metrics: Option<Metrics>,
    pub(crate) interrupted: bool,
}

/// The wire's form of a turn.
pub(crate) fn message(turn: &Turn) -> Message {
    Message { thinking: turn.thinking.clone(), ..Message::new(turn.role.name(), &turn.content) }
}

/// Sends a conversation and prints the answer until it ends or Ctrl-C stops it.
pub(crate) async fn ask(
    client: &Client,
    request: &ChatRequest,
    view: View,
    terminal: &mut Terminal,
) -> anyhow::Result<Answer> {
    let mut spinner = Some(spinner(terminal));
    let mut answer = Answer::default();
    let mut printer = Printer::new(view);
    let stop = interrupted();
    tokio::pin!(stop);
    let mut lines = tokio::select! {
        lines = client.chat(request) => lines?,
        () = &mut stop => return Ok(Answer { interrupted: true, ..answer }),
    };
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            () = &mut stop => {
                answer.interrupted = true;
                break;
            }
        };
        if let (Some(spinner), Some(waiting)) = (&spinner, waiting(line.as_ref())) {
            spinner.set_message(waiting);
        } else {
            drop(spinner.take());
        }
        match line {
            Some(Ok(line)) => take(&mut answer, &mut printer, &line, terminal)?,
            Some(Err(error)) => return fail(error, &mut printer, terminal),
            None => break,
        }
    }
    drop(spinner);
    printer.finish(terminal)?;
    let ended = answer.metrics.is_some() || answer.interrupted;
    anyhow::ensure!(ended, "the daemon stopped in the middle of the answer");
    Ok(answer)
}

/// Loads a model without asking it anything, so that the first question is not the slow one.
pub(crate) async fn load(
    client: &Client,
    request: &ChatRequest,
    terminal: &mut Terminal,
) -> anyhow::Result<()> {
    let request = ChatRequest { messages: Vec::new(), ..request.clone() };
    ask(client, &request, View::default(), terminal).await?;
    Ok(())
}

/// What the spinner says to a line that only tells where the request stands.
fn waiting(line: Option<&Result<ChatLine, ClientError>>) -> Option<String> {
    let place = line?.as_ref().ok()?.queue?;
    let seconds = Duration::try_from_secs_f64(place.expected_seconds).unwrap_or_default();
    let (position, time) = (place.position, units::whole_seconds(seconds));
    Some(format!("waits for the model: number {position} in the queue, about {time} to go"))
}

fn take(
    answer: &mut Answer,
    printer: &mut Printer,
    line: &ChatLine,
    terminal: &mut Terminal,
) -> anyhow::Result<()> {
    answer.content.push_str(&line.message.content);
    answer.thinking.push_str(line.message.thinking.as_deref().unwrap_or_default());
    if line.done {
        answer.metrics = Some(line.metrics);
    }
    if printer.view.json {
        return terminal.json(line);
    }
    Ok(printer.line(line, terminal)?)
}

/// Ends the half-printed line before the error is reported below it.
fn fail(
    error: ClientError,
    printer: &mut Printer,
    terminal: &mut Terminal,
) -> anyhow::Result<Answer> {
    printer.finish(terminal)?;
    Err(error.into())
}

/// Turns until it is dropped.
fn spinner(terminal: &Terminal) -> ProgressBar {
    if !terminal.err_is_tty() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_finish(ProgressFinish::AndClear);
    spinner.enable_steady_tick(TICK);
    spinner
}

/// Where in the answer the output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Start,
    Thinking,
    Content,
}

/// Prints an answer piece by piece.
#[derive(Debug)]
struct Printer {
    view: View,
    phase: Phase,
    wrap: Option<Wrap>,
    ends_line: bool,
}

impl Printer {
    fn new(view: View) -> Printer {
        Printer { view, phase: Phase::Start, wrap: view.wrap.map(Wrap::new), ends_line: true }
    }

    fn line(&mut self, line: &ChatLine, terminal: &mut Terminal) -> Result<(), OutputClosed> {
        let thinking = line.message.thinking.as_deref().unwrap_or_default();
        if !thinking.is_empty() && !self.view.hide_thinking {
            if self.phase == Phase::Start {
                self.phase = Phase::Thinking;
                let mark = terminal.paint(THINKING, Style::Dim);
                terminal.line(&mark)?;
            }
            self.print(thinking, terminal)?;
        }
        if !line.message.content.is_empty() {
            self.end_thinking(terminal)?;
            self.phase = Phase::Content;
            self.print(&line.message.content, terminal)?;
        }
        Ok(())
    }

    /// Prints what was held back and ends the last line.
    fn finish(&mut self, terminal: &mut Terminal) -> Result<(), OutputClosed> {
        if self.view.json {
            return Ok(());
        }
        self.end_thinking(terminal)?;
        self.end_line(terminal)
    }

    fn end_thinking(&mut self, terminal: &mut Terminal) -> Result<(), OutputClosed> {
        if self.phase != Phase::Thinking {
            return Ok(());
        }
        self.end_line(terminal)?;
        self.phase = Phase::Content;
        let mark = terminal.paint(DONE_THINKING, Style::Dim);
        terminal.line(&format!("{mark}\n"))
    }

    fn end_line(&mut self, terminal: &mut Terminal) -> Result<(), OutputClosed> {
        let rest = self.wrap.as_mut().map(Wrap::finish).unwrap_or_default();
        self.emit(&rest, terminal)?;
        self.wrap = self.view.wrap.map(Wrap::new);
        match std::mem::replace(&mut self.ends_line, true) {
            true => Ok(()),
            false => terminal.data("\n"),
        }
    }

    fn print(&mut self, text: &str, terminal: &mut Terminal) -> Result<(), OutputClosed> {
        match &mut self.wrap {
            Some(wrap) => {
                let ready = wrap.push(text);
                self.emit(&ready, terminal)
            }
            None => self.emit(text, terminal),
        }
    }

    fn emit(&mut self, text: &str, terminal: &mut Terminal) -> Result<(), OutputClosed> {
        if text.is_empty() {
            return Ok(());
        }
        self.ends_line = text.ends_with('\n');
        match self.phase {
            Phase::Thinking => {
                let dim = terminal.paint(text, Style::Dim);
                terminal.data(&dim)
            }
            Phase::Start | Phase::Content => terminal.data(text),
        }
    }
}

/// The timings of `--verbose`, as Ollama names them.
pub(crate) fn timings(metrics: &Metrics) -> String {
    let time = |nanoseconds| units::duration(Duration::from_nanos(nanoseconds));
    let rate = |count, nanoseconds| units::rate(count, Duration::from_nanos(nanoseconds));
    let Metrics {
        total_duration,
        load_duration,
        prompt_eval_count,
        prompt_eval_duration,
        eval_count,
        eval_duration,
    } = *metrics;
    [
        ("total duration:", time(total_duration)),
        ("load duration:", time(load_duration)),
        ("prompt eval count:", format!("{prompt_eval_count} token(s)")),
        ("prompt eval duration:", time(prompt_eval_duration)),
        (
            "prompt eval rate:",
            format!("{:.2} tokens/s", rate(prompt_eval_count, prompt_eval_duration)),
        ),
        ("eval count:", format!("{eval_count} token(s)")),
        ("eval duration:", time(eval_duration)),
        ("eval rate:", format!("{:.2} tokens/s", rate(eval_count, eval_duration))),
    ]
    .map(|(name, value)| format!("{name:<22}{value}"))
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsk_daemon_api::ollama::QueuePlace;
    use expect_test::{Expect, expect};

    fn check(view: View, pieces: &[(&str, &str)], expected: Expect) {
        let (mut terminal, capture) = Terminal::captured();
        let mut printer = Printer::new(view);
        for (thinking, content) in pieces {
            let thinking = Some((*thinking).to_owned()).filter(|text| !text.is_empty());
            let message = Message { thinking, ..Message::new("assistant", content) };
            printer.line(&ChatLine { message, ..ChatLine::default() }, &mut terminal).unwrap();
        }
        printer.finish(&mut terminal).unwrap();
        expected.assert_eq(&capture.out());
    }

    #[test]
    fn who_waits_is_told_where_it_stands() {
        let queue = Some(QueuePlace { position: 2, expected_seconds: 12.4 });
        let line = Ok(ChatLine { queue, ..ChatLine::default() });
        expect!["waits for the model: number 2 in the queue, about 12s to go"]
            .assert_eq(&waiting(Some(&line)).unwrap());
        assert_eq!(waiting(Some(&Ok(ChatLine::default()))), None);
        assert_eq!(waiting(None), None);
    }

    const THOUGHTFUL: [(&str, &str); 4] =
        [("Hm, ", ""), ("two and two", ""), ("", "It is"), ("", " 4.")];

    #[test]
    fn thinking_stands_between_its_marks() {
        check(
            View::default(),
            &THOUGHTFUL,
            expect![[r#"
                Thinking...
                Hm, two and two
                ...done thinking.

                It is 4.
            "#]],
        );
    }

    #[test]
    fn hidden_thinking_leaves_no_trace() {
        check(
            View { hide_thinking: true, ..View::default() },
            &THOUGHTFUL,
            expect![[r#"
                It is 4.
            "#]],
        );
    }

    #[test]
    fn an_answer_stopped_while_thinking_closes_the_marks() {
        check(
            View { wrap: Some(8), ..View::default() },
            &[("one two three", "")],
            expect![[r#"
                Thinking...
                one two
                three
                ...done thinking.

            "#]],
        );
    }

    #[test]
    fn an_answer_that_ends_its_line_gets_no_second_one() {
        check(
            View::default(),
            &[("", "done\n")],
            expect![[r#"
                done
            "#]],
        );
    }

    #[test]
    fn no_answer_prints_nothing() {
        check(View::default(), &[("", "")], expect![""]);
    }

    #[test]
    fn the_timings() {
        let metrics = Metrics {
            total_duration: 2_500_000_000,
            load_duration: 312_000_000,
            prompt_eval_count: 26,
            prompt_eval_duration: 130_000_000,
            eval_count: 100,
            eval_duration: 2_000_000_000,
        };
        expect![[r#"
            total duration:       2.50s
            load duration:        312.0ms
            prompt eval count:    26 token(s)
            prompt eval duration: 130.0ms
            prompt eval rate:     200.00 tokens/s
            eval count:           100 token(s)
            eval duration:        2.00s
            eval rate:            50.00 tokens/s"#]]
        .assert_eq(&timings(&metrics));
    }
}
