//! The seam between requests and arithmetic: a ragged batch of tokens in, logits out.
//!
//! Everything above it knows nothing of devices, kernels or KV layouts; everything below it knows
//! nothing of requests. An executor owns the KV of its sequences: a token at position 0 starts its
//! sequence anew, and [`Executor::release`] gives the memory of one back.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::demand::Demand;
use crate::engine::{LoadError, LoadOptions};
use crate::model::Network;
use candle::{CandleExecutor, Precision};
use cpu::CpuExecutor;

pub(crate) mod candle;
pub(crate) mod cpu;

/// One sequence of an executor, below [`Executor::sequences`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u32);

/// The rows of one sequence in a [`Batch`]; their positions follow one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceRows {
    /// Whose rows.
    pub sequence: SequenceId,
    /// Which rows of the batch.
    pub rows: Range<usize>,
}

/// What one step computes: prefill chunks and single tokens of several sequences, side by side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// One token a row.
    pub tokens: Vec<u32>,
    /// The position of each token in its sequence.
    pub positions: Vec<u32>,
    /// A sequence occurs at most once.
    pub sequences: Vec<SequenceRows>,
    /// Which rows want logits, ascending.
    pub logits: Vec<usize>,
}

impl Batch {
    /// Adds `tokens` of `sequence`, the first one at `position`; `last` asks for the logits of the
    /// last one.
    pub fn push(&mut self, sequence: SequenceId, position: usize, tokens: &[u32], last: bool) {
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        // Positions are below a context length, which is a u32.
        self.positions.extend((position..position + tokens.len()).map(|at| at as u32));
        self.sequences.push(SequenceRows { sequence, rows: start..self.tokens.len() });
        if last && !tokens.is_empty() {
            self.logits.push(self.tokens.len() - 1);
        }
    }
}

/// The logits of the rows that asked for them, in the batch's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logits {
    vocabulary: usize,
    values: Vec<f32>,
}

impl Logits {
    /// Logits for tokens `0..vocabulary`, no row yet.
    pub fn new(vocabulary: usize) -> Logits {
        Logits { vocabulary, values: Vec::new() }
    }

    /// Adds a row; one of another length is refused.
    pub fn push(&mut self, row: &[f32]) -> Result<(), ExecutorError> {
        if row.len() != self.vocabulary {
            let (got, want) = (row.len(), self.vocabulary);
            return Err(ExecutorError::Compute(format!("{got} logits for {want} tokens")));
        }
        self.values.extend_from_slice(row);
        Ok(())
    }

    /// The `index`th row that was asked for.
    pub fn row(&self, index: usize) -> Option<&[f32]> {
        let start = index.checked_mul(self.vocabulary)?;
        self.values.get(start..start.checked_add(self.vocabulary)?)
    }
}

/// Memory of a loaded model, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// Tensors, in every form they are kept in.
    pub weights: u64,
    /// Keys and values of a full context, for all sequences.
    pub kv: u64,
    /// Tables, masks and the intermediate values of the largest step.
    pub other: u64,
    /// The process itself, tokenizer and template.
    #[serde(default)]
    pub runtime: u64,
}

impl Bytes {
    /// All of it.
    pub fn total(&self) -> u64 {
        [self.kv, self.other, self.runtime]
            .iter()
            .fold(self.weights, |sum, &n| sum.saturating_add(n))
    }
}

/// Why a step, or the loading of an executor, failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecutorError {
    /// A model it has no code for.
    #[error("this executor cannot run the model: {0}")]
    Unsupported(String),
    /// Weights that are missing, damaged or in a form it cannot use.
    #[error("the model's weights cannot be used: {0}")]
    Weights(String),
    /// More memory than there is.
    #[error("not enough memory: {0}")]
    Memory(String),
    /// A batch in a form it cannot do.
    #[error("this executor cannot run the batch: {0}")]
    Batch(String),
    /// A token past the end of the context.
    #[error("position {position} is past the context of {context} tokens")]
    Context { position: u64, context: usize },
    /// A token that the model does not know.
    #[error("token {token} is not below the vocabulary of {vocabulary}")]
    Token { token: u32, vocabulary: usize },
    /// The arithmetic itself.
    #[error("arithmetic failed: {0}")]
    Compute(String),
    /// A bug in it; the sequence is lost, the executor is not.
    #[error("the executor broke: {0}")]
    Panicked(String),
}

/// Runs a model's arithmetic for as many sequences as it has room for.
pub trait Executor: Send {
    /// What it is, for people: "candle (cpu)".
    fn name(&self) -> &'static str;
    /// Computes the batch and keeps the keys and values of its tokens.
    fn step(&mut self, batch: &Batch) -> Result<Logits, ExecutorError>;
    /// Tokens that one sequence can hold.
    fn context_length(&self) -> usize;
    /// Sequences at once; their ids are `0..sequences()`.
    fn sequences(&self) -> usize;
    /// Forgets a sequence.
    fn release(&mut self, sequence: SequenceId);
    /// What it takes in memory.
    fn bytes(&self) -> Bytes;
    /// What its model takes for other contexts, where it works by a plan.
    fn demand(&self) -> Option<&Demand> {
        None
    }
}

/// Which code runs a model's arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutorKind {
    /// Our own kernels on the CPU.
    #[default]
    Cpu,
    /// The candle library: one sequence, some families; to compare with.
    Candle,
}

/// Loads a model into the executor that the options name. `progress` hears fractions from 0 to 1.
pub fn open(
    network: &Network,
    options: &LoadOptions,
    progress: &mut dyn FnMut(f32),
) -> Result<Box<dyn Executor>, LoadError> {
    Ok(match options.executor {
        ExecutorKind::Cpu => Box::new(CpuExecutor::load(network, options, progress)?),
        ExecutorKind::Candle => {
            Box::new(CandleExecutor::load(network, options, Precision::Packed, progress)?)
        }
    })
}
