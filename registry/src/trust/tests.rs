use super::{testkit::*, *};
use crate::fixture::{CONFIG, LICENSE, manifest_of};
use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value, json};

const WEIGHTS: &[u8] = b"weights";

/// What a policy with one key says of a signature over the model of the fixture.
fn verdict(
    keys: &[&Signer],
    check: impl Fn(&Trust, &Signed<'_>) -> Result<Proof, SignatureFault>,
) -> String {
    let manifest = manifest_of(WEIGHTS);
    let digest = Digest::of(&manifest.to_json());
    let keys: Vec<PublicKey> = keys.iter().map(|key| key.public()).collect();
    let labels: Vec<String> = keys.iter().map(PublicKey::label).collect();
    let trust = Trust { policy: SignaturePolicy::Require, keys };
    let said = match check(&trust, &Signed { digest, manifest: &manifest }) {
        Ok(proof) => format!("good: {proof}"),
        Err(fault) => fault.to_string(),
    };
    let said = said.replace(&digest.to_string(), "DIGEST");
    labels
        .iter()
        .enumerate()
        .fold(said, |said, (at, label)| said.replace(label, &format!("KEY{at}")))
}

fn model() -> Digest {
    Digest::of(&manifest_of(WEIGHTS).to_json())
}

fn signers() -> [Signer; 3] {
    [Signer::p256(), Signer::p384(), Signer::ed25519()]
}

#[test]
fn every_kind_of_key_verifies_both_formats() {
    for signer in signers() {
        let other = Signer::p256();
        let payload = simple_signing(&model());
        let signature = signer.sign(&payload);
        let cosign =
            |trust: &Trust, model: &Signed<'_>| trust.check_cosign(model, &payload, &signature);
        assert_eq!(verdict(&[&other, &signer], cosign), "good: signed by KEY1");
        assert_eq!(verdict(&[&other], cosign), "it is signed, but not by a trusted key (KEY0)");
        for statement in [
            manifest_statement(&model()),
            model_statement(&[
                ("LICENSE", Digest::of(LICENSE)),
                ("c.json", Digest::of(CONFIG)),
                ("m.gguf", Digest::of(WEIGHTS)),
            ]),
        ] {
            let bundle = signer.bundle(&statement);
            let check = |trust: &Trust, model: &Signed<'_>| trust.check_bundle(model, &bundle);
            assert_eq!(verdict(&[&other, &signer], check), "good: signed by KEY1");
            assert_eq!(verdict(&[&other], check), "it is signed, but not by a trusted key (KEY0)");
        }
    }
}

fn check_cosign(payload: &str, expected: Expect) {
    let signer = Signer::p256();
    let signature = signer.sign(payload.as_bytes());
    let check = |trust: &Trust, model: &Signed<'_>| {
        trust.check_cosign(model, payload.as_bytes(), &signature)
    };
    expected.assert_eq(&verdict(&[&signer], check));
}

#[test]
fn payloads_of_cosign() {
    let good = String::from_utf8(simple_signing(&model())).unwrap();
    check_cosign(&good, expect!["good: signed by KEY0"]);
    let other = String::from_utf8(simple_signing(&Digest::of(b"other"))).unwrap();
    check_cosign(
        &other,
        expect![
            "KEY0 signed sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa, and its manifest is DIGEST"
        ],
    );
    check_cosign(
        &good.replace("cosign container", "atomic container"),
        expect![[
            r#"its signature cannot be used: it is a "atomic container image signature", not a "cosign container image signature""#
        ]],
    );
    check_cosign(
        "{}",
        expect![
            "its signature cannot be used: it is malformed: missing field `critical` at line 1 column 2"
        ],
    );
}

#[test]
fn what_is_not_signed_as_it_stands_is_not_signed() {
    let signer = Signer::ed25519();
    let payload = simple_signing(&model());
    let signature = signer.sign(&payload);
    let spaced = [payload.as_slice(), b" "].concat();
    let check = |trust: &Trust, model: &Signed<'_>| trust.check_cosign(model, &spaced, &signature);
    assert_eq!(verdict(&[&signer], check), "it is signed, but not by a trusted key (KEY0)");
    let long = "A".repeat(2000);
    for (signature, reason) in [("?", "it is not base64"), (long.as_str(), "longer than")] {
        let check =
            |trust: &Trust, model: &Signed<'_>| trust.check_cosign(model, &payload, signature);
        assert!(verdict(&[&signer], check).contains(reason), "{signature}");
    }
}

/// What is said of a bundle after one place of its statement, or then of itself, was changed.
fn changed(in_statement: bool, place: &str, value: &Value) -> String {
    let signer = Signer::p256();
    let mut statement = model_statement(&[("m.gguf", Digest::of(WEIGHTS))]);
    if in_statement {
        *statement.pointer_mut(place).unwrap() = value.clone();
    }
    let mut bundle: Value = serde_json::from_slice(&signer.bundle(&statement)).unwrap();
    if !in_statement {
        *bundle.pointer_mut(place).unwrap() = value.clone();
    }
    let bytes = bundle.to_string().into_bytes();
    let check = |trust: &Trust, model: &Signed<'_>| trust.check_bundle(model, &bytes);
    verdict(&[&signer], check)
}

#[test]
fn bundles() {
    let other = Digest::of(b"other").hex();
    let uncovered = model_statement(&[("m.gguf", Digest::of(b"other"))]);
    let cases = [
        (false, "/verificationMaterial", Value::Null),
        (true, "", uncovered),
        (true, "/predicate/resources/0/digest", json!(other)),
        (true, "/predicate/resources/0/digest", json!("x")),
        (true, "/predicate/resources", json!([])),
        (true, "/predicate", Value::Null),
        (true, "/subject", json!([])),
        (true, "/_type", json!("x")),
        (true, "/predicateType", json!("https://slsa.dev/provenance/v1")),
        (false, "/mediaType", json!("text/plain")),
        (false, "/dsseEnvelope", Value::Null),
        (false, "/dsseEnvelope/payloadType", json!("text/plain")),
        (false, "/dsseEnvelope/payload", json!("e30=")),
        (false, "/dsseEnvelope/signatures", json!([])),
        (false, "/dsseEnvelope/signatures", json!(vec![json!({"sig": ""}); 17])),
    ];
    let said = cases.map(|(in_statement, place, value)| changed(in_statement, place, &value));
    expect![[r#"
        good: signed by KEY0: its weights, but not its license
        the signature by KEY0 does not cover its weights sha256:9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c
        its signature cannot be used: its resources hash to sha256:27cef8bed79178ad2a5768a5d21c62a783245f1256860336bc3638043702b8d6, which is not its subject
        its signature cannot be used: a resource has a digest that is none: "x"
        its signature cannot be used: 0 resources, not 1 to 16384
        its signature cannot be used: 0 resources, not 1 to 16384
        its signature cannot be used: 0 subjects, not one
        its signature cannot be used: its statement is "x", not "https://in-toto.io/Statement/v1"
        its signature cannot be used: it states "https://slsa.dev/provenance/v1", which signs no model
        its signature cannot be used: it is a "text/plain", not a bundle
        its signature cannot be used: it has no envelope (dsseEnvelope)
        its signature cannot be used: its payload is "text/plain", not "application/vnd.in-toto+json"
        it is signed, but not by a trusted key (KEY0)
        its signature cannot be used: 0 signatures, not 1 to 16
        its signature cannot be used: 17 signatures, not 1 to 16"#]].assert_eq(&said.join("\n"));
}

#[test]
fn a_digest_of_another_kind_covers_nothing() {
    let signer = Signer::p256();
    let mut statement = model_statement(&[("m.gguf", Digest::of(WEIGHTS))]);
    statement["predicate"]["resources"][0]["algorithm"] = "blake3".into();
    let bundle = signer.bundle(&statement);
    let check = |trust: &Trust, model: &Signed<'_>| trust.check_bundle(model, &bundle);
    let said = verdict(&[&signer], check);
    assert!(said.contains("does not cover its weights"), "{said}");
}

#[test]
fn files_cover_no_model_without_weights() {
    let signer = Signer::p256();
    let bundle = signer.bundle(&model_statement(&[("m.gguf", Digest::of(WEIGHTS))]));
    let mut manifest = manifest_of(WEIGHTS);
    manifest.layers.remove(0);
    let trust = Trust { policy: SignaturePolicy::Require, keys: vec![signer.public()] };
    let model = Signed { digest: Digest::of(&manifest.to_json()), manifest: &manifest };
    let checked = trust.check_bundle(&model, &bundle);
    assert!(matches!(checked, Err(SignatureFault::NoWeights { .. })), "{checked:?}");
}

#[test]
fn every_part_that_computes_must_be_covered() {
    let signer = Signer::p256();
    let bundle = signer.bundle(&model_statement(&[("m.gguf", Digest::of(WEIGHTS))]));
    let trust = Trust { policy: SignaturePolicy::Require, keys: vec![signer.public()] };
    for kind in [
        media_type::PROJECTOR,
        media_type::ADAPTER,
        media_type::DRAFT,
        media_type::TENSOR,
        "application/vnd.docker.ai.gguf.v3.mmproj",
        media_type::MODELPACK_WEIGHT,
    ] {
        let mut manifest = manifest_of(WEIGHTS);
        manifest.layers.push(Layer::new(kind, Digest::of(b"more"), 4));
        let model = Signed { digest: Digest::of(&manifest.to_json()), manifest: &manifest };
        let checked = trust.check_bundle(&model, &bundle);
        assert!(matches!(checked, Err(SignatureFault::Uncovered { .. })), "{kind}: {checked:?}");
    }
}

#[test]
fn policies_need_keys() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let good = file("good.pub", &Signer::p256().pem());
    let two = file("two.pub", &[Signer::p256().pem(), Signer::ed25519().pem()].concat());
    let none = file("none.pub", "nothing");
    let load = |policy: SignaturePolicy, keys: &[&PathBuf], own: RegistryTrust| {
        let keys = keys.iter().map(|path| (*path).clone()).collect();
        match Trust::load(&TrustConfig { signatures: policy, keys }, &own) {
            Ok(trust) => format!("{:?} {}", trust.policy, trust.keys.len()),
            Err(error) => error.replace(&folder.path().display().to_string(), "DIR"),
        }
    };
    let (off, require) = (SignaturePolicy::Off, SignaturePolicy::Require);
    let own = |signatures, keys| RegistryTrust { signatures, keys };
    assert_eq!(load(off, &[&none], own(None, None)), "Off 0");
    assert_eq!(load(require, &[&good, &two], own(None, None)), "Require 3");
    assert_eq!(load(require, &[&none], own(Some(off), None)), "Off 0");
    assert_eq!(load(off, &[], own(Some(require), Some(vec![good.clone()]))), "Require 1");
    assert_eq!(load(require, &[&good], own(None, Some(vec![two.clone()]))), "Require 2");
    let wrong = [load(require, &[], own(None, None)), load(require, &[&none], own(None, None))];
    expect![[r#"
        signatures are to be checked, but no key is trusted: name the files of public keys
        DIR/none.pub: no public key in PEM form (-----BEGIN PUBLIC KEY-----)"#]]
    .assert_eq(&wrong.join("\n"));
    let missing = folder.path().join("missing.pub");
    assert!(load(require, &[&missing], own(None, None)).starts_with("DIR/missing.pub: "));
}

/// A bundle that OpenSSF's tool (model-signing 1.1.1) made of two files, and the key it was made with.
#[test]
fn a_bundle_of_the_tool_itself() {
    let keys = PublicKey::parse_pem(include_str!("fixtures/tool.pub"), "tool.pub").unwrap();
    let trust = Trust { policy: SignaturePolicy::Require, keys };
    let bundle = include_bytes!("fixtures/tool.sig");
    let manifest = manifest_of(b"weights of a test\n");
    let model = Signed { digest: Digest::of(&manifest.to_json()), manifest: &manifest };
    let proof = trust.check_bundle(&model, bundle).unwrap();
    assert!(proof.to_string().ends_with(": its weights, but not its license"), "{proof}");
    let tampered = manifest_of(b"Weights of a test\n");
    let model = Signed { digest: Digest::of(&tampered.to_json()), manifest: &tampered };
    let checked = trust.check_bundle(&model, bundle);
    assert!(matches!(checked, Err(SignatureFault::Uncovered { .. })), "{checked:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_upset_a_parser(bytes: Vec<u8>, text in "\\PC{0,200}") {
        for bytes in [bytes.as_slice(), text.as_bytes()] {
            prop_assert!(Bundle::parse(bytes).is_err());
            prop_assert!(Statement::parse(bytes).is_err());
            prop_assert!(SimpleSigning::parse(bytes).is_err());
        }
        prop_assert!(PublicKey::parse_pem(&text, "f").is_err());
    }

    /// Whatever is changed of a signed bundle, it proves what it proved before, or nothing.
    #[test]
    fn a_changed_bundle_proves_nothing_new(at: prop::sample::Index, to: u8) {
        let signer = Signer::ed25519();
        let mut bytes = signer.bundle(&model_statement(&[("m.gguf", Digest::of(WEIGHTS))]));
        let before = Bundle::parse(&bytes).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = to;
        let trust = Trust { policy: SignaturePolicy::Require, keys: vec![signer.public()] };
        let manifest = manifest_of(WEIGHTS);
        let model = Signed { digest: model(), manifest: &manifest };
        if trust.check_bundle(&model, &bytes).is_ok() {
            prop_assert_eq!(Bundle::parse(&bytes).unwrap().payload, before.payload);
        }
    }
}
