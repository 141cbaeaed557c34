//! Resource limits of a runner.
//!
//! Not among them: the number of processes (`RLIMIT_NPROC` counts a user's, not a process's, and
//! seccomp forbids them anyway) and memory (`RLIMIT_AS` counts mapped files; a control group and the
//! plan bound what is really taken).

use rustix::process::{Resource, Rlimit, setrlimit};

use super::Enforced;

/// The socket, stdout, stderr, the model and its companions, and what a read of /proc takes.
const FILES_MAX: u64 = 64;

pub(super) fn apply() -> Enforced {
    let failed: Vec<String> = [
        (Resource::Core, 0, "core dumps"),
        (Resource::Fsize, 0, "written files"),
        (Resource::Nofile, FILES_MAX, "open files"),
    ]
    .into_iter()
    .filter_map(|(resource, max, what)| {
        let limit = Rlimit { current: Some(max), maximum: Some(max) };
        let error = setrlimit(resource, limit).err()?;
        Some(format!("no limit of {what} ({error})"))
    })
    .collect();
    if failed.is_empty() { Enforced::Full } else { Enforced::Partial(failed.join(", ")) }
}
