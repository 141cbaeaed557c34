//! The CPU executor: runs a [`Plan`] on our own kernels, for several sequences at once.
//!
//! A step is one run of the pool over the plan's operations; each operation is cut into chunks that
//! workers claim (`cpu/step.rs`). What one token gives does not depend on the others of the batch,
//! on how they were cut into steps, or on the number of workers: every kernel does the same
//! operations in the same order for a token, wherever it lies.

use std::sync::Mutex;

use dsk_kernels::arch::Isa;
use dsk_kernels::attention;
use dsk_kernels::matmul;
use dsk_kernels::pool::{self, Pool};
use dsk_kernels::rope::Rope;
use dsk_kernels::shared::Shared;

use super::{Batch, Bytes, Executor, ExecutorError, Logits, SequenceId};
use crate::demand::Demand;
use crate::engine::{LoadError, LoadOptions};
use crate::model::{Header, Network};
use crate::plan::{Limits, Op, PanelChunk, Plan, chunks_of};

mod buffers;
mod load;
mod memory;
mod ropes;
mod sequences;
mod step;

use buffers::Buffers;
use load::Weights;
use sequences::Sequences;

/// The context of a request that names none, in tokens.
const CONTEXT_DEFAULT: u32 = 4096;
/// Less context than this holds no conversation, in tokens.
const CONTEXT_MIN: u32 = 16;
/// Sequences at once, where the options name no number.
const SEQUENCES_DEFAULT: usize = 1;
/// Sequences at once, at most.
const SEQUENCES_MAX: usize = 256;
/// Workers, at most.
const THREADS_MAX: usize = 1024;

/// The heads of a layer.
#[derive(Clone, Copy, Debug)]
struct Heads {
    kv: usize,
    /// Query heads that share a head of keys and values.
    group: usize,
    key: usize,
    value: usize,
}

/// Memory of one worker.
#[derive(Debug, Default)]
struct Scratch {
    matmul: matmul::Scratch,
    attention: attention::Scratch,
    /// Results of a matrix before they are added, multiplied or rounded; two for gate and partner.
    tiles: [Vec<f32>; 2],
    row: Vec<f32>,
}

/// A loaded model on the CPU.
#[derive(Debug)]
pub(crate) struct CpuExecutor {
    isa: Isa,
    header: Header,
    plan: Plan,
    weights: Weights,
    heads: Heads,
    /// Rotations: of most layers, and of those with a window where the family has two.
    ropes: Vec<Rope>,
    /// How the matrices of each operation are cut.
    pieces: Vec<Vec<PanelChunk>>,
    /// Keys and values of each layer: a row a head, a tile a block of tokens.
    cache: Vec<Shared<u8>>,
    sequences: Sequences,
    buffers: Buffers,
    scratch: Vec<Mutex<Scratch>>,
    pool: Pool,
}

impl CpuExecutor {
    /// Packs the model's weights; refuses what does not fit into memory before it takes any.
    pub(crate) fn load(
        network: &Network,
        options: &LoadOptions,
        progress: &mut dyn FnMut(f32),
    ) -> Result<CpuExecutor, LoadError> {
        let header = network.header();
        let isa = choose_isa(options.isa.as_deref())?;
        let limits = limits(options, header)?;
        let plan = Plan::new(network.gguf(), header, limits)?;
        memory::check(plan.bytes())?;
        let weights = Weights::load(network.gguf(), &plan, progress)?;
        let ropes = ropes::ropes(network.gguf(), header, limits.context)?;
        let executor = CpuExecutor::new(isa, header.clone(), plan, weights, ropes);
        if options.reserve {
            executor.cache.iter().for_each(buffers::touch);
            executor.buffers.touch();
        }
        Ok(executor)
    }

    fn new(isa: Isa, header: Header, plan: Plan, weights: Weights, ropes: Vec<Rope>) -> Self {
        let limits = plan.limits;
        let heads = Heads {
            kv: header.head_count_kv as usize,
            group: (header.head_count / header.head_count_kv) as usize,
            key: header.key_length as usize,
            value: header.value_length as usize,
        };
        let layer = || Shared::new(heads.kv, plan.blocks() * plan.tile_bytes);
        CpuExecutor {
            isa,
            heads,
            ropes,
            pieces: plan.ops.iter().map(|&op| pieces(&plan, op)).collect(),
            cache: plan.layers.iter().map(|_| layer()).collect(),
            sequences: Sequences::new(limits.sequences, limits.context, plan.blocks()),
            buffers: Buffers::new(&plan, header.architecture.post_norms),
            scratch: (0..limits.threads).map(|_| Mutex::default()).collect(),
            pool: Pool::new(limits.threads),
            header,
            plan,
            weights,
        }
    }

    /// Checks tokens, and makes room for them.
    fn admit(&mut self, batch: &Batch) -> Result<(), ExecutorError> {
        let vocabulary = self.plan.widths.vocabulary;
        if let Some(&token) = batch.tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(ExecutorError::Token { token, vocabulary });
        }
        let ascending = batch.logits.is_sorted_by(|a, b| a < b);
        if !ascending || batch.logits.last().is_some_and(|&row| row >= batch.tokens.len()) {
            let text = "the rows that want logits are not ascending rows of it";
            return Err(ExecutorError::Batch(text.to_owned()));
        }
        self.sequences.extend(batch)
    }
}

impl Executor for CpuExecutor {
    fn name(&self) -> &'static str {
        match self.isa.name() {
            "avx2" => "cpu (avx2)",
            "avxvnni" => "cpu (avxvnni)",
            "avx512" => "cpu (avx512)",
            "avx512bf16" => "cpu (avx512bf16)",
            "neon" => "cpu (neon)",
            "neon-i8mm" => "cpu (neon-i8mm)",
            _ => "cpu (scalar)",
        }
    }

    fn step(&mut self, batch: &Batch) -> Result<Logits, ExecutorError> {
        self.admit(batch)?;
        let mut logits = Logits::new(self.plan.widths.vocabulary);
        for part in step::parts(batch, self.plan.limits.step_tokens) {
            self.run(&part, &mut logits)?;
        }
        self.sequences.commit(batch);
        Ok(logits)
    }

    fn context_length(&self) -> usize {
        self.plan.limits.context
    }

    fn sequences(&self) -> usize {
        self.sequences.count()
    }

    fn release(&mut self, sequence: SequenceId) {
        self.sequences.release(sequence);
    }

    fn bytes(&self) -> Bytes {
        self.plan.bytes()
    }

    fn demand(&self) -> Option<&Demand> {
        Some(self.plan.demand())
    }
}

/// The pieces of the matrices of an operation.
fn pieces(plan: &Plan, op: Op) -> Vec<PanelChunk> {
    let matrices: Vec<_> = match op {
        Op::Project(layer) => {
            let layer = &plan.layers[layer];
            vec![layer.query, layer.key, layer.value]
        }
        Op::AttentionOutput(layer) => vec![plan.layers[layer].output],
        // The gate's pieces; each also does the same panels of its partner.
        Op::GateUp(layer) => vec![plan.layers[layer].gate],
        Op::Down(layer) => vec![plan.layers[layer].down],
        Op::Logits => vec![plan.head],
        _ => Vec::new(),
    };
    // What the gate gives is rounded where it is computed, in whole blocks.
    let unit = match op {
        Op::GateUp(_) => plan.gated.unit_panels(),
        _ => 1,
    };
    let matrices: Vec<_> = matrices.into_iter().map(|id| (id, plan.matrix(id))).collect();
    chunks_of(&matrices, unit, plan.limits.threads)
}

fn choose_isa(name: Option<&str>) -> Result<Isa, LoadError> {
    let Some(name) = name else { return Ok(Isa::best()) };
    let available: Vec<_> = Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect();
    available.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
        let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
        let names = names.join(", ");
        LoadError::InstructionSet { asked: name.to_owned(), available: names }
    })
}

fn limits(options: &LoadOptions, header: &Header) -> Result<Limits, LoadError> {
    let threads = options.threads.unwrap_or_else(pool::default_threads).clamp(1, THREADS_MAX);
    let sequences = options.sequences.unwrap_or(SEQUENCES_DEFAULT).clamp(1, SEQUENCES_MAX);
    let context = choose_context(options.context_length, header.context_length)?;
    let weights = options.weights;
    Ok(Limits { weights, ..Limits::new(context, sequences, threads, options.kv) })
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

#[cfg(test)]
mod families_tests;
#[cfg(test)]
mod tests;
