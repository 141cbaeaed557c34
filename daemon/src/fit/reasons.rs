//! A plan in words: why this variant, and what was given up.

use super::place::{self, Class, Device, Share};
use super::{Ask, Attempt, CONTEXT_TARGET, Candidate, Misfit, SPEED_FLOOR, Speeds};
use crate::hardware::Machine;
use dsk_daemon_engine::KvFormat;

/// The reasons, the most important first. Each is a clause that can stand alone.
pub(super) fn of(
    attempt: &Attempt<'_>,
    devices: &[Share],
    allowed: &[&Candidate],
    machine: &Machine,
    ask: &Ask,
    speeds: &Speeds,
) -> Vec<String> {
    let mut reasons = vec![choice(attempt, devices, allowed, machine, ask)];
    reasons.extend(passed_over(attempt, allowed, machine, ask));
    reasons.extend(context(attempt, ask));
    if attempt.kv == KvFormat::Q8_0 && ask.kv.is_none() {
        let tokens = attempt.context;
        reasons.push(format!("keys and values in 8 bits, so that {tokens} tokens of context fit"));
    }
    if speeds.decode_tps < SPEED_FLOOR {
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

fn choice(
    attempt: &Attempt<'_>,
    devices: &[Share],
    allowed: &[&Candidate],
    machine: &Machine,
    ask: &Ask,
) -> String {
    let label = &attempt.candidate.label;
    let gpus = names(devices, machine);
    let place = match attempt.class {
        Class::Vram => format!("wholly in the memory of {gpus}"),
        Class::Split => format!("partly in the memory of {gpus}"),
        Class::Ram if place::gpus(machine).is_empty() => "in RAM".to_owned(),
        Class::Ram => "in RAM, as no GPU has the room".to_owned(),
    };
    match (&ask.quant, allowed.len()) {
        (Some(_), _) => format!("{label} was asked for; it lies {place}"),
        (None, 1) => format!("{label} is the only variant; it lies {place}"),
        (None, _) if !attempt.floor => {
            format!("{label} is the smallest good variant, as none is fast; it lies {place}")
        }
        (None, _) => format!("{label} is the best quality that is fast and fits {place}"),
    }
}

/// The GPUs that are used, by name.
fn names(devices: &[Share], machine: &Machine) -> String {
    let name = |share: &Share| match share.device {
        Device::Cpu => None,
        Device::Gpu(index) => machine.gpus.iter().find(|gpu| gpu.index == index),
    };
    let names: Vec<_> = devices.iter().filter_map(name).map(|gpu| gpu.name.as_str()).collect();
    names.join(" and ")
}

/// The next better variant, and what keeps it from being the one.
fn passed_over(
    attempt: &Attempt<'_>,
    allowed: &[&Candidate],
    machine: &Machine,
    ask: &Ask,
) -> Option<String> {
    let own = allowed.iter().position(|one| one.label == attempt.candidate.label)?;
    let candidate = *allowed.get(own.checked_sub(1)?)?;
    let better = Attempt { candidate, floor: false, ..*attempt };
    let label = &candidate.label;
    if let Some((_, speeds)) = place::place(&better, machine, ask) {
        let tps = speeds.decode_tps;
        return Some(format!("{label} fits as well, with {tps:.1} tokens a second"));
    }
    let takes = place::ram_bytes(candidate, attempt.context, attempt.kv, machine, ask).total();
    let room = match attempt.class {
        Class::Ram => place::ram_room(&machine.memory),
        Class::Vram => place::room_of_gpus(machine),
        Class::Split => {
            place::room_of_gpus(machine).saturating_add(place::ram_room(&machine.memory))
        }
    };
    Some(format!(
        "{label} takes {}, of {} that can be had there",
        gigabytes(takes),
        gigabytes(room)
    ))
}

fn context(attempt: &Attempt<'_>, ask: &Ask) -> Option<String> {
    let most = attempt.candidate.demand.context_max;
    match ask.context {
        Some(asked) if asked > attempt.context => {
            Some(format!("the model was made for {most} tokens of context; {asked} are more"))
        }
        None if attempt.context < CONTEXT_TARGET.min(most) => Some(format!(
            "{} tokens of context, as {} do not fit",
            attempt.context,
            CONTEXT_TARGET.min(most)
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
    let Misfit { variant, context, needed, available, shortfall, .. } = misfit;
    let mut text = format!(
        "{variant} with {context} tokens of context takes {} and {} can be had: {} ({shortfall} \
         bytes) of RAM are missing",
        gigabytes(*needed),
        gigabytes(*available),
        gigabytes(*shortfall),
    );
    if misfit.fits_alone {
        text += "; closing other programs would make room";
    }
    if let Some((variant, context)) = &misfit.alternative {
        text += &format!("; {variant} with {context} tokens would fit");
    }
    text
}

/// Bytes for people, in units of 10^9.
pub(super) fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}
