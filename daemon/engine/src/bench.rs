//! How fast a model runs on this machine, and how well it predicts a text: `dsk bench`.
//!
//! Everything is measured through the [`Executor`] seam, as the engine drives it, without sampling:
//! [`run`] feeds token ids that are random, valid and the same every time, and ignores what the model
//! answers. [`perplexity`] scores a text as llama.cpp's tool of that name does, so that the two numbers
//! can be compared.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use dsk_kernels::arch::Isa;
use dsk_kernels::pool;
use serde::Serialize;

use crate::engine::{KvFormat, LoadError, LoadOptions};
use crate::executor::{self, Bytes, Executor, ExecutorError, ExecutorKind};
use crate::model::Model;

mod machine;
mod perplexity;
mod speed;
#[cfg(test)]
mod tests;

/// Contexts shorter than this are refused by executors, in tokens.
const CONTEXT_MIN: usize = 16;

/// How a model is loaded for a measurement, and how long it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchOptions {
    /// Tokens of the prompt of each sequence; 0 leaves the prompt out.
    pub prompt_tokens: usize,
    /// Tokens to generate in each sequence; 0 leaves generation out.
    pub generate: usize,
    /// Tokens that each sequence holds before either.
    pub depth: usize,
    /// Threads; `None` takes as many as the engine does.
    pub threads: Option<usize>,
    /// Sequences that run side by side.
    pub sequences: usize,
    /// How often each measurement is repeated.
    pub repetitions: usize,
    /// The instruction set, by its name; `None` takes the fastest that the processor has.
    pub isa: Option<String>,
    /// How keys and values are kept.
    pub kv: KvFormat,
    /// Which code runs the arithmetic.
    pub executor: ExecutorKind,
}

impl Default for BenchOptions {
    fn default() -> BenchOptions {
        BenchOptions {
            prompt_tokens: 512,
            generate: 128,
            depth: 0,
            threads: None,
            sequences: 1,
            repetitions: 5,
            isa: None,
            kv: KvFormat::F16,
            executor: ExecutorKind::default(),
        }
    }
}

impl BenchOptions {
    fn threads(&self) -> usize {
        self.threads.unwrap_or_else(pool::default_threads).max(1)
    }

    /// The instruction set that an executor takes for these options; it refuses unknown names itself.
    fn isa(&self) -> Isa {
        let named = |name: &String| Isa::ALL.into_iter().find(|isa| isa.name() == name.as_str());
        self.isa.as_ref().and_then(named).unwrap_or_else(Isa::best)
    }

    fn load(&self, context: usize) -> LoadOptions {
        LoadOptions {
            context_length: Some(u32::try_from(context.max(CONTEXT_MIN)).unwrap_or(u32::MAX)),
            threads: Some(self.threads()),
            sequences: Some(self.sequences),
            kv: self.kv,
            isa: self.isa.clone(),
            executor: self.executor,
            ..LoadOptions::default()
        }
    }
}

/// A text to score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerplexityOptions {
    /// The file, UTF-8.
    pub text: PathBuf,
    /// Tokens of a chunk; the second half of each is scored.
    pub context: usize,
    /// Chunks to score; `None` takes all.
    pub chunks: Option<usize>,
    /// Where to write the logits that were scored: rows of f32, little-endian, one after the other.
    pub save_logits: Option<PathBuf>,
}

/// What was measured. Speeds are medians of the repetitions, with the slowest and the fastest one;
/// figures that do not apply are absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// The name or path that was asked for.
    pub model: String,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// The model's family.
    pub architecture: String,
    /// What ran the arithmetic.
    pub executor: String,
    /// The instruction set.
    pub isa: String,
    /// How keys and values were kept.
    pub kv: KvFormat,
    /// Threads.
    pub threads: usize,
    /// Sequences side by side.
    pub sequences: usize,
    /// Tokens of each sequence's prompt.
    pub prompt_tokens: usize,
    /// Tokens generated in each sequence.
    pub generated_tokens: usize,
    /// Tokens held before either.
    pub depth: usize,
    /// Repetitions of each measurement.
    pub repetitions: usize,
    /// Tokens a second through the prompts, of all sequences together.
    #[serde(flatten)]
    pub prefill: Option<Prefill>,
    /// Tokens a second generated, by all sequences together.
    #[serde(flatten)]
    pub decode: Option<Decode>,
    /// Seconds to open the file and have it ready to run.
    pub load_s: f64,
    /// Resident memory of this process after the last run, shared pages of the file included.
    pub resident_bytes: u64,
    /// Of that, the weights, as the executor counts.
    pub weights_bytes: u64,
    /// Of that, keys and values.
    pub kv_bytes: u64,
    /// Scores of a text.
    #[serde(flatten)]
    pub perplexity: Option<Perplexity>,
}

/// The speed of prompts.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Prefill {
    /// Tokens a second.
    pub prefill_tps: f64,
    /// The slowest repetition.
    pub prefill_tps_min: f64,
    /// The fastest repetition.
    pub prefill_tps_max: f64,
    /// Seconds from the prompt's tokens to the logits of the first token of the answer.
    pub ttft_s: f64,
    /// The same for the very first prompt after loading, of at most 512 tokens: memory is touched for
    /// the first time.
    pub cold_ttft_s: f64,
    /// Multiply-accumulates of the matrices a second, as a share of `integer_peak_per_s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integer_peak_share: Option<f64>,
    /// 8-bit multiply-accumulates a second that these threads reach on operands in the cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integer_peak_per_s: Option<f64>,
}

/// The speed of generation.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Decode {
    /// Tokens a second.
    pub decode_tps: f64,
    /// The slowest repetition.
    pub decode_tps_min: f64,
    /// The fastest repetition.
    pub decode_tps_max: f64,
    /// Bytes of weights, keys and values that steps read a second, as a share of
    /// `read_bandwidth_bytes_per_s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_bandwidth_share: Option<f64>,
    /// Bytes a second that a loop reads which does nothing else, on these threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_bandwidth_bytes_per_s: Option<f64>,
}

/// How well the model predicts a text.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Perplexity {
    /// The exponential of the mean negative log-likelihood of a token.
    pub perplexity: f64,
    /// Its standard error.
    pub perplexity_stderr: f64,
    /// Tokens that were scored.
    pub scored_tokens: u64,
    /// Chunks that they are from.
    pub scored_chunks: usize,
    /// Tokens of a chunk.
    pub context_length: usize,
}

/// How far a measurement is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    /// The file is being read; a fraction from 0 to 1.
    Loading(f32),
    /// A repetition begins.
    Repetition { number: usize, of: usize },
    /// A chunk of the text was scored; the perplexity so far.
    Chunk { number: usize, of: usize, perplexity: f64 },
    /// The machine's own speed is being measured.
    Machine,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The model could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A step failed.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// There is nothing to measure.
    #[error("nothing to measure: both the prompt and the generation are empty")]
    Nothing,
    /// More tokens than the model can hold.
    #[error("{needed} tokens do not fit the model's context of {context}")]
    Context { needed: usize, context: usize },
    /// More sequences than the executor can run.
    #[error("{asked} sequences side by side are more than executor {executor} runs ({most})")]
    Sequences { asked: usize, most: usize, executor: String },
    /// The text has less than a chunk.
    #[error("the text has {tokens} tokens, and a chunk has {context}")]
    Short { tokens: usize, context: usize },
    /// A chunk of so few tokens has nothing to score.
    #[error("chunks of {0} tokens are too short to score; 4 are the least")]
    Chunk(usize),
    /// The text cannot be read.
    #[error("cannot read {}", path.display())]
    Text { path: PathBuf, source: io::Error },
    /// The logits cannot be written.
    #[error("cannot write {}", path.display())]
    Save { path: PathBuf, source: io::Error },
}

/// What kind of mistake a [`BenchError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BenchErrorKind {
    /// Options that make no sense, alone or for this model.
    Options,
    /// A file that is not there.
    NotFound,
    /// The model does not fit the memory.
    Memory,
    /// Anything else: a broken or unsupported model, a failed write.
    Other,
}

impl BenchError {
    /// What kind of mistake it is.
    pub fn kind(&self) -> BenchErrorKind {
        match self {
            BenchError::Load(LoadError::Executor(ExecutorError::Memory(_)))
            | BenchError::Executor(ExecutorError::Memory(_)) => BenchErrorKind::Memory,
            BenchError::Text { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                BenchErrorKind::NotFound
            }
            BenchError::Load(
                LoadError::ContextLength { .. } | LoadError::InstructionSet { .. },
            )
            | BenchError::Nothing
            | BenchError::Context { .. }
            | BenchError::Sequences { .. }
            | BenchError::Short { .. }
            | BenchError::Chunk(_) => BenchErrorKind::Options,
            _ => BenchErrorKind::Other,
        }
    }
}

/// Hears how far a measurement is.
pub type Progress<'a> = &'a mut dyn FnMut(Stage);

/// Measures speed: prompts and generation by turns, after one turn that does not count.
pub fn run(
    paths: &[PathBuf],
    options: &BenchOptions,
    progress: Progress,
) -> Result<Report, BenchError> {
    if options.prompt_tokens == 0 && options.generate == 0 {
        return Err(BenchError::Nothing);
    }
    let needed = options.depth.saturating_add(options.prompt_tokens.max(options.generate));
    let mut bench = Bench::load(paths, options, needed, progress)?;
    let times = speed::measure(&mut bench, options, progress)?;
    let mut report = bench.report(paths, options);
    report.prompt_tokens = options.prompt_tokens;
    report.generated_tokens = options.generate;
    report.depth = options.depth;
    report.repetitions = options.repetitions.max(1);
    let work = speed::Work::of(&bench, options);
    // The machine is measured without the model, whose memory it needs.
    drop(bench);
    progress(Stage::Machine);
    times.fill(&mut report, &work, options);
    Ok(report)
}

/// Scores a text.
pub fn perplexity(
    paths: &[PathBuf],
    options: &BenchOptions,
    text: &PerplexityOptions,
    progress: Progress,
) -> Result<Report, BenchError> {
    if text.context < 4 {
        return Err(BenchError::Chunk(text.context));
    }
    let source = fs::read_to_string(&text.text)
        .map_err(|source| BenchError::Text { path: text.text.clone(), source })?;
    let options = BenchOptions { sequences: 1, ..options.clone() };
    let mut bench = Bench::load(paths, &options, text.context, progress)?;
    let score = perplexity::score(&mut bench, &options, text, &source, progress)?;
    let mut report = bench.report(paths, &options);
    report.perplexity = Some(score);
    Ok(report)
}

/// Loads a model with a context of so many tokens, takes all the memory that it will ever use, and
/// compares that with what was computed before.
pub fn memory(
    paths: &[PathBuf],
    options: &BenchOptions,
    context: usize,
    progress: Progress,
) -> Result<MemoryReport, BenchError> {
    let load = LoadOptions { reserve: true, ..options.load(context) };
    let (model, executor) = Model::open_while(paths, |network| {
        executor::open(network, &load, &mut |done| progress(Stage::Loading(done)))
    })
    .map_err(LoadError::from)?;
    let mut bench = Bench { model, executor: executor?, load_s: 0.0 };
    let steps = BenchOptions { prompt_tokens: context.min(256), generate: 2, ..options.clone() };
    speed::measure(&mut bench, &BenchOptions { repetitions: 1, ..steps }, progress)?;
    let predicted = bench.executor.bytes();
    Ok(MemoryReport {
        model: first(paths),
        context: bench.executor.context_length(),
        kv: options.kv,
        sequences: options.sequences,
        threads: options.threads(),
        predicted,
        predicted_bytes: predicted.total(),
        measured_bytes: machine::anonymous_bytes(),
    })
}

/// What a loaded model was computed to take, and what it takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemoryReport {
    /// The path that was asked for.
    pub model: String,
    /// Tokens of context.
    pub context: usize,
    /// How keys and values were kept.
    pub kv: KvFormat,
    /// Sequences side by side.
    pub sequences: usize,
    /// Threads.
    pub threads: usize,
    /// What the plan says, by kind.
    pub predicted: Bytes,
    /// The same in all.
    pub predicted_bytes: u64,
    /// Memory that only this process has, with every buffer in use.
    pub measured_bytes: u64,
}

/// What to call a model by its files.
fn first(paths: &[PathBuf]) -> String {
    paths.first().map(|path| path.display().to_string()).unwrap_or_default()
}

/// A loaded model, and how long that took.
struct Bench {
    model: Model,
    executor: Box<dyn Executor>,
    load_s: f64,
}

impl Bench {
    /// Loads the model with room for `needed` tokens in each sequence.
    fn load(
        paths: &[PathBuf],
        options: &BenchOptions,
        needed: usize,
        progress: Progress,
    ) -> Result<Bench, BenchError> {
        let start = Instant::now();
        let opened = Model::open_while(paths, |network| {
            let context = network.header().context_length as usize;
            if needed > context {
                return Err(BenchError::Context { needed, context });
            }
            let told = &mut |done| progress(Stage::Loading(done));
            Ok(executor::open(network, &options.load(needed), told)?)
        });
        let (model, executor) = opened.map_err(LoadError::from)?;
        let executor = executor?;
        let load_s = start.elapsed().as_secs_f64();
        let bench = Bench { model, executor, load_s };
        bench.check(options, needed)?;
        Ok(bench)
    }

    /// That the executor gave what was asked for.
    fn check(&self, options: &BenchOptions, needed: usize) -> Result<(), BenchError> {
        let (asked, most) = (options.sequences, self.executor.sequences());
        if asked > most {
            let executor = self.executor.name().to_owned();
            return Err(BenchError::Sequences { asked, most, executor });
        }
        let context = self.executor.context_length();
        if needed > context { Err(BenchError::Context { needed, context }) } else { Ok(()) }
    }

    /// The facts that every measurement reports, as of now.
    fn report(&self, paths: &[PathBuf], options: &BenchOptions) -> Report {
        let bytes = self.executor.bytes();
        Report {
            model: first(paths),
            file_bytes: self.model.gguf().file_len(),
            architecture: self.model.architecture().to_owned(),
            executor: self.executor.name().to_owned(),
            isa: options.isa().name().to_owned(),
            kv: options.kv,
            threads: options.threads(),
            sequences: options.sequences,
            load_s: self.load_s,
            resident_bytes: machine::resident_bytes(),
            weights_bytes: bytes.weights,
            kv_bytes: bytes.kv,
            ..Report::default()
        }
    }
}
