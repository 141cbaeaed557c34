//! One request on its way: its tokens, and the filters between them and its sink.

use std::time::{Duration, Instant};

use super::RequestId;
use super::inbox::{Pending, Sink, deliver};
use crate::event::{Done, Event, Failure, FailureKind, FinishReason, Usage};
use crate::executor::SequenceId;
use crate::prompt::{Prepared, Prompter};
use crate::sample::Sampler;
use crate::stop::StopFilter;
use crate::thinking::{Part, Splitter};
use crate::tokenizer::{Decoder, Tokenizer};

/// A request that has a sequence.
pub(super) struct Running<'a> {
    pub(super) id: RequestId,
    pub(super) sequence: SequenceId,
    sink: Sink,
    /// The sink took every event so far.
    alive: bool,
    tokenizer: &'a Tokenizer,
    /// The prompt and the answer so far.
    tokens: Vec<u32>,
    prompt_len: usize,
    /// How many of the tokens the executor has read.
    read: usize,
    /// At this many tokens the answer ends.
    tokens_max: usize,
    sampler: Sampler,
    decoder: Decoder<'a>,
    stop: StopFilter,
    splitter: Splitter,
    usage: Usage,
    /// When the phase began that `usage` counts now: reading the prompt, or answering.
    since: Instant,
}

impl<'a> Running<'a> {
    /// Prepares a request; what cannot run is given back with the reason.
    pub(super) fn start(
        pending: Pending,
        sequence: SequenceId,
        prompter: &'a Prompter,
        context_length: usize,
    ) -> Result<Running<'a>, Box<(Pending, Failure)>> {
        let since = Instant::now();
        let options = &pending.request.options;
        let checked = options
            .check()
            .map_err(|error| Failure::new(FailureKind::BadRequest, error.to_string()));
        let prepared = checked.and_then(|()| {
            super::turns::guarded("the prompt", || {
                prompter.prepare(&pending.request, context_length)
            })
        });
        let Prepared { tokens, splitter } = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => return Err(Box::new((pending, failure))),
        };
        let tokenizer = prompter.model().tokenizer();
        let usage = Usage {
            prompt_tokens: tokens.len() as u32,
            queue_ns: nanoseconds(since.duration_since(pending.submitted)),
            ..Usage::default()
        };
        Ok(Running {
            id: pending.id,
            sequence,
            alive: pending.alive,
            tokenizer,
            prompt_len: tokens.len(),
            read: 0,
            tokens_max: tokens_max(tokens.len(), options.num_predict, context_length),
            sampler: Sampler::new(options),
            decoder: Decoder::new(tokenizer),
            stop: StopFilter::new(&options.stop),
            splitter,
            usage,
            since,
            tokens,
            sink: pending.sink,
        })
    }

    /// Whether somebody listens still.
    pub(super) fn alive(&self) -> bool {
        self.alive
    }

    /// The position of the next tokens to read, at most `budget` of them, and whether they are the
    /// last ones known, so that the next token follows from their logits.
    pub(super) fn next(&self, budget: usize) -> (usize, &[u32], bool) {
        let end = self.tokens.len().min(self.read + budget.max(1));
        (self.read, &self.tokens[self.read..end], end == self.tokens.len())
    }

    /// Notes that `count` more tokens were read.
    pub(super) fn advance(&mut self, count: usize) {
        self.read += count;
        if self.usage.output_tokens == 0 && self.read <= self.prompt_len {
            let (done, total) = (self.read as u32, self.prompt_len as u32);
            self.send(Event::Prefill { done, total });
        }
    }

    /// Continues the answer from the logits after the last token. `Some` when that ends it.
    pub(super) fn answer(&mut self, logits: &[f32]) -> Result<Option<FinishReason>, Failure> {
        if self.tokens.len() == self.prompt_len {
            self.usage.prompt_ns = nanoseconds(self.since.elapsed());
            self.since = Instant::now();
        }
        if self.tokens.len() >= self.tokens_max {
            return Ok(Some(FinishReason::Length));
        }
        let token = self.sampler.sample(logits, &self.tokens);
        let token =
            token.map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))?;
        self.tokens.push(token);
        if self.tokenizer.is_end(token) {
            return Ok(Some(FinishReason::Stop));
        }
        self.usage.output_tokens += 1;
        self.usage.thinking_tokens += u32::from(self.splitter.thinking());
        let text = self.decoder.push(token);
        self.show(&text);
        Ok(match (self.stop.stopped(), self.tokens.len() >= self.tokens_max) {
            (true, _) => Some(FinishReason::Stop),
            (false, true) => Some(FinishReason::Length),
            (false, false) => None,
        })
    }

    /// What it cost so far.
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// Ends the request well: what was held back, and the account.
    pub(super) fn finish(mut self, reason: FinishReason) {
        let rest = self.decoder.finish();
        self.show(&rest);
        let held = self.stop.finish();
        let mut parts = self.splitter.push(&held);
        parts.extend(self.splitter.finish());
        self.send_parts(parts);
        self.usage.output_ns = nanoseconds(self.since.elapsed());
        let context = std::mem::take(&mut self.tokens);
        self.send(Event::Done(Done { reason, usage: self.usage, context }));
    }

    /// Ends the request badly.
    pub(super) fn fail(mut self, failure: Failure) {
        self.send(Event::Failed(failure));
    }

    fn show(&mut self, text: &str) {
        let visible = self.stop.push(text);
        let parts = self.splitter.push(&visible);
        self.send_parts(parts);
    }

    fn send_parts(&mut self, parts: Vec<Part>) {
        for part in parts {
            self.send(match part {
                Part::Thinking(text) => Event::Thinking(text),
                Part::Content(text) => Event::Content(text),
            });
        }
    }

    fn send(&mut self, event: Event) {
        self.alive = self.alive && deliver(&mut self.sink, event);
    }
}

/// How long prompt and answer can become. Both -1 (until the model ends) and -2 (fill the context)
/// end with the context at the latest.
fn tokens_max(prompt: usize, num_predict: i64, context_length: usize) -> usize {
    match usize::try_from(num_predict) {
        Ok(count) => prompt.saturating_add(count).min(context_length),
        Err(_) => context_length,
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
