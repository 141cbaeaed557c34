//! How well a model predicts a text, counted as llama.cpp's `perplexity` does.
//!
//! The text becomes tokens as a whole, with a begin-of-sequence token where the model wants one, and
//! is cut into chunks; a rest that does not fill a chunk is left out. Each chunk is a sequence of its
//! own, whose first token is that begin-of-sequence token again. The first half of a chunk is only
//! context: of positions N/2 to N-2 the logits are scored against the token that follows.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::{Bench, BenchError, BenchOptions, Perplexity, PerplexityOptions, Progress, Stage};
use crate::executor::{Batch, Executor, ExecutorError, ExecutorKind, Logits, SequenceId};
use crate::tokenizer::{Special, Tokenizer};

/// Rows of logits of one step: a row of a large vocabulary is half a megabyte.
const ROWS: usize = 64;
/// Tokens of a step without logits.
const STEP_TOKENS: usize = 512;

pub(super) fn score(
    bench: &mut Bench,
    options: &BenchOptions,
    text: &PerplexityOptions,
    source: &str,
    progress: Progress,
) -> Result<Perplexity, BenchError> {
    let tokenizer = bench.model.tokenizer();
    let tokens = tokens(tokenizer, source);
    let of = (tokens.len() / text.context).min(text.chunks.unwrap_or(usize::MAX));
    if of == 0 {
        return Err(BenchError::Short { tokens: tokens.len(), context: text.context });
    }
    let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
    let mut sink = Sink::new(text.save_logits.as_deref())?;
    let mut likelihood = Likelihood::default();
    for (at, chunk) in tokens.chunks_exact(text.context).take(of).enumerate() {
        let mut chunk = chunk.to_vec();
        if let Some(bos) = bos {
            chunk[0] = bos;
        }
        // candle gives logits for the last row of a step only.
        let rows = if options.executor == ExecutorKind::Candle { 1 } else { ROWS };
        let executor = bench.executor.as_mut();
        Chunk { executor, tokens: &chunk, rows }.score(&mut likelihood, &mut sink)?;
        let perplexity = likelihood.perplexity();
        progress(Stage::Chunk { number: at + 1, of, perplexity });
    }
    sink.finish()?;
    Ok(Perplexity {
        perplexity: likelihood.perplexity(),
        perplexity_stderr: likelihood.standard_error(),
        scored_tokens: likelihood.count,
        scored_chunks: of,
        context_length: text.context,
    })
}

fn tokens(tokenizer: &Tokenizer, source: &str) -> Vec<u32> {
    let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
    bos.into_iter().chain(tokenizer.encode(source, Special::AsText)).collect()
}

/// A chunk in the making.
struct Chunk<'a> {
    executor: &'a mut dyn Executor,
    tokens: &'a [u32],
    /// Rows of logits that one step may ask for.
    rows: usize,
}

impl Chunk<'_> {
    fn score(mut self, likelihood: &mut Likelihood, sink: &mut Sink) -> Result<(), BenchError> {
        self.executor.release(SequenceId(0));
        // The last token is predicted and predicts nothing.
        let (first, end) = (self.tokens.len() / 2, self.tokens.len() - 1);
        for start in (0..first).step_by(STEP_TOKENS) {
            self.step(start, first.min(start + STEP_TOKENS), false)?;
        }
        for start in (first..end).step_by(self.rows) {
            let stop = end.min(start + self.rows);
            let logits = self.step(start, stop, true)?;
            for at in start..stop {
                let row = logits.row(at - start).ok_or_else(missing)?;
                sink.write(row)?;
                likelihood.add(row, self.tokens[at + 1])?;
            }
        }
        Ok(())
    }

    /// Tokens `from..to`, with logits for all of them or for none.
    fn step(&mut self, from: usize, to: usize, logits: bool) -> Result<Logits, ExecutorError> {
        let mut batch = Batch::default();
        batch.push(SequenceId(0), from, &self.tokens[from..to], false);
        if logits {
            batch.logits = (0..to - from).collect();
        }
        self.executor.step(&batch)
    }
}

fn missing() -> ExecutorError {
    ExecutorError::Compute("a step gave too few logits".to_owned())
}

/// Where scored logits are written to, if anywhere.
struct Sink<'a>(Option<(&'a Path, BufWriter<File>)>);

impl<'a> Sink<'a> {
    fn new(path: Option<&'a Path>) -> Result<Sink<'a>, BenchError> {
        let Some(path) = path else { return Ok(Sink(None)) };
        let file = File::create(path).map_err(|source| failed(path, source))?;
        Ok(Sink(Some((path, BufWriter::new(file)))))
    }

    fn write(&mut self, row: &[f32]) -> Result<(), BenchError> {
        let Some((path, file)) = &mut self.0 else { return Ok(()) };
        let mut values = row.iter();
        values
            .try_for_each(|value| file.write_all(&value.to_le_bytes()))
            .map_err(|source| failed(path, source))
    }

    fn finish(self) -> Result<(), BenchError> {
        let Some((path, mut file)) = self.0 else { return Ok(()) };
        file.flush().map_err(|source| failed(path, source))
    }
}

fn failed(path: &Path, source: std::io::Error) -> BenchError {
    BenchError::Save { path: path.to_owned(), source }
}

/// Negative log-likelihoods: their number, sum, and sum of squares.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Likelihood {
    count: u64,
    sum: f64,
    squares: f64,
}

impl Likelihood {
    /// Adds that of `token` where `row` predicts it.
    pub(super) fn add(&mut self, row: &[f32], token: u32) -> Result<(), ExecutorError> {
        let logit = *row
            .get(token as usize)
            .ok_or(ExecutorError::Token { token, vocabulary: row.len() })?;
        let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let total: f64 = row.iter().map(|&value| (f64::from(value) - largest).exp()).sum();
        let loss = total.ln() - (f64::from(logit) - largest);
        self.count += 1;
        self.sum += loss;
        self.squares += loss * loss;
        Ok(())
    }

    /// 1 where nothing was added.
    pub(super) fn perplexity(&self) -> f64 {
        (self.sum / self.count.max(1) as f64).exp()
    }

    /// The error of the mean, carried to the perplexity; 0 where one token says nothing of it.
    pub(super) fn standard_error(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let count = self.count as f64;
        let mean = self.sum / count;
        let variance = (self.squares / count - mean * mean).max(0.0);
        (variance / (count - 1.0)).sqrt() * self.perplexity()
    }
}
