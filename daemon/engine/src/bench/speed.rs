//! Prompts and generation, timed.

use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use super::{Bench, BenchError, BenchOptions, Decode, Prefill, Progress, Report, Stage, machine};
use crate::executor::{Batch, Executor, ExecutorError, SequenceId};
use crate::gguf::TensorInfo;
use crate::tokenizer::Tokenizer;

/// Draws the same tokens every time.
const SEED: u64 = 0x6473_6b62_656e_6368;
/// Tokens of a step that are not timed: as many as a long prompt is cut into.
const STEP_TOKENS: usize = 512;
/// Steps of generation that come before those that count.
const WARM_STEPS: usize = 4;

/// The times of all repetitions.
#[derive(Debug, Default)]
pub(super) struct Times {
    cold_prefill: Duration,
    prefill: Vec<Duration>,
    decode: Vec<Duration>,
}

/// Measures by turns, so that a machine that slows down does so for both.
pub(super) fn measure(
    bench: &mut Bench,
    options: &BenchOptions,
    progress: Progress,
) -> Result<Times, BenchError> {
    let longest = options.depth + options.prompt_tokens.max(options.generate);
    let tokens = tokens(bench.model.tokenizer(), longest.max(WARM_STEPS));
    let mut runner = Runner { executor: bench.executor.as_mut(), options, tokens };
    let mut times = Times { cold_prefill: runner.warm_up()?, ..Times::default() };
    let of = options.repetitions.max(1);
    for number in 1..=of {
        progress(Stage::Repetition { number, of });
        if options.prompt_tokens > 0 {
            times.prefill.push(runner.prefill()?);
        }
        if options.generate > 0 {
            times.decode.push(runner.decode()?);
        }
    }
    Ok(times)
}

/// Valid tokens that are text and not marks, at random.
fn tokens(tokenizer: &Tokenizer, count: usize) -> Vec<u32> {
    let vocabulary = u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX);
    let plain = |token: &u32| !tokenizer.is_control(*token) && !tokenizer.is_end(*token);
    let candidates: Vec<u32> = (0..vocabulary).filter(plain).collect();
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    match candidates.len() as u64 {
        0 => vec![0; count],
        len => (0..count).map(|_| candidates[(random.next_u64() % len) as usize]).collect(),
    }
}

struct Runner<'a> {
    executor: &'a mut dyn Executor,
    options: &'a BenchOptions,
    tokens: Vec<u32>,
}

impl Runner<'_> {
    /// A turn of each that does not count: memory is touched, threads are awake. The time of the prompt.
    fn warm_up(&mut self) -> Result<Duration, ExecutorError> {
        self.refill(0)?;
        let start = Instant::now();
        if self.options.prompt_tokens > 0 {
            self.feed(0, self.options.prompt_tokens.min(STEP_TOKENS))?;
        }
        let cold = start.elapsed();
        self.refill(0)?;
        let steps = self.options.generate.min(WARM_STEPS);
        (0..steps).try_for_each(|at| self.feed(at, at + 1))?;
        Ok(cold)
    }

    fn prefill(&mut self) -> Result<Duration, ExecutorError> {
        self.refill(self.options.depth)?;
        let start = Instant::now();
        self.feed(self.options.depth, self.options.depth + self.options.prompt_tokens)?;
        Ok(start.elapsed())
    }

    fn decode(&mut self) -> Result<Duration, ExecutorError> {
        let depth = self.options.depth;
        self.refill(depth)?;
        let start = Instant::now();
        (depth..depth + self.options.generate).try_for_each(|at| self.feed(at, at + 1))?;
        Ok(start.elapsed())
    }

    /// Forgets all sequences and gives each `depth` tokens.
    fn refill(&mut self, depth: usize) -> Result<(), ExecutorError> {
        (0..self.options.sequences).for_each(|id| self.executor.release(sequence(id)));
        let mut at = 0;
        while at < depth {
            let end = depth.min(at + STEP_TOKENS);
            self.feed(at, end)?;
            at = end;
        }
        Ok(())
    }

    /// One step with tokens `from..to` of every sequence, and logits for the last of each.
    fn feed(&mut self, from: usize, to: usize) -> Result<(), ExecutorError> {
        let mut batch = Batch::default();
        for id in 0..self.options.sequences {
            batch.push(sequence(id), from, &self.tokens[from..to], true);
        }
        let logits = self.executor.step(&batch)?;
        match logits.row(self.options.sequences - 1) {
            Some(_) => Ok(()),
            None => Err(ExecutorError::Compute("a step gave no logits".to_owned())),
        }
    }
}

fn sequence(id: usize) -> SequenceId {
    // Executors have far fewer.
    SequenceId(id as u32)
}

/// Something to count of a tensor.
type Measure = fn(&TensorInfo) -> u64;

/// What the matrices ask of the machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Work {
    /// Multiply-accumulates of all prompts.
    pub(super) prefill: f64,
    /// Bytes that a step of generation reads, on the mean.
    pub(super) decode: f64,
}

impl Work {
    pub(super) fn of(bench: &Bench, options: &BenchOptions) -> Work {
        let gguf = bench.model.gguf();
        let layers = |of: Measure| {
            let all = gguf.tensors().iter().filter(|tensor| is_matrix(tensor));
            all.filter(|tensor| tensor.name.starts_with("blk.")).map(of).sum::<u64>() as f64
        };
        let head = gguf.tensor("output.weight").or_else(|| gguf.tensor("token_embd.weight"));
        let head = |of: Measure| head.map_or(0, of) as f64;
        let elements: Measure = |tensor| tensor.elements;
        let bytes: Measure = |tensor| tensor.bytes.unwrap_or_default();
        let sequences = options.sequences as f64;
        let prompt = options.prompt_tokens as f64;
        let tokens = (bench.executor.sequences() * bench.executor.context_length()).max(1);
        let token_bytes = bench.executor.bytes().kv as f64 / tokens as f64;
        let held = options.depth as f64 + options.generate as f64 / 2.0;
        Work {
            // The head is computed for the last token of a prompt alone.
            prefill: sequences * (prompt * layers(elements) + head(elements)),
            decode: layers(bytes) + head(bytes) + sequences * held * token_bytes,
        }
    }
}

fn is_matrix(tensor: &TensorInfo) -> bool {
    tensor.shape.iter().filter(|&&size| size > 1).count() >= 2
}

impl Times {
    /// Adds speeds, and their shares of what the machine can do.
    pub(super) fn fill(&self, report: &mut Report, work: &Work, options: &BenchOptions) {
        let sequences = options.sequences as f64;
        if let Some(seconds) = Spread::of(&self.prefill) {
            let peak = machine::integer_peak(options.isa(), options.threads());
            let tokens = sequences * options.prompt_tokens as f64;
            report.prefill = Some(Prefill {
                prefill_tps: tokens / seconds.median,
                prefill_tps_min: tokens / seconds.most,
                prefill_tps_max: tokens / seconds.least,
                ttft_s: seconds.median,
                cold_ttft_s: self.cold_prefill.as_secs_f64(),
                integer_peak_share: Some(work.prefill / seconds.median / peak),
                integer_peak_per_s: Some(peak),
            });
        }
        if let Some(seconds) = Spread::of(&self.decode) {
            let bandwidth = machine::read_bandwidth(options.isa(), options.threads());
            let tokens = sequences * options.generate as f64;
            let bytes = work.decode * options.generate as f64 / seconds.median;
            report.decode = Some(Decode {
                decode_tps: tokens / seconds.median,
                decode_tps_min: tokens / seconds.most,
                decode_tps_max: tokens / seconds.least,
                read_bandwidth_share: bandwidth.map(|bandwidth| bytes / bandwidth),
                read_bandwidth_bytes_per_s: bandwidth,
            });
        }
    }
}

/// Seconds of several repetitions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    pub(super) fn of(times: &[Duration]) -> Option<Spread> {
        let mut seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
        seconds.sort_by(f64::total_cmp);
        let (least, most) = (*seconds.first()?, *seconds.last()?);
        let middle = seconds.len() / 2;
        let median = match seconds.len() % 2 {
            0 => (seconds[middle - 1] + seconds[middle]) / 2.0,
            _ => seconds[middle],
        };
        Some(Spread { median, least, most })
    }
}
