//! What this machine has: memory and GPUs. Neither is cached; both are cheap to ask.

use nvml_wrapper::Nvml;
use serde::Serialize;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

#[cfg(test)]
pub(crate) mod fixtures;
mod machine;

pub use machine::{Cpu, Disk, Gpu, Machine, Memory, Vendor};

impl Memory {
    /// A machine that does not say: no load is refused for want of memory.
    fn unknown() -> Memory {
        Memory { total: u64::MAX, available: u64::MAX, ..Memory::default() }
    }

    /// Reads the current figures.
    pub fn read() -> Memory {
        let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::everything());
        let Ok(system) = System::new_with_specifics(kind) else { return Memory::unknown() };
        let (total, available) = (system.total_memory(), system.available_memory());
        match system.cgroup_limits() {
            Some(limits) if limits.total_memory > 0 => Memory {
                total: total.min(limits.total_memory),
                available: available.min(limits.free_memory),
                limit: Some(limits.total_memory),
                ..Memory::default()
            },
            _ => Memory { total, available, ..Memory::default() },
        }
    }
}

/// What the machine has, in one look.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
            vendor: Vendor::Nvidia,
            name: device.name().ok()?,
            bus: device.pci_info().ok().map(|pci| pci.bus_id),
            memory_total: memory.total,
            memory_free: memory.free.min(memory.total),
            memory_others: 0,
            shared_memory: false,
            compute_capability: None,
            driver: Some(driver.clone()),
            utilization_percent: None,
            bandwidth: None,
            fault: None,
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
