//! What a machine has, as data: read from this one, or from a file that describes another.

use serde::{Deserialize, Serialize};

/// A machine, as far as running models is concerned.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The processor.
    pub cpu: Cpu,
    /// RAM.
    pub memory: Memory,
    /// Every GPU that answers, those of no use included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
    /// The disk that models lie on; absent where it was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
}

/// The processor, as this process may use it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// Its product name.
    pub name: String,
    /// Threads that can run at once: affinity and the control groups' quota counted.
    pub threads: usize,
    /// Physical cores; 0 where the system does not say.
    #[serde(default)]
    pub cores: usize,
    /// Instruction sets that matter here, such as `avx2`, `avx512_vnni`.
    #[serde(default)]
    pub features: Vec<String>,
    /// Memory nodes; at least 1.
    #[serde(default = "one")]
    pub numa_nodes: usize,
}

fn one() -> usize {
    1
}

/// RAM, in bytes, as this process may use it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// All there is, or the control groups' limit where that is less.
    pub total: u64,
    /// What can be allocated without swapping.
    pub available: u64,
    /// The least limit of a control group above this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Swap space.
    #[serde(default)]
    pub swap_total: u64,
    /// Swap space that is free.
    #[serde(default)]
    pub swap_free: u64,
    /// Reserved in huge pages, and so of no use to others.
    #[serde(default)]
    pub huge_pages: u64,
    /// Bytes that are read in a second by all threads together, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<u64>,
}

/// Who makes a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vendor {
    /// Read through NVML.
    Nvidia,
    /// Read through sysfs.
    Amd,
    /// Read through sysfs.
    Intel,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// Its place in the driver's list.
    pub index: u32,
    /// Who makes it.
    pub vendor: Vendor,
    /// Its product name.
    pub name: String,
    /// Where it is on the bus, such as `0000:01:00.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bus: Option<String>,
    /// Its memory, in bytes.
    pub memory_total: u64,
    /// The memory nothing uses, in bytes; never more than `memory_total`.
    pub memory_free: u64,
    /// What other processes hold of it, in bytes: a desktop, a game.
    #[serde(default)]
    pub memory_others: u64,
    /// Its memory is the machine's RAM.
    #[serde(default)]
    pub shared_memory: bool,
    /// What its instructions are, by NVIDIA's counting: major, minor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_capability: Option<(u32, u32)>,
    /// The driver's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// How busy it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization_percent: Option<u32>,
    /// Bytes of its memory that are read in a second: its makers' figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<u64>,
    /// Why it cannot be used, in words: it fell off the bus, its driver contradicts itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// The disk that models lie on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The folder it was asked for.
    pub path: String,
    /// Its size, in bytes.
    pub total: u64,
    /// What may still be written, in bytes.
    pub free: u64,
    /// Bytes that are read in a second, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_rate: Option<u64>,
}
