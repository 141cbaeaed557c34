//! Pulls that choose a variant, and what fits, through the built binary.

use std::fs;
use std::path::{Path, PathBuf};

use dsk_daemon_engine::gguf::testkit::families;
use serde_json::Value;

use crate::harness::{Daemon, Registry, home};

/// A registry with two variants of one model, of which the better one takes more.
fn registry() -> Registry {
    let registry = Registry::start();
    let folder = home();
    for (tag, family) in [("7b-q4_K_M", "qwen2-tied"), ("7b-q8_0", "qwen2")] {
        let gguf = folder.path().join(format!("{tag}.gguf"));
        fs::write(&gguf, families::family(family, 1).unwrap()).unwrap();
        registry.fill(&format!("m:{tag}"), &gguf);
    }
    registry
}

/// A file that describes a machine of so much memory.
fn machine(folder: &Path, bytes: u64) -> PathBuf {
    let path = folder.join(format!("{bytes}.json"));
    let json = format!(
        r#"{{"cpu": {{"name": "", "threads": 1}}, "memory": {{"total": {bytes}, "available": {bytes}}}}}"#
    );
    fs::write(&path, json).unwrap();
    path
}

/// Exit code, standard output and standard error of a verb.
fn outcome(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = daemon.dsk().args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn weights(daemon: &Daemon, family: &str) -> bool {
    let digest = dsk_registry::Digest::of(&families::family(family, 1).unwrap());
    daemon.home.path().join(format!("dsk/models/blobs/sha256-{}", digest.hex())).exists()
}

#[test]
fn a_pull_takes_the_variant_that_suits_the_machine() {
    let (registry, daemon) = (registry(), Daemon::start());
    let name = registry.name("m:7b");
    let dry = daemon.run(&["pull", &name, "--dry-run"]);
    assert!(dry.starts_with("Q8_0 of Q4_K_M, Q8_0: "), "{dry}");
    assert!(dry.contains("would pull 7b-q8_0 as ") && dry.lines().count() == 3, "{dry}");
    let json = daemon.run(&["pull", &name, "--dry-run", "--json", "--quant", "q4_k_m"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["reference"], &json["quant"]), (&"7b-q4_K_M".into(), &"Q4_K_M".into()));
    assert_eq!(json["offered"].as_array().unwrap().len(), 2);
    assert!(!weights(&daemon, "qwen2") && !weights(&daemon, "qwen2-tied"), "a dry run fetched");
    // The first two lines say which and why; the model has the name that was asked for.
    let (code, _, progress) = outcome(&daemon, &["pull", &name]);
    assert_eq!(code, Some(0), "{progress}");
    let mut lines = progress.lines();
    assert!(lines.next().unwrap().starts_with("Q8_0 of Q4_K_M, Q8_0: "), "{progress}");
    assert!(lines.next().unwrap().starts_with("Q8_0 is the best quality"), "{progress}");
    assert!(weights(&daemon, "qwen2") && !weights(&daemon, "qwen2-tied"));
    let list = daemon.run(&["list"]);
    assert!(list.contains("m:7b ") && !list.contains("q8_0"), "{list}");
    let table = daemon.run(&["fit", &name]);
    assert!(table.contains("Q8_0 *") || table.contains("F32 *"), "{table}");
}

#[test]
fn a_quantization_by_name_and_an_exact_tag() {
    let (registry, daemon) = (registry(), Daemon::start());
    let name = registry.name("m:7b");
    daemon.run(&["pull", &name, "--quant", "q4_k_m"]);
    assert!(weights(&daemon, "qwen2-tied") && !weights(&daemon, "qwen2"));
    let (code, _, errors) = outcome(&daemon, &["pull", &name, "--quant", "q5_K_M"]);
    assert_eq!(code, Some(5), "{errors}");
    assert!(errors.contains("its source offers Q4_K_M, Q8_0"), "{errors}");
    let exact = registry.name("m:7b-q8_0");
    let (code, _, progress) = outcome(&daemon, &["pull", &exact]);
    assert!(code == Some(0) && progress.starts_with("pulling manifest"), "{progress}");
    assert!(weights(&daemon, "qwen2"));
    let (code, _, errors) = outcome(&daemon, &["pull", &exact, "--quant", "q4_0"]);
    assert!(code == Some(2) && errors.contains("leave one of them away"), "{errors}");
}

#[test]
fn what_does_not_fit_is_exit_code_6() {
    let (registry, daemon) = (registry(), Daemon::start());
    let name = registry.name("m:7b");
    let machine = machine(daemon.home.path(), 2_000_000);
    let machine = machine.to_str().unwrap();
    let (code, _, errors) = outcome(&daemon, &["pull", &name, "--dry-run", "--machine", machine]);
    assert_eq!(code, Some(6), "{errors}");
    assert!(errors.contains("bytes) of RAM are missing"), "{errors}");
    let (code, table, _) = outcome(&daemon, &["fit", &name, "--machine", machine]);
    assert!(code == Some(6) && table.contains("does not fit"), "{table}");
    let (code, table, _) =
        outcome(&daemon, &["fit", "deepseek-r1:70b", "--machine", machine, "--json"]);
    let answer: Value = serde_json::from_str(&table).unwrap();
    assert_eq!((code, answer["rows"].as_array().unwrap().len()), (Some(6), 5), "{table}");
    let family = daemon.run(&["fit", "deepseek-r1", "--machine", machine]);
    assert_eq!(family.lines().count(), 33, "{family}");
    let bad = daemon.home.path().join("bad.json");
    fs::write(&bad, r#"{"cpu": {"name": "", "threads": -1}}"#).unwrap();
    let (code, _, errors) = outcome(&daemon, &["fit", "--machine", bad.to_str().unwrap()]);
    assert!(code == Some(2) && errors.contains("invalid value: integer `-1`"), "{errors}");
}
