//! A client that leaves a real model: its slot is free for the next one.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Daemon, http_get, model, one_at_a_time};

/// The longest that a slot may be held for a client that is gone.
const FREED_WITHIN: Duration = Duration::from_millis(250);
/// Until a request must have come to the step at which its client leaves.
const PATIENCE: Duration = Duration::from_secs(120);
/// The next answer of one token, on a machine that does other things as well.
const NEXT_WITHIN: Duration = Duration::from_secs(10);

/// The one model in memory, as `/api/dsk/ps` shows it.
fn resident(daemon: &Daemon) -> Value {
    let text = http_get(daemon.port, "/api/dsk/ps").unwrap_or_default();
    let residents: Value = serde_json::from_str(&text).unwrap_or_default();
    residents["models"][0].clone()
}

fn send(daemon: &Daemon, body: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", daemon.port)).unwrap();
    let body = body.to_string();
    let length = body.len();
    write!(stream, "POST /api/generate HTTP/1.1\r\nHost: localhost\r\n").unwrap();
    write!(stream, "Content-Length: {length}\r\n\r\n{body}").unwrap();
    stream
}

/// Waits until the model looks so, and tells how long that took.
fn until(daemon: &Daemon, what: impl Fn(&Value) -> bool) -> Duration {
    let began = Instant::now();
    while !what(&resident(daemon)) {
        assert!(began.elapsed() < PATIENCE, "it never came to that: {}", resident(daemon));
        std::thread::sleep(Duration::from_millis(5));
    }
    began.elapsed()
}

fn with_smollm2() -> Daemon {
    let daemon = Daemon::start();
    let modelfile = daemon.home.path().join("Modelfile");
    std::fs::write(&modelfile, format!("FROM {}\n", model("smollm2").display())).unwrap();
    daemon.run(&["create", "m", "-f", modelfile.to_str().unwrap()]);
    daemon
}

/// Leaves once the model looks so; the slot must be free at once and serve the next request soon.
fn leaves(daemon: &Daemon, body: &Value, at: impl Fn(&Value) -> bool) {
    let client = send(daemon, body);
    until(daemon, at);
    drop(client);
    let freed = until(daemon, |model| model["slots"]["in_use"] == 0);
    println!("free after {freed:?}");
    assert!(freed < FREED_WITHIN, "the slot was held for {freed:?}");
    let (began, next) = (Instant::now(), request("Hi", 1));
    let mut next = send(daemon, &next);
    next.set_read_timeout(Some(PATIENCE)).unwrap();
    next.read_exact(&mut [0; 12]).unwrap();
    println!("the next one is answered after {:?}", began.elapsed());
    assert!(began.elapsed() < NEXT_WITHIN, "the next request waited {:?}", began.elapsed());
}

fn request(prompt: &str, tokens: u32) -> Value {
    let options = serde_json::json!({"num_predict": tokens, "num_ctx": 8192});
    serde_json::json!({"model": "m", "prompt": prompt, "raw": true, "stream": false, "options": options})
}

#[test]
fn a_client_that_leaves_frees_its_slot() {
    let _turn = one_at_a_time();
    let daemon = with_smollm2();
    let long = "The sea was calm and the sky was clear. ".repeat(700);
    let prompt_tokens = |model: &Value| model["kv_tokens_used"].as_u64().unwrap_or(0);
    leaves(&daemon, &request(&long, 8), |model| prompt_tokens(model) > 0);
    // Long after its prompt of a few tokens: it is answering.
    leaves(&daemon, &request("Once upon a time", 4000), |model| prompt_tokens(model) > 24);
    let metrics = http_get(daemon.port, "/metrics").unwrap();
    let cancelled =
        r#"dsk_requests_total{dialect="ollama",outcome="cancelled",route="/api/generate"} 2"#;
    assert!(metrics.contains(cancelled), "{metrics}");
    let log = daemon.run(&["logs", "-n", "2000", "m", "--json"]);
    let events = log.lines().filter(|line| line.contains("dsk_request")).count();
    assert_eq!(events, 4, "one event for each request:\n{log}");
    assert!(daemon.run(&["top", "--once"]).contains("m:latest"));
}
