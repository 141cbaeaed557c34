//! The checks of what the machine has: memory and its limits, processor, GPUs and their drivers.

use dsk_daemon::hardware::{Gpu, Machine, Memory, Vendor};
use rustix::process::{Resource, Rlimit, getrlimit};

use super::Finding;
use crate::units;

/// Less free memory than this holds no model worth asking.
const MEMORY_WARN_BYTES: u64 = 2_000_000_000;
/// What is said of every GPU that would do.
const ON_CPU: &str = "reported; models run on the CPU in this version";

/// Everything about the machine.
pub(super) fn machine(machine: &Machine) -> Vec<Finding> {
    let mut findings = vec![processor(machine), memory(&machine.memory)];
    findings.extend(control_group(&machine.memory));
    findings.push(swap(&machine.memory));
    findings.extend(huge_pages(&machine.memory));
    findings.push(locked_memory(&getrlimit(Resource::Memlock)));
    findings.extend(reading(machine));
    findings.extend(machine.gpus.iter().map(gpu));
    if machine.gpus.is_empty() {
        findings.push(Finding::ok("gpu", "none found: models run on the CPU"));
    }
    findings
}

fn processor(machine: &Machine) -> Finding {
    let cpu = &machine.cpu;
    let best = cpu.features.last().map_or("no vector instructions known", String::as_str);
    let cores = if cpu.cores > 0 { format!(", {} cores", cpu.cores) } else { String::new() };
    let nodes =
        if cpu.numa_nodes > 1 { format!(", {} nodes", cpu.numa_nodes) } else { String::new() };
    let detail = format!("{}: {} threads usable{cores}{nodes}, {best}", cpu.name, cpu.threads);
    let weak = ["avx2", "asimd"].iter().all(|name| !cpu.features.iter().any(|has| has == name));
    match weak && !cpu.features.is_empty() {
        true => Finding::warn(
            "cpu",
            detail,
            "expect little: AVX2 or NEON makes models several times faster",
        ),
        false => Finding::ok("cpu", detail),
    }
}

fn memory(memory: &Memory) -> Finding {
    let (total, available) = (units::bytes(memory.total), units::bytes(memory.available));
    let speed = memory
        .bandwidth
        .map_or(String::new(), |rate| format!(", read at {}/s", units::bytes(rate)));
    let detail = format!("{total} of RAM, {available} available{speed}");
    match memory.available {
        available if available < MEMORY_WARN_BYTES => {
            Finding::warn("memory", detail, "close other programs; `dsk ps` shows loaded models")
        }
        _ => Finding::ok("memory", detail),
    }
}

/// Only where there is a limit.
fn control_group(memory: &Memory) -> Option<Finding> {
    let limit = memory.limit?;
    let detail = format!("limits memory to {}", units::bytes(limit));
    Some(match limit < MEMORY_WARN_BYTES {
        true => Finding::warn(
            "control group",
            detail,
            "raise the container's or service's memory limit",
        ),
        false => Finding::ok("control group", detail),
    })
}

fn swap(memory: &Memory) -> Finding {
    let (total, free) = (memory.swap_total, memory.swap_free);
    let detail = format!("{} of {} free", units::bytes(free), units::bytes(total));
    match total {
        0 => Finding::ok("swap", "none: a model that does not fit is refused, not swapped"),
        _ if free < total / 10 => Finding::warn(
            "swap",
            detail,
            "the machine lacks memory: close programs or `dsk stop` models",
        ),
        _ => Finding::ok("swap", detail),
    }
}

/// Only where some are reserved.
fn huge_pages(memory: &Memory) -> Option<Finding> {
    let detail = format!("{} reserved, of no use to models", units::bytes(memory.huge_pages));
    let next = "unless another program needs them: sysctl vm.nr_hugepages=0";
    (memory.huge_pages > 0).then(|| Finding::warn("huge pages", detail, next))
}

/// Models are mapped, not locked, so that any limit will do.
fn locked_memory(limit: &Rlimit) -> Finding {
    let limit = limit
        .current
        .map_or("without limit".to_owned(), |bytes| format!("up to {}", units::bytes(bytes)));
    Finding::ok("locked memory", format!("{limit}; models need none"))
}

/// Only where it was measured.
fn reading(machine: &Machine) -> Option<Finding> {
    let disk = machine.disk.as_ref()?;
    let rate = units::bytes(disk.read_rate?);
    Some(Finding::ok("disk read", format!("{rate}/s at {}", disk.path)))
}

fn gpu(gpu: &Gpu) -> Finding {
    let place = gpu.bus.as_ref().map_or(String::new(), |bus| format!(" at {bus}"));
    let driver = gpu.driver.as_deref().map_or(String::new(), |driver| format!(", driver {driver}"));
    if let Some(fault) = &gpu.fault {
        return Finding::warn("gpu", format!("{}{place}{driver}: {fault}", gpu.name), next(gpu));
    }
    let (free, total) = (units::bytes(gpu.memory_free), units::bytes(gpu.memory_total));
    let memory = match gpu.shared_memory {
        true => "shares the RAM".to_owned(),
        false => format!("{free} of {total} free"),
    };
    let others = match gpu.memory_others {
        0 => String::new(),
        bytes => format!(" ({} held by other programs)", units::bytes(bytes)),
    };
    Finding::ok("gpu", format!("{}{place}: {memory}{others}{driver}; {ON_CPU}", gpu.name))
}

/// What to do about a GPU that is of no use.
fn next(gpu: &Gpu) -> &'static str {
    match (gpu.vendor, &gpu.driver) {
        (Vendor::Nvidia, None) => {
            "install NVIDIA's driver and restart; in a container, give it the GPU (--gpus all)"
        }
        (Vendor::Nvidia, Some(_)) => {
            "look at `nvidia-smi` and the kernel's log (dmesg | grep -i xid); a restart resets a lost GPU"
        }
        (Vendor::Amd, _) => {
            "load the kernel's amdgpu driver (modprobe amdgpu), which ROCm needs too"
        }
        (Vendor::Intel, _) => "update the kernel: newer drivers (xe, i915) tell it",
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use expect_test::{Expect, expect};

    fn check(machine: &str, expected: Expect) {
        let machine: Machine = serde_json::from_str(machine).unwrap();
        let lines = super::machine(&machine).into_iter().filter(|one| one.check != "locked memory");
        let line = |finding: Finding| {
            let next = finding.next.map(|next| format!("\n    {next}")).unwrap_or_default();
            format!("{:?} {}: {}{next}\n", finding.level, finding.check, finding.detail)
        };
        expected.assert_eq(&lines.map(line).collect::<String>());
    }

    #[test]
    fn a_small_laptop_and_its_warnings() {
        check(
            r#"{
                "cpu": { "name": "Core 2", "threads": 2, "features": ["sse4_2"] },
                "memory": {
                    "total": 4000000000, "available": 500000000, "huge_pages": 1073741824,
                    "swap_total": 2000000000, "swap_free": 100000000
                }
            }"#,
            expect![[r#"
                Warn cpu: Core 2: 2 threads usable, sse4_2
                    expect little: AVX2 or NEON makes models several times faster
                Warn memory: 4.0 GB of RAM, 500 MB available
                    close other programs; `dsk ps` shows loaded models
                Warn swap: 100 MB of 2.0 GB free
                    the machine lacks memory: close programs or `dsk stop` models
                Warn huge pages: 1.1 GB reserved, of no use to models
                    unless another program needs them: sysctl vm.nr_hugepages=0
                Ok gpu: none found: models run on the CPU
            "#]],
        );
    }

    #[test]
    fn gpus_that_answer() {
        check(
            include_str!(
                "../../../../daemon/src/hardware/fixtures/workstation-64gb-2x-rtx3090.json"
            ),
            expect![[r#"
                Ok cpu: AMD Ryzen 9 5950X 16-Core Processor: 32 threads usable, 16 cores, avx2
                Ok memory: 67 GB of RAM, 59 GB available, read at 45 GB/s
                Ok swap: none: a model that does not fit is refused, not swapped
                Ok disk read: 3.0 GB/s at /home/ada/.dsk/models
                Ok gpu: NVIDIA GeForce RTX 3090 at 0000:04:00.0: 25 GB of 26 GB free (720 MB held by other programs), driver 570.133.07; reported; models run on the CPU in this version
                Ok gpu: NVIDIA GeForce RTX 3090 at 0000:0b:00.0: 25 GB of 26 GB free, driver 570.133.07; reported; models run on the CPU in this version
            "#]],
        );
        check(
            include_str!("../../../../daemon/src/hardware/fixtures/jetson-orin-16gb.json"),
            expect![[r#"
                Ok cpu: ARMv8 Processor rev 1 (v8l): 8 threads usable, 8 cores, asimddp
                Ok memory: 16 GB of RAM, 13 GB available, read at 62 GB/s
                Ok swap: 8.2 GB of 8.2 GB free
                Ok disk read: 2.4 GB/s at /home/ada/.dsk/models
                Ok gpu: NVIDIA Jetson Orin NX: shares the RAM, driver 540.4.0; reported; models run on the CPU in this version
            "#]],
        );
    }

    #[test]
    fn gpus_of_no_use() {
        check(
            r#"{
                "cpu": { "name": "EPYC", "threads": 4, "cores": 4, "features": ["avx2"], "numa_nodes": 2 },
                "memory": { "total": 1000000000, "available": 900000000, "limit": 1000000000 },
                "gpus": [
                    {
                        "index": 0, "vendor": "nvidia", "name": "NVIDIA GPU [10de:2335]",
                        "bus": "0000:19:00.0", "memory_total": 0, "memory_free": 0,
                        "fault": "no NVIDIA driver is installed"
                    },
                    {
                        "index": 1, "vendor": "nvidia", "name": "NVIDIA H200", "driver": "570.1",
                        "memory_total": 9, "memory_free": 0, "fault": "its driver says: GPU is lost"
                    },
                    {
                        "index": 0, "vendor": "amd", "name": "AMD GPU [1002:744c]",
                        "memory_total": 0, "memory_free": 0, "fault": "no amdgpu driver tells its memory"
                    }
                ]
            }"#,
            expect![[r#"
                Ok cpu: EPYC: 4 threads usable, 4 cores, 2 nodes, avx2
                Warn memory: 1.0 GB of RAM, 900 MB available
                    close other programs; `dsk ps` shows loaded models
                Warn control group: limits memory to 1.0 GB
                    raise the container's or service's memory limit
                Ok swap: none: a model that does not fit is refused, not swapped
                Warn gpu: NVIDIA GPU [10de:2335] at 0000:19:00.0: no NVIDIA driver is installed
                    install NVIDIA's driver and restart; in a container, give it the GPU (--gpus all)
                Warn gpu: NVIDIA H200, driver 570.1: its driver says: GPU is lost
                    look at `nvidia-smi` and the kernel's log (dmesg | grep -i xid); a restart resets a lost GPU
                Warn gpu: AMD GPU [1002:744c]: no amdgpu driver tells its memory
                    load the kernel's amdgpu driver (modprobe amdgpu), which ROCm needs too
            "#]],
        );
    }

    #[test]
    fn no_limit_of_locked_memory() {
        let finding = locked_memory(&Rlimit { current: None, maximum: None });
        assert_eq!(
            (finding.level, finding.detail.as_str()),
            (Level::Ok, "without limit; models need none")
        );
    }
}
