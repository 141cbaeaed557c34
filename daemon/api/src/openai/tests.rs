//! JSON in, JSON out.

use expect_test::expect;

use super::*;

fn request(json: &str) -> ChatCompletionRequest {
    serde_json::from_str(json).unwrap()
}

#[test]
fn content_is_text_or_parts() {
    let request = request(
        r#"{"model":"m","messages":[{"role":"user","content":"a"},{"role":"user",
            "content":[{"type":"text","text":"b"},{"type":"image_url","image_url":{"url":"x"}}]},
            {"role":"assistant","content":null}]}"#,
    );
    expect![[r#"
        [
            Some(
                Text(
                    "a",
                ),
            ),
            Some(
                Parts(
                    [
                        ContentPart {
                            kind: "text",
                            text: "b",
                        },
                        ContentPart {
                            kind: "image_url",
                            text: "",
                        },
                    ],
                ),
            ),
            None,
        ]
    "#]]
    .assert_debug_eq(&request.messages.into_iter().map(|m| m.content).collect::<Vec<_>>());
}

#[test]
fn stops_and_efforts_have_two_shapes() {
    let one = request(r#"{"stop":"x","reasoning_effort":"low"}"#);
    assert_eq!((one.stop.as_ref().unwrap().texts(), one.effort()), (vec!["x".into()], Some("low")));
    let many = request(r#"{"stop":["x","","y"],"reasoning":{"effort":"high"}}"#);
    assert_eq!(many.stop.as_ref().unwrap().texts(), ["x", "y"]);
    assert_eq!(many.effort(), Some("high"));
}

#[test]
fn nulls_are_not_given() {
    let request = request(r#"{"stream":null,"stream_options":null,"tools":null,"n":null}"#);
    assert!(!request.stream && !request.stream_options.include_usage);
    assert!(request.tools.is_empty() && request.n.is_none());
}

#[test]
fn chunks_leave_out_what_they_do_not_add() {
    let chunk = ChatCompletionChunk {
        id: "chatcmpl-1".to_owned(),
        object: "chat.completion.chunk",
        created: 7,
        model: "m".to_owned(),
        system_fingerprint: "fp_dsk",
        choices: vec![ChunkChoice {
            index: 0,
            delta: Delta { content: Some("Hi".to_owned()), ..Delta::default() },
            finish_reason: None,
        }],
        usage: None,
    };
    expect![[r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m","system_fingerprint":"fp_dsk","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}"#]]
        .assert_eq(&serde_json::to_string(&chunk).unwrap());
}
