use super::*;
use expect_test::{Expect, expect};
use proptest::prelude::*;

fn check(texts: &[&str], expected: Expect) {
    let lines = texts.iter().map(|text| match Name::parse(text) {
        Ok(name) => format!("{text} => {} | {name}\n", name.full()),
        Err(error) => format!("{error}\n"),
    });
    expected.assert_eq(&lines.collect::<String>());
}

#[test]
fn missing_parts_get_their_defaults() {
    check(
        &[
            "smollm2",
            "deepseek-r1:7b",
            "me/Model_1:v1.0",
            "hf.co/user/repo-GGUF:Q4_K_M",
            "localhost:5000/library/smollm2",
            "http://127.0.0.1:8080/library/x:y",
            "https://registry.ollama.ai/library/x",
            "[::1]:5000/a/b:c",
        ],
        expect![[r#"
            smollm2 => registry.ollama.ai/library/smollm2:latest | smollm2:latest
            deepseek-r1:7b => registry.ollama.ai/library/deepseek-r1:7b | deepseek-r1:7b
            me/Model_1:v1.0 => registry.ollama.ai/me/Model_1:v1.0 | me/Model_1:v1.0
            hf.co/user/repo-GGUF:Q4_K_M => hf.co/user/repo-GGUF:Q4_K_M | hf.co/user/repo-GGUF:Q4_K_M
            localhost:5000/library/smollm2 => localhost:5000/library/smollm2:latest | localhost:5000/library/smollm2:latest
            http://127.0.0.1:8080/library/x:y => 127.0.0.1:8080/library/x:y | 127.0.0.1:8080/library/x:y
            https://registry.ollama.ai/library/x => registry.ollama.ai/library/x:latest | x:latest
            [::1]:5000/a/b:c => [::1]:5000/a/b:c | [::1]:5000/a/b:c
        "#]],
    );
}

#[test]
fn refusals_name_the_part() {
    check(
        &[
            "",
            "x:",
            ":x",
            "a//b",
            "../../etc/passwd",
            "..",
            "x:..",
            "a/b/c/d",
            "x@sha256:00",
            "host:port/a/b",
            "host:99999/a/b",
            "[::g]/a/b",
            "[::1/a/b",
            "user.name/x",
            "C:\\x",
            "x\0y",
            "mod\u{e8}le",
            "..%2f",
            "file:///etc/passwd",
        ],
        expect![[r#"
            invalid model name "": the model is empty
            invalid model name "x:": the tag is empty
            invalid model name ":x": the model is empty
            invalid model name "a//b": the namespace is empty
            invalid model name "../../etc/passwd": it has more than host/namespace/model
            invalid model name "..": the model has '.', which is not allowed there
            invalid model name "x:..": the tag has '.', which is not allowed there
            invalid model name "a/b/c/d": it has more than host/namespace/model
            invalid model name "x@sha256:00": the model has '@', which is not allowed there
            invalid model name "host:port/a/b": the host has a malformed port or address
            invalid model name "host:99999/a/b": the host has a malformed port or address
            invalid model name "[::g]/a/b": the host has a malformed port or address
            invalid model name "[::1/a/b": the host has a malformed port or address
            invalid model name "user.name/x": the namespace has '.', which is not allowed there
            invalid model name "C:\\x": the tag has '\\', which is not allowed there
            invalid model name "x\0y": the model has '\0', which is not allowed there
            invalid model name "modèle": the model has 'è', which is not allowed there
            invalid model name "..%2f": the model has '.', which is not allowed there
            invalid model name "file:///etc/passwd": it has more than host/namespace/model
        "#]],
    );
}

#[test]
fn parts_are_bounded() {
    let long = "x".repeat(PART_BYTES_MAX);
    assert!(Name::parse(&format!("{long}/{long}:{long}")).is_ok());
    assert!(Name::parse(&format!("{long}x")).is_err());
    assert!(Name::parse(&"x".repeat(1 << 20)).is_err());
    assert!(Name::parse(&format!("{}/a/b", "h".repeat(HOST_BYTES_MAX + 1))).is_err());
}

#[test]
fn with_tag_checks_the_tag() {
    let name = Name::parse("me/model").unwrap();
    assert_eq!(name.with_tag("q8_0").unwrap().to_string(), "me/model:q8_0");
    assert!(name.with_tag("../x").is_err());
}

#[test]
fn serde_uses_the_text() {
    let name: Name = serde_json::from_str(r#""smollm2""#).unwrap();
    assert_eq!(serde_json::to_string(&name).unwrap(), r#""smollm2:latest""#);
    assert!(serde_json::from_str::<Name>(r#""a b""#).is_err());
}

proptest! {
    #[test]
    fn what_parses_round_trips(text in "(https?://)?[a-zA-Z0-9._:\\[\\]/-]{0,24}|\\PC{0,40}") {
        if let Ok(name) = Name::parse(&text) {
            prop_assert_eq!(Name::parse(&name.to_string()), Ok(name.clone()));
            prop_assert_eq!(Name::parse(&name.full()), Ok(name));
        }
    }
}
