//! A plan in words: why this variant, and what was given up.

use super::place::{self, Class};
use super::{Ask, Attempt, CONTEXT_TARGET, Candidate, Misfit, SPEED_FLOOR, Speeds};
use crate::hardware::Machine;
use dsk_daemon_engine::KvFormat;

/// The reasons, the most important first. Each is a clause that can stand alone.
pub(super) fn of(
    attempt: &Attempt<'_>,
    allowed: &[&Candidate],
    machine: &Machine,
    ask: &Ask,
    speeds: &Speeds,
    context_max: u32,
) -> Vec<String> {
    let mut reasons = vec![choice(attempt, allowed, machine, ask)];
    reasons.extend(passed_over(attempt, allowed, machine, ask));
    reasons.extend(context(attempt, ask, context_max));
    if attempt.kv == KvFormat::Q8_0 && ask.kv.is_none() {
        let tokens = attempt.context;
        reasons.push(format!("keys and values in 8 bits, so that {tokens} tokens of context fit"));
    }
    if attempt.class != Class::Vram && speeds.decode_tps < SPEED_FLOOR {
        let tps = speeds.decode_tps;
        reasons.push(format!("slow: about {tps:.1} tokens a second; a smaller size is faster"));
    }
    if attempt.class != Class::Ram {
        reasons.push(until_gpus_compute(attempt, machine, ask));
    }
    if !attempt.candidate.exact {
        reasons.push("sizes are the library's, exact to about 1 %".to_owned());
    }
    reasons
}

fn choice(attempt: &Attempt<'_>, allowed: &[&Candidate], machine: &Machine, ask: &Ask) -> String {
    let label = &attempt.candidate.label;
    let place = match attempt.class {
        Class::Vram => "wholly in the memory of the GPU",
        Class::Split => "partly in the memory of the GPU",
        Class::Ram if place::gpus(machine).is_empty() => "in RAM",
        Class::Ram => "in RAM, as the GPU has too little room",
    };
    let place = match (attempt.class, place::gpus(machine).len()) {
        (Class::Vram | Class::Split, 2..) => place.replace("the GPU", "the GPUs"),
        _ => place.to_owned(),
    };
    match (&ask.quant, allowed.len()) {
        (Some(_), _) => format!("{label} was asked for; it lies {place}"),
        (None, 1) => format!("{label} is the only variant; it lies {place}"),
        (None, _) if attempt.class != Class::Vram && !attempt.floor => {
            format!("{label} is the smallest variant that will do; it lies {place}")
        }
        (None, _) => format!("{label} is the best quality that fits {place}"),
    }
}

/// The next better variant, and what keeps it from being the one.
fn passed_over(
    attempt: &Attempt<'_>,
    allowed: &[&Candidate],
    machine: &Machine,
    ask: &Ask,
) -> Option<String> {
    let own = allowed.iter().position(|one| one.label == attempt.candidate.label)?;
    let better = *allowed.get(own.checked_sub(1)?)?;
    let takes = place::ram_bytes(better, attempt.context, attempt.kv, machine, ask).total();
    let room = match attempt.class {
        Class::Ram => place::ram_room(&machine.memory),
        _ => place::gpus(machine).into_iter().map(place::gpu_room).fold(0, u64::saturating_add),
    };
    let (label, takes) = (&better.label, gigabytes(takes));
    Some(match room {
        room if attempt.class == Class::Ram && !attempt.floor => {
            let _ = room;
            format!("{label} takes {takes} and is slower still")
        }
        room => format!("{label} takes {takes}, of {} that can be had there", gigabytes(room)),
    })
}

fn context(attempt: &Attempt<'_>, ask: &Ask, context_max: u32) -> Option<String> {
    match ask.context {
        Some(asked) if asked > attempt.context => Some(format!(
            "the model was made for {context_max} tokens of context; {asked} are more"
        )),
        None if attempt.context < CONTEXT_TARGET.min(context_max) => Some(format!(
            "{} tokens of context, as {} do not fit",
            attempt.context,
            CONTEXT_TARGET.min(context_max)
        )),
        _ => None,
    }
}

/// What happens to the plan today.
fn until_gpus_compute(attempt: &Attempt<'_>, machine: &Machine, ask: &Ask) -> String {
    let cpu = Attempt { class: Class::Ram, floor: false, ..*attempt };
    match place::place(&cpu, machine, ask) {
        Some((_, speeds)) => format!(
            "this version computes on the CPU, with about {:.1} tokens a second",
            speeds.decode_tps
        ),
        None => "this version computes on the CPU, and RAM has no room for it".to_owned(),
    }
}

pub(super) fn misfit(misfit: &Misfit) -> String {
    let Misfit { variant, context, needed, available, shortfall, alternative } = misfit;
    let mut text = format!(
        "{variant} with {context} tokens of context takes {} and {} can be had: {} ({shortfall} \
         bytes) are missing",
        gigabytes(*needed),
        gigabytes(*available),
        gigabytes(*shortfall),
    );
    if let Some((variant, context)) = alternative {
        text += &format!("; {variant} with {context} tokens would fit");
    }
    text
}

/// Bytes for people, in units of 10^9.
pub(super) fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}
