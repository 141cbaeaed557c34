//! A model in another format: another manifest and configuration over the same bytes of layers.
//!
//! As a CNCF ModelPack, tools that know nothing of Ollama's types take it, since the manifest is of OCI's
//! type. What dsk needs beside the weights are small files under the names that `media_type` gives them, so
//! a model that comes back is the same one to dsk. Docker's format has places for less, and says so.

use super::{Descriptor, Layer, Manifest, ManifestError, ModelConfig, media_type};
use crate::{Digest, Shard};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Whose manifest it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ManifestFormat {
    /// CNCF's ModelPack.
    ModelPack,
    /// Docker's models.
    Docker,
    /// Ollama's.
    Ollama,
}

impl ManifestFormat {
    /// Every format, by what people call it.
    pub const NAMES: [(&str, ManifestFormat); 3] = [
        ("modelpack", ManifestFormat::ModelPack),
        ("docker", ManifestFormat::Docker),
        ("ollama", ManifestFormat::Ollama),
    ];

    /// The format that people call so.
    pub fn named(name: &str) -> Option<ManifestFormat> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
    }
}

/// What has to be written anew; the layers stay as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    /// The configuration's bytes.
    pub(crate) config: Vec<u8>,
    /// The manifest's bytes.
    pub(crate) manifest: Vec<u8>,
    /// The layers that the format has no place for, in words.
    pub(crate) left_out: Vec<String>,
}

/// What is known of a model beside its manifest.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    /// The model's own name, without its namespace.
    pub(crate) name: &'a str,
    pub(crate) config: &'a ModelConfig,
    /// The templates that are in Jinja.
    pub(crate) jinja: BTreeSet<Digest>,
}

impl Manifest {
    /// Whether it is of that format already.
    pub(crate) fn is_of(&self, format: ManifestFormat) -> bool {
        let config = self.config.media_type.as_str();
        match format {
            ManifestFormat::ModelPack => config == media_type::MODELPACK_CONFIG,
            ManifestFormat::Docker => config.starts_with(media_type::DOCKER_CONFIG_PREFIX),
            ManifestFormat::Ollama => config == media_type::CONFIG,
        }
    }

    /// The model in a format. The same model gives the same bytes every time.
    pub(crate) fn to(
        &self,
        format: ManifestFormat,
        facts: &Facts<'_>,
    ) -> Result<Packed, ManifestError> {
        self.check_model()?;
        match format {
            ManifestFormat::ModelPack => self.to_modelpack(facts),
            ManifestFormat::Docker => Ok(self.to_docker(facts)),
            ManifestFormat::Ollama => Ok(self.to_ollama(facts)),
        }
    }

    fn to_modelpack(&self, facts: &Facts<'_>) -> Result<Packed, ManifestError> {
        let parts = self.of_kind(media_type::MODEL).count();
        let (mut files, config) = (Files { parts, ..Files::default() }, facts.config);
        let layers: Result<Vec<Value>, _> =
            self.layers.iter().map(|layer| files.layer(layer)).collect();
        let diff_ids: Vec<Digest> = self.layers.iter().map(|layer| layer.digest).collect();
        let config = json!({
            "descriptor": {"family": config.model_family, "name": facts.name},
            "modelfs": {"type": "layers", "diffIds": diff_ids},
            "config": {
                "architecture": "transformer",
                "format": "gguf",
                "paramSize": config.model_type,
                "quantization": config.file_type,
            },
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "artifactType": media_type::MODELPACK,
            "config": descriptor(media_type::MODELPACK_CONFIG, &config),
            "layers": layers?,
        });
        Ok(Packed { config, manifest: manifest.to_string().into_bytes(), left_out: Vec::new() })
    }

    fn to_docker(&self, facts: &Facts<'_>) -> Packed {
        let (mut layers, mut left_out) = (Vec::new(), Vec::new());
        for layer in &self.layers {
            let part = match layer.kind() {
                media_type::TEMPLATE if !facts.jinja.contains(&layer.digest) => None,
                kind => media_type::docker(kind),
            };
            match part {
                Some(media_type) => layers.push(Layer::new(&media_type, layer.digest, layer.size)),
                None => left_out.push(layer.part()),
            }
        }
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
        let config = json!({
            "config": {
                "format": "gguf",
                "architecture": facts.config.model_family,
                "parameters": facts.config.model_type,
                "quantization": facts.config.file_type,
            },
            "descriptor": {},
            "rootfs": {"type": "rootfs", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let media_type = format!("{}.v0.1+json", media_type::DOCKER_CONFIG_PREFIX);
        let manifest = Manifest {
            media_type: media_type::OCI_MANIFEST.to_owned(),
            ..Manifest::new(descriptor(&media_type, &config), layers)
        };
        Packed { config, manifest: manifest.to_json(), left_out }
    }

    fn to_ollama(&self, facts: &Facts<'_>) -> Packed {
        let (mut layers, mut left_out) = (Vec::new(), Vec::new());
        for layer in &self.layers {
            match layer.kind() {
                kind if kind.starts_with(media_type::OLLAMA_PREFIX) => {
                    layers.push(Layer::new(kind, layer.digest, layer.size));
                }
                _ => left_out.push(layer.part()),
            }
        }
        let known = facts.config;
        let config = ModelConfig {
            model_format: "gguf".to_owned(),
            model_family: known.model_family.clone(),
            model_families: vec![known.model_family.clone()],
            model_type: known.model_type.clone(),
            file_type: known.file_type.clone(),
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            ..ModelConfig::default()
        };
        let config = config.to_json();
        let manifest = Manifest::new(descriptor(media_type::CONFIG, &config), layers).to_json();
        Packed { config, manifest, left_out }
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    let (digest, size) = (Digest::of(bytes), bytes.len() as u64);
    Descriptor { media_type: media_type.to_owned(), digest, size }
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
