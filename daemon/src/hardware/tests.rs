//! Whole machines, from trees of files to what is said of them.

use expect_test::{Expect, expect};

use super::fixtures::contradictions;
use super::gpu::{Gpus, nvml};
use super::testing::tree;
use super::{Cpu, Machine, Memory, Roots};

/// The machine without what has to be measured.
fn read(files: &[(&str, &str)]) -> Machine {
    let folder = tree(files);
    let roots = Roots::at(folder.path());
    let memory = Memory::read_at(&roots);
    let mut gpus = Gpus::new(Box::new(|| Err(nvml::Missing::Library)));
    let machine = Machine {
        cpu: Cpu::read_at(&roots),
        memory,
        gpus: gpus.probe(&roots, &memory),
        disk: None,
    };
    assert_eq!(contradictions(&machine), Vec::<String>::new());
    machine
}

fn check(files: &[(&str, &str)], expected: Expect) {
    expected.assert_eq(&serde_json::to_string_pretty(&read(files)).unwrap());
}

const EPYC: &str = "processor\t: 0\nmodel name\t: AMD EPYC 7763 64-Core Processor\n\
    physical id\t: 0\ncore id\t: 0\nflags\t: sse4_2 avx f16c fma avx2\n\n";
const HOST: &str = "MemTotal: 131887804 kB\nMemAvailable: 120000000 kB\nSwapTotal: 8388604 kB\n\
    SwapFree: 8388604 kB\n";

#[test]
fn a_container_of_version_2_with_4_gb_of_a_host_with_128() {
    check(
        &[
            ("proc/cpuinfo", EPYC),
            ("proc/meminfo", HOST),
            ("proc/self/status", "Cpus_allowed_list:\t0-127\n"),
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", "812 800 0:23 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n"),
            ("sys/fs/cgroup/memory.max", "4294967296\n"),
            ("sys/fs/cgroup/memory.current", "2147483648\n"),
            ("sys/fs/cgroup/memory.swap.max", "0\n"),
            (
                "sys/fs/cgroup/memory.stat",
                "file 2100000000\nshmem 100000000\n\
                inactive_file 1500000000\nactive_file 500000000\n",
            ),
            ("sys/fs/cgroup/cpu.max", "350000 100000\n"),
            ("sys/devices/system/cpu/online", "0-127\n"),
            ("sys/devices/system/node/has_memory", "0-1\n"),
        ],
        expect![[r#"
            {
              "cpu": {
                "name": "AMD EPYC 7763 64-Core Processor",
                "threads": 4,
                "cores": 1,
                "features": [
                  "sse4_2",
                  "avx",
                  "f16c",
                  "fma",
                  "avx2"
                ],
                "numa_nodes": 2
              },
              "memory": {
                "total": 4294967296,
                "available": 4147483648,
                "limit": 4294967296,
                "swap_total": 0,
                "swap_free": 0,
                "huge_pages": 0
              }
            }"#]],
    );
}

#[test]
fn the_same_container_of_version_1() {
    let machine = read(&[
        ("proc/cpuinfo", EPYC),
        ("proc/meminfo", HOST),
        ("proc/self/status", "Cpus_allowed_list:\t0-127\n"),
        ("proc/self/cgroup", "4:memory:/docker/ab\n3:cpu,cpuacct:/docker/ab\n"),
        (
            "proc/self/mountinfo",
            "35 31 0:32 /docker/ab /sys/fs/cgroup/memory ro - cgroup c rw,memory\n\
            36 31 0:33 /docker/ab /sys/fs/cgroup/cpu ro - cgroup c rw,cpu,cpuacct\n",
        ),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "4294967296\n"),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1000000000\n"),
        ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "350000\n"),
        ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
    ]);
    assert_eq!((machine.memory.total, machine.memory.limit), (4 << 30, Some(4 << 30)));
    assert_eq!(machine.memory.available, (4 << 30) - 1_000_000_000);
    assert_eq!(machine.cpu.threads, 4);
}

#[test]
fn a_board_whose_gpu_shares_the_memory() {
    check(
        &[
            (
                "proc/cpuinfo",
                "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\n\
                Features\t: fp asimd fphp asimdhp asimddp\n\nprocessor\t: 1\n\
                Features\t: fp asimd fphp asimdhp asimddp\n\n",
            ),
            ("proc/meminfo", "MemTotal: 16031744 kB\nMemAvailable: 13000000 kB\n"),
            ("proc/device-tree/model", "NVIDIA Jetson Orin NX Engineering Reference\0"),
            ("proc/device-tree/compatible", "nvidia,p3768-0000+p3767-0000\0nvidia,tegra234\0"),
            ("sys/module/nvidia/version", "540.4.0\n"),
            ("sys/devices/platform/gpu.0/load", "370\n"),
            ("sys/devices/system/cpu/online", "0-1\n"),
            ("sys/devices/system/cpu/cpu0/topology/core_id", "0\n"),
            ("sys/devices/system/cpu/cpu1/topology/core_id", "1\n"),
        ],
        expect![[r#"
            {
              "cpu": {
                "name": "ARMv8 Processor rev 1 (v8l)",
                "threads": 2,
                "cores": 2,
                "features": [
                  "asimd",
                  "fphp",
                  "asimdhp",
                  "asimddp"
                ],
                "numa_nodes": 1
              },
              "memory": {
                "total": 16416505856,
                "available": 13312000000,
                "swap_total": 0,
                "swap_free": 0,
                "huge_pages": 0
              },
              "gpus": [
                {
                  "index": 0,
                  "vendor": "nvidia",
                  "name": "NVIDIA Jetson Orin NX Engineering Reference",
                  "memory_total": 16416505856,
                  "memory_free": 13312000000,
                  "memory_others": 0,
                  "shared_memory": true,
                  "compute_capability": [
                    8,
                    7
                  ],
                  "driver": "540.4.0",
                  "utilization_percent": 37,
                  "bandwidth": 102400000000
                }
              ]
            }"#]],
    );
}

#[test]
fn a_machine_with_gpus_of_amd_and_intel() {
    check(
        &[
            ("proc/cpuinfo", EPYC),
            ("proc/meminfo", "MemTotal: 32000000 kB\nMemAvailable: 20000000 kB\n"),
            ("sys/class/drm/card0/device/vendor", "0x8086\n"),
            ("sys/class/drm/card0/device/device", "0xa780\n"),
            ("sys/class/drm/card0/device/uevent", "DRIVER=i915\nPCI_SLOT_NAME=0000:00:02.0\n"),
            ("sys/class/drm/card1/device/vendor", "0x1002\n"),
            ("sys/class/drm/card1/device/device", "0x744c\n"),
            ("sys/class/drm/card1/device/uevent", "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0\n"),
            ("sys/class/drm/card1/device/product_name", "AMD Radeon RX 7900 XTX\n"),
            ("sys/class/drm/card1/device/mem_info_vram_total", "25753026560\n"),
            ("sys/class/drm/card1/device/mem_info_vram_used", "1753026560\n"),
            ("sys/class/drm/card1/device/gpu_busy_percent", "7\n"),
            ("sys/class/drm/card1-DP-1/device/vendor", "0x1002\n"),
            ("sys/bus/pci/devices/0000:03:00.0/vendor", "0x1002\n"),
            ("sys/bus/pci/devices/0000:03:00.0/class", "0x030000\n"),
            ("sys/bus/pci/devices/0000:03:00.0/uevent", "PCI_SLOT_NAME=0000:03:00.0\n"),
            ("sys/bus/pci/devices/0000:03:00.1/vendor", "0x1002\n"),
            ("sys/bus/pci/devices/0000:03:00.1/class", "0x040300\n"),
            ("sys/module/amdgpu/version", "6.10.5\n"),
        ],
        expect![[r#"
            {
              "cpu": {
                "name": "AMD EPYC 7763 64-Core Processor",
                "threads": 1,
                "cores": 1,
                "features": [
                  "sse4_2",
                  "avx",
                  "f16c",
                  "fma",
                  "avx2"
                ],
                "numa_nodes": 1
              },
              "memory": {
                "total": 32768000000,
                "available": 20480000000,
                "swap_total": 0,
                "swap_free": 0,
                "huge_pages": 0
              },
              "gpus": [
                {
                  "index": 0,
                  "vendor": "amd",
                  "name": "AMD Radeon RX 7900 XTX",
                  "bus": "0000:03:00.0",
                  "memory_total": 25753026560,
                  "memory_free": 24000000000,
                  "memory_others": 1753026560,
                  "shared_memory": false,
                  "driver": "amdgpu 6.10.5",
                  "utilization_percent": 7,
                  "bandwidth": 960000000000
                },
                {
                  "index": 0,
                  "vendor": "intel",
                  "name": "Intel GPU [8086:a780]",
                  "bus": "0000:00:02.0",
                  "memory_total": 32768000000,
                  "memory_free": 20480000000,
                  "memory_others": 0,
                  "shared_memory": true,
                  "driver": "i915"
                }
              ]
            }"#]],
    );
}

#[test]
fn a_machine_without_proc_and_sys_refuses_nothing() {
    let machine = read(&[]);
    assert_eq!((machine.cpu.threads, machine.memory.available), (1, u64::MAX));
    assert_eq!(machine.gpus, []);
}

#[test]
fn memory_of_processes() {
    assert!(super::process_memory(std::process::id()).unwrap() > 1 << 20);
    assert_eq!(super::process_memory(u32::MAX), None);
}
