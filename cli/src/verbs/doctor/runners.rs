//! Whether models' processes are confined, bounded and watched as intended.

use dsk_daemon::runner::sandbox::{self, Confinement};
use dsk_daemon::runner::{own_groups, sandbox::Enforced};
use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::units;

/// What this kernel lets a runner take from itself.
pub(super) fn confinement() -> Vec<Finding> {
    let Confinement { files, calls, .. } = sandbox::probe();
    let abi = sandbox::landlock_abi().map_or_else(String::new, |abi| format!(", ABI {abi}"));
    let files = part(
        "landlock",
        &files,
        &format!("runners read nothing but their model{abi}"),
        "use Linux 6.12 or newer with landlock among its `lsm=`; models run all the same",
    );
    let calls = part(
        "seccomp",
        &calls,
        "runners open no sockets and start no programs",
        "use a kernel with seccomp filters; in a container, allow the call seccomp",
    );
    vec![files, calls]
}

fn part(check: &'static str, held: &Enforced, full: &str, next: &str) -> Finding {
    match held {
        Enforced::Full => Finding::ok(check, full),
        Enforced::Partial(why) => {
            Finding::warn(check, format!("runners are confined in part: {why}"), next)
        }
        Enforced::Not(why) => {
            Finding::warn(check, format!("runners are not confined: {why}"), next)
        }
    }
}

/// Whether the daemon of this process id has a control group for each runner.
pub(super) fn groups(daemon: Option<u32>) -> Finding {
    const CHECK: &str = "control groups";
    let Some(pid) = daemon else {
        return Finding::ok(CHECK, "looked at when a daemon runs here");
    };
    match own_groups(pid) {
        Ok(folder) => Finding::ok(CHECK, format!("one for each runner, below {folder}")),
        Err(why) => Finding::warn(
            CHECK,
            format!("none for runners, so want of memory is told from a crash by guess: {why}"),
            "run the packaged service, or: systemd-run --user -p Delegate=memory dsk serve",
        ),
    }
}

/// How much memory a process may pin.
pub(super) fn memlock() -> Finding {
    let limit = getrlimit(Resource::Memlock).current;
    let limit = limit.map_or_else(|| "any amount".to_owned(), units::bytes);
    Finding::ok("memlock", format!("{limit} may be pinned; weights on the CPU are not"))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn what_the_kernel_lacks_is_a_warning_with_a_next_step() {
        let lacking = Enforced::Not("the kernel lacks Landlock".to_owned());
        let finding = part("landlock", &lacking, "fine", "upgrade");
        assert_eq!(finding.level, Level::Warn);
        assert_eq!(finding.detail, "runners are not confined: the kernel lacks Landlock");
        assert_eq!(finding.next.as_deref(), Some("upgrade"));
        assert_eq!(part("landlock", &Enforced::Full, "fine", "upgrade").level, Level::Ok);
    }

    #[test]
    fn this_machine_is_looked_at() {
        assert_eq!(confinement().len(), 2);
        assert!(memlock().detail.contains("may be pinned"));
        let own = groups(Some(std::process::id()));
        assert!(!own.detail.is_empty());
        assert_eq!(groups(None).level, Level::Ok);
    }
}
