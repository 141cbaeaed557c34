//! The packaged units: hardened, and as the daemon expects them.

use std::process::Command;

use crate::harness::{Daemon, dsk, home};
use crate::tidy::repository;

const EXPOSURE_MAX: f64 = 2.0;

#[test]
fn the_service_scores_at_most_two() {
    let unit = repository().join("systemd/dsk.service");
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(&unit)
        .output()
        .expect("systemd-analyze is installed (Debian: systemd)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("Overall exposure level"));
    let line = line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    let score = line.split(':').nth(1).and_then(|rest| rest.split_whitespace().next());
    let score: f64 = score.unwrap().parse().unwrap();
    assert!(score <= EXPOSURE_MAX, "{line}");
}

/// systemd's own sets of calls leave these out, and ProtectControlGroups would take what Delegate gives.
#[test]
fn the_service_leaves_runners_what_they_confine_themselves_with() {
    let unit = std::fs::read_to_string(repository().join("systemd/dsk.service")).unwrap();
    for call in
        ["seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"]
    {
        let allowed = unit.lines().any(|line| {
            line.strip_prefix("SystemCallFilter=")
                .is_some_and(|calls| calls.split(' ').any(|name| name == call))
        });
        assert!(allowed, "{call} is filtered");
    }
    assert!(unit.contains("\nDelegate=memory\n") && unit.contains("\nProtectControlGroups=no\n"));
}

/// What systemd would receive on NOTIFY_SOCKET, read until `wanted` came.
fn read_until(socket: &std::os::unix::net::UnixDatagram, wanted: &str) -> String {
    let mut all = String::new();
    let mut datagram = [0; 4096];
    while !all.contains(wanted) {
        let length = socket.recv(&mut datagram).unwrap_or_else(|e| panic!("{wanted}: {e}; {all}"));
        all.push_str(std::str::from_utf8(&datagram[..length]).unwrap());
        all.push('\n');
    }
    all
}

#[test]
fn the_daemon_tells_systemd_ready_watchdog_and_stopping() {
    let folder = home();
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let daemon = Daemon::start_with(home(), |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    });
    read_until(&socket, "READY=1");
    read_until(&socket, "WATCHDOG=1");
    assert!(daemon.terminate().success());
    read_until(&socket, "STOPPING=1");
}

#[test]
fn a_second_daemon_on_the_store_is_refused_and_names_the_first() {
    let daemon = Daemon::start();
    let output = dsk(daemon.home.path())
        .arg("serve")
        .env("DSK_HOST", format!("127.0.0.1:{}", crate::harness::free_port()))
        .env("DSK_SOCKET", daemon.home.path().join("other.sock"))
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains(&daemon.pid().to_string()), "{text}");
}
