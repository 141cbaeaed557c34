//! GPUs as sysfs shows them: AMD's and Intel's with what their kernel drivers tell, NVIDIA's as
//! devices that are there, for when their driver is not.

use super::super::{Gpu, Memory, Roots, Vendor};
use super::{MEMORY_MAX, blank, plain, speed};

/// A device that draws or computes.
struct Display {
    vendor: Vendor,
    /// Its folder.
    folder: String,
    bus: Option<String>,
    /// The kernel driver bound to it.
    driver: Option<String>,
    /// Maker and model, in hexadecimal.
    device: Option<String>,
}

/// The GPUs of AMD and Intel.
pub(super) fn others(roots: &Roots, memory: &Memory) -> Vec<Gpu> {
    let displays = displays(roots);
    let of = |vendor| displays.iter().filter(move |display| display.vendor == vendor).zip(0..);
    let amd = of(Vendor::Amd).map(|(display, index)| amd(roots, display, index));
    let intel = of(Vendor::Intel).map(|(display, index)| intel(roots, display, index, memory));
    amd.chain(intel).collect()
}

/// The GPUs of NVIDIA, each with the same fault.
pub(super) fn without_driver(roots: &Roots, fault: &str) -> Vec<Gpu> {
    let displays = displays(roots).into_iter().filter(|display| display.vendor == Vendor::Nvidia);
    let gpu = |(display, index): (Display, u32)| Gpu {
        bus: display.bus.clone(),
        fault: Some(fault.to_owned()),
        ..blank(Vendor::Nvidia, index, &display.name("NVIDIA GPU"))
    };
    displays.zip(0..).map(gpu).collect()
}

/// Every device of a maker of GPUs: those with a driver as cards, then the others on the bus.
fn displays(roots: &Roots) -> Vec<Display> {
    let cards = roots.names("/sys/class/drm").into_iter().filter(|name| is_card(name));
    let cards = cards.map(|name| format!("/sys/class/drm/{name}/device"));
    let devices = roots.names("/sys/bus/pci/devices").into_iter();
    let devices = devices.map(|name| format!("/sys/bus/pci/devices/{name}")).filter(|folder| {
        // Class 3: displays, and 3D controllers without one.
        roots.line(format!("{folder}/class")).is_some_and(|class| class.starts_with("0x03"))
    });
    let mut found: Vec<Display> = Vec::new();
    for folder in cards.chain(devices) {
        let Some(display) = Display::read(roots, folder) else { continue };
        let known = found.iter().any(|other| other.bus.is_some() && other.bus == display.bus);
        if !known {
            found.push(display);
        }
    }
    found
}

/// `card0`, and not `card0-HDMI-A-1`, which is a socket of it.
fn is_card(name: &str) -> bool {
    let number = name.strip_prefix("card");
    number.is_some_and(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
}

impl Display {
    fn read(roots: &Roots, folder: String) -> Option<Display> {
        let vendor_id = roots.line(format!("{folder}/vendor"))?;
        let vendor = match vendor_id.as_str() {
            "0x10de" => Vendor::Nvidia,
            "0x1002" => Vendor::Amd,
            "0x8086" => Vendor::Intel,
            _ => return None,
        };
        let uevent = roots.text(format!("{folder}/uevent")).unwrap_or_default();
        let get = |key: &str| uevent.lines().find_map(|line| line.strip_prefix(key)).map(plain);
        let place = folder.strip_prefix("/sys/bus/pci/devices/").map(str::to_owned);
        let model = roots.line(format!("{folder}/device"));
        Some(Display {
            vendor,
            bus: get("PCI_SLOT_NAME=").or(place).map(|bus| bus.to_ascii_lowercase()),
            driver: get("DRIVER="),
            device: model.map(|model| plain(&format!("{vendor_id}:{model}").replace("0x", ""))),
            folder,
        })
    }

    /// What it is called where nothing tells its product name.
    fn name(&self, kind: &str) -> String {
        self.device.as_ref().map_or(kind.to_owned(), |device| format!("{kind} [{device}]"))
    }

    fn number(&self, roots: &Roots, name: &str) -> Option<u64> {
        roots.number(format!("{}/{name}", self.folder))
    }

    /// The kernel driver with its version, where it has one of its own.
    fn driver(&self, roots: &Roots) -> Option<String> {
        let name = self.driver.clone()?;
        // A name with a slash would lead elsewhere.
        let version = Some(&name).filter(|name| !name.contains('/'));
        let version = version.and_then(|name| roots.line(format!("/sys/module/{name}/version")));
        Some(version.map_or(name.clone(), |version| plain(&format!("{name} {version}"))))
    }
}

fn amd(roots: &Roots, display: &Display, index: u32) -> Gpu {
    let product = roots.line(format!("{}/product_name", display.folder));
    let name = product.unwrap_or_else(|| display.name("AMD GPU"));
    let gpu = Gpu {
        bus: display.bus.clone(),
        driver: display.driver(roots),
        utilization_percent: percent(display.number(roots, "gpu_busy_percent")),
        bandwidth: speed::of_name(&name),
        ..blank(Vendor::Amd, index, &name)
    };
    let total = display.number(roots, "mem_info_vram_total");
    let used = display.number(roots, "mem_info_vram_used");
    match (total.filter(|total| (1..=MEMORY_MAX).contains(total)), used) {
        (Some(total), Some(used)) if used <= total => {
            Gpu { memory_total: total, memory_free: total - used, memory_others: used, ..gpu }
        }
        (Some(total), used) => {
            let fault = used.map_or_else(
                || "its driver does not say how much memory is in use".to_owned(),
                |used| format!("its driver contradicts itself: {used} bytes used of {total}"),
            );
            Gpu { memory_total: total, fault: Some(fault), ..gpu }
        }
        (None, _) => Gpu { fault: Some("no amdgpu driver tells its memory".to_owned()), ..gpu },
    }
}

fn intel(roots: &Roots, display: &Display, index: u32, memory: &Memory) -> Gpu {
    let gpu = Gpu {
        bus: display.bus.clone(),
        driver: display.driver(roots),
        ..blank(Vendor::Intel, index, &display.name("Intel GPU"))
    };
    // The first bus of a machine holds what is part of the processor.
    if display.bus.as_deref().is_none_or(|bus| bus.starts_with("0000:00:")) {
        let (memory_total, memory_free) = (memory.total, memory.available);
        return Gpu { memory_total, memory_free, shared_memory: true, ..gpu };
    }
    let card = display.folder.trim_end_matches("/device");
    let total = roots.number(format!("{card}/lmem_total_bytes"));
    let free = roots.number(format!("{card}/lmem_avail_bytes"));
    match (total.filter(|total| (1..=MEMORY_MAX).contains(total)), free) {
        (Some(total), Some(free)) if free <= total => {
            Gpu { memory_total: total, memory_free: free, memory_others: total - free, ..gpu }
        }
        (total, _) => {
            let fault = Some("its driver does not say how much memory is free".to_owned());
            Gpu { memory_total: total.unwrap_or(0), fault, ..gpu }
        }
    }
}

fn percent(figure: Option<u64>) -> Option<u32> {
    figure.filter(|percent| *percent <= 100).map(|percent| percent as u32)
}
