//! dsk's own endpoints: what is in memory, what a person decides about it, the metrics, the log.

use axum::body::Body;
use axum::extract::Request;
use futures_util::StreamExt;
use serde_json::Value;
use tracing_subscriber::layer::SubscriberExt as _;

use super::testing::{Daemon, text};

async fn get(daemon: &Daemon, path: &str) -> Value {
    let (status, body) = daemon.send("GET", path, "").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn ps_tells_everything_of_a_model_and_its_requests() {
    let daemon = Daemon::with_model().await;
    assert_eq!(get(&daemon, "/api/dsk/ps").await["models"], Value::Array(vec![]));
    let prompt = r#"{"model":"m","prompt":"hang","raw":true}"#;
    let request = Request::post("/api/generate").body(Body::from(prompt)).unwrap();
    let mut running = daemon.answer(request).await.into_body().into_data_stream();
    assert!(running.next().await.unwrap().is_ok());
    let residents = get(&daemon, "/api/dsk/ps").await;
    let model = &residents["models"][0];
    assert_eq!(model["name"], "m:latest", "{residents}");
    assert_eq!((&model["state"], &model["pinned"]), (&"ready".into(), &false.into()));
    assert_eq!(model["slots"], serde_json::json!({"in_use": 1, "total": 1}));
    assert_eq!(
        (&model["context_length"], &model["context_length_max"]),
        (&512.into(), &8192.into())
    );
    assert_eq!(model["devices"][0]["device"], "cpu");
    assert_eq!(model["devices"][0]["weights_bytes"], 1 << 30);
    assert!(model["kv_tokens_used"].as_u64().unwrap() >= 1, "{model}");
    assert!(model["keep_alive_seconds"].as_f64().unwrap() > 200.0, "{model}");
    drop(running);
}

#[tokio::test]
async fn pins_and_the_memory_that_is_given_away() {
    let daemon = Daemon::with_model().await;
    let m = r#"{"model":"m"}"#;
    let absent = r#"{"model":"absent"}"#;
    let cases = [
        ("/api/dsk/pin", m, 200, r#"{"model":"m:latest","pinned":true,"changed":true}"#),
        ("/api/dsk/pin", m, 200, r#"{"model":"m:latest","pinned":true,"changed":false}"#),
        ("/api/dsk/pin", absent, 404, "model_not_found"),
        ("/api/dsk/pin", r#"{"model":"a b"}"#, 400, "invalid_name"),
        ("/api/generate", m, 200, r#""done_reason":"load""#),
        ("/api/dsk/unpin", m, 200, r#"{"model":"m:latest","pinned":false,"changed":true}"#),
        ("/api/dsk/unpin", m, 200, r#"{"model":"m:latest","pinned":false,"changed":false}"#),
        ("/api/dsk/yield", r#"{"within_seconds":-1}"#, 400, "within_seconds"),
        ("/api/dsk/yield", "{}", 200, r#"{"models":1,"bytes":"#),
        ("/api/generate", m, 503, "error"),
        ("/api/dsk/resume", "", 200, r#"{"resumed":true}"#),
        ("/api/dsk/resume", "", 200, r#"{"resumed":false}"#),
        ("/api/generate", m, 200, r#""done_reason":"load""#),
    ];
    for (path, body, status, part) in cases {
        let (got, answer) = daemon.send("POST", path, body).await;
        assert!(got == status && answer.contains(part), "{path} {body}: {got} {answer}");
    }
}

#[tokio::test]
async fn the_metrics_rise_with_requests_and_name_no_prompt() {
    let daemon = Daemon::with_model().await;
    let body = r#"{"model":"m","prompt":"3","raw":true,"stream":false,"system":""}"#;
    assert_eq!(daemon.send("POST", "/api/generate", body).await.0, 200);
    let secret = r#"{"model":"m","messages":[{"role":"user","content":"secret"}]}"#;
    assert_eq!(daemon.send("POST", "/api/chat", secret).await.0, 200);
    assert_eq!(daemon.send("POST", "/v1/chat/completions", "nope").await.0, 400);
    assert_eq!(daemon.send("GET", "/secret", "").await.0, 404);
    let absent = r#"{"model":"secret","messages":[]}"#;
    assert_eq!(daemon.send("POST", "/api/chat", absent).await.0, 404);
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    let response = daemon.answer(request).await;
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = text(response).await;
    let lines = [
        r#"dsk_requests_total{dialect="ollama",outcome="ok",route="/api/generate"} 1"#,
        r#"dsk_requests_total{dialect="ollama",outcome="ok",route="/api/chat"} 1"#,
        r#"dsk_requests_total{dialect="ollama",outcome="model_not_found",route="/api/chat"} 1"#,
        r#"dsk_requests_total{dialect="openai",outcome="invalid_json",route="/v1/chat/completions"} 1"#,
        r#"dsk_requests_total{dialect="other",outcome="route_not_found",route="other"} 1"#,
        r#"dsk_generated_tokens_total{model="m:latest"} 4"#,
        r#"vllm:generation_tokens_total{model_name="m:latest"} 4"#,
        r#"vllm:e2e_request_latency_seconds_count{model_name="m:latest"} 2"#,
        r#"vllm:num_requests_running{model_name="m:latest"} 0"#,
        r#"dsk_loads_total{outcome="ok"} 1"#,
        r#"dsk_models_resident{state="ready"} 1"#,
        r#"dsk_model_bytes{device="cpu",kind="weights",model="m:latest"} 1073741824"#,
        "dsk_queue_depth 0",
    ];
    for line in lines {
        assert!(text.lines().any(|one| one == line), "{line} in\n{text}");
    }
    assert!(!text.contains("secret"), "{text}");
    let request = Request::get("/metrics").header("host", "evil.example").body(Body::empty());
    assert_eq!(daemon.answer(request.unwrap()).await.status(), 403);
}

#[tokio::test]
async fn the_log_is_read_and_followed() {
    let daemon = Daemon::new();
    let subscriber = tracing_subscriber::registry().with(daemon.service.logs.clone());
    tracing::subscriber::with_default(subscriber, || tracing::warn!(model = "m:latest", "one"));
    let (status, lines) = daemon.send("GET", "/api/dsk/logs?n=5&model=m", "").await;
    assert!(status == 200 && lines.contains(r#""model":"m:latest","text":"one"}"#), "{lines}");
    assert_eq!(daemon.send("GET", "/api/dsk/logs?model=n", "").await, (200, String::new()));
    for bad in ["n=x", "n=-1", "model=a%20b", "what=1"] {
        assert_eq!(daemon.send("GET", &format!("/api/dsk/logs?{bad}"), "").await.0, 400, "{bad}");
    }
    let request = Request::get("/api/dsk/logs?n=0&follow=1").body(Body::empty()).unwrap();
    let mut following = daemon.answer(request).await.into_body().into_data_stream();
    let subscriber = tracing_subscriber::registry().with(daemon.service.logs.clone());
    tracing::subscriber::with_default(subscriber, || tracing::info!("two"));
    let line = following.next().await.unwrap().unwrap();
    assert!(std::str::from_utf8(&line).unwrap().contains(r#""text":"two""#), "{line:?}");
}
