//! What to expect of a plan: seconds to load, tokens a second.
//!
//! Generation reads every weight that a token uses once, so it takes what memory takes to deliver them,
//! and some time a layer besides. Prompts are multiplied, so they take what arithmetic takes. Both rates
//! are this machine's own where it has measured them ([`Calibration`]), and rough figures by the kind of
//! processor where it has not; what was seen of a model itself comes before either ([`Measured`]).

use serde::{Deserialize, Serialize};

use super::place::{Attempted, Device};
use crate::hardware::{Cpu, Gpu, Machine};

/// Tokens that are held already where speed is told.
const DEPTH: u64 = 512;
/// The share of a memory's bandwidth that generation reaches: RAM, the memory of a GPU.
const RAM_SHARE: f64 = 0.9;
const VRAM_SHARE: f64 = 0.6;
/// Seconds of a layer that are not reading: on a CPU, on a GPU.
const CPU_LAYER_SECONDS: f64 = 50e-6;
const GPU_LAYER_SECONDS: f64 = 25e-6;
/// How much [`CPU_LAYER_SECONDS`] counts against what was seen: as figures that are 10 % off count against
/// a guess that is 100 % off. Speeds of models that hardly differ in size say nothing of layers.
const LAYER_WEIGHT: f64 = 0.1 * 0.1;
/// The bandwidth of RAM where it was not measured: a thread's, and a machine's.
const THREAD_BANDWIDTH: f64 = 10e9;
const RAM_BANDWIDTH: f64 = 30e9;
/// The bandwidth of a GPU of which nothing is known: a small one's.
const GPU_BANDWIDTH: f64 = 200e9;
/// Multiply-accumulates of prompts for each byte a second of a GPU's bandwidth.
const GPU_MULTIPLIES_PER_BYTE: f64 = 30.0;
/// Multiply-accumulates a second of one core, by the best instruction set it has.
const CORE_MULTIPLIES: &[(&str, f64)] = &[
    ("avx512_vnni", 1.6e11),
    ("avx_vnni", 1.1e11),
    ("avx2", 0.7e11),
    ("i8mm", 1.0e11),
    ("asimddp", 0.5e11),
];
const CORE_MULTIPLIES_LEAST: f64 = 0.05e11;
/// What a second thread of a core adds.
const SMT_GAIN: f64 = 0.2;
/// Bytes of a file a second that one thread packs, and as many of them as help.
const PACK_RATE: f64 = 2e9;
const PACK_THREADS_MAX: usize = 8;
/// Bytes of a tokenizer a second that are made, by one thread beside those that pack.
const TOKENIZER_RATE: f64 = 130e6;
/// Bytes a second to a GPU.
const BUS_RATE: f64 = 10e9;
/// Bytes a second of a disk that was not measured.
const DISK_RATE: f64 = 1e9;
/// Seconds of a load that do not depend on its size: the process, its confinement.
const START_SECONDS: f64 = 0.01;

/// Where the figures come from, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// This model ran here.
    Measured,
    /// Other models ran here.
    Calibrated,
    /// The machine's description alone.
    Estimated,
}

/// What to expect.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Speeds {
    /// Seconds from the file to a model that answers; once loads were seen here, for a file that the
    /// system holds in memory, as it does after a pull or an earlier load.
    pub load_seconds: f64,
    /// Tokens of a prompt a second.
    pub prefill_tps: f64,
    /// Tokens generated a second, for one conversation that is not long yet.
    pub decode_tps: f64,
    /// Where the figures come from.
    pub basis: Basis,
}

/// What was seen of one model on this machine's CPU. Absent is what was not seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Seconds of its load.
    pub load_seconds: Option<f64>,
    /// Tokens of a prompt a second.
    pub prefill_tps: Option<f64>,
    /// Tokens generated a second.
    pub decode_tps: Option<f64>,
    /// Bytes that it took beyond what was promised.
    #[serde(default)]
    pub excess_bytes: u64,
}

impl Measured {
    /// What is absent here is as `before`; the largest excess counts.
    pub(crate) fn with(&self, before: &Measured) -> Measured {
        Measured {
            load_seconds: self.load_seconds.or(before.load_seconds),
            prefill_tps: self.prefill_tps.or(before.prefill_tps),
            decode_tps: self.decode_tps.or(before.decode_tps),
            excess_bytes: self.excess_bytes.max(before.excess_bytes),
        }
    }
}

/// What this machine's CPU does, as the models that ran on it have shown. Absent is what is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Bytes of weights a second that generation reads.
    pub read_rate: Option<f64>,
    /// Seconds of a layer besides.
    pub layer_seconds: Option<f64>,
    /// Multiply-accumulates a second of prompts.
    pub multiply_rate: Option<f64>,
    /// How many times longer loads take than is estimated.
    pub load_factor: Option<f64>,
}

/// A model that ran, for [`Calibration::of`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Bytes read for a token.
    pub read: u64,
    /// Layers.
    pub layers: usize,
    /// Weights that a token is multiplied with.
    pub parameters: u64,
    /// The size of its file.
    pub file_bytes: u64,
    /// Bytes of its tokenizer.
    pub tokenizer: u64,
    /// What was seen of it.
    pub measured: Measured,
}

impl Sample {
    /// Everything that was seen is a positive number.
    fn makes_sense(&self) -> bool {
        let Measured { load_seconds, prefill_tps, decode_tps, .. } = self.measured;
        let positive = |value: f64| value.is_normal() && value > 0.0;
        self.read > 0
            && self.layers > 0
            && [load_seconds, prefill_tps, decode_tps].into_iter().flatten().all(positive)
    }
}

impl Calibration {
    /// The rates under which the samples, taken with so many threads, come out best: by least squares
    /// over relative errors where there are two unknowns, by the median where there is one.
    pub fn of(samples: &[Sample], threads: usize) -> Calibration {
        let samples: Vec<_> = samples.iter().copied().filter(Sample::makes_sense).collect();
        let (seconds_per_byte, layer_seconds) = decode_line(&samples).unzip();
        let multiply = |one: &Sample| Some(one.measured.prefill_tps? * one.parameters as f64);
        let load = |one: &Sample| {
            Some(one.measured.load_seconds? / load_estimate(one.file_bytes, one.tokenizer, threads))
        };
        Calibration {
            read_rate: seconds_per_byte.map(|seconds: f64| 1.0 / seconds),
            layer_seconds,
            multiply_rate: median(samples.iter().filter_map(multiply)),
            load_factor: median(samples.iter().filter_map(load)),
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let (low, high) =
        (values.get(values.len().saturating_sub(1) / 2)?, values.get(values.len() / 2)?);
    Some((low + high) / 2.0)
}

/// Seconds a byte and seconds a layer; `None` where nothing was seen.
fn decode_line(samples: &[Sample]) -> Option<(f64, f64)> {
    // Minimizes the sum of (a * read + b * layers - t)² / t², and b's distance from the guess.
    let (mut rr, mut rl, mut ll, mut rt, mut lt) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for one in samples {
        let Some(tps) = one.measured.decode_tps.filter(|tps| *tps > 0.0) else { continue };
        let (read, layers) = (one.read as f64 * tps, one.layers as f64 * tps);
        rr += read * read;
        rl += read * layers;
        ll += layers * layers;
        rt += read;
        lt += layers;
    }
    ll += LAYER_WEIGHT / CPU_LAYER_SECONDS.powi(2);
    lt += LAYER_WEIGHT / CPU_LAYER_SECONDS;
    let determinant = rr * ll - rl * rl;
    if determinant <= 0.0 {
        return None;
    }
    let (per_byte, layer) = ((rt * ll - lt * rl) / determinant, (lt * rr - rt * rl) / determinant);
    match per_byte > 0.0 && layer >= 0.0 {
        true => Some((per_byte, layer)),
        // Layers that cost less than nothing cost nothing.
        false => Some((rt / rr, 0.0)),
    }
}

/// What to expect of a placement.
pub(super) fn speeds(
    attempted: &Attempted<'_>,
    machine: &Machine,
    calibration: &Calibration,
) -> Speeds {
    let seen = attempted.measured().unwrap_or_default();
    let decode = seen.decode_tps.unwrap_or_else(|| 1.0 / decode(attempted, machine, calibration));
    let prefill = seen.prefill_tps.unwrap_or_else(|| prefill(attempted, machine, calibration));
    let load = seen.load_seconds.unwrap_or_else(|| load(attempted, machine, calibration));
    let basis = match (seen.decode_tps, calibration.read_rate) {
        (Some(_), _) => Basis::Measured,
        (None, Some(_)) if !attempted.uses_gpu() => Basis::Calibrated,
        _ => Basis::Estimated,
    };
    Speeds { load_seconds: load, prefill_tps: prefill, decode_tps: decode, basis }
}

/// Seconds of one token.
fn decode(attempted: &Attempted<'_>, machine: &Machine, calibration: &Calibration) -> f64 {
    let seconds = attempted.parts.iter().map(|part| {
        let kv = attempted.kv_of(part.kv_layers, DEPTH);
        let bytes = part.active as f64 + kv as f64;
        let (rate, layer) = match part.device {
            Device::Cpu => (
                calibration.read_rate.unwrap_or_else(|| ram_rate(machine)),
                calibration.layer_seconds.unwrap_or(CPU_LAYER_SECONDS),
            ),
            Device::Gpu(index) => (gpu_rate(machine, index) * VRAM_SHARE, GPU_LAYER_SECONDS),
        };
        bytes / rate + layer * part.kv_layers as f64
    });
    seconds.sum::<f64>().max(1e-9)
}

/// Tokens a second of prompts.
fn prefill(attempted: &Attempted<'_>, machine: &Machine, calibration: &Calibration) -> f64 {
    let all: u64 = attempted.parts.iter().map(|part| part.active).sum();
    let seconds = attempted.parts.iter().map(|part| {
        let share = part.active as f64 / (all as f64).max(1.0);
        let multiplies = share * attempted.parameters() as f64;
        multiplies
            / match part.device {
                Device::Cpu => {
                    calibration.multiply_rate.unwrap_or_else(|| multiply_rate(&machine.cpu))
                }
                Device::Gpu(index) => gpu_rate(machine, index) * GPU_MULTIPLIES_PER_BYTE,
            }
    });
    1.0 / seconds.sum::<f64>().max(1e-9)
}

/// Seconds of a load.
fn load(attempted: &Attempted<'_>, machine: &Machine, calibration: &Calibration) -> f64 {
    let (file, tokenizer) = (attempted.file_bytes(), attempted.tokenizer_bytes());
    let estimate = load_estimate(file, tokenizer, machine.cpu.threads);
    match calibration.load_factor {
        Some(factor) if !attempted.uses_gpu() => factor * estimate,
        _ => estimate.max(file as f64 / read_from(attempted, machine)),
    }
}

/// Seconds of a load from memory: the tokenizer is made while the other threads pack.
fn load_estimate(file_bytes: u64, tokenizer: u64, threads: usize) -> f64 {
    let tokens = tokenizer as f64 / TOKENIZER_RATE;
    let work = tokens + file_bytes as f64 / PACK_RATE;
    START_SECONDS + tokens.max(work / threads.clamp(1, PACK_THREADS_MAX) as f64)
}

/// Bytes a second that the weights come in where nothing of them is in memory yet.
fn read_from(attempted: &Attempted<'_>, machine: &Machine) -> f64 {
    let disk =
        machine.disk.as_ref().and_then(|disk| disk.read_rate).map_or(DISK_RATE, |rate| rate as f64);
    disk.min(if attempted.uses_gpu() { BUS_RATE } else { f64::INFINITY }).max(1.0)
}

fn ram_rate(machine: &Machine) -> f64 {
    let guess = (THREAD_BANDWIDTH * machine.cpu.threads.max(1) as f64).min(RAM_BANDWIDTH);
    RAM_SHARE * machine.memory.bandwidth.filter(|rate| *rate > 0).map_or(guess, |rate| rate as f64)
}

pub(super) fn gpu_rate(machine: &Machine, index: u32) -> f64 {
    let gpu = machine.gpus.iter().find(|gpu: &&Gpu| gpu.index == index);
    let known = gpu.and_then(|gpu| gpu.bandwidth).filter(|rate| *rate > 0);
    known.map_or(GPU_BANDWIDTH, |rate| rate as f64)
}

fn multiply_rate(cpu: &Cpu) -> f64 {
    let has = |name: &str| cpu.features.iter().any(|feature| feature == name);
    let best = CORE_MULTIPLIES.iter().find(|(name, _)| has(name));
    let core = best.map_or(CORE_MULTIPLIES_LEAST, |(_, rate)| *rate);
    let threads = cpu.threads.max(1);
    let cores = if cpu.cores == 0 { threads } else { cpu.cores.min(threads) };
    core * (cores as f64 + SMT_GAIN * (threads - cores) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(read: u64, layers: usize, decode_tps: f64) -> Sample {
        let measured = Measured { decode_tps: Some(decode_tps), ..Measured::default() };
        Sample { read, layers, parameters: read * 2, file_bytes: read, tokenizer: 0, measured }
    }

    #[test]
    fn two_models_of_different_sizes_tell_the_rate_and_the_layers_apart() {
        // 20 GB/s and 80 microseconds a layer.
        let tps = |read: f64, layers: f64| 1.0 / (read / 20e9 + layers * 80e-6);
        let samples = [
            sample(100_000_000, 30, tps(1e8, 30.0)),
            sample(900_000_000, 28, tps(9e8, 28.0)),
            sample(4_000_000_000, 28, tps(4e9, 28.0)),
        ];
        let found = Calibration::of(&samples, 2);
        assert!((found.read_rate.unwrap() / 20e9 - 1.0).abs() < 0.02, "{found:?}");
        assert!((found.layer_seconds.unwrap() / 80e-6 - 1.0).abs() < 0.1, "{found:?}");
        // One model tells the rate alone.
        let one = Calibration::of(&samples[1..2], 2);
        assert!((one.layer_seconds.unwrap() / CPU_LAYER_SECONDS - 1.0).abs() < 0.05, "{one:?}");
        assert!((one.read_rate.unwrap() / 20e9 - 1.0).abs() < 0.05, "{one:?}");
        assert_eq!(Calibration::of(&[], 2), Calibration::default());
    }

    #[test]
    fn noise_in_models_that_hardly_differ_does_not_pass_for_layers() {
        // Two models as they ran on a machine, one of them up to 20 % off, and a third, smaller one.
        for noise in [0.8, 0.9, 1.0, 1.1] {
            let seen = [sample(391_573_504, 24, 62.8), sample(979_517_952, 28, 27.2 * noise)];
            let found = Calibration::of(&seen, 2);
            let seconds =
                96_436_224.0 / found.read_rate.unwrap() + 30.0 * found.layer_seconds.unwrap();
            let error = 1.0 / seconds / 204.0 - 1.0;
            assert!(error.abs() < 0.15, "{noise}: {error}, {found:?}");
        }
    }

    #[test]
    fn loads_are_judged_by_weights_and_tokenizers_alike() {
        // As recorded on a machine with two threads: bytes of the file and the tokenizer, seconds.
        let seen = [
            (98 << 20, 11_200_000, 0.10),
            (491_000_000, 35_000_000, 0.325),
            (1_117_000_000, 35_000_000, 0.44),
        ];
        let sample = |(file_bytes, tokenizer, seconds): (u64, u64, f64)| Sample {
            file_bytes,
            tokenizer,
            measured: Measured { load_seconds: Some(seconds), ..Measured::default() },
            ..sample(1, 1, 1.0)
        };
        for (index, (file, tokenizer, seconds)) in seen.into_iter().enumerate() {
            let others = seen.iter().enumerate().filter(|(other, _)| *other != index);
            let others: Vec<_> = others.map(|(_, &one)| sample(one)).collect();
            let factor = Calibration::of(&others, 2).load_factor.unwrap();
            let error = factor * load_estimate(file, tokenizer, 2) / seconds - 1.0;
            assert!(error.abs() < 0.2, "{file} bytes: {error}");
        }
        let factor = |seconds| {
            let one = sample((491_000_000, 35_000_000, seconds));
            Calibration::of(&[one], 2).load_factor.unwrap()
        };
        assert!((factor(3.4) / factor(0.34) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn what_makes_no_sense_is_not_learned_from() {
        let nonsense = [sample(1000, 30, f64::INFINITY), sample(0, 0, 0.0), sample(1, 1, f64::NAN)];
        let found = Calibration::of(&nonsense, 2);
        assert_eq!((found.read_rate, found.layer_seconds), (None, None), "{found:?}");
    }
}
