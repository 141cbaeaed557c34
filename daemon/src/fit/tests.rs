//! What every plan must hold to, whatever the machine.

use dsk_modelfiles::library;
use proptest::prelude::*;

use super::place::{gpu_room, ram_room};
use super::*;
use crate::hardware::{Gpu, Memory, Vendor};

const GB: u64 = 1_000_000_000;

fn candidates(size: &str) -> Vec<Candidate> {
    let family = library::find("deepseek-r1").expect("it is in the library");
    let size = family.size(size).expect("it is in the family");
    size.variants.iter().map(|variant| Candidate::from_catalog(size, variant)).collect()
}

fn gpu(index: u32, total: u64, free: u64, bandwidth: u64) -> Gpu {
    Gpu {
        index,
        vendor: Vendor::Nvidia,
        name: format!("GPU {index}"),
        bus: None,
        memory_total: total,
        memory_free: free.min(total),
        memory_others: total - free.min(total),
        shared_memory: false,
        compute_capability: Some((8, 6)),
        driver: None,
        utilization_percent: None,
        bandwidth: Some(bandwidth),
        fault: None,
    }
}

fn machine(total: u64, available: u64, gpus: Vec<Gpu>) -> Machine {
    let memory = Memory { total, available, bandwidth: Some(50 * GB), ..Memory::default() };
    let mut machine = Machine { memory, gpus, ..Machine::default() };
    machine.cpu.threads = 8;
    machine.cpu.features = vec!["avx2".to_owned()];
    machine
}

fn rank(candidates: &[Candidate], machine: &Machine, ask: &Ask) -> usize {
    fit(candidates, machine, ask).map_or(usize::MAX, |fit| fit.rank)
}

fn any_machine() -> impl Strategy<Value = Machine> {
    let gpus = proptest::collection::vec((1..160u64, 0..160u64, 100..5000u64), 0..4);
    (1..512u64, 0..100u64, gpus).prop_map(|(total, percent, gpus)| {
        let gpus = gpus.into_iter().enumerate().map(|(index, (total, free, rate))| {
            gpu(index as u32, total * GB, free * GB, rate * GB)
        });
        machine(total * GB, total * GB / 100 * percent, gpus.collect())
    })
}

fn any_size() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["1.5b", "7b", "8b", "14b", "32b", "70b", "671b"])
}

fn any_ask() -> impl Strategy<Value = Ask> {
    let context = prop::option::of(prop::sample::select(vec![1u32, 512, 4096, 32_768, 131_072]));
    let kv = prop::option::of(prop::sample::select(vec![KvFormat::F16, KvFormat::Q8_0]));
    (context, kv, 0..5usize).prop_map(|(context, kv, sequences)| Ask {
        context,
        kv,
        sequences,
        ..Ask::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn no_device_gets_more_than_it_has(
        machine in any_machine(), size in any_size(), ask in any_ask(),
    ) {
        let Ok(plan) = fit(&candidates(size), &machine, &ask) else { return Ok(()) };
        for share in &plan.devices {
            let room = match share.device {
                Device::Cpu => ram_room(&machine.memory),
                Device::Gpu(index) => gpu_room(&machine.gpus[index as usize]),
            };
            prop_assert!(share.total() <= room, "{share:?} of {room}");
        }
        let layers: u32 = plan.devices.iter().map(|share| share.layers).sum();
        let demand = &candidates(size)[0].demand;
        prop_assert_eq!(layers as usize, demand.layers.len(), "every layer lies somewhere, once");
        let kv: u64 = plan.devices.iter().map(|share| share.kv).sum();
        let sequences = ask.sequences.max(1) as u64;
        let layer = demand.layer_kv_bytes(plan.kv, plan.context, sequences);
        prop_assert_eq!(kv, layer * demand.layers.len() as u64);
    }

    #[test]
    fn more_memory_never_gives_a_worse_plan(
        machine in any_machine(), size in any_size(), ask in any_ask(),
        more in 1..64u64, which in 0..4usize,
    ) {
        let candidates = candidates(size);
        let before = rank(&candidates, &machine, &ask);
        let mut larger = machine.clone();
        match larger.gpus.get_mut(which) {
            Some(gpu) => {
                gpu.memory_total += more * GB;
                gpu.memory_free += more * GB;
            }
            None => {
                larger.memory.total += more * GB;
                larger.memory.available += more * GB;
            }
        }
        let after = rank(&candidates, &larger, &ask);
        prop_assert!(after <= before, "{after} after {before}");
    }

    #[test]
    fn what_fits_a_context_fits_every_shorter_one(
        machine in any_machine(), size in any_size(), ask in any_ask(),
        context in 64..131_072u32, shorter in 1..100u32,
    ) {
        let candidates = candidates(size);
        let long = Ask { context: Some(context), ..ask.clone() };
        let short = Ask { context: Some((context / 100 * shorter).max(1)), ..ask };
        let (long, short) = (rank(&candidates, &machine, &long), rank(&candidates, &machine, &short));
        prop_assert!(short <= long, "{short} for the shorter, {long} for the longer");
    }

    #[test]
    fn what_is_missing_is_told_and_enough(machine in any_machine(), size in any_size()) {
        let candidates = candidates(size);
        if let Err(misfit) = fit(&candidates, &machine, &Ask::default()) {
            let mut larger = machine.clone();
            larger.memory.available += misfit.shortfall;
            if larger.memory.available > larger.memory.total {
                // The reserve grows with the memory, by a twentieth.
                let more = misfit.shortfall + misfit.shortfall / 19 + 1;
                larger.memory.available = machine.memory.available + more;
                larger.memory.total = larger.memory.total.max(larger.memory.available);
            }
            prop_assert!(fit(&candidates, &larger, &Ask::default()).is_ok(), "{misfit}");
        }
    }
}

#[test]
fn a_variant_that_was_asked_for_is_taken_or_refused_with_what_would_do() {
    let machine = machine(16 * GB, 8 * GB, Vec::new());
    let candidates = candidates("7b");
    let ask = Ask { quant: Some("q6_k".to_owned()), ..Ask::default() };
    let plan = fit(&candidates, &machine, &ask).unwrap();
    assert_eq!((plan.variant.as_str(), plan.verdict), ("Q6_K", Verdict::RamOnly));
    assert!(plan.reasons[0].starts_with("Q6_K was asked for"), "{:?}", plan.reasons);
    let ask = Ask { quant: Some("F16".to_owned()), ..Ask::default() };
    let misfit = fit(&candidates, &machine, &ask).unwrap_err();
    assert_eq!(misfit.alternative, Some(("Q5_K_M".to_owned(), 8192)));
    assert!(misfit.shortfall > 7 * GB && misfit.shortfall < 9 * GB, "{misfit}");
    assert!(misfit.to_string().contains("Q5_K_M with 8192 tokens would fit"), "{misfit}");
}

#[test]
fn a_context_longer_than_the_models_is_cut_and_said_so() {
    let machine = machine(256 * GB, 250 * GB, Vec::new());
    let ask = Ask { context: Some(2_000_000_000), ..Ask::default() };
    let plan = fit(&candidates("1.5b"), &machine, &ask).unwrap();
    assert_eq!(plan.context, 131_072);
    assert!(plan.reasons.iter().any(|one| one.contains("2000000000 are more")), "{plan:?}");
}

#[test]
fn a_gpu_that_is_broken_or_too_old_or_of_another_maker_is_not_planned_for() {
    let good = gpu(0, 24 * GB, 24 * GB, 900 * GB);
    let broken = Gpu { fault: Some("it fell off the bus".to_owned()), ..good.clone() };
    let old = Gpu { compute_capability: Some((6, 1)), ..good.clone() };
    let other = Gpu { vendor: Vendor::Amd, ..good.clone() };
    for (gpu, verdict) in [
        (good, Verdict::FullSpeed),
        (broken, Verdict::RamOnly),
        (old, Verdict::RamOnly),
        (other, Verdict::RamOnly),
    ] {
        let machine = machine(64 * GB, 60 * GB, vec![gpu]);
        let plan = fit(&candidates("7b"), &machine, &Ask::default()).unwrap();
        assert_eq!(plan.verdict, verdict, "{:?}", machine.gpus);
    }
}

#[test]
fn what_was_seen_of_a_model_comes_before_what_is_computed() {
    let machine = machine(64 * GB, 60 * GB, Vec::new());
    let mut candidates = candidates("1.5b");
    let seen = Measured {
        decode_tps: Some(12.5),
        prefill_tps: Some(99.0),
        load_seconds: Some(0.7),
        excess_bytes: 1000,
    };
    candidates.iter_mut().for_each(|one| one.measured = Some(seen));
    let plan = fit(&candidates, &machine, &Ask::default()).unwrap();
    candidates.iter_mut().for_each(|one| one.measured = None);
    let without = fit(&candidates, &machine, &Ask::default()).unwrap();
    assert_eq!(plan.total_bytes(), without.total_bytes() + 1000);
    let expected =
        Speeds { load_seconds: 0.7, prefill_tps: 99.0, decode_tps: 12.5, basis: Basis::Measured };
    assert_eq!(plan.speeds, expected);
}
