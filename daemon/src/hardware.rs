//! What this machine has: processor, memory, GPUs, disk.
//!
//! Every reader takes the [`Roots`] of a machine, so that a folder can stand for another one, and
//! believes nothing: of two figures that contradict each other the tighter one holds. [`Monitor`] is
//! for a process that lives on, [`Machine::read`] for one that asks once, [`Memory::read`] is cheap
//! enough for every decision.

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System};

mod bandwidth;
mod cgroup;
mod cpu;
mod disk;
#[cfg(test)]
pub(crate) mod fixtures;
mod gpu;
mod machine;
mod memory;
mod monitor;
mod roots;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use machine::{Cpu, Disk, Gpu, Machine, Memory, Vendor};
pub use monitor::Monitor;
pub use roots::Roots;

/// The memory that a process holds, in bytes, as the kernel counts it: pages it shares with others
/// and mapped files included. `None` when there is no such process, or the system does not say.
pub fn process_memory(pid: u32) -> Option<u64> {
    let pid = Pid::from_u32(pid);
    let mut system = System::new_with_specifics(RefreshKind::nothing()).ok()?;
    let kind = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, kind);
    system.process(pid).map(sysinfo::Process::memory).filter(|bytes| *bytes > 0)
}
