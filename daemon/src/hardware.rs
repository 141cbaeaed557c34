//! What this machine has: memory and GPUs. Neither is cached; both are cheap to ask.

use nvml_wrapper::Nvml;
use serde::Serialize;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// RAM, in bytes, as this process may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All there is, or the control group's limit where that is less.
    pub total: u64,
    /// What can be allocated without swapping.
    pub available: u64,
}

impl Memory {
    /// A machine that does not say: no load is refused for want of memory.
    const UNKNOWN: Memory = Memory { total: u64::MAX, available: u64::MAX };

    /// Reads the current figures.
    pub fn read() -> Memory {
        let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::everything());
        let Ok(system) = System::new_with_specifics(kind) else { return Memory::UNKNOWN };
        let (total, available) = (system.total_memory(), system.available_memory());
        match system.cgroup_limits() {
            Some(limits) if limits.total_memory > 0 => Memory {
                total: total.min(limits.total_memory),
                available: available.min(limits.free_memory),
            },
            _ => Memory { total, available },
        }
    }
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Its place in the driver's list.
    pub index: u32,
    /// Its product name.
    pub name: String,
    /// Its memory, in bytes.
    pub memory_total: u64,
    /// The memory nothing uses, in bytes.
    pub memory_free: u64,
    /// The driver's version.
    pub driver: String,
}

/// What the machine has, in one look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hardware {
    /// Threads the processor runs at once.
    pub cpus: usize,
    /// RAM.
    pub memory: Memory,
    /// NVIDIA GPUs; none when there is no driver, which is normal.
    pub gpus: Vec<Gpu>,
}

impl Hardware {
    /// Looks. Blocking: the GPU driver may take a while to wake.
    pub fn probe() -> Hardware {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Hardware { cpus, memory: Memory::read(), gpus: gpus().unwrap_or_default() }
    }
}

/// The GPUs, or `None` without a driver. A GPU that fails to answer is left out.
fn gpus() -> Option<Vec<Gpu>> {
    let nvml = Nvml::init().ok()?;
    let driver = nvml.sys_driver_version().unwrap_or_default();
    let gpu = |index| {
        let device = nvml.device_by_index(index).ok()?;
        let memory = device.memory_info().ok()?;
        Some(Gpu {
            index,
            name: device.name().ok()?,
            memory_total: memory.total,
            memory_free: memory.free,
            driver: driver.clone(),
        })
    };
    Some((0..nvml.device_count().ok()?).filter_map(gpu).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_processors() {
        let hardware = Hardware::probe();
        assert!(hardware.cpus >= 1);
        assert!(hardware.memory.total > 0);
        assert!(hardware.memory.available <= hardware.memory.total);
    }
}
