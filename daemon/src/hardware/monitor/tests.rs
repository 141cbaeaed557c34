use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;
use crate::hardware::gpu::nvml::Missing;
use crate::hardware::testing::{tree, write};

/// A monitor of a machine in a folder that counts how often its driver is asked for.
fn monitor(folder: &tempfile::TempDir) -> (Monitor, Arc<AtomicUsize>) {
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    let gpus = Gpus::new(Box::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Err(Missing::Library)
    }));
    (Monitor::with(Roots::at(folder.path()), Some(folder.path().to_owned()), gpus), looks)
}

fn meminfo(kibibytes: u64) -> String {
    format!("MemTotal: {kibibytes} kB\nMemAvailable: 1024 kB\n")
}

#[tokio::test(start_paused = true)]
async fn the_machine_is_looked_at_on_demand_and_not_too_often() {
    let folder = tree(&[("proc/meminfo", &meminfo(2048))]);
    let (monitor, looks) = monitor(&folder);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(looks.load(Ordering::SeqCst), 0, "nobody asked");

    let (one, two) = tokio::join!(monitor.machine(), monitor.machine());
    assert!(Arc::ptr_eq(&one, &two), "those who ask together share an answer");
    assert_eq!(one.memory.total, 2 << 20);
    assert!(one.disk.is_some());

    write(&folder, "proc/meminfo", &meminfo(4096));
    tokio::time::advance(AGE_MAX / 2).await;
    assert_eq!(monitor.machine().await.memory.total, 2 << 20, "young enough");
    tokio::time::advance(AGE_MAX).await;
    assert_eq!(monitor.machine().await.memory.total, 4 << 20);
    assert_eq!(looks.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_hangs_costs_a_bounded_wait_and_one_thread() {
    let folder = tree(&[("proc/meminfo", &meminfo(2048))]);
    let (release, hang) = mpsc::channel::<()>();
    let hang = Mutex::new(hang);
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    let gpus = Gpus::new(Box::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        let _ = hang.lock().unwrap().recv();
        Err(Missing::Library)
    }));
    let monitor = Monitor::with(Roots::at(folder.path()), None, gpus);
    // Paused time stands still while a blocking task runs, so it is moved by hand.
    let asked = [0, 1].map(|_| {
        let monitor = monitor.clone();
        tokio::spawn(async move { monitor.machine().await })
    });
    while looks.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(WAIT_MAX + Duration::from_secs(1)).await;
    for machine in asked {
        assert_eq!(machine.await.unwrap().memory.total, 2 << 20, "what needs no driver is known");
    }
    assert_eq!(looks.load(Ordering::SeqCst), 1);
    drop(release);
    assert_eq!(monitor.machine().await.memory.total, 2 << 20);
}

#[test]
fn this_machine_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::read(Some(folder.path()));
    assert_eq!(crate::hardware::fixtures::contradictions(&machine), Vec::<String>::new());
    assert!(machine.memory.bandwidth.is_some(), "{machine:?}");
    assert!(machine.disk.unwrap().read_rate.is_none(), "no model lies there");
}
