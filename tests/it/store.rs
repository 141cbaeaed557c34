//! The store through the built binary: collection, verification and repair, links, imports and exports,
//! another program's store, one owner.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use dsk_registry::Digest;
use tempfile::TempDir;

use crate::harness::{Daemon, Registry, dsk, home, success};

fn tiny(seed: u64) -> Vec<u8> {
    dsk_daemon_engine::gguf::testkit::tiny_model("llama", seed)
}

/// A GGUF file in a folder of its own.
fn file(name: &str, seed: u64) -> (TempDir, PathBuf) {
    let folder = home();
    let path = folder.path().join(name);
    fs::write(&path, tiny(seed)).unwrap();
    (folder, path)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn blob(daemon: &Daemon, digest: &Digest) -> PathBuf {
    daemon.home.path().join(format!("dsk/models/blobs/sha256-{}", digest.hex()))
}

fn exit(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String) {
    let output = daemon.dsk().args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn fault_06_a_flipped_byte_is_found_put_aside_and_repaired() {
    let registry = Registry::start();
    let (_folder, gguf) = file("tiny.gguf", 3);
    registry.fill("tiny:latest", &gguf);
    let daemon = Daemon::start();
    let name = registry.name("tiny:latest");
    daemon.run(&["pull", &name]);
    assert!(daemon.run(&["verify"]).contains("all whole"));
    let path = blob(&daemon, &Digest::of(&tiny(3)));
    let mut rotten = tiny(3);
    rotten[5000] ^= 4;
    fs::write(&path, &rotten).unwrap();

    let (code, report) = exit(&daemon, &["verify"]);
    assert_eq!(code, Some(7), "{report}");
    assert!(report.contains("1 is damaged") && report.contains(&name), "{report}");
    assert!(!path.exists());
    let aside = daemon.home.path().join("dsk/models/quarantine");
    let kept: Vec<_> = fs::read_dir(aside).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(fs::read(&kept[0]).unwrap(), rotten);
    assert!(daemon.run(&["list"]).contains("damaged"));
    let (code, refusal) = exit(&daemon, &["show", &name]);
    assert!(code != Some(0) && refusal.contains("--repair"), "{refusal}");

    let report = daemon.run(&["verify", "--repair"]);
    assert!(report.contains("repaired"), "{report}");
    assert_eq!(fs::read(&path).unwrap(), tiny(3));
    assert!(!daemon.run(&["list"]).contains("damaged"));
    let used: serde_json::Value = serde_json::from_str(&daemon.run(&["df", "--json"])).unwrap();
    assert_eq!(used["quarantine_bytes"], rotten.len());
}

#[test]
fn what_no_model_needs_is_shown_and_then_deleted() {
    let daemon = Daemon::start();
    let blobs = daemon.home.path().join("dsk/models/blobs");
    let orphan = blobs.join(format!("sha256-{}", Digest::of(b"orphan").hex()));
    fs::write(&orphan, "orphan").unwrap();
    assert!(exit(&daemon, &["gc"]).1.contains("nothing to delete"));
    let (_, shown) = exit(&daemon, &["gc", "--dry-run", "--min-age", "0"]);
    assert!(shown.contains("would free 6 B") && orphan.exists(), "{shown}");
    let found: serde_json::Value =
        serde_json::from_str(&daemon.run(&["gc", "--min-age", "0", "--json"])).unwrap();
    assert_eq!((&found["bytes"], &found["items"][0]["kind"]), (&6.into(), &"blob".into()));
    assert!(!orphan.exists());
}

#[test]
fn a_linked_file_is_used_where_it_lies_and_outlives_its_model() {
    let daemon = Daemon::start();
    let (folder, path) = file("Tiny-1B-Q8_0.gguf", 4);
    let linked = daemon.run(&["link", text(folder.path())]);
    assert!(linked.contains("tiny-1b:q8_0"), "{linked}");
    assert!(!blob(&daemon, &Digest::of(&tiny(4))).exists());
    assert!(daemon.run(&["show", "tiny-1b:q8_0"]).contains("llama"));
    assert!(daemon.run(&["df"]).contains("linked"));
    let copies = home();
    daemon.run(&["export", "tiny-1b:q8_0", text(copies.path())]);
    let copy = copies.path().join("tiny-1b-q8_0.gguf");
    assert_eq!(fs::read(&copy).unwrap(), tiny(4));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&copy), mode(&path), "others may read it as any new file");
    fs::write(&path, tiny(5)).unwrap();
    let (code, refusal) = exit(&daemon, &["show", "tiny-1b:q8_0"]);
    assert!(
        code == Some(7) && refusal.contains("changed since it was linked"),
        "{code:?} {refusal}"
    );
    daemon.run(&["rm", "tiny-1b:q8_0"]);
    assert_eq!(fs::read(&path).unwrap(), tiny(5));
    let (code, refusal) = exit(&daemon, &["link", "/etc/passwd", "--as", "m"]);
    assert!(code == Some(1) && refusal.contains("no GGUF file"), "{code:?} {refusal}");
}

#[test]
fn a_model_in_several_files_is_one_model() {
    let parts = dsk_daemon_engine::gguf::testkit::tiny_writer("llama", 12).split(3);
    let folder = home();
    let path = |number: usize| folder.path().join(format!("Big-Q8_0-0000{number}-of-00003.gguf"));
    for (number, bytes) in parts.iter().enumerate() {
        fs::write(path(number + 1), bytes).unwrap();
    }
    let daemon = Daemon::start();
    let linked = daemon.run(&["link", text(folder.path())]);
    assert_eq!(linked.lines().count(), 1, "{linked}");
    assert!(linked.starts_with("big:q8_0 "), "{linked}");
    assert!(daemon.run(&["show", "big:q8_0"]).contains("llama"));
    let say = |name: &str| {
        let short = ["--temperature", "0", "--parameter", "num_predict=8"];
        daemon.run(&[&["run", name, "the cat"], &short[..]].concat())
    };
    let (_whole, file) = file("whole.gguf", 12);
    daemon.run(&["import", text(&file), "--as", "whole"]);
    let said = say("big:q8_0");
    assert!(!said.is_empty() && said == say("whole"), "{said:?}");

    let copies = home();
    daemon.run(&["export", "big:q8_0", text(copies.path())]);
    for (number, bytes) in parts.iter().enumerate() {
        let name = format!("big-q8_0-0000{}-of-00003.gguf", number + 1);
        assert_eq!(&fs::read(copies.path().join(name)).unwrap(), bytes);
    }
    // To a registry and back, in both formats of a manifest.
    let registry = Registry::start();
    let pushed = registry.name("big:q8_0");
    daemon.run(&["cp", "big:q8_0", &pushed]);
    daemon.run(&["push", &pushed]);
    let layout = home();
    daemon.run(&["export", "big:q8_0", text(layout.path()), "--as", "modelpack"]);
    let other = Daemon::start();
    other.run(&["pull", &pushed]);
    other.run(&["import", text(layout.path()), "--as", "packed"]);
    for name in [pushed.as_str(), "packed"] {
        assert!(other.run(&["show", name]).contains("llama"), "{name}");
    }
    // By a Modelfile that names one of them; and not without the others.
    fs::write(folder.path().join("Modelfile"), "FROM ./Big-Q8_0-00002-of-00003.gguf\n").unwrap();
    let modelfile = folder.path().join("Modelfile");
    other.run(&["create", "made", "-f", text(&modelfile)]);
    assert!(other.run(&["show", "made"]).contains("llama"));
    fs::remove_file(path(3)).unwrap();
    let (code, refusal) = exit(&other, &["create", "cut", "-f", text(&modelfile)]);
    assert!(code == Some(5) && refusal.contains("00003-of-00003.gguf does not exist"), "{refusal}");
    let (code, refusal) = exit(&other, &["link", text(folder.path())]);
    assert!(code == Some(5) && refusal.contains("others are missing"), "{refusal}");
    let (code, refusal) = exit(&other, &["import", text(&path(1)), "--as", "cut"]);
    assert!(code == Some(1) && refusal.contains("00003-of-00003.gguf is no GGUF"), "{refusal}");
    let loud = folder.path().join("Loud-00001-of-00001.GGUF");
    fs::copy(&file, &loud).unwrap();
    other.run(&["link", text(&loud), "--as", "loud"]);
    fs::copy(path(1), folder.path().join("alone.gguf")).unwrap();
    let alone = folder.path().join("alone.gguf");
    let (code, refusal) = exit(&other, &["import", text(&alone), "--as", "cut"]);
    assert!(code == Some(1) && refusal.contains("one of 3 parts, and all are needed"), "{refusal}");
}

#[test]
fn an_import_is_a_copy_of_its_own() {
    let daemon = Daemon::start();
    let (_folder, path) = file("a.gguf", 6);
    daemon.run(&["import", text(&path), "--as", "me/a:1"]);
    fs::remove_file(&path).unwrap();
    assert_eq!(fs::read(blob(&daemon, &Digest::of(&tiny(6)))).unwrap(), tiny(6));
    assert!(daemon.run(&["list"]).contains("me/a:1"));
    assert!(daemon.run(&["verify"]).contains("all whole"));
}

#[test]
fn a_model_goes_out_as_a_layout_and_comes_in_again() {
    let daemon = Daemon::start();
    let (_folder, path) = file("a.gguf", 9);
    daemon.run(&["import", text(&path), "--as", "a"]);
    for format in ["oci-layout", "modelpack"] {
        let layout = home();
        daemon.run(&["export", "a", text(layout.path()), "--as", format]);
        let other = Daemon::start();
        other.run(&["import", text(layout.path()), "--as", "b"]);
        assert_eq!(fs::read(blob(&other, &Digest::of(&tiny(9)))).unwrap(), tiny(9), "{format}");
        assert!(other.run(&["show", "b"]).contains("llama"), "{format}");
        let copies = home();
        other.run(&["export", "b", text(copies.path())]);
        assert_eq!(fs::read(copies.path().join("b.gguf")).unwrap(), tiny(9), "{format}");
    }
    // What rotted here does not go out, and what rotted there is written again.
    let (layout, digest) = (home(), Digest::of(&tiny(9)));
    let out = layout.path().join("blobs/sha256").join(digest.hex());
    let export = || exit(&daemon, &["export", "a", text(layout.path()), "--as", "oci-layout"]);
    fs::write(blob(&daemon, &digest), tiny(8)).unwrap();
    let (code, refusal) = export();
    assert!(code == Some(7) && refusal.contains("--repair") && !out.exists(), "{refusal}");
    fs::write(blob(&daemon, &digest), tiny(9)).unwrap();
    fs::create_dir_all(out.parent().unwrap()).unwrap();
    fs::write(&out, tiny(8)).unwrap();
    assert_eq!(export().0, Some(0));
    assert_eq!(fs::read(&out).unwrap(), tiny(9));
}

#[test]
fn a_pull_that_did_not_end_is_listed_and_given_up() {
    let registry = Registry::start();
    let (_folder, gguf) = file("tiny.gguf", 7);
    registry.fill("tiny:latest", &gguf);
    let name = registry.name("tiny:latest");
    let daemon = Daemon::start_with(home(), |command| {
        command.env("FAILPOINTS", "blob-written=return");
    });
    let _killed = daemon.dsk().args(["pull", &name]).output().unwrap();
    let daemon = Daemon::start_with(daemon.wait(), |_| {});
    let listed = daemon.run(&["list", "--partial"]);
    assert!(listed.contains(&name), "{listed}");
    assert!(!daemon.run(&["list"]).contains("tiny"));
    daemon.run(&["rm", "--partial", &name]);
    assert!(!daemon.run(&["list", "--partial"]).contains(&name));
    let left = fs::read_dir(daemon.home.path().join("dsk/models/blobs")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(exit(&daemon, &["rm", "--partial", &name]).0, Some(5));
    daemon.run(&["pull", &name]);
}

#[test]
fn a_pull_is_paused_from_elsewhere_and_goes_on() {
    let registry = Registry::start();
    let (_folder, gguf) = file("tiny.gguf", 10);
    registry.fill("tiny:latest", &gguf);
    let name = registry.name("tiny:latest");
    let daemon = Daemon::start();
    assert_eq!(exit(&daemon, &["pull", "--pause", &name]).0, Some(5));
    let mut pull = daemon.dsk();
    pull.args(["pull", &name, "--limit-rate", "1K"]).stderr(std::process::Stdio::piped());
    let pull = pull.spawn().unwrap();
    let began = std::time::Instant::now();
    while !daemon.run(&["list", "--partial"]).contains("under way") {
        assert!(began.elapsed().as_secs() < 30, "{}", daemon.log());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(daemon.run(&["pull", "--pause", &name]).contains("goes on from there"));
    let ended = pull.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(130), "{told}");
    assert!(told.contains(&format!("paused; dsk pull {name} goes on from here")), "{told}");
    let listed = daemon.run(&["list", "--partial"]);
    assert!(listed.contains(&name) && listed.contains("paused"), "{listed}");
    daemon.run(&["pull", &name]);
    assert!(!daemon.run(&["list", "--partial"]).contains(&name));
    assert!(daemon.run(&["list"]).contains("tiny"));
}

#[test]
fn another_programs_store_is_used_in_place_and_not_written() {
    let first = Daemon::start();
    let (_folder, path) = file("a.gguf", 8);
    first.run(&["import", text(&path), "--as", "a"]);
    let theirs = home();
    let models = theirs.path().join("models");
    fs::rename(first.home.path().join("dsk/models"), &models).unwrap();
    drop(first);
    // What makes it ours is the lock's file.
    fs::remove_file(models.join("dsk.lock")).unwrap();
    let entries = || {
        let mut all: Vec<_> =
            fs::read_dir(&models).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        all.sort();
        all
    };
    let before = entries();
    let daemon = Daemon::start_with(home(), |command| {
        command.env("DSK_MODELS", &models);
    });
    assert!(daemon.run(&["list"]).contains("a:latest"));
    assert!(daemon.run(&["show", "a"]).contains("llama"));
    assert!(daemon.run(&["df"]).contains("only read"));
    let refused: [&[&str]; 5] = [
        &["rm", "a"],
        &["cp", "a", "b"],
        &["gc"],
        &["link", text(&path), "--as", "c"],
        &["pull", "127.0.0.1:9/library/m"],
    ];
    for arguments in refused {
        let (code, refusal) = exit(&daemon, arguments);
        assert!(
            code == Some(2) && refusal.contains("--adopt"),
            "{arguments:?}: {code:?} {refusal}"
        );
    }
    assert_eq!(entries(), before);
    drop(daemon);
    let daemon = Daemon::start_with(home(), |command| {
        command.env("DSK_MODELS", &models).env("DSK_ADOPT", "1");
    });
    daemon.run(&["rm", "a"]);
    assert!(models.join("dsk.lock").exists());
}

#[test]
fn fault_36_a_second_daemon_is_refused_and_a_dead_ones_lock_taken_over() {
    let first = Daemon::start();
    let models = first.home.path().join("dsk/models");
    let other = home();
    let mut second = dsk(other.path());
    second.arg("serve").env("DSK_MODELS", &models).env("DSK_HOST", "127.0.0.1:0");
    let output = second.output().unwrap();
    let refusal = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{refusal}");
    assert!(refusal.contains(&first.pid().to_string()), "{refusal}");
    assert_eq!(success(&["list"], &first.dsk().arg("list").output().unwrap()).lines().count(), 1);
    // Killed, it leaves its id in the file and no lock on it.
    let left = first.kill();
    assert!(left.path().join("dsk/models/dsk.lock").exists());
    let third = Daemon::start_with(left, |_| {});
    let owner = fs::read_to_string(third.home.path().join("dsk/models/dsk.lock")).unwrap();
    assert_eq!(owner.trim(), third.pid().to_string());
}
