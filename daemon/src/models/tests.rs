use dsk_registry::{Descriptor, Manifest};
use expect_test::{Expect, expect};

use super::*;

/// A store with the model `m`, made of weights and these layers.
fn store_with(layers: &[(&str, &[u8])]) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let blob = |media_type: &str, bytes: &[u8]| {
        Layer::new(media_type, store.put_blob(bytes).unwrap(), bytes.len() as u64)
    };
    let config = blob(media_type::CONFIG, br#"{"model_family":"llama"}"#);
    let layers = layers.iter().map(|(media_type, bytes)| blob(media_type, bytes)).collect();
    let config: Descriptor = config.descriptor();
    let manifest = Manifest::new(config, layers).to_json();
    store.put_manifest(&Name::parse("m").unwrap(), &manifest).unwrap();
    (folder, store)
}

fn resolve(store: &Store, name: &str) -> Result<ModelSpec, ModelsError> {
    ModelSpec::resolve(store, &Name::parse(name).unwrap())
}

fn check_error(layers: &[(&str, &[u8])], expect: Expect) {
    let (_folder, store) = store_with(layers);
    let error = resolve(&store, "m").unwrap_err().to_string();
    // A digest says nothing to a reader of this file.
    let shown: Vec<_> = error
        .split(' ')
        .map(|word| if word.starts_with("sha256:") { "DIGEST" } else { word })
        .collect();
    expect.assert_eq(&shown.join(" "));
}

#[test]
fn every_layer_reaches_its_field() {
    let (_folder, store) = store_with(&[
        (media_type::MODEL, b"weights"),
        (media_type::TEMPLATE, b"{{ .Prompt }}"),
        (media_type::SYSTEM, b"old"),
        (media_type::SYSTEM, b"Be brief."),
        (media_type::PARAMS, br#"{"num_ctx":4096,"stop":["</s>"]}"#),
        (media_type::MESSAGES, br#"[{"role":"user","content":"hi"}]"#),
        (media_type::LICENSE, b"one"),
        (media_type::LICENSE, b"two"),
        (media_type::PROJECTOR, b"eyes"),
    ]);
    let spec = resolve(&store, "m").unwrap();
    assert_eq!(std::fs::read(&spec.model_files[0]).unwrap(), b"weights");
    assert_eq!(spec.model_bytes, 7);
    assert_eq!(spec.config.model_family, "llama");
    assert_eq!(spec.template.as_deref(), Some("{{ .Prompt }}"));
    assert_eq!(spec.system.as_deref(), Some("Be brief."));
    assert_eq!(spec.context_length(), Some(4096));
    assert_eq!(spec.messages[0].content, "hi");
    assert_eq!(spec.licenses, ["one", "two"]);
    assert_eq!((spec.projectors.len(), spec.adapters.len()), (1, 0));
}

#[test]
fn a_name_in_another_case_is_found_after_the_exact_one() {
    let (_folder, store) = store_with(&[(media_type::MODEL, b"weights")]);
    assert_eq!(resolve(&store, "M").unwrap().name.to_string(), "m:latest");
    let bytes = store.manifest(&Name::parse("m").unwrap()).unwrap().unwrap().bytes;
    store.put_manifest(&Name::parse("M").unwrap(), &bytes).unwrap();
    assert_eq!(resolve(&store, "M").unwrap().name.to_string(), "M:latest");
}

#[test]
fn a_broken_layer_is_named() {
    let model: (&str, &[u8]) = (media_type::MODEL, b"weights");
    check_error(
        &[],
        expect![
            "model m:latest has no weights: its manifest has no layer of type application/vnd.ollama.image.model"
        ],
    );
    check_error(
        &[model, (media_type::TEMPLATE, b"\xff")],
        expect!["model m:latest: its template layer DIGEST is not UTF-8"],
    );
    check_error(
        &[model, (media_type::PARAMS, b"[1]")],
        expect![
            "model m:latest: its params layer DIGEST is malformed: invalid type: sequence, expected a map at line 1 column 0"
        ],
    );
    check_error(
        &[model, (media_type::MESSAGES, br#"[{"content":"x"}]"#)],
        expect![
            "model m:latest: its messages layer DIGEST is malformed: missing field `role` at line 1 column 16"
        ],
    );
    let long = vec![b'a'; TEXT_BYTES_MAX as usize + 1];
    check_error(
        &[model, (media_type::SYSTEM, &long)],
        expect![
            "model m:latest: its system layer DIGEST has 1048577 bytes, more than the 1048576 allowed"
        ],
    );
}

#[test]
fn a_missing_layer_and_a_missing_model_are_told_apart() {
    let (_folder, store) =
        store_with(&[(media_type::MODEL, b"weights"), (media_type::SYSTEM, b"s")]);
    std::fs::remove_file(store.blob_path(&Digest::of(b"s"))).unwrap();
    let error = resolve(&store, "m").unwrap_err().to_string();
    assert!(
        error.contains("its system layer") && error.contains("pull the model again"),
        "{error}"
    );
    assert_eq!(resolve(&store, "n").unwrap_err().to_string(), "model n:latest not found");
    std::fs::remove_file(store.blob_path(&Digest::of(b"weights"))).unwrap();
    let error = resolve(&store, "m").unwrap_err().to_string();
    assert!(error.contains("its weights layer") && error.contains("--repair"), "{error}");
}

#[test]
fn fault_35_a_resolved_model_keeps_its_files() {
    let (_folder, store) = store_with(&[(media_type::MODEL, b"weights")]);
    let spec = resolve(&store, "m").unwrap();
    let copy = spec.clone();
    drop(spec);
    assert_eq!(store.remove(&copy.name).unwrap(), 0);
    assert_eq!(std::fs::read(&copy.model_files[0]).unwrap(), b"weights");
    drop(copy);
    assert!(store.remove_condemned().unwrap().0 > 0);
    assert!(!store.has(&Digest::of(b"weights")));
}
