//! The texts that `show` makes.

use expect_test::expect;
use serde_json::json;

use super::*;
use crate::http::conversation::message;
use crate::http::testing::spec;

fn full() -> ModelSpec {
    let mut spec = spec();
    spec.system = Some("Be brief.".to_owned());
    spec.messages = vec![message("user", "hi"), message("assistant", "two\nlines")];
    spec.licenses = vec!["MIT".to_owned()];
    let parameters = json!({"temperature": 0.6, "stop": ["<|im_end|>", " "], "num_ctx": 4096});
    spec.parameters = serde_json::from_value(parameters).unwrap();
    spec.config.parser = Some("qwen3".to_owned());
    spec
}

#[test]
fn a_modelfile_reads_back_as_it_was_meant() {
    let text = modelfile(&full(), "{{ .Prompt }}\n");
    expect![[r##"
        # Made by "dsk show" from m:latest; FROM may also name that model.
        FROM /models/blobs/sha256-weights
        TEMPLATE """{{ .Prompt }}
        """
        SYSTEM Be brief.
        PARAMETER temperature 0.6
        PARAMETER stop <|im_end|>
        PARAMETER stop " "
        PARAMETER num_ctx 4096
        MESSAGE user hi
        MESSAGE assistant """two
        lines"""
        PARSER qwen3
        LICENSE MIT
    "##]]
    .assert_eq(&text);
    let parsed = dsk_modelfiles::parse(&text);
    assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
    assert_eq!(parsed.modelfile.template(), Some("{{ .Prompt }}\n"));
    assert_eq!(parsed.modelfile.parameters().count(), 4);
}

#[test]
fn parameters_are_rows() {
    expect![[r#"
        temperature                    0.6
        stop                           "<|im_end|>"
        stop                           " "
        num_ctx                        4096"#]]
    .assert_eq(&parameters(&full().parameters));
}
