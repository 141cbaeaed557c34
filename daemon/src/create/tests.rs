//! Models made of tiny files, and requests that make none.

use dsk_daemon_engine::gguf::testkit::tiny_model;
use expect_test::{Expect, expect};
use serde_json::json;

use super::*;
use crate::models::ModelSpec;

struct Place {
    store: Store,
    _folder: tempfile::TempDir,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    Place { store: Store::open(folder.path()).unwrap(), _folder: folder }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn create(store: &Store, to: &str, request: Value) -> Result<Vec<String>, ApiError> {
    Recipe::parse(name(to), serde_json::from_value(request).unwrap())?.make(store)
}

#[test]
fn from_a_file_and_then_from_that_model() {
    let place = place();
    let file = place.store.put_blob(&tiny_model("llama", 1)).unwrap();
    let request = json!({
        "files": {"tiny.gguf": file.to_string()},
        "template": "{{ .Prompt }}",
        "system": "first",
        "license": "MIT",
        "parameters": {"temperature": 0.5, "stop": ["x"]},
        "messages": [{"role": "user", "content": "hi"}],
        "parser": "qwen3",
    });
    let statuses = create(&place.store, "one", request).unwrap();
    assert_eq!(statuses[0], "parsing GGUF");
    assert_eq!(statuses[1], format!("using existing layer {file}"));
    assert_eq!(statuses[statuses.len() - 2..], ["writing manifest", "success"]);
    let change = json!({
        "from": "one", "system": "second", "license": ["MIT", "more"],
        "parameters": {"temperature": 0.9}, "requires": "0.6.0",
    });
    create(&place.store, "two", change).unwrap();
    let two = ModelSpec::resolve(&place.store, &name("two")).unwrap();
    expect![[r#"
        Some("{{ .Prompt }}") Some("second") ["MIT", "more"]
        {"temperature":0.9,"stop":["x"]}
        ["hi"]
        gguf llama F32 Some("qwen3") Some("0.6.0")
    "#]]
    .assert_eq(&format!(
        "{:?} {:?} {:?}\n{}\n{:?}\n{} {} {} {:?} {:?}\n",
        two.template,
        two.system,
        two.licenses,
        Value::Object(two.parameters),
        two.messages.iter().map(|one| &one.content).collect::<Vec<_>>(),
        two.config.model_format,
        two.config.model_family,
        two.config.file_type,
        two.config.parser,
        two.config.requires,
    ));
    let one = ModelSpec::resolve(&place.store, &name("one")).unwrap();
    assert_eq!((one.system.as_deref(), one.model_digest), (Some("first"), file));
}

fn refused(store: &Store, request: Value, expected: Expect) {
    let error = create(store, "bad", request).unwrap_err();
    expected.assert_eq(&format!("{} {error}", error.code.status()));
    assert!(store.manifest(&name("bad")).unwrap().is_none());
}

#[test]
fn what_is_refused_makes_no_model() {
    let place = place();
    let store = &place.store;
    let good = store.put_blob(&tiny_model("llama", 1)).unwrap().to_string();
    let mut bytes = tiny_model("llama", 1);
    bytes.truncate(bytes.len() / 2);
    let cut = store.put_blob(&bytes).unwrap().to_string();
    let html = store.put_blob(b"<html>not found</html>").unwrap().to_string();
    let files = |digest: &str| json!({"m.gguf": digest});
    refused(store, json!({}), expect!["400 neither `from` nor `files` was given"]);
    refused(
        store,
        json!({"from": "absent"}),
        expect!["404 model 'absent:latest' not found; pull it first"],
    );
    refused(
        store,
        json!({"from": "a b"}),
        expect![[
            r#"400 from: invalid model name "a b": the model has ' ', which is not allowed there"#
        ]],
    );
    refused(
        store,
        json!({"from": "m", "files": files(&good)}),
        expect!["400 give either `from` or `files`, not both"],
    );
    refused(
        store,
        json!({"files": {"../m.gguf": good}}),
        expect![[r#"400 files: "../m.gguf" is not the relative path of a file"#]],
    );
    refused(
        store,
        json!({"files": {"m.safetensors": good}}),
        expect![[r#"400 files: "m.safetensors" is not a GGUF file; only .gguf is supported yet"#]],
    );
    refused(
        store,
        json!({"files": {"a.gguf": good, "b.gguf": good}}),
        expect![
            "400 0d0643e40922 is not a usable model file: the GGUF files are not the parts of one model: one of the files is no part of anything (no split.count)"
        ],
    );
    refused(
        store,
        json!({"files": files("sha256:12")}),
        expect![[
            r#"400 files: "m.gguf": digest "sha256:12" is malformed: after sha256: come exactly 64 lowercase hex digits"#
        ]],
    );
    refused(
        store,
        json!({"files": files(&Digest::of(b"nowhere").to_string())}),
        expect![[
            r#"404 blob "sha256:20aeff0494e828d188c704e1f488a589b15ae01d11f6cb129f62129caa6cc543" not found; upload it first"#
        ]],
    );
    refused(
        store,
        json!({"files": files(&html)}),
        expect![[
            r#"400 23c62f7de040 is not a usable model file: not a GGUF file: it starts with "<htm", not with "GGUF""#
        ]],
    );
    refused(
        store,
        json!({"files": files(&good), "quantize": "Q4_K_M"}),
        expect!["400 `quantize` is not supported yet"],
    );
    refused(
        store,
        json!({"files": files(&good), "adapters": {"a": "b"}}),
        expect!["400 `adapters` is not supported yet"],
    );
    refused(
        store,
        json!({"files": files(&good), "template": "{{ if }}"}),
        expect!["400 template: line 1: a value is missing"],
    );
    refused(
        store,
        json!({"files": files(&good), "parameters": {"warmth": 1}}),
        expect!["400 unknown parameter `warmth`"],
    );
    refused(
        store,
        json!({"files": files(&good), "parameters": {"top_k": "x"}}),
        expect![[r#"400 option "top_k" must be of type integer"#]],
    );
    refused(
        store,
        json!({"files": files(&good), "messages": [{"role": "robot"}]}),
        expect![[r#"400 messages: the role must be system, user or assistant, not "robot""#]],
    );
    let truncated = create(store, "bad", json!({"files": files(&cut)})).unwrap_err();
    assert_eq!(truncated.code, ErrorCode::InvalidModel, "{truncated}");
}
