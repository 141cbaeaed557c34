//! kill -9 at every named step of the store: no blob lies under a name that is not its hash, and
//! the next pull completes.

use std::fs;
use std::path::Path;

use dsk_registry::{Digest, FAILPOINTS};

use crate::harness::{Daemon, Registry, home, success};

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
fn a_kill_at_every_step_leaves_a_whole_store_and_the_next_pull_completes() {
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
