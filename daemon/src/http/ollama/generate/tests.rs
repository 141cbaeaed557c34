//! What `/api/generate` and `/api/chat` make of requests, and of events.

use std::sync::Arc;

use dsk_daemon_engine::FinishReason;
use expect_test::{Expect, expect};

use super::*;
use crate::http::facts::Facts;
use crate::http::ollama::chat::Chat;
use crate::http::testing::{done, moment, queued, spec, text};

fn model(thinking: bool) -> Model {
    let mut spec = spec();
    spec.system = Some("S".to_owned());
    spec.messages = vec![message("user", "ex"), message("assistant", "ample")];
    Model { spec: Arc::new(spec), facts: Arc::new(Facts { thinking, context_length: None }) }
}

fn prompted(json: &str, thinking: bool, expected: Expect) {
    let body: GenerateRequest = serde_json::from_str(json).unwrap();
    expected.assert_eq(&match refuse_unsupported(&body)
        .and_then(|()| prompt(body, &model(thinking)))
    {
        Ok(prompt) => serde_json::to_string(&prompt).unwrap(),
        Err(error) => format!("{} {error}", error.code.status()),
    });
}

#[test]
fn what_a_request_prompts() {
    prompted(
        r#"{"model":"m","prompt":"q"}"#,
        true,
        expect![[
            r#"{"chat":{"messages":[{"role":"system","content":"S"},{"role":"user","content":"ex"},{"role":"assistant","content":"ample"},{"role":"user","content":"q"}],"tools":[],"think":true,"template":null,"context":[]}}"#
        ]],
    );
    prompted(
        r#"{"model":"m","prompt":"q","system":"mine","template":"{{ .Prompt }}","think":false}"#,
        true,
        expect![[
            r#"{"chat":{"messages":[{"role":"system","content":"mine"},{"role":"user","content":"ex"},{"role":"assistant","content":"ample"},{"role":"user","content":"q"}],"tools":[],"think":false,"template":"{{ .Prompt }}","context":[]}}"#
        ]],
    );
    prompted(
        r#"{"model":"m","prompt":"q","context":[1,2]}"#,
        false,
        expect![[
            r#"{"chat":{"messages":[{"role":"user","content":"q"}],"tools":[],"think":null,"template":null,"context":[1,2]}}"#
        ]],
    );
    prompted(r#"{"model":"m","prompt":"q","raw":true}"#, true, expect![[r#"{"raw":"q"}"#]]);
    prompted(
        r#"{"model":"m","prompt":"a(","suffix":")"}"#,
        false,
        expect![[r#"{"fill":{"prefix":"a(","suffix":")"}}"#]],
    );
}

#[test]
fn what_is_refused() {
    prompted(
        r#"{"model":"m","prompt":"q","raw":true,"system":"x"}"#,
        false,
        expect!["400 raw mode does not support template, system, or context"],
    );
    prompted(
        r#"{"model":"m","prompt":"q","think":"low"}"#,
        false,
        expect![[r#"400 "m" does not support thinking"#]],
    );
    prompted(
        r#"{"model":"m","prompt":"q","images":["aGk="]}"#,
        false,
        expect!["400 `images` is not supported yet"],
    );
    prompted(
        r#"{"model":"m","prompt":"q","format":"json"}"#,
        false,
        expect!["400 `format` is not supported yet"],
    );
    prompted(
        r#"{"model":"m","prompt":"q","logprobs":true}"#,
        false,
        expect!["400 `logprobs` is not supported yet"],
    );
    prompted(
        r#"{"model":"m","prompt":"q","top_logprobs":21}"#,
        false,
        expect!["400 top_logprobs must be between 0 and 20"],
    );
}

/// Every kind of frame, as it goes over the wire.
async fn written<D: Dialect>(dialect: D, expected: Expect) {
    let (moment, done) = (moment(), done(FinishReason::Stop));
    let frames = [
        dialect.ping(&moment),
        dialect.ping(&queued()),
        dialect.text(Text::Thinking("hm".to_owned()), &moment),
        dialect.text(Text::Content("Hi \"you\"\n".to_owned()), &moment),
        dialect.done(&done, &moment),
        dialect.failed(&ApiError::new(ErrorCode::RunnerDied, "gone")),
    ];
    let mut all = String::from_utf8(frames.concat()).unwrap();
    assert_eq!(all.lines().count(), frames.len(), "one line each");
    let whole = Whole { thinking: "hm".to_owned(), content: "Hi".to_owned(), done };
    all += &text(dialect.whole(whole, &moment)).await;
    expected.assert_eq(&all);
}

#[tokio::test]
async fn lines_of_generate() {
    let dialect = Generate { model: "m".to_owned(), context: true };
    written(dialect, expect![[r#"
        {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","response":"","done":false}
        {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","response":"","done":false,"queue":{"position":2,"expected_seconds":12.0}}
        {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","response":"","thinking":"hm","done":false}
        {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","response":"Hi \"you\"\n","done":false}
        {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","response":"","done":true,"done_reason":"stop","context":[1,2,3],"total_duration":900,"load_duration":100,"prompt_eval_count":5,"prompt_eval_duration":30,"eval_count":2,"eval_duration":40}
        {"error":"gone","code":"runner_died"}
        {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","response":"Hi","thinking":"hm","done":true,"done_reason":"stop","context":[1,2,3],"total_duration":900,"load_duration":100,"prompt_eval_count":5,"prompt_eval_duration":30,"eval_count":2,"eval_duration":40}"#]]).await;
}

#[tokio::test]
async fn lines_of_chat() {
    written(Chat { model: "m".to_owned() }, expect![[r#"
        {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":""},"done":false}
        {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":""},"done":false,"queue":{"position":2,"expected_seconds":12.0}}
        {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":"","thinking":"hm"},"done":false}
        {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":"Hi \"you\"\n"},"done":false}
        {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":900,"load_duration":100,"prompt_eval_count":5,"prompt_eval_duration":30,"eval_count":2,"eval_duration":40}
        {"error":"gone","code":"runner_died"}
        {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":"Hi","thinking":"hm"},"done":true,"done_reason":"stop","total_duration":900,"load_duration":100,"prompt_eval_count":5,"prompt_eval_duration":30,"eval_count":2,"eval_duration":40}"#]]).await;
}

#[test]
fn a_raw_answer_has_no_context() {
    let dialect = Generate { model: "m".to_owned(), context: false };
    let last = dialect.done(&done(FinishReason::Length), &moment());
    let last: GenerateLine = serde_json::from_slice(&last).unwrap();
    assert_eq!((last.context, last.done_reason.as_deref()), (vec![], Some("length")));
}

#[test]
fn more_context_than_the_model_was_made_for_is_told() {
    let facts = Facts { thinking: false, context_length: Some(4096) };
    let model = Model { facts: Arc::new(facts), ..model(false) };
    let warning = |tokens: Option<u32>| {
        inference::warning(&model, &Wants { context_length: tokens, ..Wants::default() })
    };
    assert_eq!(warning(None), None);
    assert_eq!(warning(Some(4096)), None);
    let text = warning(Some(2_000_000_000)).unwrap();
    assert!(text.starts_with("num_ctx 2000000000 is more than the 4096 tokens of"), "{text}");
    let answer = inference::warned(Response::default(), Some(text.clone()));
    assert_eq!(answer.headers()["x-dsk-warning"], text);
}
