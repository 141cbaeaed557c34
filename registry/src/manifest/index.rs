//! An index: one name for several manifests, here the variants of one model.
//!
//! An entry says which quantization it is by the annotation [`QUANTIZATION`]; else by the variant of
//! its platform; else by the name that tools give an entry they copied from a tag.

use super::{ManifestError, check_length, or_default};
use crate::{Digest, quantization};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The annotation of an index entry that names its quantization, such as `Q4_K_M`.
pub const QUANTIZATION: &str = "dev.dsk.model.quantization";
/// The annotation for the name an entry had, which may be a tag that names a quantization.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// OCI's image index, or Docker's manifest list, which has the same shape.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Index {
    #[serde(deserialize_with = "or_default")]
    pub(crate) manifests: Vec<Entry>,
}

/// One manifest of an index.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Entry {
    pub(crate) digest: Digest,
    /// What the manifest is, when it is no image.
    #[serde(default, rename = "artifactType", deserialize_with = "or_default")]
    pub(crate) artifact_type: String,
    #[serde(default, deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    platform: Platform,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Platform {
    #[serde(default, deserialize_with = "or_default")]
    variant: String,
}

impl Index {
    /// Largest index, in bytes.
    pub(crate) const BYTES_MAX: usize = 1 << 20;
    /// Most entries of an index.
    pub(crate) const ENTRIES_MAX: usize = 512;

    pub(crate) fn from_json(bytes: &[u8]) -> Result<Index, ManifestError> {
        check_length(bytes, Index::BYTES_MAX)?;
        let malformed = |error: serde_json::Error| ManifestError::Malformed(error.to_string());
        let index: Index = serde_json::from_slice(bytes).map_err(malformed)?;
        match index.manifests.len() {
            count if count > Index::ENTRIES_MAX => {
                Err(ManifestError::TooManyLayers { count, max: Index::ENTRIES_MAX })
            }
            _ => Ok(index),
        }
    }
}

impl Entry {
    /// The tag that an OCI layout gives it.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.annotations.get(REF_NAME).map(String::as_str)
    }

    /// The quantization it names, if any.
    pub(crate) fn quantization(&self) -> Option<&'static str> {
        let annotation = |key| self.annotations.get(key).map(String::as_str);
        let named = [annotation(QUANTIZATION), Some(&*self.platform.variant), annotation(REF_NAME)];
        named.into_iter().flatten().find_map(quantization)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(extra: serde_json::Value) -> serde_json::Value {
        let mut entry = json!({
            "mediaType": crate::media_type::OCI_MANIFEST,
            "digest": Digest::of(extra.to_string().as_bytes()),
            "size": 7,
        });
        entry.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        entry
    }

    #[test]
    fn entries_name_their_quantization_in_three_ways() {
        let entries = [
            entry(json!({"annotations": {QUANTIZATION: "q4_K_M"}})),
            entry(json!({"platform": {"architecture": "amd64", "os": "linux", "variant": "Q8_0"}})),
            entry(json!({"annotations": {REF_NAME: "7b-f16"}})),
            entry(json!({"platform": {"variant": "v8"}, "annotations": null})),
            entry(json!({"platform": null})),
        ];
        let bytes = json!({"schemaVersion": 2, "manifests": entries}).to_string();
        let index = Index::from_json(bytes.as_bytes()).unwrap();
        let named: Vec<_> = index.manifests.iter().map(Entry::quantization).collect();
        assert_eq!(named, [Some("Q4_K_M"), Some("Q8_0"), Some("F16"), None, None]);
    }

    #[test]
    fn what_is_no_index_is_refused() {
        let many = (0..600).map(|at| entry(json!({"annotations": {"n": at.to_string()}})));
        let many = json!({"manifests": many.collect::<Vec<_>>()}).to_string();
        let cases = [
            "",
            "[]",
            "{}",
            "{\"manifests\": 3}",
            "{\"manifests\": [{}]}",
            "{\"manifests\": [{\"digest\": \"../etc\"}]}",
            &many,
            &"[".repeat(100_000),
            &" ".repeat(2 << 20),
        ];
        for case in cases {
            assert!(Index::from_json(case.as_bytes()).is_err(), "{}", crate::digest::excerpt(case));
        }
    }
}
