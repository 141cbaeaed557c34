use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::hardware::testing::tree;

/// Two cores of two threads each.
const RYZEN: &str = "processor\t: 0\nmodel name\t: AMD Ryzen 3\nphysical id\t: 0\ncore id\t\t: 0\n\
    flags\t\t: fpu sse4_2 avx f16c fma avx2\n\nprocessor\t: 1\nmodel name\t: AMD Ryzen 3\n\
    physical id\t: 0\ncore id\t\t: 1\nflags\t\t: fpu sse4_2 avx f16c fma avx2\n\n\
    processor\t: 2\nmodel name\t: AMD Ryzen 3\nphysical id\t: 0\ncore id\t\t: 0\n\
    flags\t\t: fpu sse4_2 avx f16c fma avx2\n\nprocessor\t: 3\nmodel name\t: AMD Ryzen 3\n\
    physical id\t: 0\ncore id\t\t: 1\nflags\t\t: fpu sse4_2 avx f16c fma avx2\n\n";

/// A large core and a small one that can do less; ARM names neither cores nor models.
const ORIN: &str = "processor\t: 0\nFeatures\t: fp asimd fphp asimdhp asimddp i8mm\n\
    CPU implementer\t: 0x41\nCPU part\t: 0xd42\n\nprocessor\t: 1\nFeatures\t: fp asimd fphp\n\n";

#[test]
fn a_desktop() {
    let folder = tree(&[
        ("proc/cpuinfo", RYZEN),
        ("proc/self/status", "Name:\tdsk\nCpus_allowed:\tf\nCpus_allowed_list:\t0-3\n"),
        ("sys/devices/system/cpu/online", "0-3\n"),
        ("sys/devices/system/node/has_memory", "0\n"),
    ]);
    expect![[r#"
        Cpu {
            name: "AMD Ryzen 3",
            threads: 4,
            cores: 2,
            features: [
                "sse4_2",
                "avx",
                "f16c",
                "fma",
                "avx2",
            ],
            numa_nodes: 1,
        }
    "#]]
    .assert_debug_eq(&Cpu::read_at(&Roots::at(folder.path())));
}

#[test]
fn processors_that_differ_and_have_no_name() {
    let folder = tree(&[
        ("proc/cpuinfo", ORIN),
        ("proc/device-tree/model", "NVIDIA Jetson Orin NX\0"),
        ("sys/devices/system/cpu/online", "0-1\n"),
        ("sys/devices/system/cpu/cpu0/topology/core_id", "0\n"),
        ("sys/devices/system/cpu/cpu1/topology/core_id", "1\n"),
    ]);
    let cpu = Cpu::read_at(&Roots::at(folder.path()));
    assert_eq!((cpu.name.as_str(), cpu.threads, cpu.cores), ("NVIDIA Jetson Orin NX", 2, 2));
    assert_eq!(cpu.features, ["asimd", "fphp"]);
}

#[test]
fn without_any_file_there_is_one_thread() {
    let empty = tree(&[]);
    let cpu = Cpu::read_at(&Roots::at(empty.path()));
    assert_eq!((cpu.name.as_str(), cpu.threads, cpu.numa_nodes), ("unknown", 1, 1));
}

#[test]
fn the_tightest_of_affinity_sets_and_quota() {
    let set = |text| cpu_list(text);
    let limits = |quota, cpus| CpuLimits { quota, cpus: set(cpus) };
    let cases = [
        (limits(None, ""), [set("0-15"), set("0-31")], 16),
        (limits(Some(2.5), ""), [set("0-15"), None], 3),
        (limits(Some(0.1), ""), [set("0-15"), None], 1),
        (limits(None, "4-7"), [set("0-5"), None], 2),
        (limits(None, "8-9"), [set("0-5"), None], 2),
        (limits(Some(1e300), ""), [None, None], 7),
        (limits(Some(4.0), ""), [None, None], 4),
    ];
    for (limits, sets, expected) in cases {
        assert_eq!(usable(&limits, sets.clone(), 7), expected, "{limits:?} {sets:?}");
    }
}

#[test]
fn this_machine_has_a_processor() {
    let cpu = Cpu::read_at(&Roots::system());
    assert!(cpu.threads >= 1 && cpu.cores >= 1 && cpu.name != "unknown", "{cpu:?}");
    let seen = detected();
    assert!(seen.iter().all(|name| cpu.features.contains(name)), "{seen:?} of {cpu:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_panics(info in "((processor|flags|core id|model name|.*)\t: .*\n|\n){0,8}", list in ".*") {
        let folder = tree(&[
            ("proc/cpuinfo", &info),
            ("proc/self/status", &format!("Cpus_allowed_list: {list}\n")),
            ("sys/devices/system/cpu/online", &list),
            ("sys/devices/system/node/online", &list),
        ]);
        let cpu = Cpu::read_at(&Roots::at(folder.path()));
        prop_assert!(cpu.threads >= 1 && cpu.numa_nodes >= 1);
        prop_assert!(cpu.name.chars().count() <= NAME_CHARS_MAX.max("unknown".len()));
    }
}
