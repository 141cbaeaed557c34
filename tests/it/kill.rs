//! kill -9 at every named step of the store, and at random times: no blob lies under a name that is not
//! its hash, the next pull completes, and it fetches little again.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use dsk_registry::{Digest, FAILPOINTS, Limits};

use crate::harness::{Daemon, Registry, home, success};
use crate::peers::{Server, daemon_with};
use crate::proxy::Proxy;

/// Two layers beside the config, larger than one write, unlike each other.
const BLOB_BYTES: usize = 3 << 20;

/// A registry that holds `library/tiny:latest`, a small real GGUF that the daemon accepts.
fn registry() -> Registry {
    let registry = Registry::start();
    let folder = home();
    let gguf = folder.path().join("tiny.gguf");
    let mut bytes = dsk_daemon_engine::gguf::testkit::tiny_model("llama", 1);
    // Padding after the last tensor: the file grows past one chunk, and stays a valid GGUF.
    bytes.resize(bytes.len().max(BLOB_BYTES), 0);
    fs::write(&gguf, bytes).unwrap();
    registry.fill("tiny:latest", &gguf);
    registry
}

/// Every file under a final blob name hashes to that name.
fn assert_blobs_are_whole(models: &Path, step: &str) {
    let Ok(entries) = fs::read_dir(models.join("blobs")) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let Ok(named) = name.parse::<Digest>() else { continue };
        let actual = Digest::of(&fs::read(entry.path()).unwrap());
        assert_eq!(actual, named, "after a kill at {step}");
    }
}

#[test]
fn fault_01_a_kill_at_every_step_leaves_a_whole_store_and_the_next_pull_completes() {
    let registry = registry();
    let name = registry.name("tiny:latest");
    // Not part of a pull or a removal; the registry's own tests kill at these steps.
    let elsewhere = ["prune-file", "remove-link", "quarantined"];
    for step in FAILPOINTS.iter().filter(|step| !elsewhere.contains(step)) {
        let daemon = Daemon::start_with(home(), |command| {
            command.env("FAILPOINTS", format!("{step}=return"));
        });
        // Removing drives the steps of `remove`; the pull before it drives all others.
        let mut pull = daemon.dsk();
        let pulled = pull.args(["pull", &name]).output().unwrap();
        if pulled.status.success() {
            let removed = daemon.dsk().args(["rm", &name]).output().unwrap();
            if removed.status.success() {
                panic!("the step {step} was not reached by a pull and a removal");
            }
        }
        let home = daemon.wait();
        assert_blobs_are_whole(&home.path().join("dsk/models"), step);
        let daemon = Daemon::start_with(home, |_| {});
        let again = daemon.dsk().args(["pull", &name]).output().unwrap();
        success(&["pull", &name], &again);
        assert!(daemon.run(&["list"]).contains("tiny"), "{step}");
        assert_blobs_are_whole(&daemon.home.path().join("dsk/models"), step);
    }
}

/// Kills of the test below; the full run has 200 of them.
const KILLS: (&str, u64) = ("DSK_TEST_KILLS", 10);
/// The size of its model: twice what a resume may fetch again, so that starting over shows.
const KILL_MIB: (&str, u64) = ("DSK_TEST_KILL_MIB", 256);
/// The latest that a kill comes after the pull began.
const KILL_WITHIN_MS: u64 = 2000;
/// Slows one connection down to about 8 MB/s, so that a pull lasts longer than that.
const PAUSE: Duration = Duration::from_millis(8);
/// For what the proxy had under way when its client died.
const SETTLE: Duration = Duration::from_millis(100);

/// What a resumed pull may fetch again: a range for each of its streams.
fn again_bytes_max() -> u64 {
    let limits = Limits::default();
    limits.connections as u64 * limits.range_bytes
}

fn setting((name, default): (&str, u64)) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn fault_02_kills_at_random_times_leave_a_whole_store_and_cost_a_range_a_stream() {
    let theirs = Server::docker_registry();
    let mut gguf = dsk_daemon_engine::gguf::testkit::tiny_model("llama", 2);
    gguf.resize((setting(KILL_MIB) << 20) as usize, 0x5A);
    assert!(again_bytes_max() < gguf.len() as u64, "starting over would not show");
    let pushed = theirs.name("big:latest");
    daemon_with(&pushed, &gguf).run(&["push", &pushed]);
    let proxy = Proxy::start(&theirs.address, PAUSE);
    let name = format!("{}/library/big:latest", proxy.address);
    let (mut folder, mut again_most, mut whole) = (home(), 0, 0);
    let kills = setting(KILLS);
    for kill in 0..kills {
        let daemon = Daemon::start_with(folder, |_| {});
        let mut pull = daemon.dsk();
        let pull = pull.args(["pull", &name]).stdout(Stdio::null()).stderr(Stdio::null());
        let (mut pull, began) = (pull.spawn().unwrap(), Instant::now());
        let delay = Duration::from_millis(RandomState::new().hash_one(kill) % KILL_WITHIN_MS);
        while began.elapsed() < delay && pull.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        folder = daemon.kill();
        pull.wait().unwrap();
        thread::sleep(SETTLE);
        let models = folder.path().join("dsk/models");
        assert_blobs_are_whole(&models, &format!("kill {kill} after {delay:?}"));
        let again = proxy.taken_again();
        assert!(again <= again_bytes_max(), "{again} bytes fetched again before kill {kill}");
        again_most = again_most.max(again);
        if models.join("manifests").join(&proxy.address).join("library/big/latest").exists() {
            whole += 1;
            folder = home();
            proxy.forget();
        }
    }
    let daemon = Daemon::start_with(folder, |_| {});
    daemon.run(&["pull", &name]);
    let again = proxy.taken_again();
    assert!(again <= again_bytes_max(), "{again} bytes fetched again at last");
    assert_blobs_are_whole(&daemon.home.path().join("dsk/models"), "the last pull");
    let blob = format!("dsk/models/blobs/sha256-{}", Digest::of(&gguf).hex());
    assert!(fs::read(daemon.home.path().join(blob)).unwrap() == gguf);
    println!("{kills} kills, {whole} pulls whole between them, at most {again_most} bytes again");
}
