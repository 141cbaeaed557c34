//! What `/v1/chat/completions` makes of requests, and of events.

use dsk_daemon_engine::FinishReason;
use expect_test::{Expect, expect};

use super::*;
use crate::http::answer::{Dialect, Text, Whole};
use crate::http::testing::{done, moment, queued, text as body_text};

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
        expect![[r#"
            {"temperature":0.5,"frequency_penalty":0.5,"presence_penalty":1.0,"seed":3,"num_predict":7,"stop":["x"]}
            think Some(false)
            [{"role":"system","content":"be brief"},{"role":"user","content":"a\nb"},{"role":"assistant","content":"","thinking":"hm","tool_calls":[{"id":"c1","name":"f","arguments":{"x":1}}]},{"role":"tool","content":"2","tool_call_id":"c1"}]"#]],
    );
    check(
        r#"{"messages":[]}"#,
        expect![[r#"
        {}
        think None
        []"#]],
    );
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
    expect![[r#"
        `tools` is not supported yet
        `tool_choice` is not supported yet
        `response_format` is not supported yet
        `logprobs` is not supported yet
        `logit_bias` is not supported yet
        `n` is not supported yet
        n must be 1
        max_tokens must be at least 1, got 0
        reasoning_effort must be none, minimal, low, medium, high or max, not "hard"
        `messages[0].content of type image_url` is not supported yet
        messages[0].role must be system, user, assistant or tool, not "robot"
        messages[0].tool_calls: arguments are not a JSON object: invalid type: sequence, expected a map at line 1 column 0
    "#]].assert_eq(&table);
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
        dialect.ping(&queued()),
        dialect.text(Text::Thinking("hm".to_owned()), &moment),
        dialect.text(Text::Content("Hi".to_owned()), &moment),
        dialect.done(&done(FinishReason::Stop), &moment),
        dialect.failed(&ApiError::new(ErrorCode::RunnerDied, "gone")),
    ];
    expect![[r#"
        data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m","system_fingerprint":"fp_dsk","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}

        : keep-alive

        : queued at 2, about 12 s to go

        data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m","system_fingerprint":"fp_dsk","choices":[{"index":0,"delta":{"reasoning":"hm","reasoning_content":"hm"},"finish_reason":null}]}

        data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m","system_fingerprint":"fp_dsk","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}

        data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m","system_fingerprint":"fp_dsk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}

        data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m","system_fingerprint":"fp_dsk","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7,"completion_tokens_details":{"reasoning_tokens":1}}}

        data: [DONE]

        data: {"error":{"message":"gone","type":"api_error","param":null,"code":"runner_died"}}

    "#]].assert_eq(std::str::from_utf8(&frames.concat()).unwrap());
}

#[tokio::test]
async fn a_whole_answer() {
    let done = done(FinishReason::Length);
    let whole = Whole { thinking: String::new(), content: "Hi".to_owned(), done };
    let response = completion().whole(whole, &moment());
    expect![[r#"{"id":"chatcmpl-1","object":"chat.completion","created":7,"model":"m","system_fingerprint":"fp_dsk","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"length"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7,"completion_tokens_details":{"reasoning_tokens":1}}}"#]].assert_eq(&body_text(response).await);
}
