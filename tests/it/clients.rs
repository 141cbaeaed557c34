//! Unmodified client libraries against the daemon.

use std::path::PathBuf;
use std::process::Command;

use crate::harness::{Daemon, Registry, model, one_at_a_time};
use crate::tidy::repository;

/// A Python with the pinned clients, made once under target/.
fn python() -> PathBuf {
    let requirements = repository().join("tests/clients/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).unwrap();
    let folder = repository().join("target/clients");
    let proof = folder.join("installed.txt");
    let python = folder.join("bin/python");
    if std::fs::read_to_string(&proof).is_ok_and(|installed| installed == wanted) {
        return python;
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
    run(Command::new(&python).args(install).arg(&requirements));
    std::fs::write(proof, wanted).unwrap();
    python
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}

fn suite(file: &str) {
    let _turn = one_at_a_time();
    let (daemon, registry) = (Daemon::start(), Registry::start());
    run(Command::new(python())
        .arg(repository().join("tests/clients").join(file))
        .env("OLLAMA_HOST", daemon.url())
        .env("OPENAI_BASE_URL", format!("{}/v1", daemon.url()))
        .env("DSK_TEST_REGISTRY", &registry.address)
        .env("DSK_TEST_GGUF", model("smollm2"))
        .env_remove("HTTP_PROXY")
        .env_remove("http_proxy"));
}

#[test]
fn the_ollama_client_passes_its_suite() {
    suite("test_ollama.py");
}

#[test]
fn the_openai_client_passes_its_suite() {
    suite("test_openai.py");
}
