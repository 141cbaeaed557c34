use dsk_daemon_engine::{Done, Failure, FailureKind, FinishReason};

use super::*;
use crate::metrics::Seen;

/// What a look at the metrics shows of the requests of `m`.
fn look(metrics: &Metrics) -> String {
    let seen = Seen { model: "m:latest".into(), state: "ready", kv_limit: 100, bytes: vec![] };
    let text = metrics.render(&[seen]);
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit_once(' ')).map_or("-", |(_, value)| value)
    };
    format!(
        "depth {} waiting {} running {} kv {} answered {}",
        value("dsk_queue_depth"),
        value("dsk_requests_waiting"),
        value("dsk_requests_running"),
        value("dsk_kv_tokens_used"),
        value("dsk_request_seconds_count"),
    )
}

fn done() -> Event {
    let usage = Usage { prompt_tokens: 7, output_tokens: 1, ..Usage::default() };
    Event::Done(Done { reason: FinishReason::Stop, usage, context: Vec::new() })
}

#[tokio::test]
async fn each_step_is_counted_and_the_end_gives_everything_back() {
    let metrics = Arc::<Metrics>::default();
    let mut record = Record::open(&metrics, &Name::parse("m").unwrap());
    assert_eq!(look(&metrics), "depth 1 waiting 1 running 0 kv 0 answered 0");
    record.ready(Duration::from_millis(5));
    assert_eq!(look(&metrics), "depth 0 waiting 1 running 0 kv 0 answered 0");
    record.event(&Event::Queued { position: 1 });
    assert_eq!(look(&metrics), "depth 0 waiting 1 running 0 kv 0 answered 0");
    record.event(&Event::Prefill { done: 7, total: 7 });
    assert_eq!(look(&metrics), "depth 0 waiting 0 running 1 kv 7 answered 0");
    record.event(&Event::Content("x".into()));
    assert_eq!(look(&metrics), "depth 0 waiting 0 running 1 kv 8 answered 0");
    record.event(&done());
    let end = "depth 0 waiting 0 running 0 kv 0 answered 1";
    assert_eq!(look(&metrics), end);
    drop(record);
    assert_eq!(look(&metrics), end);
}

#[tokio::test]
async fn a_request_that_ends_anywhere_leaves_no_trace_in_the_gauges() {
    let metrics = Arc::<Metrics>::default();
    let steps: [fn(&mut Record); 4] = [
        |record| record.ready(Duration::ZERO),
        |record| record.event(&Event::Prefill { done: 3, total: 9 }),
        |record| record.event(&Event::Thinking("x".into())),
        |record| {
            let failure = Failure::new(FailureKind::RunnerDied, "gone");
            record.event(&Event::Failed(failure));
        },
    ];
    for count in 0..=steps.len() {
        let mut record = Record::open(&metrics, &Name::parse("m").unwrap());
        steps[..count].iter().for_each(|step| step(&mut record));
        drop(record);
        assert_eq!(look(&metrics), "depth 0 waiting 0 running 0 kv 0 answered 0", "{count}");
    }
}

#[test]
fn dialects_of_routes() {
    let cases = [
        ("/api/chat", "ollama"),
        ("/", "ollama"),
        ("other", "other"),
        ("/v1/models/{*id}", "openai"),
        ("/api/dsk/status", "dsk"),
        ("/metrics", "dsk"),
        ("/ui", "dsk"),
    ];
    for (route, expected) in cases {
        assert_eq!(dialect(route), expected, "{route}");
    }
}
