//! The step loop: take what waits, form one batch, run it, hand out the results.

use std::any::Any;
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::inbox::{Command, Inbox, Pending, deliver};
use super::running::Running;
use super::{RequestId, stopped};
use crate::event::{Event, Failure, FailureKind, FinishReason};
use crate::executor::{Batch, Executor, ExecutorError, Logits, SequenceId};
use crate::prompt::Prompter;

/// Tokens of prompts that one step reads, at the least and at the most.
const STEP_TOKENS: RangeInclusive<usize> = 64..=256;
/// How long a step may take: a cancelled request runs on for so long, and answers beside a long prompt
/// halt. Fewer tokens than the least are no faster.
const STEP_TIME: Duration = Duration::from_millis(500);

/// Runs until the inbox is closed.
pub(super) fn run(inbox: &Inbox, prompter: &Prompter, executor: Box<dyn Executor>) {
    let free = (0..executor.sequences() as u32).rev().map(SequenceId).collect();
    let (waiting, running) = (VecDeque::new(), Vec::new());
    let budget = *STEP_TOKENS.start();
    let mut turns = Turns { inbox, prompter, executor, waiting, running, free, budget };
    while let Some(commands) = inbox.take(turns.idle()) {
        for command in commands {
            turns.obey(command);
        }
        turns.admit();
        turns.step();
    }
    turns.stop();
}

struct Turns<'a> {
    inbox: &'a Inbox,
    prompter: &'a Prompter,
    executor: Box<dyn Executor>,
    waiting: VecDeque<Pending>,
    running: Vec<Running<'a>>,
    /// Sequences that no request has.
    free: Vec<SequenceId>,
    /// Tokens of prompts that the next step reads.
    budget: usize,
}

impl<'a> Turns<'a> {
    fn idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit(pending) => self.waiting.push_back(*pending),
            Command::Cancel(id) => self.cancel(id),
        }
    }

    fn cancel(&mut self, id: RequestId) {
        let failure = Failure::new(FailureKind::Cancelled, "the request was cancelled");
        if let Some(index) = self.running.iter().position(|running| running.id == id) {
            self.end(index, Err(failure));
        } else if let Some(index) = self.waiting.iter().position(|waiting| waiting.id == id) {
            if let Some(pending) = self.waiting.remove(index) {
                self.refuse(pending, failure);
            }
            self.tell_positions();
        }
    }

    /// Gives free sequences to the requests that wait longest.
    fn admit(&mut self) {
        let mut moved = false;
        while let Some(sequence) = self.free.pop() {
            let Some(pending) = self.waiting.pop_front() else {
                self.free.push(sequence);
                break;
            };
            moved = true;
            self.begin(pending, sequence);
        }
        if moved {
            self.tell_positions();
        }
    }

    fn begin(&mut self, pending: Pending, sequence: SequenceId) {
        if !pending.alive {
            self.free.push(sequence);
            return self.refuse(pending, unheard());
        }
        let context_length = self.executor.context_length();
        match Running::start(pending, sequence, self.prompter, context_length) {
            Ok(running) => {
                self.running.push(running);
                self.inbox.count(|stats| {
                    stats.queued = stats.queued.saturating_sub(1);
                    stats.running += 1;
                });
            }
            Err(refused) => {
                let (pending, failure) = *refused;
                self.free.push(sequence);
                self.refuse(pending, failure);
            }
        }
    }

    /// Ends a request that never ran.
    fn refuse(&mut self, mut pending: Pending, failure: Failure) {
        self.inbox.count(|stats| {
            stats.queued = stats.queued.saturating_sub(1);
            stats.finished += 1;
        });
        deliver(&mut pending.sink, Event::Failed(failure));
    }

    fn tell_positions(&mut self) {
        let before = self.running.len();
        for (index, pending) in self.waiting.iter_mut().enumerate() {
            let position = (before + index) as u32;
            pending.alive = pending.alive && deliver(&mut pending.sink, Event::Queued { position });
        }
    }

    /// One batch through the executor.
    fn step(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let batch = self.batch();
        let executor = &mut self.executor;
        let start = Instant::now();
        match guarded("a step", || executor.step(&batch).map_err(of_executor)) {
            Ok(logits) => {
                self.budget = next_budget(self.budget, batch.tokens.len(), start.elapsed());
                self.hand_out(&batch, &logits);
            }
            Err(failure) => {
                tracing::error!(%failure, "a step failed");
                while !self.running.is_empty() {
                    self.end(0, Err(failure.clone()));
                }
            }
        }
    }

    fn batch(&self) -> Batch {
        let mut batch = Batch::default();
        let mut budget = self.budget;
        for running in &self.running {
            let (position, tokens, last) = running.next(budget);
            budget = budget.saturating_sub(tokens.len());
            batch.push(running.sequence, position, tokens, last);
        }
        batch
    }

    /// Gives each request its logits, and ends those that are at their end.
    fn hand_out(&mut self, batch: &Batch, logits: &Logits) {
        let mut row = 0;
        let mut ended = Vec::new();
        for (index, (running, slice)) in self.running.iter_mut().zip(&batch.sequences).enumerate() {
            running.advance(slice.rows.len());
            let asked = batch.logits.get(row).is_some_and(|at| slice.rows.contains(at));
            let outcome = match asked {
                true => {
                    row += 1;
                    continue_answer(running, logits.row(row - 1))
                }
                false => Ok(None),
            };
            match outcome {
                Ok(Some(reason)) => ended.push((index, Ok(reason))),
                Err(failure) => ended.push((index, Err(failure))),
                Ok(None) if !running.alive() => ended.push((index, Err(unheard()))),
                Ok(None) => {}
            }
        }
        for (index, outcome) in ended.into_iter().rev() {
            self.end(index, outcome);
        }
    }

    fn end(&mut self, index: usize, outcome: Result<FinishReason, Failure>) {
        let running = self.running.remove(index);
        let sequence = running.sequence;
        self.executor.release(sequence);
        self.free.push(sequence);
        // Counted before the last event: who hears it can trust the counts.
        let usage = running.usage();
        self.inbox.count(|stats| {
            stats.running = stats.running.saturating_sub(1);
            stats.finished += 1;
            stats.prompt_tokens += u64::from(usage.prompt_tokens);
            stats.output_tokens += u64::from(usage.output_tokens);
        });
        match outcome {
            Ok(reason) => running.finish(reason),
            Err(failure) => running.fail(failure),
        }
    }

    /// Fails whatever is left.
    fn stop(&mut self) {
        while !self.running.is_empty() {
            self.end(0, Err(stopped()));
        }
        for command in self.inbox.leftover() {
            self.obey(command);
        }
        while let Some(pending) = self.waiting.pop_front() {
            self.refuse(pending, stopped());
        }
    }
}

/// The tokens that the next step may read, after one of `tokens` that took `elapsed`: twice as many where
/// that would still be in time, half where it was not.
fn next_budget(budget: usize, tokens: usize, elapsed: Duration) -> usize {
    let next = match tokens >= budget {
        true if elapsed * 2 <= STEP_TIME => budget * 2,
        true if elapsed > STEP_TIME => budget / 2,
        _ => budget,
    };
    next.clamp(*STEP_TOKENS.start(), *STEP_TOKENS.end())
}

fn continue_answer(
    running: &mut Running<'_>,
    logits: Option<&[f32]>,
) -> Result<Option<FinishReason>, Failure> {
    let missing = || Failure::new(FailureKind::Internal, "the executor gave too few logits");
    let logits = logits.ok_or_else(missing)?;
    guarded("the answer", || running.answer(logits))
}

fn unheard() -> Failure {
    Failure::new(FailureKind::Cancelled, "nobody listens to the request any more")
}

fn of_executor(error: ExecutorError) -> Failure {
    let kind = match error {
        ExecutorError::Context { .. } => FailureKind::ContextLength,
        _ => FailureKind::Internal,
    };
    Failure::new(kind, error.to_string())
}

/// Runs `work`; a panic in it becomes a failure of the request and not of the engine.
pub(super) fn guarded<T>(
    what: &str,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = format!("{what} broke the engine: {}", panic_text(panic.as_ref()));
        Err(Failure::new(FailureKind::Internal, text))
    })
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_as_long_as_they_are_in_time() {
        let after =
            |budget, tokens, millis| next_budget(budget, tokens, Duration::from_millis(millis));
        assert_eq!(after(64, 64, 100), 128);
        assert_eq!(after(64, 64, 300), 64);
        assert_eq!(after(256, 256, 10), 256);
        assert_eq!(after(256, 256, 600), 128);
        assert_eq!(after(64, 64, 9000), 64);
        assert_eq!(after(128, 1, 10), 128, "a token says nothing of prompts");
    }
}
