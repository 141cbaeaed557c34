//! Landlock: which files a runner can open, and that it reaches no network.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus,
    PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope,
};

use super::Enforced;

/// The newest rights asked for (Linux 6.12): files, ioctls, TCP, abstract sockets, signals. An older
/// kernel enforces those it knows.
const ABI_WANTED: ABI = ABI::V6;

/// What a runner reads beside its model, and why.
const FACTS: &[&str] = &[
    // Its own threads, control group and mounts: how many cores it may use.
    "/proc/self",
    // Whether the model fits, asked again right before it is loaded.
    "/proc/meminfo",
    // The same for a container's limits of memory and processor time.
    "/sys/fs/cgroup",
    // Which processors share a core: one worker each.
    "/sys/devices/system/cpu",
    // The C library counts processors here where the folder above is hidden.
    "/proc/stat",
    "/proc/cpuinfo",
    // Read by the C library's allocator when it gives memory back.
    "/proc/sys/vm/overcommit_memory",
];

/// Confines the calling thread and those it starts from now on.
pub(super) fn apply(readable: &[&Path]) -> Enforced {
    match restrict(readable) {
        Ok(status) => judge(&status),
        Err(error) => Enforced::Not(format!("Landlock failed ({error})")),
    }
}

/// The version of Landlock that this kernel has. Confines the calling thread.
pub(super) fn abi() -> Option<i32> {
    match restrict(&[]).ok()?.landlock {
        LandlockStatus::Available { effective_abi, kernel_abi } => {
            Some(kernel_abi.unwrap_or(effective_abi as i32))
        }
        _ => None,
    }
}

fn restrict(readable: &[&Path]) -> Result<RestrictionStatus, RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI_WANTED))?
        .handle_access(AccessNet::from_all(ABI_WANTED))?
        .scope(Scope::from_all(ABI_WANTED))?
        .create()?;
    let facts = FACTS.iter().map(Path::new);
    for path in facts.chain(readable.iter().copied()).map(Path::to_owned).chain(own_program()) {
        // One that is not there cannot be opened anyway; a missing model is the load's own error.
        if let Ok(opened) = PathFd::new(&path) {
            let folder = path.is_dir();
            rules = rules.add_rule(PathBeneath::new(opened, reading(folder)))?;
        }
    }
    rules.restrict_self()
}

/// The program itself, for the names in a backtrace; only where one was asked for.
fn own_program() -> Option<PathBuf> {
    std::env::var_os("RUST_BACKTRACE").and(std::env::current_exe().ok())
}

fn reading(folder: bool) -> BitFlags<AccessFs> {
    match folder {
        true => AccessFs::ReadFile | AccessFs::ReadDir,
        false => AccessFs::ReadFile.into(),
    }
}

fn judge(status: &RestrictionStatus) -> Enforced {
    match (&status.ruleset, &status.landlock) {
        (RulesetStatus::FullyEnforced, _) => Enforced::Full,
        (_, LandlockStatus::NotImplemented) => {
            Enforced::Not("the kernel lacks Landlock (Linux 5.13 and newer have it)".to_owned())
        }
        (_, LandlockStatus::NotEnabled) => {
            Enforced::Not("the kernel was started without Landlock".to_owned())
        }
        (RulesetStatus::PartiallyEnforced, LandlockStatus::Available { effective_abi, .. }) => {
            let missing = missing(*effective_abi);
            Enforced::Partial(format!("this kernel's Landlock does not know {missing}"))
        }
        _ => Enforced::Not("Landlock enforced nothing".to_owned()),
    }
}

/// What a Landlock older than [`ABI_WANTED`] leaves open. seccomp covers all of it but the last.
fn missing(abi: ABI) -> String {
    let all = [
        (ABI::V2, "moving files"),
        (ABI::V3, "truncating files"),
        (ABI::V4, "TCP"),
        (ABI::V5, "ioctls of devices"),
        (ABI::V6, "signals and abstract sockets"),
    ];
    let missing: Vec<_> =
        all.iter().filter(|(since, _)| abi < *since).map(|(_, what)| *what).collect();
    missing.join(", ")
}
