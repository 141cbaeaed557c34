//! NVIDIA's management library (NVML). Absent is normal; what it says is checked before it is
//! believed.

use std::collections::BTreeMap;

use nvml_wrapper::enum_wrappers::device::Clock;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, Nvml};

use super::super::{Gpu, Vendor};
use super::{GPUS_MAX, MEMORY_MAX, blank, plain, speed};

/// What drivers install; the name without a version comes with development packages only.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// Why the library does not answer at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Missing {
    /// There is no library.
    #[error("no NVIDIA driver is installed")]
    Library,
    /// There is no kernel module.
    #[error("the NVIDIA driver is installed but not loaded")]
    Module,
    /// The two are of different versions.
    #[error("the NVIDIA driver was updated and this machine not restarted since")]
    Versions,
    /// Anything else.
    #[error("the NVIDIA driver fails: {0}")]
    Other(String),
}

impl From<NvmlError> for Missing {
    fn from(error: NvmlError) -> Missing {
        match error {
            NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => Missing::Library,
            NvmlError::DriverNotLoaded => Missing::Module,
            NvmlError::LibRmVersionMismatch => Missing::Versions,
            other => Missing::Other(plain(&other.to_string())),
        }
    }
}

/// As much of the library as is used.
pub(crate) trait Driver: Send {
    /// The driver's version.
    fn version(&self) -> Option<String>;
    /// How many GPUs there are.
    fn count(&self) -> Result<u32, Missing>;
    /// What the GPU at this place says of itself; a text says why it does not.
    fn device(&self, index: u32) -> Result<Answers, String>;
}

/// A process and the bytes it holds, where that is known.
pub(crate) type Process = (u32, Option<u64>);

/// What a GPU says of itself, unchecked. Bytes, MHz, bits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers {
    pub(crate) name: Option<String>,
    pub(crate) bus: Option<String>,
    pub(crate) memory: Option<Result<Bytes, String>>,
    /// Who uses it; `None` where it cannot say.
    pub(crate) processes: Option<Vec<Process>>,
    pub(crate) capability: Option<(i32, i32)>,
    pub(crate) utilization: Option<u32>,
    pub(crate) memory_clock: Option<u32>,
    pub(crate) bus_width: Option<u32>,
}

/// A GPU's memory by its own account.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bytes {
    pub(crate) total: u64,
    pub(crate) free: u64,
    pub(crate) used: u64,
}

/// The library of this machine.
pub(crate) fn open() -> Result<Box<dyn Driver>, Missing> {
    let versioned = Nvml::builder().lib_path(LIBRARY.as_ref()).init();
    let nvml = match versioned {
        Err(NvmlError::LibloadingError(_)) => Nvml::init(),
        other => other,
    };
    Ok(Box::new(nvml?))
}

impl Driver for Nvml {
    fn version(&self) -> Option<String> {
        self.sys_driver_version().ok()
    }

    fn count(&self) -> Result<u32, Missing> {
        Ok(self.device_count()?)
    }

    fn device(&self, index: u32) -> Result<Answers, String> {
        let device = self.device_by_index(index).map_err(|error| error.to_string())?;
        let memory = device.memory_info().map_err(|error| error.to_string());
        let capability = device.cuda_compute_capability().ok();
        Ok(Answers {
            name: device.name().ok(),
            bus: device.pci_info().ok().map(|pci| pci.bus_id),
            memory: Some(memory.map(|memory| Bytes {
                total: memory.total,
                free: memory.free,
                used: memory.used,
            })),
            processes: processes(&device),
            capability: capability.map(|capability| (capability.major, capability.minor)),
            utilization: device.utilization_rates().ok().map(|rates| rates.gpu),
            memory_clock: device.max_clock_info(Clock::Memory).ok(),
            bus_width: device.memory_bus_width().ok(),
        })
    }
}

/// Those that compute and those that draw; a process may be in both lists.
fn processes(device: &Device<'_>) -> Option<Vec<Process>> {
    let compute = device.running_compute_processes().ok()?;
    let graphics = device.running_graphics_processes().ok()?;
    let bytes = |process: &ProcessInfo| match process.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    };
    Some(compute.iter().chain(&graphics).map(|process| (process.pid, bytes(process))).collect())
}

/// Every GPU of the driver, those that do not answer with their `fault`.
pub(super) fn read(driver: &dyn Driver, ours: impl Fn(u32) -> bool) -> Result<Vec<Gpu>, Missing> {
    let count = driver.count()?.min(GPUS_MAX as u32);
    let version = driver.version().map(|version| plain(&version));
    let gpu = |index| {
        let gpu = match driver.device(index) {
            Ok(answers) => checked(index, &answers, &ours),
            Err(error) => {
                let fault = Some(format!("its driver says: {}", plain(&error)));
                Gpu { fault, ..blank(Vendor::Nvidia, index, "NVIDIA GPU") }
            }
        };
        Gpu { driver: version.clone(), ..gpu }
    };
    Ok((0..count).map(gpu).collect())
}

/// What of the answers can be believed.
fn checked(index: u32, answers: &Answers, ours: &impl Fn(u32) -> bool) -> Gpu {
    let name = answers.name.as_deref().unwrap_or("NVIDIA GPU");
    let positive = |(major, minor)| Some((u32::try_from(major).ok()?, u32::try_from(minor).ok()?));
    let gpu = Gpu {
        bus: answers.bus.as_deref().map(bus),
        compute_capability: answers.capability.and_then(positive),
        utilization_percent: answers.utilization.filter(|percent| *percent <= 100),
        bandwidth: speed::of_name(name)
            .or_else(|| speed::computed(answers.memory_clock?, answers.bus_width?)),
        ..blank(Vendor::Nvidia, index, name)
    };
    let fault = |fault| Gpu { fault: Some(fault), ..gpu.clone() };
    match &answers.memory {
        None => fault("its driver does not say how much memory it has".to_owned()),
        Some(Err(error)) => fault(format!("its driver says: {}", plain(error))),
        Some(Ok(memory)) if memory.total == 0 || memory.total > MEMORY_MAX => {
            fault(format!("its driver claims {} bytes of memory", memory.total))
        }
        Some(Ok(memory)) => with_memory(gpu, *memory, answers.processes.as_deref(), ours),
    }
}

/// `total` is sane; the others are held against it.
fn with_memory(
    gpu: Gpu,
    memory: Bytes,
    processes: Option<&[Process]>,
    ours: &impl Fn(u32) -> bool,
) -> Gpu {
    let Bytes { total, free, used } = memory;
    let contradiction = free > total || used > total;
    let fault = contradiction.then(|| {
        format!("its driver contradicts itself: {free} bytes free and {used} used of {total}")
    });
    let free = free.min(total.saturating_sub(used));
    let others = others(processes, used, ours).min(total - free);
    Gpu { memory_total: total, memory_free: free, memory_others: others, fault, ..gpu }
}

/// What other processes hold. Where the driver cannot say it of each, all that is used and not ours.
fn others(processes: Option<&[Process]>, used: u64, ours: &impl Fn(u32) -> bool) -> u64 {
    let mut sizes: BTreeMap<u32, Option<u64>> = BTreeMap::new();
    for (pid, bytes) in processes.unwrap_or_default() {
        let size = sizes.entry(*pid).or_default();
        *size = (*size).max(*bytes);
    }
    let (own, foreign): (BTreeMap<_, _>, _) = sizes.into_iter().partition(|(pid, _)| ours(*pid));
    let sum = |sizes: &BTreeMap<u32, Option<u64>>| {
        sizes.values().flatten().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes))
    };
    let complete = processes.is_some() && foreign.values().all(Option::is_some);
    if complete { sum(&foreign) } else { used.saturating_sub(sum(&own)) }
}

/// NVML writes the domain with eight digits and in capitals; everyone else writes `0000:01:00.0`.
fn bus(text: &str) -> String {
    let text = plain(text).to_ascii_lowercase();
    match text.split_once(':') {
        Some((domain, rest)) if domain.len() == 8 && domain.starts_with("0000") => {
            format!("{}:{rest}", &domain[4..])
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests;
