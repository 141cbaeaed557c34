use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;

/// What a healthy RTX 3060 answers.
pub(in super::super) fn answers() -> Answers {
    Answers {
        name: Some("NVIDIA GeForce RTX 3060".to_owned()),
        bus: Some("00000000:0A:00.0".to_owned()),
        memory: Some(Ok(Bytes { total: 12 * GIB, free: 10 * GIB, used: 2 * GIB })),
        processes: Some(vec![(1, Some(GIB)), (2, Some(GIB / 2))]),
        capability: Some((8, 6)),
        utilization: Some(3),
        memory_clock: Some(7_501),
        bus_width: Some(192),
    }
}

fn memory(total: u64, free: u64, used: u64) -> Answers {
    Answers { memory: Some(Ok(Bytes { total, free, used })), ..answers() }
}

fn nobody(_: u32) -> bool {
    false
}

#[test]
fn a_healthy_gpu() {
    let gpu = checked(0, &answers(), &nobody);
    assert_eq!(gpu.fault, None);
    assert_eq!(gpu.bus.as_deref(), Some("0000:0a:00.0"));
    assert_eq!((gpu.memory_total, gpu.memory_free), (12 * GIB, 10 * GIB));
    assert_eq!(gpu.memory_others, GIB + GIB / 2);
    assert_eq!(gpu.compute_capability, Some((8, 6)));
    assert_eq!(gpu.bandwidth, Some(360_048_000_000));
}

#[test]
fn processes_of_ours_and_of_others() {
    let ours = |pid| pid == 7;
    let cases: [(Option<&[Process]>, u64); 5] = [
        (Some(&[(7, Some(6)), (8, Some(3))]), 3),
        // In both lists: it computes and draws.
        (Some(&[(8, Some(3)), (8, Some(3)), (8, None)]), 3),
        (Some(&[(7, None)]), 0),
        // One that is not told, or no list: all that is used and not ours.
        (Some(&[(7, Some(6)), (8, None)]), 4),
        (None, 10),
    ];
    for (processes, expected) in cases {
        assert_eq!(others(processes, 10, &ours), expected, "{processes:?}");
    }
}

#[test]
fn a_driver_that_lies_is_found_out() {
    let cases = [
        (memory(12 * GIB, 30 * GIB, 0), "contradicts itself"),
        (memory(12 * GIB, GIB, 13 * GIB), "contradicts itself"),
        (memory(0, 0, 0), "claims 0 bytes"),
        (memory(u64::MAX, 1, 1), "claims 18446744073709551615 bytes"),
        (Answers { memory: None, ..answers() }, "does not say"),
        (Answers { memory: Some(Err("lost\n".into())), ..answers() }, "its driver says: lost"),
    ];
    for (answers, expected) in cases {
        let gpu = checked(0, &answers, &nobody);
        let fault = gpu.fault.clone().unwrap_or_default();
        assert!(fault.contains(expected), "{answers:?} gave {gpu:?}");
        assert!(gpu.memory_free <= gpu.memory_total, "{gpu:?}");
    }
}

#[test]
fn nonsense_beside_the_memory_is_left_out() {
    let gpu = checked(
        0,
        &Answers {
            name: Some(format!("a\u{7}b{}", "c".repeat(1000))),
            capability: Some((-1, 0)),
            utilization: Some(4_000_000_000),
            memory_clock: Some(u32::MAX),
            bus_width: Some(u32::MAX),
            ..answers()
        },
        &nobody,
    );
    assert!(gpu.name.starts_with("abc") && gpu.name.len() == 128, "{}", gpu.name);
    assert_eq!(
        (gpu.compute_capability, gpu.utilization_percent, gpu.bandwidth),
        (None, None, None)
    );
}

#[test]
fn places_on_the_bus() {
    for (text, expected) in [
        ("00000000:0A:00.0", "0000:0a:00.0"),
        ("0000:01:00.0", "0000:01:00.0"),
        ("00010000:01:00.0", "00010000:01:00.0"),
        ("", ""),
        ("0000\u{e9}\u{e9}:1", "\u{e9}\u{e9}:1"),
    ] {
        assert_eq!(bus(text), expected);
    }
}

proptest! {
    #[test]
    fn no_answer_gives_a_contradiction(
        total in any::<u64>(), free in any::<u64>(), used in any::<u64>(),
        small in any::<bool>(),
        processes in prop::option::of(prop::collection::vec(any::<(u32, Option<u64>)>(), 0..6)),
        name in prop::option::of(".*"), place in prop::option::of(".*"),
    ) {
        let bound = |bytes: u64| if small { bytes >> 28 } else { bytes };
        let told = Bytes { total: bound(total), free: bound(free), used: bound(used) };
        let answers = Answers { name, bus: place, memory: Some(Ok(told)), processes, ..answers() };
        let gpu = checked(0, &answers, &|pid| pid % 2 == 0);
        prop_assert!(gpu.memory_free <= gpu.memory_total);
        prop_assert!(gpu.memory_free <= told.free);
        prop_assert!(gpu.memory_others <= gpu.memory_total - gpu.memory_free);
        prop_assert_eq!(told.free > told.total || told.used > told.total || told.total == 0
            || told.total > MEMORY_MAX, gpu.fault.is_some());
    }
}
