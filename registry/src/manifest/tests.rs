use super::*;
use expect_test::{Expect, expect};

/// A manifest as the public registry serves them.
fn sample() -> String {
    let digest = |text: &str| Digest::of(text.as_bytes());
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","future":{{"x":[1]}},
        "config":{{"mediaType":"{}","digest":"{}","size":485}},
        "layers":[{{"mediaType":"{}","digest":"{}","size":100,"annotations":null}},
                  {{"mediaType":"{}","digest":"{}","size":7,"from":"/tmp/x"}}]}}"#,
        media_type::MANIFEST,
        media_type::CONFIG,
        digest("config"),
        media_type::MODEL,
        digest("model"),
        media_type::SYSTEM,
        digest("system"),
    )
}

fn refused(json: &str, expected: Expect) {
    let error = Manifest::from_json(json.as_bytes()).unwrap_err();
    expected.assert_eq(&error.to_string());
}

#[test]
fn unknown_fields_are_ignored_and_known_ones_survive() {
    let manifest = Manifest::from_json(sample().as_bytes()).unwrap();
    assert_eq!(manifest.size(), 592);
    assert_eq!(manifest.layers[1].from.as_deref(), Some("/tmp/x"));
    assert_eq!(manifest.blobs().len(), 3);
    assert_eq!(Manifest::from_json(&manifest.to_json()), Ok(manifest));
}

#[test]
fn a_manifest_without_a_type_is_ocis() {
    let json =
        sample().replace(&format!(r#""mediaType":"{}","future""#, media_type::MANIFEST), r#""f""#);
    let manifest = Manifest::from_json(json.as_bytes()).unwrap();
    assert_eq!(manifest.content_type(), media_type::OCI_MANIFEST);
}

#[test]
fn refusals_say_why() {
    refused(
        "{}",
        expect!["the manifest is malformed: missing field `schemaVersion` at line 1 column 2"],
    );
    refused(
        &sample().replace(":2,", ":1,"),
        expect!["manifest schema version 1 is not supported (only 2 is)"],
    );
    refused(
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#,
        expect![
            "it is an index of manifests (application/vnd.oci.image.index.v1+json), not a model's manifest"
        ],
    );
    refused(
        &sample().replace(":100", ":9223372036854775807"),
        expect!["the manifest's sizes are impossible: their sum is too large"],
    );
    assert!(Manifest::from_json(sample().replace(":100", ":-1").as_bytes()).is_err());
    assert!(Manifest::from_json(sample().replace("sha256:", "sha512:").as_bytes()).is_err());
}

#[test]
fn one_digest_has_one_size() {
    let model = Digest::of(b"model").to_string();
    let system = Digest::of(b"system").to_string();
    let error = Manifest::from_json(sample().replace(&system, &model).as_bytes()).unwrap_err();
    assert!(matches!(error, ManifestError::Sizes(_)), "{error}");
}

#[test]
fn size_count_and_depth_are_bounded() {
    let large = vec![b' '; Manifest::BYTES_MAX + 1];
    assert!(matches!(Manifest::from_json(&large), Err(ManifestError::TooLarge { .. })));

    let mut many = Manifest::from_json(sample().as_bytes()).unwrap();
    many.layers = vec![many.layers[0].clone(); Manifest::LAYERS_MAX + 1];
    let error = Manifest::from_json(&many.to_json()).unwrap_err();
    assert!(matches!(error, ManifestError::TooManyLayers { count: 4097, max: 4096 }));

    let deep = "[".repeat(1 << 20);
    refused(
        &sample().replace(r#"{"x":[1]}"#, &deep).replace("null", "{}"),
        expect!["the manifest is malformed: expected value at line 1 column 1048672"],
    );
    assert!(ModelConfig::from_json(format!(r#"{{"x":{deep}"#).as_bytes()).is_err());
}

#[test]
fn a_configuration_keeps_what_it_does_not_know() {
    let json = br#"{"model_format":"gguf","model_families":null,"file_type":"Q4_K_M","rootfs":{"type":"layers"}}"#;
    let config = ModelConfig::from_json(json).unwrap();
    assert_eq!(config.file_type, "Q4_K_M");
    assert!(config.model_families.is_empty());
    let again = ModelConfig::from_json(&config.to_json()).unwrap();
    assert_eq!(again.other["rootfs"]["type"], "layers");
}
