//! What a registry reads in a manifest of any kind: an image's, an artifact's, an index.

use crate::{Digest, Manifest, ManifestError, manifest::Index, media_type};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A manifest that may be stored.
#[derive(Debug)]
pub(super) struct Document {
    /// What it is served as.
    pub(super) media_type: &'static str,
    pub(super) kind: Kind,
    /// What the artifact is: the type that it states, else that of an image's configuration.
    pub(super) artifact_type: Option<String>,
    /// The manifest that this one is about; it need not be here.
    pub(super) subject: Option<Digest>,
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// It names blobs.
    Image(Manifest),
    /// It names manifests.
    Index(Vec<Digest>),
}

/// The fields that both kinds may have.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    media_type: Option<String>,
    artifact_type: Option<String>,
    subject: Option<Named>,
    annotations: Option<BTreeMap<String, String>>,
    config: Option<Typed>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Named {
    digest: Digest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    media_type: String,
}

impl Document {
    pub(super) fn parse(bytes: &[u8]) -> Result<Document, ManifestError> {
        if bytes.len() > Manifest::BYTES_MAX {
            return Err(ManifestError::TooLarge { max: Manifest::BYTES_MAX });
        }
        let malformed = |error: serde_json::Error| ManifestError::Malformed(error.to_string());
        let fields: Fields = serde_json::from_slice(bytes).map_err(malformed)?;
        // One that is both would be one thing to one client and another to the next.
        if fields.manifests.is_some() && (fields.layers.is_some() || fields.config.is_some()) {
            let reason = "it has the fields of an image and of an index".to_owned();
            return Err(ManifestError::Malformed(reason));
        }
        let (kind, types) = if fields.manifests.is_some() {
            let index = Index::from_json(bytes)?;
            let named = index.manifests.iter().map(|entry| entry.digest).collect();
            (Kind::Index(named), [media_type::OCI_INDEX, media_type::MANIFEST_LIST])
        } else {
            let manifest = Manifest::from_json(bytes)?;
            (Kind::Image(manifest), [media_type::OCI_MANIFEST, media_type::MANIFEST])
        };
        let stated = fields.media_type.as_deref().filter(|stated| !stated.is_empty());
        let fits = |known: &&'static str| stated.is_none_or(|stated| stated == *known);
        let media_type = types.into_iter().find(fits).ok_or_else(|| {
            let stated = crate::digest::excerpt(stated.unwrap_or_default());
            ManifestError::Malformed(format!("its mediaType {stated:?} is not that of its fields"))
        })?;
        let artifact_type = fields.artifact_type.filter(|stated| !stated.is_empty());
        Ok(Document {
            media_type,
            kind,
            artifact_type: artifact_type.or(fields.config.map(|config| config.media_type)),
            subject: fields.subject.map(|subject| subject.digest),
            annotations: fields.annotations.unwrap_or_default(),
        })
    }

    /// Refuses a Content-Type that names another kind of manifest; one that names none says nothing.
    pub(super) fn check_announced(&self, content_type: &str) -> Result<(), ManifestError> {
        const KNOWN: [&str; 4] = [
            media_type::MANIFEST,
            media_type::OCI_MANIFEST,
            media_type::OCI_INDEX,
            media_type::MANIFEST_LIST,
        ];
        let announced = content_type.split(';').next().unwrap_or_default().trim();
        if KNOWN.contains(&announced) && announced != self.media_type {
            let reason = format!("it is a {}, the Content-Type says {announced}", self.media_type);
            return Err(ManifestError::Malformed(reason));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::manifest_of;
    use serde_json::{Value, json};

    fn image(extra: Value) -> String {
        let mut image: Value = serde_json::from_slice(&manifest_of(b"w").to_json()).unwrap();
        image.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        image.to_string()
    }

    fn parse(text: &str) -> Result<Document, ManifestError> {
        Document::parse(text.as_bytes())
    }

    #[test]
    fn both_kinds_and_their_types_are_told_apart() {
        let untyped = image(json!({ "mediaType": "" }));
        let cases = [
            (image(json!({})), media_type::MANIFEST),
            (untyped, media_type::OCI_MANIFEST),
            (json!({"schemaVersion": 2, "manifests": []}).to_string(), media_type::OCI_INDEX),
            (
                json!({"mediaType": media_type::MANIFEST_LIST, "manifests": []}).to_string(),
                media_type::MANIFEST_LIST,
            ),
        ];
        for (text, expected) in cases {
            let document = parse(&text).unwrap();
            assert_eq!(document.media_type, expected, "{text}");
            assert!(document.check_announced(&format!("{expected}; charset=utf-8")).is_ok());
            assert!(document.check_announced("application/json").is_ok());
            for other in cases_but(expected) {
                assert!(document.check_announced(other).is_err(), "{other} for {expected}");
            }
        }
    }

    fn cases_but(expected: &str) -> impl Iterator<Item = &'static str> {
        [media_type::MANIFEST, media_type::OCI_INDEX].into_iter().filter(move |t| *t != expected)
    }

    #[test]
    fn an_artifact_is_what_it_says_or_what_its_configuration_is() {
        let subject = Digest::of(b"subject");
        let plain = parse(&image(json!({"artifactType": ""}))).unwrap();
        assert_eq!(plain.artifact_type.as_deref(), Some(media_type::CONFIG));
        let typed = image(json!({
            "artifactType": "application/x",
            "subject": {"mediaType": "y", "digest": subject, "size": 3},
            "annotations": {"a": "b"},
        }));
        let typed = parse(&typed).unwrap();
        assert_eq!(typed.artifact_type.as_deref(), Some("application/x"));
        assert_eq!((typed.subject, &*typed.annotations["a"]), (Some(subject), "b"));
    }

    #[test]
    fn what_is_two_things_or_none_is_refused() {
        let large = " ".repeat(Manifest::BYTES_MAX + 1);
        for text in [
            &image(json!({"manifests": []})),
            &image(json!({"manifests": [], "mediaType": ""})),
            &image(json!({"mediaType": media_type::OCI_INDEX})),
            &image(json!({"mediaType": "application/vnd.docker.distribution.manifest.v1+json"})),
            &image(json!({"subject": {"digest": "sha256:../.."}})),
            &image(json!({"annotations": {"a": 1}})),
            r#"{"manifests": [], "mediaType": "application/vnd.oci.image.manifest.v1+json"}"#,
            r#"{"manifests": [{"digest": "x"}]}"#,
            "{}",
            "",
            &large,
        ] {
            assert!(parse(text).is_err(), "{}", crate::digest::excerpt(text));
        }
    }
}
