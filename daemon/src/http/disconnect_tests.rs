//! A client that leaves, over real sockets, in every dialect and at every step of its request.

use std::time::{Duration, Instant};

use dsk_registry::Name;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::testing::Daemon;
use crate::Listeners;
use crate::scheduler::ResidentState;

/// The longest that anything may be held for a client that is gone.
const FREED_WITHIN: Duration = Duration::from_millis(250);
/// The longest wait for a step to be reached.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a request waits for when its client leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Queue,
    Load,
    Prefill,
    Decode,
}

/// A body for a script, streamed or not.
type Body = fn(&str, bool) -> String;

/// Requests of each dialect to the model `m`.
const ROUTES: [(&str, Body); 3] = [
    ("/api/generate", |script, stream| {
        format!(r#"{{"model":"m","prompt":"{script}","raw":true,"stream":{stream}}}"#)
    }),
    ("/api/chat", chat),
    ("/v1/chat/completions", chat),
];

fn chat(script: &str, stream: bool) -> String {
    let messages = format!(r#"[{{"role":"user","content":"{script}"}}]"#);
    format!(r#"{{"model":"m","messages":{messages},"stream":{stream}}}"#)
}

/// A daemon that listens, with room for one model.
struct Listening {
    daemon: Daemon,
    address: std::net::SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Listening {
    async fn start(step: Step) -> Listening {
        let load_time = if step == Step::Load { PATIENCE } else { Duration::ZERO };
        let daemon = Daemon::with(&[("DSK_MAX_LOADED", "1")], load_time);
        daemon.make("m", 1).await;
        daemon.make("n", 2).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (service, router) = (daemon.service.clone(), daemon.router.clone());
        let listeners = Listeners::from_tcp(listener);
        tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            crate::server::serve(service, router, listeners, stopped).await;
        });
        Listening { daemon, address, _stop: stop }
    }

    /// Sends a request; dropping the stream leaves.
    async fn send(&self, path: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}");
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
        stream
    }

    /// Whether a request for `m` stands at `step`.
    async fn is_at(&self, step: Step) -> bool {
        let m = Name::parse("m").unwrap();
        let counts = self.daemon.service.metrics.model(&m);
        let status = self.daemon.service.scheduler.status().await.unwrap();
        let waits = status.waiting.iter().any(|one| one.name == m);
        let loads = status.residents.iter().any(|one| one.state == ResidentState::Loading);
        match step {
            Step::Queue => waits && !loads,
            Step::Load => waits && loads,
            Step::Prefill => counts.kv_tokens.get() == 1,
            Step::Decode => counts.first_token.get_sample_count() == 1,
        }
    }

    /// Whether nobody holds or waits for `m`, for the scheduler, the runner and the counts.
    async fn is_free(&self, step: Step) -> bool {
        let m = Name::parse("m").unwrap();
        let status = self.daemon.service.scheduler.status().await.unwrap();
        let held = status.residents.iter().any(|one| one.name == m && one.in_use > 0);
        let waits = status.waiting.iter().any(|one| one.name == m);
        let counts = self.daemon.service.metrics.model(&m);
        let counted = counts.running.get() + counts.waiting.get() + counts.kv_tokens.get();
        let ran = matches!(step, Step::Prefill | Step::Decode);
        // The log is emptied by reading it, so it is read last.
        let cancelled = || self.daemon.runners.log().iter().any(|line| line.ends_with("cancel"));
        !held && !waits && counted == 0 && (!ran || cancelled())
    }

    /// Waits, and tells how long that took.
    async fn until(&self, limit: Duration, what: impl AsyncFn() -> bool) -> Duration {
        let began = Instant::now();
        while !what().await && began.elapsed() < limit {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        began.elapsed()
    }
}

async fn leaves(step: Step, path: &str, body: &str) {
    let listening = Listening::start(step).await;
    let other = match step {
        Step::Queue => {
            let body = r#"{"model":"n","prompt":"hang","raw":true}"#;
            let other = listening.send("/api/generate", body).await;
            let n = Name::parse("n").unwrap();
            let counts = listening.daemon.service.metrics.model(&n);
            listening.until(PATIENCE, async || counts.running.get() == 1).await;
            Some(other)
        }
        _ => None,
    };
    let client = listening.send(path, body).await;
    let reached = listening.until(PATIENCE, async || listening.is_at(step).await).await;
    assert!(reached < PATIENCE, "{path} {body} never came to {step:?}");
    drop(client);
    let freed = listening.until(PATIENCE, async || listening.is_free(step).await).await;
    assert!(
        freed < FREED_WITHIN,
        "{path} {body} was held for {freed:?} after its client left in {step:?}"
    );
    let text = listening.daemon.send("GET", "/metrics", "").await.1;
    let counted = text.lines().any(|line| {
        line.starts_with("dsk_requests_total{") && line.contains("cancelled") && line.contains(path)
    });
    assert!(counted, "{path} in {step:?} is not counted as cancelled:\n{text}");
    drop(other);
}

async fn leaves_everywhere(step: Step, script: &str) {
    for (path, body) in ROUTES {
        for stream in [false, true] {
            leaves(step, path, &body(script, stream)).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_gives_its_place_up() {
    leaves_everywhere(Step::Queue, "hang").await;
}

#[tokio::test]
async fn a_client_that_leaves_during_a_load_gives_its_place_up() {
    leaves_everywhere(Step::Load, "hang").await;
}

#[tokio::test]
async fn a_client_that_leaves_while_its_prompt_is_read_frees_its_slot() {
    leaves_everywhere(Step::Prefill, "read").await;
}

#[tokio::test]
async fn a_client_that_leaves_during_its_answer_frees_its_slot() {
    leaves_everywhere(Step::Decode, "hang").await;
}
