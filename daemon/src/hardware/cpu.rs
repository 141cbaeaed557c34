//! The processor: its name, what it can do, and how much of it this process may use.

use std::collections::BTreeSet;

use super::cgroup::{self, CpuLimits};
use super::roots::cpu_list;
use super::{Cpu, Roots};

/// Instruction sets that decide how fast a model computes, as `/proc/cpuinfo` names them.
const FEATURES: &[&str] = &[
    "sse4_2",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_tile",
    "amx_int8",
    "asimd",
    "fphp",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
];
const NAME_CHARS_MAX: usize = 128;

impl Cpu {
    /// The processor of the machine at `roots`. Blocking, about a millisecond.
    pub fn read_at(roots: &Roots) -> Cpu {
        let info = roots.text("/proc/cpuinfo").unwrap_or_default();
        let calls = roots.calls();
        let known = |found: usize, otherwise: usize| if found > 0 { found } else { otherwise };
        let features = features(&info);
        Cpu {
            name: name(&info).or_else(|| board(roots)).unwrap_or_else(|| "unknown".to_owned()),
            threads: threads(roots, &info, calls.threads),
            cores: known(known(cores(&info), cores_of_sysfs(roots)), calls.cores),
            features: if features.is_empty() { calls.features } else { features },
            numa_nodes: numa_nodes(roots),
        }
    }
}

/// The values of a field in all the blocks of `/proc/cpuinfo`.
fn values<'a>(info: &'a str, field: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = info.lines().filter_map(|line| line.split_once(':'));
    lines.filter(move |(key, _)| key.trim() == field).map(|(_, value)| value.trim())
}

fn name(info: &str) -> Option<String> {
    let fields = ["model name", "Model Name", "cpu model", "Processor", "cpu"];
    let mut names = fields.iter().flat_map(|field| values(info, field));
    let name = names.find(|name| !name.is_empty())?;
    Some(name.chars().filter(|char| !char.is_control()).take(NAME_CHARS_MAX).collect())
}

/// What the device tree says where the processor has no name.
fn board(roots: &Roots) -> Option<String> {
    let name = roots.line("/proc/device-tree/model")?;
    Some(name.chars().filter(|char| !char.is_control()).take(NAME_CHARS_MAX).collect())
}

/// What all processors can do: those of one machine may differ.
fn features(info: &str) -> Vec<String> {
    let lines = values(info, "flags").chain(values(info, "Features"));
    let sets = lines.map(|line| line.split_whitespace().collect::<BTreeSet<_>>());
    let common = sets.reduce(|one, other| &one & &other).unwrap_or_default();
    FEATURES.iter().filter(|name| common.contains(*name)).map(|name| (*name).to_owned()).collect()
}

/// What the processor itself says, where no file does.
#[cfg(target_arch = "x86_64")]
pub(super) fn detected() -> Vec<String> {
    let found = [
        ("sse4_2", is_x86_feature_detected!("sse4.2")),
        ("avx", is_x86_feature_detected!("avx")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avx_vnni", is_x86_feature_detected!("avxvnni")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("avx512_vnni", is_x86_feature_detected!("avx512vnni")),
        ("avx512_bf16", is_x86_feature_detected!("avx512bf16")),
        ("avx512_fp16", is_x86_feature_detected!("avx512fp16")),
    ];
    found.into_iter().filter(|(_, there)| *there).map(|(name, _)| name.to_owned()).collect()
}

/// What the processor itself says, where no file does.
#[cfg(target_arch = "aarch64")]
pub(super) fn detected() -> Vec<String> {
    use std::arch::is_aarch64_feature_detected as has;
    let found = [
        ("asimd", has!("neon")),
        ("asimdhp", has!("fp16")),
        ("asimddp", has!("dotprod")),
        ("i8mm", has!("i8mm")),
        ("bf16", has!("bf16")),
        ("sve", has!("sve")),
        ("sve2", has!("sve2")),
    ];
    found.into_iter().filter(|(_, there)| *there).map(|(name, _)| name.to_owned()).collect()
}

/// Other processors say nothing.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn detected() -> Vec<String> {
    Vec::new()
}

/// Threads that can run at once; at least 1.
fn threads(roots: &Roots, info: &str, otherwise: usize) -> usize {
    let status = roots.text("/proc/self/status").unwrap_or_default();
    let affinity = values(&status, "Cpus_allowed_list").next().and_then(cpu_list);
    let online = roots.text("/sys/devices/system/cpu/online").as_deref().and_then(cpu_list);
    let listed = values(info, "processor").count();
    usable(
        &cgroup::cpu_limits(roots),
        [affinity, online],
        if listed > 0 { listed } else { otherwise },
    )
}

/// Processors in every set, or as many as the smallest of sets that contradict each other has; no
/// more than the quota, rounded up: half a processor's time still runs a thread.
fn usable(limits: &CpuLimits, sets: [Option<BTreeSet<u16>>; 2], otherwise: usize) -> usize {
    let sets: Vec<_> = sets.into_iter().chain([limits.cpus.clone()]).flatten().collect();
    let common = sets.iter().cloned().reduce(|one, other| &one & &other).map(|set| set.len());
    let least = sets.iter().map(BTreeSet::len).min();
    let count = common.filter(|count| *count > 0).or(least).unwrap_or(otherwise);
    // A float beyond any count becomes the largest one.
    let quota = limits.quota.map_or(usize::MAX, |quota| quota.ceil() as usize);
    count.min(quota).max(1)
}

/// Physical cores as `/proc/cpuinfo` tells them apart; 0 where it does not (ARM).
fn cores(info: &str) -> usize {
    let blocks = info.split("\n\n");
    let core = |block| {
        let id = values(block, "core id").next()?.to_owned();
        Some((values(block, "physical id").next().unwrap_or("0").to_owned(), id))
    };
    blocks.filter_map(core).collect::<BTreeSet<_>>().len()
}

/// Physical cores as sysfs tells them apart; 0 where it does not.
fn cores_of_sysfs(roots: &Roots) -> usize {
    let base = "/sys/devices/system/cpu";
    let online = roots.text(format!("{base}/online")).as_deref().and_then(cpu_list);
    let core = |cpu: u16| {
        let topology = format!("{base}/cpu{cpu}/topology");
        let package = roots.line(format!("{topology}/physical_package_id")).unwrap_or_default();
        Some((package, roots.line(format!("{topology}/core_id"))?))
    };
    online.unwrap_or_default().into_iter().filter_map(core).collect::<BTreeSet<_>>().len()
}

/// Memory nodes that have memory.
fn numa_nodes(roots: &Roots) -> usize {
    let nodes = ["has_memory", "online"];
    let read = |name| roots.text(format!("/sys/devices/system/node/{name}"));
    let list = nodes.into_iter().find_map(|name| cpu_list(&read(name)?));
    list.map_or(1, |nodes| nodes.len().max(1))
}

#[cfg(test)]
mod tests;
