//! candle's quantized llama and qwen2, on the CPU, one sequence at a time: an executor to compare the
//! native one with.
//!
//! candle never sees the file. Our own reader checked it; candle gets the values of a few metadata
//! keys, the table of tensors, and the bytes of the tensors it asks for (`candle/source.rs`).
//!
//! Limits, which the native executor does not have: keys and values are f32 and grow by copying,
//! rope tables end at 4096 positions in the llama family, and the thread pool is candle's own, one
//! for the process, sized by `RAYON_NUM_THREADS`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_core::{Device, Tensor};
use candle_transformers::models::{quantized_llama, quantized_qwen2};

use super::{Batch, Bytes, Executor, ExecutorError, Logits, SequenceId};
use crate::engine::{LoadError, LoadOptions, panic_text};
use crate::model::Network;

mod geometry;
mod source;

/// The context of a request that names none, in tokens.
const CONTEXT_DEFAULT: u32 = 4096;
/// Less context than this holds no conversation, in tokens.
const CONTEXT_MIN: u32 = 16;

/// Sizes of the pieces a chunk is cut into, in tokens, each at a multiple of its size.
///
/// candle keeps the mask of every (length, position) it ever saw. With these few sizes there are
/// at most three masks for a position, and all of them together take 3/2 of the context's square in
/// bytes; with chunks of any length they would pile up without end.
const PIECES: [usize; 4] = [64, 16, 4, 1];

/// In which form candle keeps the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    /// As in the file. candle rounds activations to 8 bits to multiply with them, as llama.cpp does.
    Packed,
    /// As f32, so that nothing is rounded; up to eight times the memory. Tests compare with other
    /// implementations in this form.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests only"))]
    Unpacked,
}

/// The model of one family. candle has no trait for them.
enum Weights {
    Llama(quantized_llama::ModelWeights),
    Qwen2(quantized_qwen2::ModelWeights),
}

impl Weights {
    fn forward(&mut self, tokens: &Tensor, position: usize) -> candle_core::Result<Tensor> {
        match self {
            Weights::Llama(model) => model.forward(tokens, position),
            Weights::Qwen2(model) => model.forward(tokens, position),
        }
    }

    fn clear(&mut self) {
        match self {
            Weights::Llama(model) => model.clear_kv_cache(),
            Weights::Qwen2(model) => model.clear_kv_cache(),
        }
    }
}

/// candle's models behind the [`Executor`] seam.
pub(crate) struct CandleExecutor {
    weights: Weights,
    vocabulary: usize,
    context_length: usize,
    bytes: Bytes,
    /// Tokens that the one sequence holds.
    held: usize,
}

impl std::fmt::Debug for CandleExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CandleExecutor")
            .field("vocabulary", &self.vocabulary)
            .field("context_length", &self.context_length)
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

impl CandleExecutor {
    /// Copies the model's tensors into candle.
    pub(crate) fn load(
        network: &Network,
        options: &LoadOptions,
        precision: Precision,
        progress: &mut dyn FnMut(f32),
    ) -> Result<CandleExecutor, LoadError> {
        let header = network.header();
        let context = choose_context(options.context_length, geometry::context_max(header))?;
        log_threads(options.threads);
        let weights = guarded(|| source::load(network, context, precision, progress))?;
        let context_length = context as usize;
        let bytes = geometry::bytes(network, precision, context_length, PIECES[0]);
        let vocabulary = header.vocab_size as usize;
        Ok(CandleExecutor { weights, vocabulary, context_length, bytes, held: 0 })
    }

    /// The rows of the batch's one sequence, checked.
    fn check(&self, batch: &Batch) -> Result<usize, ExecutorError> {
        let refuse = |text: &str| Err(ExecutorError::Batch(text.to_owned()));
        let [only] = batch.sequences.as_slice() else {
            return refuse("it takes exactly one sequence");
        };
        let rows = batch.tokens.len();
        if only.sequence != SequenceId(0) || only.rows != (0..rows) || rows == 0 {
            return refuse("it takes all the rows of sequence 0");
        }
        if batch.logits.iter().any(|&row| row + 1 != rows) {
            return refuse("it gives logits for the last row only");
        }
        let first = batch.positions.first().copied().unwrap_or(0);
        if batch.positions.len() != rows
            || !batch.positions.iter().copied().eq((first..).take(rows))
        {
            return refuse("its positions do not follow one another");
        }
        if first != 0 && first as usize != self.held {
            return refuse("it does not continue its sequence");
        }
        self.check_bounds(batch, first as usize)
    }

    /// That positions and tokens are inside candle's tables; gives the first position.
    fn check_bounds(&self, batch: &Batch, first: usize) -> Result<usize, ExecutorError> {
        let (end, context) = (first + batch.tokens.len(), self.context_length);
        if end > context {
            return Err(ExecutorError::Context { position: end as u64 - 1, context });
        }
        let vocabulary = self.vocabulary;
        match batch.tokens.iter().find(|&&token| token as usize >= vocabulary) {
            Some(&token) => Err(ExecutorError::Token { token, vocabulary }),
            None => Ok(first),
        }
    }

    /// Runs the tokens piece by piece; the logits after the last one.
    fn forward(&mut self, tokens: &[u32], first: usize) -> candle_core::Result<Vec<f32>> {
        let mut logits = None;
        let mut done = 0;
        while done < tokens.len() {
            let len = piece(first + done, tokens.len() - done);
            let piece = Tensor::new(&tokens[done..done + len], &Device::Cpu)?.unsqueeze(0)?;
            logits = Some(self.weights.forward(&piece, first + done)?);
            done += len;
        }
        match logits {
            Some(logits) => logits.flatten_all()?.to_vec1(),
            None => Ok(Vec::new()),
        }
    }
}

impl Executor for CandleExecutor {
    fn name(&self) -> &'static str {
        "candle (cpu)"
    }

    fn step(&mut self, batch: &Batch) -> Result<Logits, ExecutorError> {
        let first = self.check(batch)?;
        // Whatever goes wrong from here on leaves candle's cache half written.
        self.held = 0;
        let row = guarded(|| {
            let row = self.forward(&batch.tokens, first);
            row.map_err(|error| ExecutorError::Compute(error.to_string()))
        })?;
        self.held = first + batch.tokens.len();
        let mut logits = Logits::new(self.vocabulary);
        if !batch.logits.is_empty() {
            logits.push(&row)?;
        }
        Ok(logits)
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn sequences(&self) -> usize {
        1
    }

    fn release(&mut self, _sequence: SequenceId) {
        self.weights.clear();
        self.held = 0;
    }

    fn bytes(&self) -> Bytes {
        self.bytes
    }
}

/// The length of the next piece of `rest` tokens at `position`.
fn piece(position: usize, rest: usize) -> usize {
    let fits = |len: &usize| *len <= rest && position.is_multiple_of(*len);
    PIECES.into_iter().find(fits).unwrap_or(1)
}

fn choose_context(asked: Option<u32>, most: u32) -> Result<u32, LoadError> {
    match asked {
        Some(got) if got < CONTEXT_MIN => Err(LoadError::ContextLength { got, least: CONTEXT_MIN }),
        Some(got) if got > most => {
            tracing::warn!(asked = got, most, "the context is shortened to what the model can");
            Ok(most)
        }
        Some(got) => Ok(got),
        None => Ok(CONTEXT_DEFAULT.min(most)),
    }
}

fn log_threads(asked: Option<usize>) {
    let used = candle_core::utils::get_num_threads();
    if let Some(asked) = asked.filter(|&asked| asked != used) {
        tracing::warn!(asked, used, "the number of threads was fixed by RAYON_NUM_THREADS");
    }
}

/// Runs candle's code; its panics become errors.
fn guarded<T>(work: impl FnOnce() -> Result<T, ExecutorError>) -> Result<T, ExecutorError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(ExecutorError::Panicked(panic_text(panic.as_ref()))))
}

#[cfg(test)]
mod tests;
