//! What a user can get wrong, and what the machine can do to them: a clear message, the right exit
//! code, a whole store.

use std::fs;
use std::net::TcpListener;
use std::process::Output;

use crate::harness::{Daemon, Registry, dsk, free_port, home};

/// Asserts the exit code and that each of `words` is in what was said.
fn fails(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

fn tiny() -> Vec<u8> {
    dsk_daemon_engine::gguf::testkit::tiny_model("llama", 3)
}

/// Runs `dsk create broken -f Modelfile` on a GGUF of `bytes`.
fn create(daemon: &Daemon, bytes: &[u8]) -> Output {
    let folder = daemon.home.path();
    fs::write(folder.join("broken.gguf"), bytes).unwrap();
    fs::write(folder.join("Modelfile"), "FROM ./broken.gguf\n").unwrap();
    let file = folder.join("Modelfile");
    daemon.dsk().args(["create", "broken", "-f"]).arg(file).output().unwrap()
}

#[test]
fn no_daemon() {
    let folder = home();
    let output = dsk(folder.path())
        .env("DSK_HOST", format!("127.0.0.1:{}", free_port()))
        .arg("list")
        .output()
        .unwrap();
    fails(&output, 3, &["hint:", "dsk serve"]);
}

#[test]
fn usage() {
    let folder = home();
    fails(&dsk(folder.path()).arg("frobnicate").output().unwrap(), 2, &["frobnicate"]);
    let daemon = Daemon::start();
    let bad = daemon.dsk().args(["pull", "../../etc/passwd"]).output().unwrap();
    fails(&bad, 2, &["../../etc/passwd"]);
}

#[test]
fn unknown_models() {
    let daemon = Daemon::start();
    for verb in [["show", "nothing"], ["rm", "nothing"], ["stop", "nothing"]] {
        fails(&daemon.dsk().args(verb).output().unwrap(), 5, &["nothing"]);
    }
    fails(&daemon.dsk().args(["cp", "nothing", "other"]).output().unwrap(), 5, &["nothing"]);
    let registry = Registry::start();
    let pull = daemon.dsk().args(["pull", &registry.name("nothing:here")]).output().unwrap();
    fails(&pull, 5, &["nothing:here"]);
}

#[test]
fn an_unreachable_registry_is_named() {
    let daemon = Daemon::start();
    let name = format!("127.0.0.1:{}/library/x:y", free_port());
    fails(&daemon.dsk().args(["pull", &name]).output().unwrap(), 69, &["127.0.0.1"]);
}

#[test]
fn an_address_inside_this_network_is_refused_and_no_switch_is_named_that_does_not_help() {
    let daemon = Daemon::start();
    let pull = daemon.dsk().args(["pull", "169.254.169.254/library/x:y"]).output().unwrap();
    let helps = ["[registries.\"169.254.169.254\"]", "--insecure does not help"];
    fails(&pull, 2, &helps);
}

#[test]
fn hostile_and_truncated_ggufs_are_refused() {
    let daemon = Daemon::start();
    fails(&create(&daemon, b"not a model at all"), 1, &["GGUF"]);
    let whole = tiny();
    fails(&create(&daemon, &whole[..whole.len() / 2]), 1, &["broken.gguf"]);
    let mut huge_count = whole.clone();
    huge_count[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    fails(&create(&daemon, &huge_count), 1, &["tensor"]);
    assert_eq!(daemon.run(&["list", "--json"]).trim(), "[]");
    // And a good one is still taken.
    assert!(create(&daemon, &whole).status.success());
}

#[test]
fn an_unsupported_architecture_is_named() {
    let daemon = Daemon::start();
    let unknown = dsk_daemon_engine::gguf::testkit::tiny_model("mamba", 3);
    let created = create(&daemon, &unknown);
    let output = if created.status.success() {
        daemon.dsk().args(["run", "broken", "hi"]).output().unwrap()
    } else {
        created
    };
    fails(&output, 1, &["mamba"]);
}

#[test]
fn modelfile_mistakes_are_shown_with_their_place() {
    let daemon = Daemon::start();
    let file = daemon.home.path().join("Modelfile");
    fs::write(&file, "FROM smollm2\nPARAMTER temperature 1\n").unwrap();
    let output = daemon.dsk().args(["create", "x", "-f"]).arg(&file).output().unwrap();
    fails(&output, 2, &["Modelfile:2:1", "PARAMETER"]);
    fs::write(&file, "FROM smollm2\nPARAMETER temperature warm\n").unwrap();
    let output = daemon.dsk().args(["create", "x", "-f"]).arg(&file).output().unwrap();
    fails(&output, 2, &["Modelfile:2", "temperature"]);
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = home();
    let output = dsk(folder.path()).arg("serve").env("DSK_HOST", &address).output().unwrap();
    fails(&output, 69, &[&address, "in use"]);
}

#[test]
fn a_store_that_cannot_be_written_is_named() {
    let folder = home();
    fs::create_dir_all(folder.path().join("dsk")).unwrap();
    // A file where the folder should be: fails for root as well, whom permissions do not stop.
    fs::write(folder.path().join("dsk/models"), "in the way").unwrap();
    let output = dsk(folder.path())
        .arg("serve")
        .env("DSK_HOST", format!("127.0.0.1:{}", free_port()))
        .output()
        .unwrap();
    fails(&output, 1, &["dsk/models"]);
}

#[test]
fn a_wrong_configuration_is_refused_before_anything_starts() {
    let folder = home();
    let output = dsk(folder.path()).arg("serve").env("DSK_KEEP_ALIVE", "soon").output().unwrap();
    fails(&output, 2, &["DSK_KEEP_ALIVE", "soon"]);
}

#[test]
fn config_shows_where_each_value_comes_from() {
    let folder = home();
    let output =
        dsk(folder.path()).args(["config", "--json"]).env("DSK_KEEP_ALIVE", "7m").output().unwrap();
    let text = crate::harness::success(&["config"], &output);
    let settings: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let keep = settings.iter().find(|setting| setting["key"] == "keep_alive").unwrap();
    assert!(keep["origin"].as_str().unwrap().contains("DSK_KEEP_ALIVE"), "{keep}");
}

#[test]
fn doctor_and_version_and_completion_answer() {
    let daemon = Daemon::start();
    let doctor: serde_json::Value =
        serde_json::from_str(&daemon.run(&["doctor", "--json"])).unwrap();
    assert!(doctor.as_array().is_some_and(|findings| findings.len() > 5), "{doctor}");
    assert!(daemon.run(&["version"]).contains(env!("CARGO_PKG_VERSION")));
    assert!(daemon.run(&["completion", "bash"]).contains("pull"));
}
