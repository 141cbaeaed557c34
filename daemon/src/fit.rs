//! Which variant of a model, at what context, on which devices: the planner.
//!
//! One pure function. It knows a model by its [`Demand`], which is what the engine allocates by, a machine
//! by [`Machine`], and what the caller wants by [`Ask`]. Pulls ask it for a variant, loads for a placement,
//! `dsk fit` for both.
//!
//! Everything that could be done is tried in the order of preference, and the first that fits is taken
//! ([`attempts`]): the context that was asked for before any shorter one; wholly in the memory of GPUs,
//! then split if that is fast enough, then RAM; keys and values in half precision before 8 bits; the best
//! quality that is fast enough first, and where none is, the smallest. What fits depends on memory alone in one direction, so more memory never gives a plan
//! that comes later in the order.

use dsk_daemon_engine::KvFormat;
use serde::Serialize;

use crate::hardware::Machine;

mod candidate;
mod place;
mod reasons;
mod speed;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;

pub use candidate::{Candidate, CandidateError, quality};
pub use place::{Device, Share};
pub use speed::{Basis, Calibration, Measured, Sample, Speeds};

use place::{Class, place};

/// Tokens of context that are aimed for when none are asked for.
pub const CONTEXT_TARGET: u32 = 8192;
/// Shorter ones, which are taken before none.
pub(crate) const CONTEXTS_SHORTER: [u32; 2] = [4096, 2048];
/// Tokens a second that a model should reach: somewhat faster than people read, as
/// reasoning models write a lot that nobody reads.
pub const SPEED_FLOOR: f64 = 8.0;

/// What the caller wants.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// Tokens of context; `None` takes [`CONTEXT_TARGET`], or less before nothing fits.
    pub context: Option<u32>,
    /// How keys and values are kept; `None` takes half precision where that fits.
    pub kv: Option<KvFormat>,
    /// This variant and no other.
    pub quant: Option<String>,
    /// Conversations at once; 0 and 1 are one.
    pub sequences: usize,
    /// What is known of this machine's speed.
    pub calibration: Calibration,
}

/// How well a plan suits a machine, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Wholly in the memory of GPUs.
    FullSpeed,
    /// Partly in the memory of GPUs.
    Partial,
    /// In RAM.
    RamOnly,
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fit {
    /// The label of the candidate: `Q4_K_M`.
    pub variant: String,
    /// The size of its file.
    pub file_bytes: u64,
    /// Tokens of context.
    pub context: u32,
    /// How keys and values are kept.
    pub kv: KvFormat,
    /// How well it suits.
    pub verdict: Verdict,
    /// What lies where. RAM is always among them.
    pub devices: Vec<Share>,
    /// What to expect.
    pub speeds: Speeds,
    /// Why this one, in words; what was given up for it.
    pub reasons: Vec<String>,
    /// Its place in the order of preference, for comparing plans of the same candidates: less is better.
    #[serde(skip)]
    pub rank: usize,
}

impl Fit {
    /// The bytes of all devices.
    pub fn total_bytes(&self) -> u64 {
        self.devices.iter().map(Share::total).fold(0, u64::saturating_add)
    }
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Serialize, thiserror::Error)]
#[error("{}", reasons::misfit(self))]
pub struct Misfit {
    /// The variant that came closest: the smallest of those that were allowed.
    pub variant: String,
    /// Tokens of context that it was tried with.
    pub context: u32,
    /// What it takes, in all.
    pub needed: u64,
    /// What of that can be had.
    pub available: u64,
    /// With so much more of free RAM it would fit.
    pub shortfall: u64,
    /// The part that GPUs would hold.
    pub on_gpus: u64,
    /// It would fit if nothing else used the machine's memory.
    pub fits_alone: bool,
    /// What would fit if the variant or the context were free: variant and context.
    pub alternative: Option<(String, u32)>,
}

/// Plans for one model that comes in several variants.
///
/// # Panics
///
/// Without candidates.
pub fn fit(candidates: &[Candidate], machine: &Machine, ask: &Ask) -> Result<Fit, Misfit> {
    assert!(!candidates.is_empty(), "a model has at least one variant");
    first(candidates, machine, ask).ok_or_else(|| misfit(candidates, machine, ask))
}

/// The first attempt that fits.
fn first(candidates: &[Candidate], machine: &Machine, ask: &Ask) -> Option<Fit> {
    let allowed = allowed(candidates, ask);
    for (rank, attempt) in attempts(&allowed, ask).into_iter().enumerate() {
        if let Some((devices, speeds)) = place(&attempt, machine, ask) {
            let reasons = reasons::of(&attempt, &devices, &allowed, machine, ask, &speeds);
            return Some(Fit {
                variant: attempt.candidate.label.clone(),
                file_bytes: attempt.candidate.file_bytes,
                context: attempt.context,
                kv: attempt.kv,
                verdict: attempt.class.verdict(),
                devices,
                speeds,
                reasons,
                rank,
            });
        }
    }
    None
}

/// The candidates that the caller would have, best quality first.
fn allowed<'a>(candidates: &'a [Candidate], ask: &Ask) -> Vec<&'a Candidate> {
    let wanted = |one: &&Candidate| match &ask.quant {
        Some(quant) => one.label.eq_ignore_ascii_case(quant),
        None => true,
    };
    let mut allowed: Vec<_> = candidates.iter().filter(wanted).collect();
    // A variant that is not there is an error of the caller's; planning goes on with what there is.
    if allowed.is_empty() {
        allowed = candidates.iter().collect();
    }
    allowed.sort_by_key(|one| std::cmp::Reverse(one.preference()));
    allowed
}

/// One way to do it.
#[derive(Debug, Clone, Copy)]
struct Attempt<'a> {
    candidate: &'a Candidate,
    context: u32,
    kv: KvFormat,
    class: Class,
    /// It counts only when it is as fast as [`SPEED_FLOOR`].
    floor: bool,
}

/// Every way to do it, the most wanted first.
fn attempts<'a>(allowed: &[&'a Candidate], ask: &Ask) -> Vec<Attempt<'a>> {
    let mut attempts = Vec::new();
    let kvs = match ask.kv {
        Some(kv) => vec![kv],
        None => vec![KvFormat::F16, KvFormat::Q8_0],
    };
    for coarse in [false, true] {
        let tier: Vec<_> =
            allowed.iter().copied().filter(|one| one.is_coarse() == coarse).collect();
        for target in contexts(ask) {
            // Where nothing is fast enough, the smallest is the fastest.
            let mut smallest = tier.clone();
            smallest.sort_by_key(|one| one.file_bytes);
            push(&mut attempts, &tier, target, &kvs, Class::Vram, true);
            push(&mut attempts, &smallest, target, &kvs, Class::Vram, false);
            push(&mut attempts, &tier, target, &kvs, Class::Split, true);
            push(&mut attempts, &tier, target, &kvs, Class::Ram, true);
            push(&mut attempts, &smallest, target, &kvs, Class::Split, false);
            push(&mut attempts, &smallest, target, &kvs, Class::Ram, false);
        }
    }
    attempts
}

fn push<'a>(
    attempts: &mut Vec<Attempt<'a>>,
    tier: &[&'a Candidate],
    target: u32,
    kvs: &[KvFormat],
    class: Class,
    floor: bool,
) {
    for &kv in kvs {
        attempts.extend(tier.iter().map(|&candidate| {
            let context = target.min(candidate.demand.context_max.max(1));
            Attempt { candidate, context, kv, class, floor }
        }));
    }
}

fn contexts(ask: &Ask) -> Vec<u32> {
    match ask.context {
        Some(context) => vec![context],
        None => std::iter::once(CONTEXT_TARGET).chain(CONTEXTS_SHORTER).collect(),
    }
}

/// The machine as it would be if nothing else ran on it.
fn unused(machine: &Machine) -> Machine {
    let mut machine = machine.clone();
    machine.memory.available = machine.memory.total;
    for gpu in &mut machine.gpus {
        gpu.memory_free = gpu.memory_total;
    }
    machine
}

/// What is missing, for the smallest of the allowed in the least demanding way.
fn misfit(all: &[Candidate], machine: &Machine, ask: &Ask) -> Misfit {
    let allowed = allowed(all, ask);
    let smallest = allowed.iter().copied().min_by_key(|one| one.file_bytes);
    let candidate = smallest.unwrap_or(&all[0]);
    let context = *contexts(ask).last().unwrap_or(&CONTEXT_TARGET);
    let context = context.min(candidate.demand.context_max.max(1));
    let kv = ask.kv.unwrap_or(KvFormat::Q8_0);
    let attempt = Attempt { candidate, context, kv, class: Class::Ram, floor: false };
    let needed = place::ram_bytes(candidate, context, kv, machine, ask).total();
    let (missing, of_ram) = place::missing(&attempt, machine, ask);
    let free = Ask { context: None, quant: None, kv: None, ..ask.clone() };
    let restricted = ask.context.is_some() || ask.quant.is_some() || ask.kv.is_some();
    let alternative = if restricted { first(all, machine, &free) } else { None };
    Misfit {
        variant: candidate.label.clone(),
        context,
        needed,
        available: needed.saturating_sub(missing),
        shortfall: missing.max(1),
        on_gpus: needed.saturating_sub(of_ram),
        fits_alone: first(std::slice::from_ref(candidate), &unused(machine), ask).is_some(),
        alternative: alternative.map(|fit| (fit.variant, fit.context)),
    }
}
