//! Keys and signatures for tests, as cosign and OpenSSF's tool write them.

use super::PublicKey;
use crate::{Digest, Hasher};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
    },
};
use serde_json::{Value, json};

/// A private key.
pub(crate) enum Signer {
    Ecdsa(EcdsaKeyPair, &'static [u8]),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    pub(crate) fn p256() -> Signer {
        Signer::ecdsa(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\
            \x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00",
        )
    }

    pub(crate) fn p384() -> Signer {
        Signer::ecdsa(
            &ECDSA_P384_SHA384_ASN1_SIGNING,
            b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\
            \x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00",
        )
    }

    fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm, prefix: &'static [u8]) -> Signer {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Signer::Ecdsa(EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap(), prefix)
    }

    pub(crate) fn ed25519() -> Signer {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Signer::Ed25519(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    /// The public half as a PEM file has it.
    pub(crate) fn pem(&self) -> String {
        let (prefix, public): (&[u8], &[u8]) = match self {
            Signer::Ecdsa(key, prefix) => (prefix, key.public_key().as_ref()),
            Signer::Ed25519(key) => {
                (b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", key.public_key().as_ref())
            }
        };
        let body = STANDARD.encode([prefix, public].concat());
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
    }

    pub(crate) fn public(&self) -> PublicKey {
        PublicKey::parse_pem(&self.pem(), "test.pub").unwrap().remove(0)
    }

    /// The signature over a message, in base64.
    pub(crate) fn sign(&self, message: &[u8]) -> String {
        let bytes = match self {
            Signer::Ecdsa(key, _) => {
                key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
            }
            Signer::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        };
        STANDARD.encode(bytes)
    }

    /// A bundle around a statement.
    pub(crate) fn bundle(&self, statement: &Value) -> Vec<u8> {
        let (payload, kind) = (statement.to_string(), "application/vnd.in-toto+json");
        let message = format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len());
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": "x"}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": STANDARD.encode(&payload),
                "payloadType": kind,
                "signatures": [{"sig": self.sign(message.as_bytes()), "keyid": ""}],
            },
        })
        .to_string()
        .into_bytes()
    }
}

/// What cosign signs.
pub(crate) fn simple_signing(digest: &Digest) -> Vec<u8> {
    json!({
        "critical": {
            "identity": {"docker-reference": "r.example/library/m"},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string()
    .into_bytes()
}

/// What OpenSSF's tool signs: files by name.
pub(crate) fn model_statement(files: &[(&str, Digest)]) -> Value {
    let mut all = Hasher::new();
    let resource = |(name, digest): &(&str, Digest)| {
        all.update(&unhex(&digest.hex()));
        json!({"name": name, "algorithm": "sha256", "digest": digest.hex()})
    };
    let resources: Vec<Value> = files.iter().map(resource).collect();
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": all.finish().hex()}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256"},
            "resources": resources,
        },
    })
}

/// What newer versions of cosign sign.
pub(crate) fn manifest_statement(digest: &Digest) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": digest.hex()}, "annotations": {}}],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {},
    })
}

fn unhex(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}
