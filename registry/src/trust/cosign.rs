//! Cosign's signatures: JSON that states the digest of a manifest, signed as it stands.

use crate::{Digest, digest::excerpt};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

/// What the JSON must say it is.
const TYPE: &str = "cosign container image signature";
/// Largest payload, in bytes.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// Longest signature in base64, in bytes.
const SIGNATURE_BYTES_MAX: usize = 1 << 10;

/// What was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimpleSigning {
    /// The manifest.
    pub manifest: Digest,
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

impl SimpleSigning {
    /// Reads a payload. Which repository it was made for is left aside: a model is the same wherever it
    /// is copied, and so is its signature.
    pub fn parse(bytes: &[u8]) -> Result<SimpleSigning, String> {
        if bytes.len() > PAYLOAD_BYTES_MAX {
            return Err(format!("it is larger than {PAYLOAD_BYTES_MAX} bytes"));
        }
        let Payload { critical } = serde_json::from_slice(bytes)
            .map_err(|error| format!("it is malformed: {}", excerpt(&error.to_string())))?;
        match critical.kind.as_str() {
            TYPE => Ok(SimpleSigning { manifest: critical.image.digest }),
            kind => Err(format!("it is a {:?}, not a {TYPE:?}", excerpt(kind))),
        }
    }
}

/// The bytes of a signature as its annotation has them.
pub(super) fn signature(text: &str) -> Result<Vec<u8>, String> {
    if text.len() > SIGNATURE_BYTES_MAX {
        return Err(format!("it is longer than {SIGNATURE_BYTES_MAX} bytes"));
    }
    decode(text)
}

/// Base64 as both formats write it.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|error| format!("it is not base64: {error}"))
}
