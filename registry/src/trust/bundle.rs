//! Sigstore bundles: a signed envelope (DSSE) with a statement (in-toto), as OpenSSF model signing writes
//! them over a model's files and cosign over a manifest.
//!
//! The certificate that a bundle may have is not looked at: a key that is trusted verifies the envelope,
//! or nothing does.

use super::cosign::{decode, signature};
use crate::{Digest, Hasher, digest::excerpt};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Largest bundle, in bytes.
pub(crate) const BUNDLE_BYTES_MAX: usize = 4 << 20;
/// Most signatures of one envelope.
const SIGNATURES_MAX: usize = 16;
/// Most manifests that a statement names.
const SUBJECTS_MAX: usize = 64;
/// Most files that a statement names.
const RESOURCES_MAX: usize = 16 << 10;
/// Longest digest of a file, in hexadecimal digits: that of a hash of 64 bytes.
const HEX_CHARS_MAX: usize = 128;

/// What the type of a bundle begins with, in all versions.
const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The statement of OpenSSF model signing.
const MODEL_SIGNATURE: &str = "https://model_signing/signature/v1.0";
/// The statement of cosign.
const MANIFEST_SIGNATURE: &str = "https://sigstore.dev/cosign/sign/v1";

/// The envelope of a bundle, decoded and not yet verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// What is signed.
    pub payload: Vec<u8>,
    /// The signatures, any of which is enough.
    pub(super) signatures: Vec<Vec<u8>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BundleJson {
    media_type: String,
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

impl Bundle {
    /// Reads a bundle.
    pub fn parse(bytes: &[u8]) -> Result<Bundle, String> {
        if bytes.len() > BUNDLE_BYTES_MAX {
            return Err(format!("it is larger than {BUNDLE_BYTES_MAX} bytes"));
        }
        let bundle: BundleJson = serde_json::from_slice(bytes).map_err(malformed)?;
        if !bundle.media_type.starts_with(BUNDLE_TYPE) {
            return Err(format!("it is a {:?}, not a bundle", excerpt(&bundle.media_type)));
        }
        let envelope = bundle.dsse_envelope.ok_or("it has no envelope (dsseEnvelope)")?;
        if envelope.payload_type != PAYLOAD_TYPE {
            let kind = excerpt(&envelope.payload_type);
            return Err(format!("its payload is {kind:?}, not {PAYLOAD_TYPE:?}"));
        }
        let signatures = &envelope.signatures;
        if signatures.is_empty() || signatures.len() > SIGNATURES_MAX {
            return Err(format!("{} signatures, not 1 to {SIGNATURES_MAX}", signatures.len()));
        }
        let signatures = signatures.iter().map(|one| signature(&one.sig));
        let signatures = signatures.collect::<Result<_, _>>()?;
        Ok(Bundle { payload: decode(&envelope.payload)?, signatures })
    }

    /// The bytes that the signatures are over: the payload with its type and both lengths before it
    /// (DSSE's pre-authentication encoding), so that no payload can pass for one of another type.
    pub(super) fn signed_bytes(&self) -> Vec<u8> {
        let (kind, length) = (PAYLOAD_TYPE, self.payload.len());
        let mut bytes = format!("DSSEv1 {} {kind} {length} ", kind.len()).into_bytes();
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

/// What the payload of an envelope says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What it is about.
    pub claim: Claim,
}

/// What a signature is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Manifests.
    Manifest(Vec<Digest>),
    /// Files, by what they hash to.
    Files(BTreeSet<Digest>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatementJson {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: Option<Predicate>,
}

#[derive(Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Predicate {
    resources: Option<Vec<Resource>>,
}

#[derive(Deserialize)]
struct Resource {
    algorithm: String,
    digest: String,
}

impl Statement {
    /// Reads a statement.
    pub fn parse(bytes: &[u8]) -> Result<Statement, String> {
        if bytes.len() > BUNDLE_BYTES_MAX {
            return Err(format!("it is larger than {BUNDLE_BYTES_MAX} bytes"));
        }
        let statement: StatementJson = serde_json::from_slice(bytes).map_err(malformed)?;
        if statement.kind != STATEMENT_TYPE {
            let kind = excerpt(&statement.kind);
            return Err(format!("its statement is {kind:?}, not {STATEMENT_TYPE:?}"));
        }
        let claim = match statement.predicate_type.as_str() {
            MANIFEST_SIGNATURE => Claim::Manifest(manifests(&statement.subject)?),
            MODEL_SIGNATURE => Claim::Files(files(&statement)?),
            kind => return Err(format!("it states {:?}, which signs no model", excerpt(kind))),
        };
        Ok(Statement { claim })
    }
}

fn manifests(subjects: &[Subject]) -> Result<Vec<Digest>, String> {
    if subjects.is_empty() || subjects.len() > SUBJECTS_MAX {
        return Err(format!("{} subjects, not 1 to {SUBJECTS_MAX}", subjects.len()));
    }
    subjects.iter().map(Subject::sha256).collect()
}

impl Subject {
    fn sha256(&self) -> Result<Digest, String> {
        let hex = self.digest.get("sha256").ok_or("a subject has no sha256")?;
        digest(hex)
    }
}

/// The files, once the subject is the hash over all their hashes, as the tool defines it.
fn files(statement: &StatementJson) -> Result<BTreeSet<Digest>, String> {
    let [subject] = statement.subject.as_slice() else {
        return Err(format!("{} subjects, not one", statement.subject.len()));
    };
    let predicate = statement.predicate.as_ref();
    let resources = predicate.and_then(|predicate| predicate.resources.as_deref());
    let resources = resources.unwrap_or_default();
    let count = resources.len();
    if count == 0 || count > RESOURCES_MAX {
        return Err(format!("{count} resources, not 1 to {RESOURCES_MAX}"));
    }
    let (mut all, mut files) = (Hasher::new(), BTreeSet::new());
    for resource in resources {
        all.update(&unhex(&resource.digest)?);
        if resource.algorithm == "sha256" {
            files.insert(digest(&resource.digest)?);
        }
    }
    match all.finish() {
        root if root == subject.sha256()? => Ok(files),
        root => Err(format!("its resources hash to {root}, which is not its subject")),
    }
}

fn digest(hex: &str) -> Result<Digest, String> {
    format!("sha256:{hex}").parse().map_err(|error: crate::DigestError| error.to_string())
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let wrong = || format!("a resource has a digest that is none: {:?}", excerpt(text));
    if text.len() % 2 == 1 || text.len() > HEX_CHARS_MAX {
        return Err(wrong());
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|value| value.try_into().ok());
    let digits: Option<Vec<u8>> = text.as_bytes().iter().map(digit).collect();
    let pairs = digits.ok_or_else(wrong)?;
    Ok(pairs.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn malformed(error: serde_json::Error) -> String {
    format!("it is malformed: {}", excerpt(&error.to_string()))
}
