//! The main job: a model pulled by digest over HTTP into an empty store answers in the terminal.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::harness::{Daemon, Registry, http_get, model, one_at_a_time, signal, success};

/// Answers are cut: these tests ask whether there is one.
const SHORT: &str = "--parameter=num_predict=24";

fn pulled(name: &str, gguf: &str) -> (Registry, Daemon, String) {
    let registry = Registry::start();
    registry.fill(name, &model(gguf));
    let daemon = Daemon::start();
    let full = registry.name(name);
    assert_eq!(http_get(daemon.port, "/api/tags").unwrap(), r#"{"models":[]}"#);
    daemon.run(&["pull", &full]);
    (registry, daemon, full)
}

#[test]
fn smollm2_is_pulled_and_answers() {
    let _turn = one_at_a_time();
    let (_registry, daemon, name) = pulled("smollm2:135m", "smollm2");
    let question = "Name three colours.";
    let answer = daemon.run(&["run", &name, question, "--temperature", "0", SHORT]);
    assert!(answer.contains("Red"), "{answer}");
    let ps: serde_json::Value = serde_json::from_str(&daemon.run(&["ps", "--json"])).unwrap();
    assert_eq!(ps[0]["name"], name.as_str(), "{ps}");
    daemon.run(&["stop", &name]);
    assert_eq!(daemon.run(&["ps", "--json"]).trim(), "[]");
}

#[test]
fn qwen_coder_with_its_mixed_formats_answers() {
    let _turn = one_at_a_time();
    let (_registry, daemon, name) = pulled("qwen2.5-coder:0.5b", "qwen2.5-coder");
    let question = "Write only the Python expression for the square of x.";
    let answer = daemon.run(&["run", &name, question, "--temperature", "0", SHORT]);
    assert!(answer.contains("x"), "{answer}");
}

#[test]
fn run_starts_a_daemon_when_none_answers_and_says_so() {
    let _turn = one_at_a_time();
    let (registry, daemon, name) = pulled("smollm2:135m", "smollm2");
    let port = daemon.port;
    let home = daemon.kill();
    let output = crate::harness::dsk(home.path())
        .env("DSK_HOST", format!("127.0.0.1:{port}"))
        .args(["run", &name, "Say hello.", SHORT])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!success(&["run"], &output).trim().is_empty());
    assert!(said.contains("start"), "{said}");
    let status: serde_json::Value =
        serde_json::from_str(&http_get(port, "/api/dsk/status").unwrap()).unwrap();
    signal(status["pid"].as_u64().unwrap() as u32, "TERM");
    drop(registry);
}

#[test]
fn piped_input_and_the_interactive_prompt_work() {
    let _turn = one_at_a_time();
    let (_registry, daemon, name) = pulled("smollm2:135m", "smollm2");
    let mut child = daemon
        .dsk()
        .args(["run", &name, SHORT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"The capital of France is").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(!success(&["run", &name], &output).trim().is_empty());
}

/// Reads one figure of /api/dsk/status.
fn status(daemon: &Daemon) -> serde_json::Value {
    serde_json::from_str(&http_get(daemon.port, "/api/dsk/status").unwrap()).unwrap()
}

#[test]
fn a_client_that_leaves_stops_its_generation() {
    let _turn = one_at_a_time();
    let (_registry, daemon, name) = pulled("smollm2:135m", "smollm2");
    let mut child = daemon
        .dsk()
        .args(["run", &name, "Write a very long story about the sea.", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The first bytes of the answer are there: it is generating now.
    use std::io::Read;
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 16]).unwrap();
    assert_eq!(status(&daemon)["running"], 1, "{}", status(&daemon));
    child.kill().unwrap();
    child.wait().unwrap();
    let began = Instant::now();
    while status(&daemon)["running"] != 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "the generation went on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_killed_runner_fails_its_request_and_nothing_more() {
    let _turn = one_at_a_time();
    let (_registry, daemon, name) = pulled("smollm2:135m", "smollm2");
    let child = daemon
        .dsk()
        .args(["run", &name, "Write a very long story about the sea."])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while status(&daemon)["running"] != 1 {
        assert!(began.elapsed() < Duration::from_secs(60), "never began");
        std::thread::sleep(Duration::from_millis(20));
    }
    let runners = daemon.children();
    assert_eq!(runners.len(), 1, "one runner for one model");
    signal(runners[0], "KILL");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("signal 9"), "{said}");
    // The daemon lives, and the next request gets a new runner.
    assert!(!daemon.run(&["run", &name, "Say hello.", SHORT]).trim().is_empty());
}

#[test]
fn no_runner_outlives_its_daemon() {
    let _turn = one_at_a_time();
    let (_registry, daemon, name) = pulled("smollm2:135m", "smollm2");
    daemon.run(&["run", &name, "Say hello.", SHORT]);
    let runners = daemon.children();
    assert_eq!(runners.len(), 1, "one runner for one model");
    let _home = daemon.kill();
    let alive = || std::path::Path::new(&format!("/proc/{}/exe", runners[0])).exists();
    let began = Instant::now();
    while alive() {
        assert!(began.elapsed() < Duration::from_secs(10), "the runner lives on");
        std::thread::sleep(Duration::from_millis(20));
    }
}
