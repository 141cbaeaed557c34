//! Manifests: which blobs make up a model, and the small JSON configuration beside them.
//!
//! Ollama's registry speaks Docker's manifest v2 schema 2; OCI's image manifest has the same shape, so
//! one type reads both. Fields that dsk does not know are ignored. Everything is bounded before it is
//! believed: bytes, layers, and (by serde_json) the depth of nesting.

use crate::{Digest, Shard};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

mod index;
pub mod media_type;
mod pack;

pub use index::QUANTIZATION;
pub(crate) use index::{Entry, Index};
pub use pack::ManifestFormat;
pub(crate) use pack::{Facts, Packed};

/// A manifest: a configuration blob and the layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The manifest's own type; OCI allows to leave it out.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub media_type: String,
    /// The blob with the [`ModelConfig`].
    pub config: Descriptor,
    /// The model's parts, in the order in which they were added.
    #[serde(deserialize_with = "or_default")]
    pub layers: Vec<Layer>,
}

/// A blob by type, digest and size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the bytes are.
    pub media_type: String,
    /// What the bytes hash to.
    pub digest: Digest,
    /// How many bytes there are.
    pub size: u64,
}

/// One part of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// What the bytes are; see [`media_type`].
    pub media_type: String,
    /// What the bytes hash to.
    pub digest: Digest,
    /// How many bytes there are.
    pub size: u64,
    /// The model or file that the layer was made from, when its maker noted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The tensor's or the file's name, in layers that hold one each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free-form notes, as OCI artifacts carry them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
}

/// Why bytes are no manifest (or no configuration).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// More bytes than a manifest may have.
    #[error("the manifest is larger than {max} bytes")]
    TooLarge {
        /// The limit.
        max: usize,
    },
    /// Not JSON, or a field is missing or of the wrong type.
    #[error("the manifest is malformed: {0}")]
    Malformed(String),
    /// A list of manifests for several platforms.
    #[error("it is an index of manifests ({0}), not a model's manifest")]
    Index(String),
    /// A schema version other than 2.
    #[error("manifest schema version {0} is not supported (only 2 is)")]
    Version(u32),
    /// More layers than a manifest may have.
    #[error("the manifest has {count} layers, more than {max}")]
    TooManyLayers {
        /// How many it has.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// A layer that would have to be unpacked.
    #[error(
        "its layer {digest} is packed ({media_type}); dsk takes weights as they are and unpacks nothing"
    )]
    Packed {
        /// The layer's type.
        media_type: String,
        /// The layer.
        digest: Digest,
    },
    /// Weights in several files that do not belong together by their names.
    #[error("its weights are in {} files, which are not all parts of one model: {}", .0.len(), .0.join(", "))]
    Sharded(Vec<String>),
    /// Weights in a format other than GGUF.
    #[error("its weights ({0}) are not in GGUF, the one format that dsk runs")]
    Format(String),
    /// Sizes that no disk can hold, or one digest with two sizes.
    #[error("the manifest's sizes are impossible: {0}")]
    Sizes(String),
}

impl Manifest {
    /// Largest manifest, in bytes.
    pub const BYTES_MAX: usize = 4 << 20;
    /// Most layers of a manifest.
    pub const LAYERS_MAX: usize = 4096;
    /// Most parts of a model that an error names.
    const LABELS_MAX: usize = 16;

    /// A manifest of Ollama's type over blobs that are in the store.
    pub fn new(config: Descriptor, layers: Vec<Layer>) -> Manifest {
        Manifest { schema_version: 2, media_type: media_type::MANIFEST.to_owned(), config, layers }
    }

    /// Parses and checks a manifest.
    pub fn from_json(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let manifest = parse_manifest(bytes)?;
        if manifest.schema_version != 2 {
            return Err(ManifestError::Version(manifest.schema_version));
        }
        let (count, max) = (manifest.layers.len(), Self::LAYERS_MAX);
        if count > max {
            return Err(ManifestError::TooManyLayers { count, max });
        }
        manifest.check_sizes()?;
        Ok(manifest)
    }

    /// The bytes to store and to send: their digest is the model's id.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest has only strings and numbers")
    }

    /// The type to announce it with. Docker's manifests must state theirs, so one without is OCI's.
    pub fn content_type(&self) -> &str {
        if self.media_type.is_empty() { media_type::OCI_MANIFEST } else { &self.media_type }
    }

    /// Every blob it names, each digest once: the layers in order, then the configuration.
    pub fn blobs(&self) -> Vec<Descriptor> {
        let mut seen = std::collections::BTreeSet::new();
        let layers = self.layers.iter().map(Layer::descriptor);
        layers.chain([self.config.clone()]).filter(|blob| seen.insert(blob.digest)).collect()
    }

    /// The bytes of all layers and of the configuration.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).fold(self.config.size, u64::saturating_add)
    }

    /// Whether it is a model that dsk can hold and run: not packed, not in odd parts, not of another format.
    /// What is no model at all is left to whoever looks for its weights.
    pub fn check_model(&self) -> Result<(), ManifestError> {
        if let Some(layer) =
            self.layers.iter().find(|layer| media_type::is_packed(&layer.media_type))
        {
            let (media_type, digest) = (crate::digest::excerpt(&layer.media_type), layer.digest);
            return Err(ManifestError::Packed { media_type, digest });
        }
        let models: Vec<&Layer> = self.of_kind(media_type::MODEL).collect();
        let foreign = self.layers.iter().find(|layer| media_type::is_weight(&layer.media_type));
        match (models.as_slice(), foreign) {
            ([], Some(layer)) => Err(ManifestError::Format(layer.label())),
            ([] | [_], _) => Ok(()),
            (parts, _) if belong_together(parts) => Ok(()),
            (parts, _) => {
                let labels = parts.iter().take(Self::LABELS_MAX).map(|layer| layer.label());
                Err(ManifestError::Sharded(labels.collect()))
            }
        }
    }

    /// Every layer of a kind, in order; see [`Layer::kind`].
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Layer> {
        self.layers.iter().filter(move |layer| layer.kind() == kind)
    }

    fn check_sizes(&self) -> Result<(), ManifestError> {
        let mut sizes = BTreeMap::from([(self.config.digest, self.config.size)]);
        let mut total = self.config.size;
        for layer in &self.layers {
            if *sizes.entry(layer.digest).or_insert(layer.size) != layer.size {
                let reason = format!("{} is listed with two sizes", layer.digest);
                return Err(ManifestError::Sizes(reason));
            }
            total = total.saturating_add(layer.size);
        }
        // File offsets are signed, so nothing larger can be stored.
        match i64::try_from(total) {
            Ok(_) => Ok(()),
            Err(_) => Err(ManifestError::Sizes("their sum is too large".to_owned())),
        }
    }
}

/// Whether the names of several model files are those of one model's parts. Layers without names may be: the
/// files themselves say what they are when they are read.
fn belong_together(parts: &[&Layer]) -> bool {
    let names: Vec<&str> = parts.iter().filter_map(|layer| layer.file()).collect();
    names.is_empty() || (names.len() == parts.len() && Shard::are_one(names))
}

/// Parses the JSON, and explains the one near miss that is common: an index.
fn parse_manifest(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "mediaType")]
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    check_length(bytes, Manifest::BYTES_MAX)?;
    serde_json::from_slice(bytes).map_err(|error| match serde_json::from_slice(bytes) {
        Ok(Kind { media_type, manifests: Some(_) }) => {
            ManifestError::Index(media_type.unwrap_or_else(|| "no media type".to_owned()))
        }
        _ => ManifestError::Malformed(error.to_string()),
    })
}

fn check_length(bytes: &[u8], max: usize) -> Result<(), ManifestError> {
    if bytes.len() > max { Err(ManifestError::TooLarge { max }) } else { Ok(()) }
}

impl Layer {
    /// A layer that notes nothing but what it is.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Layer {
        let media_type = media_type.to_owned();
        Layer { media_type, digest, size, from: None, name: None, annotations: BTreeMap::new() }
    }

    /// Which of Ollama's types it amounts to, whatever format it comes in: [`media_type::MODEL`] for
    /// weights that are a GGUF file.
    pub fn kind(&self) -> &str {
        media_type::kind(&self.media_type, self.file())
    }

    /// The name of the file it was made from. It is only ever compared: no path is made of it.
    fn file(&self) -> Option<&str> {
        let annotation = |key| self.annotations.get(key).map(String::as_str);
        annotation(media_type::FILE_PATH).or_else(|| annotation(media_type::TITLE))
    }

    /// Which of a model's several files it holds, when the file's name says so.
    pub fn shard(&self) -> Option<Shard<'_>> {
        Shard::parse(self.file()?)
    }

    /// What it is of a model, in a word or two: `params`, `README.md`.
    fn part(&self) -> String {
        let part = self.kind().strip_prefix(media_type::OLLAMA_PREFIX);
        part.map_or_else(|| self.label(), crate::digest::excerpt)
    }

    /// What to call it in an error.
    fn label(&self) -> String {
        crate::digest::excerpt(self.file().unwrap_or(&self.media_type))
    }

    /// The layer as a plain blob.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor { media_type: self.media_type.clone(), digest: self.digest, size: self.size }
    }
}

/// The configuration blob: what a list of models shows without opening the model file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelConfig {
    /// `gguf` or `safetensors`.
    #[serde(deserialize_with = "or_default")]
    pub model_format: String,
    /// The architecture: `llama`, `qwen2`.
    #[serde(deserialize_with = "or_default")]
    pub model_family: String,
    /// The architectures of all parts; Go writes null for none.
    #[serde(deserialize_with = "or_default")]
    pub model_families: Vec<String>,
    /// The number of parameters, for people: `8.0B`.
    #[serde(deserialize_with = "or_default")]
    pub model_type: String,
    /// The quantization: `Q4_K_M`.
    #[serde(deserialize_with = "or_default")]
    pub file_type: String,
    /// A built-in prompt renderer of Ollama's, in place of a template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renderer: Option<String>,
    /// A built-in output parser of Ollama's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parser: Option<String>,
    /// The lowest Ollama version that the model is said to need.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requires: Option<String>,
    /// Where a model runs that is not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_host: Option<String>,
    /// Its name there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_model: Option<String>,
    /// What the model can do, when its maker states it.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub capabilities: Vec<String>,
    /// The longest context, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u64>,
    /// The width of an embedding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_length: Option<u64>,
    /// The model it was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_name: Option<String>,
    /// Always `amd64`: the container world insists on a platform.
    #[serde(deserialize_with = "or_default")]
    pub architecture: String,
    /// Always `linux`.
    #[serde(deserialize_with = "or_default")]
    pub os: String,
    /// Fields that dsk does not know, kept for whoever reads a copy.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl ModelConfig {
    /// Largest configuration, in bytes.
    pub const BYTES_MAX: usize = 4 << 20;
    /// Longest fact taken from another format, in characters.
    const TEXT_CHARS_MAX: usize = 100;

    /// Parses a configuration of any format; an empty object is one.
    pub fn from_json(bytes: &[u8]) -> Result<ModelConfig, ManifestError> {
        check_length(bytes, Self::BYTES_MAX)?;
        let config: ModelConfig = serde_json::from_slice(bytes)
            .map_err(|error| ManifestError::Malformed(error.to_string()))?;
        Ok(config.completed())
    }

    /// Docker's format and ModelPack keep the same facts in an object `config`, under other names.
    fn completed(mut self) -> ModelConfig {
        let within = |object: &str, keys: &[&str]| {
            let inner = self.other.get(object).and_then(serde_json::Value::as_object);
            let found = keys.iter().find_map(|key| inner?.get(*key)?.as_str());
            found.map(|text| text.chars().take(Self::TEXT_CHARS_MAX).collect::<String>())
        };
        let text = |keys: &[&str]| within("config", keys);
        // A ModelPack's architecture is a word for all models of a kind.
        let family = within("descriptor", &["family"]).or_else(|| text(&["architecture"]));
        let fields = [
            (text(&["format"]), &mut self.model_format),
            (family, &mut self.model_family),
            (text(&["parameters", "paramSize"]), &mut self.model_type),
            (text(&["quantization"]), &mut self.file_type),
        ];
        for (found, field) in fields {
            if let Some(found) = found.filter(|_| field.is_empty()) {
                *field = found;
            }
        }
        self
    }

    /// The bytes to store as the configuration blob.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a configuration has string keys only")
    }
}

/// Reads null as the default: Go encodes an empty slice or map so.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
