//! The API as a whole: requests to the router, over scripted runners.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use expect_test::{Expect, expect};
use futures_util::StreamExt;
use serde_json::Value;

use super::testing::{Daemon, text};
use crate::Peer;

/// A table of requests that are refused: what was sent, the status, the body.
async fn table(daemon: &Daemon, rows: &[(&str, &str, &str)], expected: Expect) {
    let mut table = String::new();
    for (method, path, body) in rows {
        let (status, answer) = daemon.send(method, path, body).await;
        table += &format!("{method} {path} {body}\n  {status} {answer}\n");
    }
    expected.assert_eq(&table);
}

#[tokio::test]
async fn bad_input_has_a_status_and_says_what_is_wrong() {
    let daemon = Daemon::with_model().await;
    let rows = [
        ("GET", "/nothing", ""),
        ("GET", "/v1/nothing", ""),
        ("POST", "/api/tags", ""),
        ("GET", "/v1/chat/completions", ""),
        ("POST", "/api/chat", ""),
        ("POST", "/api/chat", "{\n\"model\": }"),
        ("POST", "/api/chat", "{}"),
        ("POST", "/api/chat", r#"{"model":"a b"}"#),
        ("POST", "/api/chat", r#"{"model":"../../etc/passwd"}"#),
        ("POST", "/api/chat", r#"{"model":"absent","messages":[{"role":"user","content":"q"}]}"#),
        ("POST", "/api/chat", r#"{"model":"m","messages":"hi"}"#),
        ("POST", "/api/chat", r#"{"model":"m","tools":[{}]}"#),
        ("POST", "/api/chat", r#"{"model":"m","options":{"temperature":"hot"}}"#),
        ("POST", "/api/chat", r#"{"model":"m","keep_alive":"soon"}"#),
        ("POST", "/api/generate", r#"{"model":"m","prompt":"q","raw":true,"system":"x"}"#),
        ("POST", "/api/show", r#"{"name":"absent"}"#),
        ("POST", "/api/copy", r#"{"source":"m","destination":"a b"}"#),
        ("POST", "/api/copy", r#"{"source":"absent","destination":"b"}"#),
        ("DELETE", "/api/delete", r#"{"model":"absent"}"#),
        ("POST", "/api/embed", r#"{"model":"m","input":"x"}"#),
        ("POST", "/api/embeddings", r#"{"model":"m","prompt":"x"}"#),
        ("POST", "/api/pull", r#"{"model":"a b"}"#),
        ("POST", "/api/push", r#"{"model":"absent"}"#),
        ("POST", "/api/blobs/sha256:12", "x"),
        ("GET", "/v1/models/absent", ""),
        ("POST", "/v1/chat/completions", r#"{"model":"m","messages":[]}"#),
        (
            "POST",
            "/v1/chat/completions",
            r#"{"model":"m","messages":[{"role":"user","content":"q"}],"n":2}"#,
        ),
        ("POST", "/v1/chat/completions", "nope"),
    ];
    table(&daemon, &rows, expect![[r#"
        GET /nothing 
          404 {"error":"no such endpoint: /nothing","code":"route_not_found"}
        GET /v1/nothing 
          404 {"error":{"message":"no such endpoint: /v1/nothing","type":"not_found_error","param":null,"code":"route_not_found"}}
        POST /api/tags 
          405 {"error":"POST is not allowed on /api/tags","code":"method_not_allowed"}
        GET /v1/chat/completions 
          405 {"error":{"message":"GET is not allowed on /v1/chat/completions","type":"invalid_request_error","param":null,"code":"method_not_allowed"}}
        POST /api/chat 
          400 {"error":"missing request body","code":"invalid_request"}
        POST /api/chat {
        "model": }
          400 {"error":"the body is not valid JSON: expected value at line 2 column 10","code":"invalid_json"}
        POST /api/chat {}
          400 {"error":"model is required","code":"invalid_request"}
        POST /api/chat {"model":"a b"}
          400 {"error":"invalid model name \"a b\": the model has ' ', which is not allowed there","code":"invalid_name"}
        POST /api/chat {"model":"../../etc/passwd"}
          400 {"error":"invalid model name \"../../etc/passwd\": it has more than host/namespace/model","code":"invalid_name"}
        POST /api/chat {"model":"absent","messages":[{"role":"user","content":"q"}]}
          404 {"error":"model 'absent' not found","code":"model_not_found"}
        POST /api/chat {"model":"m","messages":"hi"}
          400 {"error":"invalid request: invalid type: string \"hi\", expected a sequence at line 1 column 28","code":"invalid_request"}
        POST /api/chat {"model":"m","tools":[{}]}
          400 {"error":"`tools` is not supported yet","code":"unsupported"}
        POST /api/chat {"model":"m","options":{"temperature":"hot"}}
          400 {"error":"option \"temperature\" must be of type float32","code":"invalid_request"}
        POST /api/chat {"model":"m","keep_alive":"soon"}
          400 {"error":"keep_alive: \"soon\" is not a duration: write seconds (300), a duration (5m, 1h30m), 0 or -1 (forever)","code":"invalid_request"}
        POST /api/generate {"model":"m","prompt":"q","raw":true,"system":"x"}
          400 {"error":"raw mode does not support template, system, or context","code":"invalid_request"}
        POST /api/show {"name":"absent"}
          404 {"error":"model 'absent' not found","code":"model_not_found"}
        POST /api/copy {"source":"m","destination":"a b"}
          400 {"error":"destination \"a b\" is invalid: invalid model name \"a b\": the model has ' ', which is not allowed there","code":"invalid_name"}
        POST /api/copy {"source":"absent","destination":"b"}
          404 {"error":"model 'absent' not found","code":"model_not_found"}
        DELETE /api/delete {"model":"absent"}
          404 {"error":"model 'absent' not found","code":"model_not_found"}
        POST /api/embed {"model":"m","input":"x"}
          400 {"error":"\"m\" does not support embeddings","code":"incapable"}
        POST /api/embeddings {"model":"m","prompt":"x"}
          400 {"error":"\"m\" does not support embeddings","code":"incapable"}
        POST /api/pull {"model":"a b"}
          400 {"error":"invalid model name \"a b\": the model has ' ', which is not allowed there","code":"invalid_name"}
        POST /api/push {"model":"absent"}
          404 {"error":"model 'absent' not found","code":"model_not_found"}
        POST /api/blobs/sha256:12 x
          400 {"error":"invalid digest format: digest \"sha256:12\" is malformed: after sha256: come exactly 64 lowercase hex digits","code":"invalid_digest"}
        GET /v1/models/absent 
          404 {"error":{"message":"model 'absent' not found","type":"not_found_error","param":null,"code":"model_not_found"}}
        POST /v1/chat/completions {"model":"m","messages":[]}
          400 {"error":{"message":"[] is too short - 'messages'","type":"invalid_request_error","param":null,"code":"invalid_request"}}
        POST /v1/chat/completions {"model":"m","messages":[{"role":"user","content":"q"}],"n":2}
          400 {"error":{"message":"`n` is not supported yet","type":"invalid_request_error","param":null,"code":"unsupported"}}
        POST /v1/chat/completions nope
          400 {"error":{"message":"the body is not valid JSON: expected ident at line 1 column 2","type":"invalid_request_error","param":null,"code":"invalid_json"}}
    "#]]).await;
}

#[tokio::test]
async fn an_unreachable_registry_is_a_502() {
    let daemon = Daemon::new();
    let (status, body) = daemon.send("POST", "/api/pull", r#"{"model":"x","stream":false}"#).await;
    assert_eq!(status, 502, "{body}");
    assert!(body.contains("registry_unreachable"), "{body}");
}

#[tokio::test]
async fn blobs_are_uploaded_once_and_must_hash_to_their_name() {
    let daemon = Daemon::new();
    let digest = dsk_registry::Digest::of(b"hello");
    let path = format!("/api/blobs/{digest}");
    assert_eq!(daemon.send("HEAD", &path, "").await.0, 404);
    let (status, body) = daemon.send("POST", &path, "other").await;
    assert_eq!(status, 400);
    assert!(body.contains("digest mismatch, expected"), "{body}");
    assert_eq!(daemon.send("HEAD", &path, "").await.0, 404);
    assert_eq!(daemon.send("POST", &path, "hello").await.0, 201);
    assert_eq!(daemon.send("POST", &path, "hello").await.0, 200);
    assert_eq!(daemon.send("HEAD", &path, "").await.0, 200);
}

/// An upload that its client gives up leaves nothing behind.
#[tokio::test]
async fn a_broken_upload_is_no_blob() {
    let daemon = Daemon::new();
    let digest = dsk_registry::Digest::of(b"hello");
    let broken = std::io::Error::other("gone");
    let pieces = futures_util::stream::iter([Ok("hel"), Err(broken)]);
    let request = Request::post(format!("/api/blobs/{digest}")).body(Body::from_stream(pieces));
    assert_eq!(daemon.answer(request.unwrap()).await.status(), 400);
    assert!(!daemon.service.store.has(&digest));
    assert_eq!(daemon.send("POST", &format!("/api/blobs/{digest}"), "hello").await.0, 201);
}

#[tokio::test]
async fn the_life_of_a_model() {
    let daemon = Daemon::with_model().await;
    let (_, tags) = daemon.send("GET", "/api/tags", "").await;
    let tags: Value = serde_json::from_str(&tags).unwrap();
    assert_eq!(tags["models"][0]["name"], "m:latest");
    assert_eq!(tags["models"][0]["details"]["family"], "llama");
    assert_eq!(
        daemon.send("POST", "/api/copy", r#"{"source":"m","destination":"n"}"#).await,
        (200, String::new())
    );
    let (status, loaded) = daemon.send("POST", "/api/generate", r#"{"model":"n"}"#).await;
    assert!(status == 200 && loaded.contains(r#""done_reason":"load""#), "{loaded}");
    let (_, ps) = daemon.send("GET", "/api/ps", "").await;
    assert!(ps.contains(r#""name":"n:latest""#), "{ps}");
    let (_, unloaded) = daemon.send("POST", "/api/chat", r#"{"model":"n","keep_alive":0}"#).await;
    assert!(unloaded.contains(r#""done_reason":"unload""#), "{unloaded}");
    assert_eq!(daemon.send("GET", "/api/ps", "").await.1, r#"{"models":[]}"#);
    assert_eq!(daemon.send("DELETE", "/api/delete", r#"{"name":"n"}"#).await, (200, String::new()));
    assert_eq!(daemon.send("POST", "/api/show", r#"{"model":"n"}"#).await.0, 404);
    let (_, models) = daemon.send("GET", "/v1/models", "").await;
    assert!(models.contains(r#""id":"m:latest","object":"model""#), "{models}");
    assert_eq!(daemon.send("GET", "/v1/models/m", "").await.0, 200);
}

#[tokio::test]
async fn show_tells_what_strict_clients_need() {
    let daemon = Daemon::with_model().await;
    let (_, body) = daemon.send("POST", "/api/show", r#"{"model":"m"}"#).await;
    let brief: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(brief["model_info"]["general.architecture"], "llama");
    assert!(brief["model_info"]["llama.context_length"].is_u64());
    assert!(brief["model_info"]["general.parameter_count"].is_u64());
    assert!(brief["model_info"]["tokenizer.ggml.tokens"].is_null());
    assert_eq!(brief["capabilities"][0], "completion");
    assert!(brief["template"].as_str().unwrap().contains("im_start"));
    assert!(brief.get("tensors").is_none());
    let (_, body) = daemon.send("POST", "/api/show", r#"{"model":"m","verbose":true}"#).await;
    let verbose: Value = serde_json::from_str(&body).unwrap();
    assert!(verbose["model_info"]["tokenizer.ggml.tokens"].is_array());
    assert!(verbose["tensors"][0]["shape"].is_array());
}

#[tokio::test]
async fn answers_in_every_dialect() {
    let daemon = Daemon::with_model().await;
    let prompt = r#"{"model":"m","prompt":"3","raw":true}"#;
    let (status, lines) = daemon.send("POST", "/api/generate", prompt).await;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let words: String = lines.iter().map(|line| line["response"].as_str().unwrap()).collect();
    assert_eq!((status, words.as_str(), lines.len()), (200, "0 1 2 ", 4));
    assert_eq!((&lines[3]["done"], &lines[3]["eval_count"]), (&Value::from(true), &Value::from(3)));

    let messages = r#""messages":[{"role":"user","content":"q"}]"#;
    let whole = format!(r#"{{"model":"m",{messages},"stream":false}}"#);
    let (_, chat) = daemon.send("POST", "/api/chat", &whole).await;
    assert!(chat.contains(r#""message":{"role":"assistant","content":"0 "}"#), "{chat}");
    let (_, completion) = daemon.send("POST", "/v1/chat/completions", &whole).await;
    assert!(completion.contains(r#""content":"0 "},"finish_reason":"stop""#), "{completion}");
    let streamed = format!(r#"{{"model":"m",{messages},"stream":true}}"#);
    let (_, events) = daemon.send("POST", "/v1/chat/completions", &streamed).await;
    assert!(events.ends_with("data: [DONE]\n\n"), "{events}");
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_request() {
    let daemon = Daemon::with_model().await;
    let body = r#"{"model":"m","prompt":"hang","raw":true}"#;
    let request = Request::post("/api/generate").body(Body::from(body)).unwrap();
    let mut body = daemon.answer(request).await.into_body().into_data_stream();
    assert!(body.next().await.unwrap().is_ok());
    drop(body);
    let cancelled = async {
        while !daemon.runners.log().iter().any(|line| line.ends_with("cancel")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), cancelled)
        .await
        .expect("the request is cancelled");
}

#[tokio::test]
async fn a_runner_that_dies_costs_its_request_only() {
    let daemon = Daemon::with_model().await;
    let (status, body) =
        daemon.send("POST", "/api/generate", r#"{"model":"m","prompt":"die","raw":true}"#).await;
    assert_eq!(status, 500);
    assert!(body.contains(r#""code":"runner_died""#), "{body}");
    let (status, _) =
        daemon.send("POST", "/api/generate", r#"{"model":"m","prompt":"1","raw":true}"#).await;
    assert_eq!(status, 200);
}

fn with_header(method: &str, path: &str, header: (&str, &str), body: &'static str) -> Request {
    let request = Request::builder().method(method).uri(path).header(header.0, header.1);
    request.body(Body::from(body)).unwrap()
}

#[tokio::test]
async fn foreign_hosts_and_pages_are_refused_before_anything_happens() {
    let daemon = Daemon::with_model().await;
    let delete = r#"{"model":"m"}"#;
    for header in [("host", "evil.example"), ("origin", "https://evil.example"), ("origin", "null")]
    {
        let response = daemon.answer(with_header("DELETE", "/api/delete", header, delete)).await;
        assert_eq!(response.status(), 403, "{header:?}");
        assert!(text(response).await.contains(r#""code":"forbidden""#));
    }
    assert_eq!(daemon.send("POST", "/api/show", delete).await.0, 200);
    // Nobody rebinds names over the Unix socket.
    let mut request = with_header("GET", "/", ("host", "anything"), "");
    request.extensions_mut().insert(Peer::Unix);
    assert_eq!(daemon.answer(request).await.status(), 200);
}

#[tokio::test]
async fn pages_on_the_list_get_cors_answers() {
    let daemon = Daemon::new();
    let mut preflight =
        with_header("OPTIONS", "/api/chat", ("origin", "http://localhost:3000"), "");
    preflight.headers_mut().insert("access-control-request-method", "POST".parse().unwrap());
    let response = daemon.answer(preflight).await;
    assert_eq!(response.status(), 204);
    assert_eq!(response.headers()["access-control-allow-origin"], "http://localhost:3000");
    assert!(
        response.headers()["access-control-allow-headers"].to_str().unwrap().contains("x-api-key")
    );
    let simple = with_header("GET", "/api/version", ("origin", "http://localhost:3000"), "");
    let response = daemon.answer(simple).await;
    assert_eq!(response.headers()["access-control-allow-origin"], "http://localhost:3000");
}

#[tokio::test]
async fn probes_and_the_page() {
    let daemon = Daemon::new();
    assert_eq!(daemon.send("GET", "/", "").await, (200, "Ollama is running".to_owned()));
    assert_eq!(daemon.send("HEAD", "/", "").await.0, 200);
    assert_eq!(daemon.send("HEAD", "/api/version", "").await.0, 200);
    assert_eq!(daemon.send("GET", "/api/version", "").await.1, r#"{"version":"0.12.6"}"#);
    let (_, status) = daemon.send("GET", "/api/dsk/status", "").await;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert!(status["memory"]["daemon_bytes"].as_u64().unwrap() > 1 << 20);
    let (_, machine) = daemon.send("GET", "/api/dsk/machine", "").await;
    let machine: crate::hardware::Machine = serde_json::from_str(&machine).unwrap();
    assert!(machine.cpu.threads >= 1 && machine.disk.is_some(), "{machine:?}");
    let page = daemon.answer(Request::get("/ui").body(Body::empty()).unwrap()).await;
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let page = text(page).await;
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing from elsewhere");
}
