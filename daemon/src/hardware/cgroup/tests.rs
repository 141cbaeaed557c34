use expect_test::expect;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::hardware::testing::tree;

const GIB: u64 = 1 << 30;

/// A tree of version 2: a service in a slice, each with limits of its own.
fn nested() -> TempDir {
    tree(&[
        ("proc/self/cgroup", "0::/user.slice/dsk.service\n"),
        ("proc/self/mountinfo", "26 21 0:23 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"),
        ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu memory\n"),
        ("sys/fs/cgroup/user.slice/memory.max", "8589934592\n"),
        ("sys/fs/cgroup/user.slice/memory.current", "7516192768\n"),
        (
            "sys/fs/cgroup/user.slice/memory.stat",
            "anon 1\nfile 2147483648\nshmem 0\n\
            inactive_anon 5\nactive_anon 5\ninactive_file 1073741824\nactive_file 0\n",
        ),
        ("sys/fs/cgroup/user.slice/cpu.max", "150000 100000\n"),
        ("sys/fs/cgroup/user.slice/cpuset.cpus.effective", "0-7\n"),
        ("sys/fs/cgroup/user.slice/dsk.service/memory.max", "max\n"),
        ("sys/fs/cgroup/user.slice/dsk.service/memory.high", "17179869184\n"),
        ("sys/fs/cgroup/user.slice/dsk.service/memory.current", "1073741824\n"),
        ("sys/fs/cgroup/user.slice/dsk.service/memory.swap.max", "0\n"),
        ("sys/fs/cgroup/user.slice/dsk.service/cpu.max", "max 100000\n"),
        ("sys/fs/cgroup/user.slice/dsk.service/cpuset.cpus.effective", "2-9\n"),
    ])
}

#[test]
fn the_least_limit_on_the_way_to_the_root_holds() {
    let folder = nested();
    let roots = Roots::at(folder.path());
    let limits = memory_limits(&roots);
    assert_eq!(limits.limit, Some(8 * GIB), "the slice's, not the service's");
    assert_eq!(limits.available, Some(2 * GIB), "7 of 8 GiB are used, 1 of them by cached files");
    assert_eq!((limits.swap_limit, limits.swap_available), (Some(0), Some(0)));
    let cpus = cpu_limits(&roots);
    assert_eq!((cpus.quota, cpus.cpus), (Some(1.5), Some((2..=7).collect())));
}

/// Version 1 as a container sees it: its own part of each hierarchy is mounted, and
/// `/proc/self/cgroup` names the group as the host does.
#[test]
fn a_container_of_version_1() {
    let folder = tree(&[
        (
            "proc/self/cgroup",
            "9:memory:/docker/4f\n5:cpu,cpuacct:/docker/4f\n3:cpuset:/docker/4f\n",
        ),
        (
            "proc/self/mountinfo",
            "41 31 0:32 /docker/4f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
            42 31 0:33 /docker/4f /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
            43 31 0:34 /docker/4f /sys/fs/cgroup/cpuset ro - cgroup cgroup rw,cpuset\n",
        ),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "4294967296\n"),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", "3221225472\n"),
        (
            "sys/fs/cgroup/memory/memory.stat",
            "cache 0\ninactive_file 0\ntotal_cache 2147483648\n\
            total_shmem 1073741824\ntotal_inactive_file 1610612736\ntotal_active_file 536870912\n",
        ),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "250000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ("sys/fs/cgroup/cpuset/cpuset.cpus", "0-3\n"),
    ]);
    let roots = Roots::at(folder.path());
    let limits = memory_limits(&roots);
    assert_eq!(limits.limit, Some(4 * GIB));
    assert_eq!(limits.available, Some(2 * GIB), "of 2 GiB of cache 1 is a tmpfs");
    let cpus = cpu_limits(&roots);
    assert_eq!((cpus.quota, cpus.cpus), (Some(2.5), Some((0..=3).collect())));
}

#[test]
fn version_1_without_limits() {
    let folder = tree(&[
        ("proc/self/cgroup", "4:memory:/a\n1:cpu:/\n0::/\n"),
        (
            "proc/self/mountinfo",
            "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n",
        ),
        ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
        ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
    ]);
    let roots = Roots::at(folder.path());
    assert_eq!(memory_limits(&roots), MemoryLimits::default());
    assert_eq!(cpu_limits(&roots), CpuLimits::default());
}

#[test]
fn without_proc_the_usual_places_are_looked_at() {
    for (file, cpu) in [
        ("sys/fs/cgroup/memory.max", ("sys/fs/cgroup/cpu.max", "200000 100000")),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", ("sys/fs/cgroup/cpu/cpu.max", "")),
    ] {
        let folder = tree(&[(file, "4294967296"), cpu]);
        let roots = Roots::at(folder.path());
        assert_eq!(memory_limits(&roots).limit, Some(4 * GIB), "{file}");
        assert_eq!(cpu_limits(&roots).quota, (!cpu.1.is_empty()).then_some(2.0));
    }
    let empty = tree(&[]);
    assert_eq!(memory_limits(&Roots::at(empty.path())), MemoryLimits::default());
}

#[test]
fn a_path_that_leads_out_of_the_mount_is_not_followed() {
    let folder = tree(&[
        ("proc/self/cgroup", "0::/../../outside\n"),
        ("proc/self/mountinfo", "26 21 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
        ("sys/outside/memory.max", "1\n"),
        ("sys/fs/cgroup/memory.max", "4294967296\n"),
    ]);
    assert_eq!(memory_limits(&Roots::at(folder.path())).limit, Some(4 * GIB));
}

#[test]
fn mounts_as_the_kernel_writes_them() {
    let line = r"26 21 0:23 /a\040b /mnt/c\134d rw shared:4 - cgroup cgroup rw,cpu,cpuacct";
    expect![[r#"
        Some(
            Mount {
                version: One,
                root: "/a b",
                point: "/mnt/c\\d",
                controllers: [
                    "rw",
                    "cpu",
                    "cpuacct",
                ],
            },
        )
    "#]]
    .assert_debug_eq(&Mount::parse(line));
    for other in ["", " - ", "1 2 3 / /proc rw - proc proc rw", "26 21 - cgroup2 cgroup2 rw"] {
        assert_eq!(Mount::parse(other), None, "{other:?}");
    }
}

#[test]
fn quotas() {
    let cases = [
        ("max 100000", None),
        ("50000 100000", Some(0.5)),
        ("400000", Some(4.0)),
        ("-1 100000", None),
        ("0 100000", None),
        ("100 0", None),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(quota(text), expected, "{text:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_panics(own in "(.{0,3}:.{0,3}:.{0,9}\n|.*\n){0,4}", mounts in "(.* - cgroup2? .*\n){0,3}",
                      limit in ".*|[0-9]{1,30}", stat in "([a-z_]{1,9} [0-9]{1,25}\n|.*\n){0,5}") {
        let folder = tree(&[
            ("proc/self/cgroup", &own),
            ("proc/self/mountinfo", &mounts),
            ("sys/fs/cgroup/memory.max", &limit),
            ("sys/fs/cgroup/memory.current", &limit),
            ("sys/fs/cgroup/memory.stat", &stat),
            ("sys/fs/cgroup/cpu.max", &limit),
            ("sys/fs/cgroup/cpuset.cpus", &limit),
        ]);
        let roots = Roots::at(folder.path());
        let limits = memory_limits(&roots);
        prop_assert!(limits.available.unwrap_or(0) <= limits.limit.unwrap_or(0));
        prop_assert!(cpu_limits(&roots).quota.is_none_or(|quota| quota > 0.0));
    }

    #[test]
    fn one_more_group_never_gives_more(own in 1u64..1 << 50, parent in 1u64..1 << 50, used in 0u64..1 << 50) {
        let limits = |inner: bool| {
            let (own, parent, used) = (own.to_string(), parent.to_string(), used.to_string());
            let folder = tree(&[
                ("proc/self/cgroup", if inner { "0::/a\n" } else { "0::/\n" }),
                ("proc/self/mountinfo", "26 21 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
                ("sys/fs/cgroup/memory.max", &parent),
                ("sys/fs/cgroup/memory.current", &used),
                ("sys/fs/cgroup/a/memory.max", &own),
            ]);
            memory_limits(&Roots::at(folder.path()))
        };
        let (outer, inner) = (limits(false), limits(true));
        prop_assert_eq!(inner.limit, Some(own.min(parent)));
        prop_assert!(inner.available <= outer.available);
    }
}
