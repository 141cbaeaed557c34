//! NVIDIA's boards with the GPU beside the processor: they share the RAM, and NVML knows little.

use super::super::{Gpu, Memory, Roots, Vendor};
use super::{blank, plain, speed};

/// A chip as the device tree calls it, and what its GPU's instructions are.
const CHIPS: &[(&str, (u32, u32))] = &[
    ("nvidia,tegra210", (5, 3)),
    ("nvidia,tegra186", (6, 2)),
    ("nvidia,tegra194", (7, 2)),
    ("nvidia,tegra234", (8, 7)),
    ("nvidia,tegra264", (11, 0)),
];
/// How busy the GPU is, in thousandths; the place differs between kernels.
const LOADS: &[&str] = &[
    "/sys/devices/gpu.0/load",
    "/sys/devices/platform/gpu.0/load",
    "/sys/devices/platform/bus@0/17000000.gpu/load",
    "/sys/devices/17000000.gpu/load",
];

/// The integrated GPU, if this is such a board.
pub(super) fn read(roots: &Roots, memory: &Memory) -> Option<Gpu> {
    let tree = roots.text("/proc/device-tree/compatible")?;
    let chip = tree.split('\0').find(|word| word.trim().starts_with("nvidia,tegra"))?.trim();
    let model = roots.line("/proc/device-tree/model").map(|model| plain(&model));
    // Boards call themselves after the kit they are sold in.
    let name = model.unwrap_or_else(|| "NVIDIA Jetson".to_owned());
    let load = LOADS.iter().find_map(|path| roots.number(path)).map(|load| load / 10);
    Some(Gpu {
        memory_total: memory.total,
        memory_free: memory.available,
        shared_memory: true,
        compute_capability: CHIPS
            .iter()
            .find(|(name, _)| *name == chip)
            .map(|(_, version)| *version),
        driver: roots.line("/sys/module/nvidia/version").map(|version| plain(&version)),
        utilization_percent: load.filter(|load| *load <= 100).map(|load| load as u32),
        bandwidth: speed::of_name(&name),
        ..blank(Vendor::Nvidia, 0, &name)
    })
}
