//! Whether a variant fits a machine in one way, and what then lies where.

use dsk_daemon_engine::executor::Bytes;
use dsk_daemon_engine::plan::Limits;
use serde::Serialize;

use super::speed::{self, Measured, Speeds};
use super::{Ask, Attempt, Candidate, SPEED_FLOOR, Verdict};
use crate::hardware::{Gpu, Machine, Memory, Vendor};

/// RAM that is left for others: a twentieth of it, and not more than this.
const RAM_RESERVE_MAX: u64 = 1 << 30;
const RAM_RESERVE_SHARE: u64 = 20;
/// Memory of a GPU that is left: a fiftieth, and this much where others use it: a desktop.
const VRAM_RESERVE_SHARE: u64 = 50;
const VRAM_RESERVE_DESKTOP: u64 = 256 << 20;
/// What a process takes on a GPU before it has a model there: the driver's context, loaded kernels.
const VRAM_RUNTIME: u64 = 450 << 20;
/// Older GPUs lack the instructions that kernels are written in.
const COMPUTE_CAPABILITY_MIN: (u32, u32) = (7, 0);

/// Where something lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// RAM.
    Cpu,
    /// The memory of the GPU of this index.
    Gpu(u32),
}

/// What one device takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Share {
    /// The device.
    pub device: Device,
    /// Layers whose attention is computed there.
    pub layers: u32,
    /// Weights.
    pub weights: u64,
    /// Keys and values of the whole context.
    pub kv: u64,
    /// Buffers of a step.
    pub activations: u64,
    /// The process, the tokenizer, the driver's own.
    pub runtime: u64,
}

impl Share {
    /// All of it.
    pub fn total(&self) -> u64 {
        let kinds = [self.kv, self.activations, self.runtime];
        kinds.into_iter().fold(self.weights, u64::saturating_add)
    }

    fn empty(device: Device) -> Share {
        Share { device, layers: 0, weights: 0, kv: 0, activations: 0, runtime: 0 }
    }
}

/// Ways to place a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Vram,
    Split,
    Ram,
}

impl Class {
    pub(super) fn verdict(self) -> Verdict {
        match self {
            Class::Vram => Verdict::FullSpeed,
            Class::Split => Verdict::Partial,
            Class::Ram => Verdict::RamOnly,
        }
    }
}

/// What one device does for a token.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) device: Device,
    /// Bytes of weights that are read.
    pub(super) active: u64,
    /// Layers whose keys and values are read.
    pub(super) kv_layers: usize,
}

/// A placement, as far as its speed is concerned.
#[derive(Debug)]
pub(super) struct Attempted<'a> {
    attempt: &'a Attempt<'a>,
    pub(super) parts: Vec<Part>,
}

impl Attempted<'_> {
    pub(super) fn uses_gpu(&self) -> bool {
        self.parts.iter().any(|part| part.device != Device::Cpu)
    }

    pub(super) fn kv_of(&self, layers: usize, tokens: u64) -> u64 {
        let Attempt { candidate, context, kv, .. } = self.attempt;
        let tokens = tokens.min(u64::from(*context)) as u32;
        let layer = candidate.demand.layer_kv_bytes(*kv, tokens, 1);
        layer.saturating_mul(layers as u64)
    }

    pub(super) fn parameters(&self) -> u64 {
        self.attempt.candidate.demand.parameters.max(1)
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.attempt.candidate.file_bytes
    }

    pub(super) fn tokenizer_bytes(&self) -> u64 {
        self.attempt.candidate.demand.tokenizer
    }

    /// What was seen of the model in RAM says nothing of it elsewhere.
    pub(super) fn measured(&self) -> Option<Measured> {
        self.attempt.candidate.measured.filter(|_| !self.uses_gpu())
    }
}

/// A piece of a model that is not divided.
struct Unit {
    bytes: u64,
    active: u64,
    /// Keys and values of a layer.
    kv: Option<u64>,
}

/// Places a variant, if it fits in that way and, where that is asked, is fast enough.
pub(super) fn place(
    attempt: &Attempt<'_>,
    machine: &Machine,
    ask: &Ask,
) -> Option<(Vec<Share>, Speeds)> {
    let bytes = ram_bytes(attempt.candidate, attempt.context, attempt.kv, machine, ask);
    let (shares, parts) = match attempt.class {
        Class::Ram => in_ram(attempt, bytes),
        Class::Vram => in_vram(attempt, machine, ask, bytes)?,
        Class::Split => split(attempt, machine, ask, bytes)?,
    };
    if !fits(&shares, machine) {
        return None;
    }
    let attempted = Attempted { attempt, parts };
    let speeds = speed::speeds(&attempted, machine, &ask.calibration);
    (!attempt.floor || speeds.decode_tps >= SPEED_FLOOR).then_some((shares, speeds))
}

/// What RAM lacks for a variant, in the way in which it lacks least; what that way takes of RAM.
pub(super) fn missing(attempt: &Attempt<'_>, machine: &Machine, ask: &Ask) -> (u64, u64) {
    let bytes = ram_bytes(attempt.candidate, attempt.context, attempt.kv, machine, ask);
    let own = machine.gpus.iter().filter(|gpu| !gpu.shared_memory).cloned().collect();
    let apart = Machine { gpus: own, ..machine.clone() };
    let split = split(attempt, &apart, ask, bytes).map(|(shares, _)| shares[0].total());
    let needed = split.map_or(bytes.total(), |split| split.min(bytes.total()));
    let wanted = needed.saturating_add(ram_reserve(&machine.memory));
    (wanted.saturating_sub(ram_available(&machine.memory)), needed)
}

/// What a variant takes in RAM, when all of it lies there.
pub(super) fn ram_bytes(
    candidate: &Candidate,
    context: u32,
    kv: dsk_daemon_engine::KvFormat,
    machine: &Machine,
    ask: &Ask,
) -> Bytes {
    let threads = machine.cpu.threads.max(1);
    let bytes = candidate.demand.bytes(&Limits::new(context, ask.sequences.max(1), threads, kv));
    let excess = candidate.measured.map_or(0, |seen| seen.excess_bytes);
    Bytes { runtime: bytes.runtime.saturating_add(excess), ..bytes }
}

fn in_ram(attempt: &Attempt<'_>, bytes: Bytes) -> (Vec<Share>, Vec<Part>) {
    let demand = &attempt.candidate.demand;
    let layers = demand.layers.len();
    let share = Share {
        device: Device::Cpu,
        layers: layers as u32,
        weights: bytes.weights,
        kv: bytes.kv,
        activations: bytes.other,
        runtime: bytes.runtime,
    };
    let part = Part { device: Device::Cpu, active: demand.read_per_token(), kv_layers: layers };
    (vec![share], vec![part])
}

/// The output matrix, the layers, then experts: what is read most for its size comes first.
fn units(attempt: &Attempt<'_>, ask: &Ask) -> Vec<Unit> {
    let Attempt { candidate, context, kv, .. } = attempt;
    let demand = &candidate.demand;
    let sequences = ask.sequences.max(1) as u64;
    let kv = demand.layer_kv_bytes(*kv, *context, sequences);
    let head = if demand.head == 0 { demand.embedding } else { demand.head };
    let vectors = demand.vectors / (demand.layers.len() as u64).max(1) + 1;
    let dense = |&layer: &u64| {
        let bytes = layer.saturating_sub(demand.experts);
        Unit { bytes: bytes.saturating_add(vectors), active: bytes, kv: Some(kv) }
    };
    let active = (demand.experts as f64 * demand.active) as u64;
    let experts = |_: &u64| Unit { bytes: demand.experts, active, kv: None };
    let mut units = vec![Unit { bytes: head, active: head, kv: None }];
    units.extend(demand.layers.iter().map(dense));
    if demand.experts > 0 {
        units.extend(demand.layers.iter().map(experts));
    }
    units
}

/// One device being filled.
struct Filling {
    share: Share,
    part: Part,
    room: u64,
}

impl Filling {
    fn new(device: Device, room: u64, activations: u64, runtime: u64) -> Filling {
        let share = Share { activations, runtime, ..Share::empty(device) };
        Filling { share, part: Part { device, active: 0, kv_layers: 0 }, room }
    }

    fn has_room_for(&self, unit: &Unit) -> bool {
        let more = unit.bytes.saturating_add(unit.kv.unwrap_or(0));
        self.share.total().saturating_add(more) <= self.room
    }

    fn add(&mut self, unit: &Unit) {
        self.share.weights = self.share.weights.saturating_add(unit.bytes);
        self.part.active = self.part.active.saturating_add(unit.active);
        if let Some(kv) = unit.kv {
            self.share.kv = self.share.kv.saturating_add(kv);
            self.share.layers += 1;
            self.part.kv_layers += 1;
        }
    }
}

/// Wholly on GPUs: on the fastest, and what it has no room for on the next.
fn in_vram(
    attempt: &Attempt<'_>,
    machine: &Machine,
    ask: &Ask,
    bytes: Bytes,
) -> Option<(Vec<Share>, Vec<Part>)> {
    let units = units(attempt, ask);
    let (filled, rest) = pour(&gpus(machine), &units, bytes.other);
    if !rest.is_empty() {
        return None;
    }
    Some(with_ram(filled, attempt, bytes, 0))
}

/// As many units as there is room for, from the first on, and those that are left.
fn pour<'u>(gpus: &[&Gpu], units: &'u [Unit], activations: u64) -> (Vec<Filling>, &'u [Unit]) {
    let mut rest = units;
    let mut filled = Vec::new();
    for gpu in gpus {
        let device = Device::Gpu(gpu.index);
        let mut one = Filling::new(device, gpu_room(gpu), activations, VRAM_RUNTIME);
        while let Some((unit, others)) = rest.split_first()
            && one.has_room_for(unit)
        {
            one.add(unit);
            rest = others;
        }
        if one.share.weights > 0 {
            filled.push(one);
        }
    }
    (filled, rest)
}

/// As much as possible on GPUs, the rest in RAM.
fn split(
    attempt: &Attempt<'_>,
    machine: &Machine,
    ask: &Ask,
    bytes: Bytes,
) -> Option<(Vec<Share>, Vec<Part>)> {
    let units = units(attempt, ask);
    // What lies in RAM anyway gains nothing from being called a GPU's.
    let gpus: Vec<_> = gpus(machine).into_iter().filter(|gpu| !gpu.shared_memory).collect();
    let (filled, rest) = pour(&gpus, &units, bytes.other);
    if filled.iter().all(|one| one.part.kv_layers == 0) {
        return None;
    }
    let mut ram = Filling::new(Device::Cpu, u64::MAX, bytes.other, 0);
    rest.iter().for_each(|unit| ram.add(unit));
    let activations = if rest.is_empty() { 0 } else { bytes.other };
    let (mut shares, mut parts) = with_ram(filled, attempt, bytes, activations);
    shares[0] = Share {
        layers: ram.share.layers,
        weights: shares[0].weights.saturating_add(ram.share.weights),
        kv: ram.share.kv,
        ..shares[0]
    };
    parts.push(ram.part);
    Some((shares, parts))
}

/// Adds what lies in RAM in any case: the process, and the embedding, of which a token reads one row.
fn with_ram(
    filled: Vec<Filling>,
    attempt: &Attempt<'_>,
    bytes: Bytes,
    activations: u64,
) -> (Vec<Share>, Vec<Part>) {
    let demand = &attempt.candidate.demand;
    let weights = if demand.head == 0 { 0 } else { demand.embedding };
    let runtime = bytes.runtime;
    let ram = Share { weights, activations, runtime, ..Share::empty(Device::Cpu) };
    let (shares, parts): (Vec<_>, Vec<_>) =
        filled.into_iter().map(|one| (one.share, one.part)).unzip();
    (std::iter::once(ram).chain(shares).collect(), parts)
}

/// Every device has room for its share, and RAM for those of the GPUs that live in it.
fn fits(shares: &[Share], machine: &Machine) -> bool {
    let mut ram = 0u64;
    for share in shares {
        let gpu = |index: u32| machine.gpus.iter().find(|gpu| gpu.index == index);
        match share.device {
            Device::Cpu => ram = ram.saturating_add(share.total()),
            Device::Gpu(index) => match gpu(index) {
                Some(gpu) if gpu.shared_memory => ram = ram.saturating_add(share.total()),
                Some(gpu) if share.total() <= gpu_room(gpu) => {}
                _ => return false,
            },
        }
    }
    ram <= ram_room(&machine.memory)
}

/// GPUs that a plan may use, the fastest first.
pub(super) fn gpus(machine: &Machine) -> Vec<&Gpu> {
    let capable = |gpu: &&Gpu| {
        gpu.vendor == Vendor::Nvidia
            && gpu.fault.is_none()
            && gpu.compute_capability.is_none_or(|has| has >= COMPUTE_CAPABILITY_MIN)
    };
    let mut gpus: Vec<_> = machine.gpus.iter().filter(capable).collect();
    gpus.sort_by_key(|gpu| {
        std::cmp::Reverse((gpu.bandwidth.unwrap_or(0), gpu_room(gpu), std::cmp::Reverse(gpu.index)))
    });
    gpus
}

/// What a model may take of a GPU.
pub(super) fn gpu_room(gpu: &Gpu) -> u64 {
    let desktop = if gpu.memory_others > 0 { VRAM_RESERVE_DESKTOP } else { 0 };
    let reserve = (gpu.memory_total / VRAM_RESERVE_SHARE).max(desktop);
    gpu.memory_free.min(gpu.memory_total).saturating_sub(reserve)
}

/// What a model may take of RAM.
pub(super) fn ram_room(memory: &Memory) -> u64 {
    ram_available(memory).saturating_sub(ram_reserve(memory))
}

fn ram_total(memory: &Memory) -> u64 {
    memory.limit.map_or(memory.total, |limit| limit.min(memory.total))
}

fn ram_available(memory: &Memory) -> u64 {
    memory.available.min(ram_total(memory))
}

fn ram_reserve(memory: &Memory) -> u64 {
    (ram_total(memory) / RAM_RESERVE_SHARE).min(RAM_RESERVE_MAX)
}

/// What a model's layers may take of GPUs.
pub(super) fn room_of_gpus(machine: &Machine) -> u64 {
    let ram = ram_room(&machine.memory);
    let room = |gpu: &Gpu| {
        let room = if gpu.shared_memory { gpu_room(gpu).min(ram) } else { gpu_room(gpu) };
        room.saturating_sub(VRAM_RUNTIME)
    };
    gpus(machine).into_iter().map(room).fold(0, u64::saturating_add)
}
