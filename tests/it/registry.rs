//! The embedded registry and the store, through the built binary.

use std::fs;

use crate::harness::{Daemon, Registry, dsk, home, http_get};

fn tiny(seed: u64) -> Vec<u8> {
    dsk_daemon_engine::gguf::testkit::tiny_model("llama", seed)
}

#[test]
fn push_and_pull_keep_every_byte() {
    let registry = Registry::start();
    let folder = home();
    let gguf = folder.path().join("tiny.gguf");
    fs::write(&gguf, tiny(7)).unwrap();
    registry.fill("tiny:latest", &gguf);
    let daemon = Daemon::start();
    let name = registry.name("tiny:latest");
    daemon.run(&["pull", &name]);
    let digest = dsk_registry::Digest::of(&tiny(7));
    let blob = daemon.home.path().join(format!("dsk/models/blobs/sha256-{}", digest.hex()));
    assert_eq!(fs::read(blob).unwrap(), tiny(7));
}

#[test]
fn a_damaged_partial_is_found_and_the_next_pull_repairs_it() {
    let registry = Registry::start();
    let folder = home();
    let gguf = folder.path().join("tiny.gguf");
    fs::write(&gguf, tiny(8)).unwrap();
    registry.fill("tiny:latest", &gguf);
    let daemon = Daemon::start();
    let digest = dsk_registry::Digest::of(&tiny(8));
    let blobs = daemon.home.path().join("dsk/models/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let partial = blobs.join(format!("sha256-{}-partial", digest.hex()));
    fs::write(&partial, vec![0xAA; 1000]).unwrap();
    let name = registry.name("tiny:latest");
    let first = daemon.dsk().args(["pull", &name]).output().unwrap();
    if !first.status.success() {
        assert_eq!(first.status.code(), Some(7), "{}", String::from_utf8_lossy(&first.stderr));
        daemon.run(&["pull", &name]);
    }
    assert_eq!(fs::read(blobs.join(format!("sha256-{}", digest.hex()))).unwrap(), tiny(8));
}

#[test]
fn a_file_is_pulled_by_its_address_and_digest() {
    let registry = Registry::start();
    let folder = home();
    let gguf = folder.path().join("tiny.gguf");
    fs::write(&gguf, tiny(11)).unwrap();
    registry.fill("tiny:latest", &gguf);
    let digest = dsk_registry::Digest::of(&tiny(11));
    let url = format!("http://{}/v2/library/tiny/blobs/{digest}", registry.address);
    let daemon = Daemon::start();
    let refused = |arguments: &[&str], code, words: &[&str]| {
        let output = daemon.dsk().arg("pull").args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        words.iter().for_each(|word| assert!(said.contains(word), "{word:?} is not in: {said}"));
    };
    let (other, hex) = (dsk_registry::Digest::of(b"other").hex(), digest.hex());
    refused(&["https://h.example/A-Q4_0.gguf"], 2, &["--sha256 HEX", "sha256sum"]);
    refused(&["m", "--sha256", &hex], 2, &["goes with the https address"]);
    refused(&["http://h.example/a.gguf", "--sha256", &hex], 2, &["--insecure"]);
    refused(&["https://ada:x@h.example/a.gguf", "--sha256", &hex], 2, &["a password in it"]);
    refused(&["https://10.0.0.1/a.gguf", "--sha256", &hex], 2, &["[registries.\"10.0.0.1\"]"]);
    refused(&[&url, "--sha256", "beef", "--as", "m"], 2, &["64 lowercase hex digits"]);
    let absent = url.replace(&hex, &other);
    refused(&[&absent, "--sha256", &hex, "--as", "m"], 5, &["has no file /v2/library/tiny"]);
    refused(&[&url, "--sha256", &other, "--as", "m"], 7, &[&other, &hex]);
    // The right bytes, and no model.
    let manifest = format!("http://{}/v2/library/tiny/manifests/latest", registry.address);
    let port = registry.address.rsplit(':').next().unwrap().parse().unwrap();
    let bytes = http_get(port, "/v2/library/tiny/manifests/latest").unwrap();
    let no_model = dsk_registry::Digest::of(bytes.as_bytes()).hex();
    refused(&[&manifest, "--sha256", &no_model, "--as", "n"], 1, &["not a usable model file"]);
    let blobs = fs::read_dir(daemon.home.path().join("dsk/models/blobs")).unwrap();
    assert_eq!(blobs.count(), 0, "nothing of all this stays");
    assert_eq!(daemon.run(&["list", "--json"]).trim(), "[]");

    daemon.run(&["pull", &url, "--sha256", &hex.to_uppercase(), "--as", "mine:1"]);
    assert!(daemon.run(&["show", "mine:1"]).contains("llama"));
    let blob = daemon.home.path().join(format!("dsk/models/blobs/sha256-{hex}"));
    assert_eq!(fs::read(blob).unwrap(), tiny(11));
    assert!(!daemon.run(&["list", "--partial"]).contains("mine"));
}

#[test]
fn a_registry_is_not_opened_to_the_network_by_accident() {
    let root = home();
    let output = dsk(root.path())
        .args(["registry", "serve", "--listen", "0.0.0.0:0", "--root"])
        .arg(root.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--insecure"));
}

#[test]
fn the_daemons_own_models_are_shared_while_it_runs() {
    let source = Registry::start();
    let folder = home();
    let gguf = folder.path().join("tiny.gguf");
    fs::write(&gguf, tiny(10)).unwrap();
    let owner = Daemon::start();
    let modelfile = owner.home.path().join("Modelfile");
    fs::write(&modelfile, format!("FROM {}\n", gguf.display())).unwrap();
    // Only names of the default registry are shared: those that a client can ask this one for.
    owner.run(&["create", "shared", "-f", modelfile.to_str().unwrap()]);
    owner.run(&["create", &source.name("hidden"), "-f", modelfile.to_str().unwrap()]);
    let home = owner.home.path().join("dsk");
    let share = Registry::start_with(|command, _| {
        command.arg("--from-store").env("DSK_HOME", &home);
    });
    let reader = Daemon::start();
    reader.run(&["pull", &share.name("shared")]);
    let digest = dsk_registry::Digest::of(&tiny(10));
    let blob = reader.home.path().join(format!("dsk/models/blobs/sha256-{}", digest.hex()));
    assert_eq!(fs::read(blob).unwrap(), tiny(10));
    let hidden = reader.dsk().args(["pull", &share.name("hidden")]).output().unwrap();
    assert_eq!(hidden.status.code(), Some(5), "{}", String::from_utf8_lossy(&hidden.stderr));
    reader.run(&["cp", &share.name("shared"), &share.name("other")]);
    let pushed = reader.dsk().args(["push", &share.name("other")]).output().unwrap();
    assert!(!pushed.status.success());
    // With a folder of its own it takes pushes too, and copies what the daemon has already.
    let taking = Registry::start_with(|command, root| {
        command.arg("--from-store").arg("--root").arg(root).env("DSK_HOME", &home);
    });
    reader.run(&["cp", &share.name("shared"), &taking.name("mine")]);
    reader.run(&["push", &taking.name("mine")]);
    // The owner goes on as before.
    owner.run(&["rm", "shared"]);
    owner.run(&["pull", &taking.name("mine")]);
    let gone = reader.dsk().args(["pull", &share.name("shared")]).output().unwrap();
    assert_eq!(gone.status.code(), Some(5), "{}", String::from_utf8_lossy(&gone.stderr));
}

#[test]
fn changes_made_by_another_program_are_seen() {
    let registry = Registry::start();
    let folder = home();
    let gguf = folder.path().join("tiny.gguf");
    fs::write(&gguf, tiny(9)).unwrap();
    registry.fill("tiny:latest", &gguf);
    let daemon = Daemon::start();
    let name = registry.name("tiny:latest");
    daemon.run(&["pull", &name]);
    let manifests = daemon.home.path().join("dsk/models/manifests");
    fs::remove_dir_all(&manifests).unwrap();
    assert!(!daemon.run(&["list"]).contains("tiny"));
    // The index is derived: it comes back from the files.
    daemon.run(&["pull", &name]);
    let home = daemon.kill();
    for entry in fs::read_dir(home.path().join("dsk")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("dsk.db") {
            fs::remove_file(path).unwrap();
        }
    }
    let daemon = Daemon::start_with(home, |_| {});
    assert!(daemon.run(&["list"]).contains("tiny"));
}
