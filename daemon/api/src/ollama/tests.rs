//! JSON in, JSON out: what clients send and what they must be able to read.

use expect_test::{Expect, expect};
use serde::de::DeserializeOwned;

use super::*;

/// What an answer looks like on the wire.
fn written(value: &impl Serialize, expected: Expect) {
    expected.assert_eq(&serde_json::to_string(value).unwrap());
}

/// What is understood of a request: it is written again without what was not given.
fn understood<T: DeserializeOwned + Serialize>(json: &str, expected: Expect) {
    written(&serde_json::from_str::<T>(json).unwrap(), expected);
}

/// What is said of a request that is not understood.
fn refused<T: DeserializeOwned + std::fmt::Debug>(json: &str, expected: Expect) {
    expected.assert_eq(&serde_json::from_str::<T>(json).unwrap_err().to_string());
}

#[test]
fn a_chat_request_with_every_leniency() {
    understood::<ChatRequest>(
        r#"{"model":"m","messages":[{"role":"user","content":null,"extra":1}],"options":null,
            "format":null,"think":"high","keep_alive":-1,"stream":false,"tools":null,"new":{}}"#,
        expect![[
            r#"{"model":"m","messages":[{"role":"user","content":""}],"stream":false,"keep_alive":-1,"think":"high"}"#
        ]],
    );
    understood::<ChatRequest>("{}", expect![[r#"{"model":"","messages":[]}"#]]);
}

#[test]
fn think_is_a_switch_or_a_level() {
    for (json, enabled) in [("true", true), ("false", false), ("\"low\"", true), ("\"max\"", true)]
    {
        assert_eq!(serde_json::from_str::<Think>(json).unwrap().enabled(), enabled, "{json}");
    }
    refused::<Think>(
        "\"hard\"",
        expect![[
            r#"invalid value: string "hard", expected `think` to be true, false, "low", "medium", "high" or "max" at line 1 column 6"#
        ]],
    );
    refused::<ChatRequest>(
        r#"{"think": 3}"#,
        expect![[
            r#"invalid type: integer `3`, expected `think` to be true, false, "low", "medium", "high" or "max" at line 1 column 11"#
        ]],
    );
}

#[test]
fn a_model_is_named_by_model_or_name() {
    for json in [r#"{"model":"m"}"#, r#"{"name":"m"}"#, r#"{"model":"m","name":"other"}"#] {
        assert_eq!(serde_json::from_str::<PullRequest>(json).unwrap().target(), "m");
        assert_eq!(serde_json::from_str::<ShowRequest>(json).unwrap().target(), "m");
        assert_eq!(serde_json::from_str::<DeleteRequest>(json).unwrap().target(), "m");
        assert_eq!(serde_json::from_str::<CreateRequest>(json).unwrap().target(), "m");
    }
}

#[test]
fn a_generate_request() {
    understood::<GenerateRequest>(
        r#"{"model":"m","prompt":"p","suffix":"s","context":[1,2],"raw":true,"images":[]}"#,
        expect![[r#"{"model":"m","prompt":"p","suffix":"s","context":[1,2],"raw":true}"#]],
    );
    refused::<GenerateRequest>(
        "{\"model\":\"m\",\n\"prompt\":5}",
        expect!["invalid type: integer `5`, expected a string at line 2 column 10"],
    );
}

#[test]
fn a_create_request_with_one_or_many_licences() {
    let one = serde_json::from_str::<CreateRequest>(r#"{"license":"MIT"}"#).unwrap();
    assert_eq!(one.license.unwrap().texts(), ["MIT"]);
    let many = serde_json::from_str::<CreateRequest>(r#"{"license":["a","","b"]}"#).unwrap();
    assert_eq!(many.license.unwrap().texts(), ["a", "b"]);
}

#[test]
fn chat_lines() {
    let mut line = ChatLine {
        model: "m".to_owned(),
        created_at: "2026-01-02T03:04:05.000000006Z".to_owned(),
        message: Message::new("assistant", "Hi"),
        ..ChatLine::default()
    };
    written(
        &line,
        expect![[
            r#"{"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":"Hi"},"done":false}"#
        ]],
    );
    line.done = true;
    line.done_reason = Some("stop".to_owned());
    line.metrics = Metrics { total_duration: 9, eval_count: 2, ..Metrics::default() };
    written(
        &line,
        expect![[
            r#"{"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":"Hi"},"done":true,"done_reason":"stop","total_duration":9,"eval_count":2}"#
        ]],
    );
    let text = serde_json::to_string(&line).unwrap();
    assert_eq!(serde_json::from_str::<ChatLine>(&text).unwrap(), line);
}

#[test]
fn what_strict_clients_need_of_a_list_is_there_even_when_empty() {
    let models = vec![LocalModel::default()];
    written(
        &TagsResponse { models },
        expect![[
            r#"{"models":[{"name":"","model":"","modified_at":"","size":0,"digest":"","details":{"parent_model":"","format":"","family":"","families":[],"parameter_size":"","quantization_level":""},"capabilities":[]}]}"#
        ]],
    );
    written(
        &ShowResponse::default(),
        expect![[
            r#"{"modelfile":"","template":"","details":{"parent_model":"","format":"","family":"","families":[],"parameter_size":"","quantization_level":""},"model_info":{},"capabilities":[],"modified_at":""}"#
        ]],
    );
}

#[test]
fn progress_lines() {
    written(&ProgressLine::status("success"), expect![[r#"{"status":"success"}"#]]);
    let line = ProgressLine {
        status: "pulling 970aa74c0a90".to_owned(),
        digest: Some("sha256:97".to_owned()),
        total: Some(10),
        completed: Some(0),
    };
    written(
        &line,
        expect![[
            r#"{"status":"pulling 970aa74c0a90","digest":"sha256:97","total":10,"completed":0}"#
        ]],
    );
}
