//! GPUs: NVIDIA's through its management library, the others through sysfs, followed over time so
//! that one that stops answering is reported and not forgotten.

use super::{Gpu, Memory, Roots, Vendor};

mod jetson;
pub(super) mod nvml;
mod speed;
mod sysfs;
#[cfg(test)]
mod tests;

use nvml::{Driver, Missing};

/// No machine has more; a driver that says so lies.
const GPUS_MAX: usize = 64;
/// No GPU has more memory: 16 TiB.
const MEMORY_MAX: u64 = 16 << 40;
const TEXT_CHARS_MAX: usize = 128;

/// How the library of NVIDIA's driver is opened; tests bring their own.
type Open = Box<dyn Fn() -> Result<Box<dyn Driver>, Missing> + Send>;

/// The GPUs of a machine and what was last said of them.
pub(super) struct Gpus {
    open: Open,
    /// Kept open: opening it wakes the GPUs, which takes up to seconds.
    driver: Option<Box<dyn Driver>>,
    known: Vec<Gpu>,
}

impl Gpus {
    pub(super) fn new(open: Open) -> Gpus {
        Gpus { open, driver: None, known: Vec::new() }
    }

    /// Asks all GPUs. Blocking: a driver may take seconds to wake one.
    pub(super) fn probe(&mut self, roots: &Roots, memory: &Memory) -> Vec<Gpu> {
        let mut found = match jetson::read(roots, memory) {
            Some(integrated) => vec![integrated],
            None => self.nvidia(roots),
        };
        found.extend(sysfs::others(roots, memory));
        found.truncate(GPUS_MAX);
        for gpu in &mut found {
            remember(gpu, &self.known);
        }
        let gone = self.known.iter().filter(|known| !found.iter().any(|gpu| same(gpu, known)));
        let gone: Vec<Gpu> = gone.map(lost).collect();
        found.extend(gone);
        report(&self.known, &found);
        self.known.clone_from(&found);
        found
    }

    /// What the driver says, or what sysfs knows of its GPUs where it says nothing.
    fn nvidia(&mut self, roots: &Roots) -> Vec<Gpu> {
        match self.ask(roots) {
            Ok(gpus) if !gpus.is_empty() => gpus,
            Ok(_) => sysfs::without_driver(roots, "its driver does not list it"),
            Err(missing) => sysfs::without_driver(roots, &missing.to_string()),
        }
    }

    fn ask(&mut self, roots: &Roots) -> Result<Vec<Gpu>, Missing> {
        let driver = match self.driver.take() {
            Some(driver) => driver,
            None => (self.open)()?,
        };
        let gpus = nvml::read(driver.as_ref(), |pid| is_ours(roots, std::process::id(), pid))?;
        // A driver that failed as a whole is opened anew: it may have been replaced.
        self.driver = Some(driver);
        Ok(gpus)
    }
}

/// Whether both are the same device.
fn same(one: &Gpu, other: &Gpu) -> bool {
    match (&one.bus, &other.bus) {
        (Some(one), Some(other)) => one == other,
        _ => (one.vendor, one.index) == (other.vendor, other.index),
    }
}

/// Gives a GPU that says nothing but its fault what it said of itself before.
fn remember(gpu: &mut Gpu, known: &[Gpu]) {
    let silent = gpu.fault.is_some() && gpu.bus.is_none();
    if let Some(known) = known.iter().find(|known| silent && same(gpu, known)) {
        *gpu = Gpu { fault: gpu.fault.take(), ..lost(known) };
    }
}

/// A GPU that answered once and no longer does.
fn lost(known: &Gpu) -> Gpu {
    Gpu {
        memory_free: 0,
        memory_others: 0,
        utilization_percent: None,
        fault: Some("it no longer answers: it fell off the bus, or its driver was removed".into()),
        ..known.clone()
    }
}

/// Says what changed: once, not at every look.
fn report(before: &[Gpu], now: &[Gpu]) {
    for gpu in now {
        let (name, bus) = (gpu.name.as_str(), gpu.bus.as_deref().unwrap_or_default());
        let known = before.iter().find(|known| same(gpu, known));
        match (known.map(|known| &known.fault), &gpu.fault) {
            (Some(Some(_)), Some(_)) | (Some(None), None) => {}
            (_, Some(fault)) => {
                tracing::warn!(event = "gpu_fault", gpu = name, bus, fault, "a GPU is of no use");
            }
            (_, None) => {
                tracing::info!(
                    event = "gpu_found",
                    gpu = name,
                    bus,
                    bytes = gpu.memory_total,
                    "a GPU"
                );
            }
        }
    }
}

/// Whether a process is this one or descends from it: runners do.
fn is_ours(roots: &Roots, own: u32, pid: u32) -> bool {
    const GENERATIONS_MAX: usize = 4;
    let mut chain = std::iter::successors(Some(pid), |pid| parent(roots, *pid));
    chain.by_ref().take(GENERATIONS_MAX).any(|pid| pid == own)
}

/// The parent of a process: the second word behind its name, which may hold anything.
fn parent(roots: &Roots, pid: u32) -> Option<u32> {
    let stat = roots.text(format!("/proc/{pid}/stat"))?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// A text from a driver, short and printable.
fn plain(text: &str) -> String {
    text.trim().chars().filter(|char| !char.is_control()).take(TEXT_CHARS_MAX).collect()
}

/// A GPU of which nothing is known but its place.
fn blank(vendor: Vendor, index: u32, name: &str) -> Gpu {
    Gpu {
        index,
        vendor,
        name: plain(name),
        bus: None,
        memory_total: 0,
        memory_free: 0,
        memory_others: 0,
        shared_memory: false,
        compute_capability: None,
        driver: None,
        utilization_percent: None,
        bandwidth: None,
        fault: None,
    }
}
