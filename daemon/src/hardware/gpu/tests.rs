//! GPUs that come and go, under a driver that does what a test wants.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::nvml::{Answers, Bytes, Driver, Missing};
use super::*;
use crate::hardware::testing::{tree, write};

/// The places of the driver's list, and what answers there.
type Slots = BTreeMap<u32, Result<Answers, String>>;

/// A driver whose GPUs a test changes while it is used.
#[derive(Clone, Default)]
struct Bench {
    slots: Arc<Mutex<Slots>>,
    /// Why it fails as a whole.
    missing: Arc<Mutex<Option<Missing>>>,
    opened: Arc<Mutex<usize>>,
}

impl Bench {
    fn gpus(&self) -> Gpus {
        let bench = self.clone();
        Gpus::new(Box::new(move || {
            *bench.opened.lock().unwrap() += 1;
            Ok(Box::new(bench.clone()))
        }))
    }

    fn put(&self, index: u32, answer: Result<Answers, String>) {
        self.slots.lock().unwrap().insert(index, answer);
    }
}

impl Driver for Bench {
    fn version(&self) -> Option<String> {
        Some("570.133.07".to_owned())
    }

    fn count(&self) -> Result<u32, Missing> {
        let missing = self.missing.lock().unwrap().clone();
        missing.map_or(Ok(self.slots.lock().unwrap().len() as u32), Err)
    }

    fn device(&self, index: u32) -> Result<Answers, String> {
        self.slots.lock().unwrap().get(&index).cloned().unwrap_or(Err("no such GPU".to_owned()))
    }
}

fn healthy(bus: &str) -> Result<Answers, String> {
    Ok(Answers {
        name: Some("NVIDIA GeForce RTX 3090".to_owned()),
        bus: Some(bus.to_owned()),
        memory: Some(Ok(Bytes { total: 24 << 30, free: 20 << 30, used: 4 << 30 })),
        processes: Some(Vec::new()),
        ..Answers::default()
    })
}

/// What is said of each GPU: place, free memory, fault.
fn said(gpus: &[Gpu]) -> Vec<(String, u64, String)> {
    let one = |gpu: &Gpu| {
        let fault = gpu.fault.clone().unwrap_or_default();
        (gpu.bus.clone().unwrap_or_default(), gpu.memory_free >> 30, fault)
    };
    gpus.iter().map(one).collect()
}

fn row(bus: &str, free: u64, fault: &str) -> (String, u64, String) {
    (bus.to_owned(), free, fault.to_owned())
}

const LOST: &str = "it no longer answers: it fell off the bus, or its driver was removed";

#[test]
fn gpus_come_and_go() {
    let empty = tree(&[]);
    let (roots, memory) = (Roots::at(empty.path()), Memory::default());
    let bench = Bench::default();
    let mut gpus = bench.gpus();
    let (one, two) = ("0000:01:00.0", "0000:02:00.0");
    bench.put(0, healthy(one));
    assert_eq!(said(&gpus.probe(&roots, &memory)), [row(one, 20, "")]);

    bench.put(1, healthy(two));
    assert_eq!(said(&gpus.probe(&roots, &memory)), [row(one, 20, ""), row(two, 20, "")]);

    // The driver still lists it, and it answers nothing: its name and place are remembered.
    bench.put(0, Err("GPU is lost".to_owned()));
    let found = gpus.probe(&roots, &memory);
    assert_eq!(said(&found), [row(one, 0, "its driver says: GPU is lost"), row(two, 20, "")]);
    assert_eq!(found[0].name, "NVIDIA GeForce RTX 3090");

    // The driver no longer lists it, and the other one moves up.
    *bench.slots.lock().unwrap() = Slots::from([(0, healthy(two))]);
    assert_eq!(said(&gpus.probe(&roots, &memory)), [row(two, 20, ""), row(one, 0, LOST)]);

    // It is back.
    *bench.slots.lock().unwrap() = Slots::from([(0, healthy(one)), (1, healthy(two))]);
    assert_eq!(said(&gpus.probe(&roots, &memory)), [row(one, 20, ""), row(two, 20, "")]);
    assert_eq!(*bench.opened.lock().unwrap(), 1);
}

#[test]
fn a_driver_that_fails_as_a_whole_is_opened_anew() {
    let empty = tree(&[]);
    let (roots, memory) = (Roots::at(empty.path()), Memory::default());
    let bench = Bench::default();
    let mut gpus = bench.gpus();
    bench.put(0, healthy("0000:01:00.0"));
    gpus.probe(&roots, &memory);
    *bench.missing.lock().unwrap() = Some(Missing::Versions);
    assert_eq!(said(&gpus.probe(&roots, &memory)), [row("0000:01:00.0", 0, LOST)]);
    *bench.missing.lock().unwrap() = None;
    assert_eq!(said(&gpus.probe(&roots, &memory)), [row("0000:01:00.0", 20, "")]);
    assert_eq!(*bench.opened.lock().unwrap(), 2);
}

#[test]
fn a_driver_that_claims_a_million_gpus_is_cut_short() {
    struct Boaster;
    impl Driver for Boaster {
        fn version(&self) -> Option<String> {
            None
        }
        fn count(&self) -> Result<u32, Missing> {
            Ok(1_000_000)
        }
        fn device(&self, _: u32) -> Result<Answers, String> {
            Err("no".to_owned())
        }
    }
    let empty = tree(&[]);
    let mut gpus = Gpus::new(Box::new(|| Ok(Box::new(Boaster))));
    assert_eq!(gpus.probe(&Roots::at(empty.path()), &Memory::default()).len(), GPUS_MAX);
}

#[test]
fn without_a_driver_the_device_is_still_reported() {
    let folder = tree(&[
        ("sys/bus/pci/devices/0000:19:00.0/vendor", "0x10de\n"),
        ("sys/bus/pci/devices/0000:19:00.0/device", "0x2335\n"),
        ("sys/bus/pci/devices/0000:19:00.0/class", "0x030200\n"),
    ]);
    let mut gpus = Gpus::new(Box::new(|| Err(Missing::Library)));
    let found = gpus.probe(&Roots::at(folder.path()), &Memory::default());
    assert_eq!(said(&found), [row("0000:19:00.0", 0, "no NVIDIA driver is installed")]);
    assert_eq!(found[0].name, "NVIDIA GPU [10de:2335]");
}

#[test]
fn runners_are_ours() {
    let folder = tree(&[
        ("proc/20/stat", "20 (dsk runner) S 10 20 20 0"),
        ("proc/30/stat", "30 (a) S) 7) S 20 30 30 0"),
        ("proc/40/stat", "40 (Xorg) S 1 40 40 0"),
        ("proc/50/stat", "garbage"),
    ]);
    let roots = Roots::at(folder.path());
    let ours: Vec<_> = [10, 20, 30, 40, 50, 60].map(|pid| is_ours(&roots, 10, pid)).into();
    assert_eq!(ours, [true, true, true, false, false, false]);
    // A circle ends.
    write(&folder, "proc/1/stat", "1 (init) S 1");
    assert!(!is_ours(&roots, 10, 40));
}
