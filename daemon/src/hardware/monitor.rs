//! The machine while the daemon runs: looked at when someone asks, and not more often than needed.
//! Nobody asking, nothing runs: there is no thread and no timer.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::gpu::{Gpus, nvml};
use super::{Cpu, Disk, Machine, Memory, Roots, bandwidth, disk};

/// An answer this old is given again.
const AGE_MAX: Duration = Duration::from_secs(2);
/// How long a caller waits for drivers and disks; then it gets what is known.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The machine, read on demand. Clones share what they know.
#[derive(Debug, Clone)]
pub struct Monitor {
    shared: Arc<Shared>,
}

struct Shared {
    roots: Roots,
    models: Option<PathBuf>,
    /// Held by whoever looks, for as long as that takes.
    looker: Arc<tokio::sync::Mutex<Looker>>,
    latest: Mutex<Option<(Instant, Arc<Machine>)>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("roots", &self.roots).finish_non_exhaustive()
    }
}

/// What looking needs and what it found out for good.
struct Looker {
    gpus: Gpus,
    bandwidth: Option<u64>,
    read_rate: Option<u64>,
}

impl Machine {
    /// This machine, with everything measured and `models` as the folder whose disk counts. Blocking,
    /// a third of a second and what a GPU needs to wake.
    pub fn read(models: Option<&Path>) -> Machine {
        let roots = Roots::system();
        let mut looker =
            Looker { gpus: Gpus::new(Box::new(nvml::open)), bandwidth: None, read_rate: None };
        looker.look(&roots, models)
    }
}

impl Monitor {
    /// Of this machine; `models` is the folder whose disk counts. Looks at nothing yet.
    pub fn new(models: PathBuf) -> Monitor {
        Monitor::with(Roots::system(), Some(models), Gpus::new(Box::new(nvml::open)))
    }

    fn with(roots: Roots, models: Option<PathBuf>, gpus: Gpus) -> Monitor {
        let looker = Looker { gpus, bandwidth: None, read_rate: None };
        let looker = Arc::new(tokio::sync::Mutex::new(looker));
        Monitor { shared: Arc::new(Shared { roots, models, looker, latest: Mutex::default() }) }
    }

    /// The machine as it was at most two seconds ago; the first call measures and takes longer.
    ///
    /// A driver or disk that hangs costs five seconds, and then what was known before is given.
    pub async fn machine(&self) -> Arc<Machine> {
        if let Some(machine) = self.fresh() {
            return machine;
        }
        match tokio::time::timeout(WAIT_MAX, self.refresh()).await {
            Ok(Some(machine)) => machine,
            _ => self.known(),
        }
    }

    async fn refresh(&self) -> Option<Arc<Machine>> {
        // One looks at a time; whoever waited meanwhile takes its answer. A look that hangs holds
        // this for good, so that no second thread hangs.
        let mut looker = Arc::clone(&self.shared.looker).lock_owned().await;
        if let Some(machine) = self.fresh() {
            return Some(machine);
        }
        let shared = Arc::clone(&self.shared);
        let look = move || {
            let machine = Arc::new(looker.look(&shared.roots, shared.models.as_deref()));
            *shared.latest() = Some((Instant::now(), Arc::clone(&machine)));
            machine
        };
        tokio::task::spawn_blocking(look).await.ok()
    }

    fn fresh(&self) -> Option<Arc<Machine>> {
        let latest = self.shared.latest();
        let (at, machine) = latest.as_ref()?;
        (at.elapsed() < AGE_MAX).then(|| Arc::clone(machine))
    }

    /// What was found last, however old; without it, what needs no driver and no disk.
    fn known(&self) -> Arc<Machine> {
        tracing::warn!(event = "machine_stale", "a driver or a disk does not answer");
        let last = self.shared.latest().as_ref().map(|(_, machine)| Arc::clone(machine));
        last.unwrap_or_else(|| Arc::new(without_devices(&self.shared.roots)))
    }
}

impl Shared {
    fn latest(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Arc<Machine>)>> {
        // Nobody panics in between; the value is whole in any case.
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn without_devices(roots: &Roots) -> Machine {
    let (cpu, memory) = (Cpu::read_at(roots), Memory::read_at(roots));
    Machine { cpu, memory, gpus: Vec::new(), disk: None }
}

impl Looker {
    fn look(&mut self, roots: &Roots, models: Option<&Path>) -> Machine {
        let mut machine = without_devices(roots);
        machine.gpus = self.gpus.probe(roots, &machine.memory);
        if self.bandwidth.is_none() {
            self.bandwidth = bandwidth::measure(roots, &machine);
        }
        machine.memory.bandwidth = self.bandwidth;
        machine.disk = models.and_then(Disk::read_at);
        if let (Some(disk), Some(models)) = (&mut machine.disk, models) {
            if self.read_rate.is_none() {
                self.read_rate = disk::read_rate(&models.join("blobs"));
            }
            disk.read_rate = self.read_rate;
        }
        machine
    }
}

#[cfg(test)]
mod tests;
