//! A model as a CNCF ModelPack: another manifest and configuration over the same bytes of layers.
//!
//! Tools that know nothing of Ollama's types take these, since the manifest is of OCI's type. What dsk
//! needs beside the weights are small files under the names that `media_type` gives them, so a model
//! that comes back is the same one to dsk.

use super::{Descriptor, Layer, Manifest, ManifestError, ModelConfig, media_type};
use crate::{Digest, Shard};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What has to be written anew; the layers stay as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelPack {
    /// The configuration's bytes.
    pub(crate) config: Vec<u8>,
    /// The manifest's bytes.
    pub(crate) manifest: Vec<u8>,
}

impl Manifest {
    /// The model as a ModelPack called `name`. The same model gives the same bytes every time.
    pub(crate) fn to_modelpack(
        &self,
        name: &str,
        config: &ModelConfig,
    ) -> Result<ModelPack, ManifestError> {
        self.check_model()?;
        let mut files =
            Files { parts: self.of_kind(media_type::MODEL).count(), ..Files::default() };
        let layers: Result<Vec<Value>, _> =
            self.layers.iter().map(|layer| files.layer(layer)).collect();
        let diff_ids: Vec<Digest> = self.layers.iter().map(|layer| layer.digest).collect();
        let config = json!({
            "descriptor": {"family": config.model_family, "name": name},
            "modelfs": {"type": "layers", "diffIds": diff_ids},
            "config": {
                "architecture": "transformer",
                "format": "gguf",
                "paramSize": config.model_type,
                "quantization": config.file_type,
            },
        });
        let config = config.to_string().into_bytes();
        let descriptor = Descriptor {
            media_type: media_type::MODELPACK_CONFIG.to_owned(),
            digest: Digest::of(&config),
            size: config.len() as u64,
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "artifactType": media_type::MODELPACK,
            "config": descriptor,
            "layers": layers?,
        });
        Ok(ModelPack { config, manifest: manifest.to_string().into_bytes() })
    }
}

/// Names for the files of layers, each once.
#[derive(Default)]
struct Files {
    taken: BTreeMap<&'static str, usize>,
    /// How many files the weights are in.
    parts: usize,
}

impl Files {
    fn layer(&mut self, layer: &Layer) -> Result<Value, ManifestError> {
        let (media_type, file) = self
            .place(layer.kind())
            .ok_or_else(|| ManifestError::Format(crate::digest::excerpt(&layer.media_type)))?;
        Ok(json!({
            "mediaType": media_type,
            "digest": layer.digest,
            "size": layer.size,
            "annotations": {(media_type::FILE_PATH): file, (media_type::TITLE): file},
        }))
    }

    /// The type and the file name of a layer of a kind; None for what a ModelPack has no place for.
    fn place(&mut self, kind: &str) -> Option<(&'static str, String)> {
        let weight = media_type::MODELPACK_WEIGHT;
        let (media_type, stem, end) = match kind {
            media_type::MODEL => (weight, "model", ".gguf"),
            media_type::PROJECTOR => (weight, "mmproj", ".gguf"),
            media_type::ADAPTER => (weight, "adapter", ".gguf"),
            media_type::LICENSE => (media_type::MODELPACK_DOC, "LICENSE", ""),
            kind => {
                let (_, file) = media_type::FILES.iter().find(|(known, _)| *known == kind)?;
                (media_type::MODELPACK_SETTINGS, *file, "")
            }
        };
        let count = self.taken.entry(stem).or_default();
        *count += 1;
        if kind == media_type::MODEL && self.parts > 1 {
            return Some((media_type, Shard::name(stem, *count, self.parts)));
        }
        let number = if *count > 1 { format!("-{count}") } else { String::new() };
        Some((media_type, format!("{stem}{number}{end}")))
    }
}
