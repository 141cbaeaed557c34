//! What `/v1/chat/completions` makes of requests, and of events.

use dsk_daemon_engine::FinishReason;
use expect_test::{Expect, expect};

use super::*;
use crate::http::answer::{Dialect, Text, Whole};
use crate::http::testing::{done, moment, text as body_text};

fn understood(json: &str) -> Result<String, ApiError> {
    let body: ChatCompletionRequest = serde_json::from_str(json).unwrap();
    refuse_unsupported(&body)?;
    let options = Value::Object(request_options(&body)?);
    let think = effort(&body)?;
    let messages = serde_json::to_string(&messages(body.messages)?).unwrap();
    Ok(format!("{options}\nthink {think:?}\n{messages}"))
}

fn check(json: &str, expected: Expect) {
    expected.assert_eq(
        &understood(json).unwrap_or_else(|error| format!("{} {error}", error.code.status())),
    );
}

#[test]
fn requests() {
    check(
        r#"{"messages":[{"role":"developer","content":"be brief"},
            {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
            {"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":
              [{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]},
            {"role":"tool","tool_call_id":"c1","content":"2"}],
            "temperature":0.5,"max_tokens":9,"max_completion_tokens":7,"stop":"x","seed":3,
            "presence_penalty":1,"frequency_penalty":0.5,"reasoning_effort":"none","n":1}"#,
        expect![[r#""#]],
    );
    check(r#"{"messages":[]}"#, expect![[r#""#]]);
}

#[test]
fn refusals_name_the_field() {
    let mut table = String::new();
    for body in [
        r#"{"tools":[{}]}"#,
        r#"{"tool_choice":"required"}"#,
        r#"{"response_format":{"type":"json_object"}}"#,
        r#"{"logprobs":true}"#,
        r#"{"logit_bias":{"1":2}}"#,
        r#"{"n":2}"#,
        r#"{"n":0}"#,
        r#"{"max_tokens":0}"#,
        r#"{"reasoning_effort":"hard"}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]}"#,
        r#"{"messages":[{"role":"robot","content":"x"}]}"#,
        r#"{"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"["}}]}]}"#,
    ] {
        table += &format!("{}\n", understood(body).unwrap_err());
    }
    expect![[r#""#]].assert_eq(&table);
}

fn completion() -> Completion {
    Completion {
        id: "chatcmpl-1".to_owned(),
        created: 7,
        model: "m".to_owned(),
        include_usage: true,
    }
}

#[test]
fn a_streamed_answer() {
    let (dialect, moment) = (completion(), moment());
    let frames = [
        dialect.opening().unwrap(),
        dialect.ping(&moment),
        dialect.text(Text::Thinking("hm".to_owned()), &moment),
        dialect.text(Text::Content("Hi".to_owned()), &moment),
        dialect.done(&done(FinishReason::Stop), &moment),
        dialect.failed(&ApiError::new(ErrorCode::RunnerDied, "gone")),
    ];
    expect![[r#""#]].assert_eq(std::str::from_utf8(&frames.concat()).unwrap());
}

#[tokio::test]
async fn a_whole_answer() {
    let done = done(FinishReason::Length);
    let whole = Whole { thinking: String::new(), content: "Hi".to_owned(), done };
    let response = completion().whole(whole, &moment());
    expect![[r#""#]].assert_eq(&body_text(response).await);
}
