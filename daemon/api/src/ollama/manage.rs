//! What is in the store and what is loaded: `tags`, `ps`, `show`, `copy`, `delete`, `version`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Message, model_or_name};
use crate::lenient::{is_false, null_as_default};

/// The answer of `GET /api/version`: the Ollama version whose API this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionResponse {
    /// `major.minor.patch`, all numbers.
    pub version: String,
}

/// What a model is, in the strings clients show. All are always present: some clients refuse the
/// whole list when one is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// The model this one was made from.
    #[serde(default)]
    pub parent_model: String,
    /// `gguf`.
    #[serde(default)]
    pub format: String,
    /// The architecture, `llama`.
    #[serde(default)]
    pub family: String,
    /// Every architecture in it.
    #[serde(default, deserialize_with = "null_as_default")]
    pub families: Vec<String>,
    /// `134.52M`.
    #[serde(default)]
    pub parameter_size: String,
    /// `Q4_K_M`.
    #[serde(default)]
    pub quantization_level: String,
}

/// The answer of `GET /api/tags`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TagsResponse {
    /// Newest first.
    #[serde(deserialize_with = "null_as_default")]
    pub models: Vec<LocalModel>,
}

/// A model in the store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LocalModel {
    /// Its shortest name, tag included.
    pub name: String,
    /// The same.
    pub model: String,
    /// When its manifest was written, RFC 3339.
    pub modified_at: String,
    /// Bytes of all its layers.
    pub size: u64,
    /// The manifest's digest, bare hex.
    pub digest: String,
    /// What it is.
    pub details: Details,
    /// What it can do; see [`ShowResponse::capabilities`].
    #[serde(default, deserialize_with = "null_as_default")]
    pub capabilities: Vec<String>,
    /// dsk's own: a file of it is missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub damaged: bool,
}

/// The answer of `GET /api/ps`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PsResponse {
    /// Latest expiry first.
    #[serde(deserialize_with = "null_as_default")]
    pub models: Vec<RunningModel>,
}

/// A model in memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunningModel {
    /// Its shortest name, tag included.
    pub name: String,
    /// The same.
    pub model: String,
    /// Bytes it holds, wherever they lie.
    pub size: u64,
    /// The manifest's digest, bare hex.
    pub digest: String,
    /// What it is.
    pub details: Details,
    /// When it leaves unless used, RFC 3339.
    pub expires_at: String,
    /// How many of `size` lie in a GPU's memory.
    pub size_vram: u64,
    /// Tokens of context that were allocated.
    pub context_length: u64,
}

/// The body of `POST /api/show`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ShowRequest {
    /// The model's name.
    #[serde(default, deserialize_with = "null_as_default")]
    pub model: String,
    /// The model's name, as older clients send it.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub name: String,
    /// Long arrays and the list of tensors as well.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_false")]
    pub verbose: bool,
}

impl ShowRequest {
    /// Whichever of `model` and `name` was given.
    #[must_use]
    pub fn target(&self) -> &str {
        model_or_name(&self.model, &self.name)
    }
}

/// The answer of `POST /api/show`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShowResponse {
    /// The licences' texts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub license: String,
    /// A Modelfile that makes this model again.
    #[serde(default)]
    pub modelfile: String,
    /// Rows of `name value`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub parameters: String,
    /// The template's source.
    #[serde(default)]
    pub template: String,
    /// The model's system message.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub system: String,
    /// The renderer named by the model's config.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub renderer: String,
    /// The parser named by the model's config.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub parser: String,
    /// The version of Ollama the model's config asks for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub requires: String,
    /// What it is.
    pub details: Details,
    /// Turns that come before every conversation.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    /// The GGUF's metadata; long arrays are `null` unless verbose.
    #[serde(default, deserialize_with = "null_as_default")]
    pub model_info: Map<String, Value>,
    /// The GGUF's tensors, when verbose.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<Tensor>,
    /// Of `completion`, `tools`, `insert`, `vision`, `embedding`, `thinking`, `audio`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub capabilities: Vec<String>,
    /// When its manifest was written, RFC 3339.
    pub modified_at: String,
}

/// One tensor of [`ShowResponse::tensors`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tensor {
    /// `blk.0.attn_q.weight`.
    pub name: String,
    /// `Q4_K`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Elements by dimension.
    pub shape: Vec<u64>,
}

/// The body of `POST /api/copy`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CopyRequest {
    /// The name of a model.
    #[serde(default, deserialize_with = "null_as_default")]
    pub source: String,
    /// The name it shall have as well.
    #[serde(default, deserialize_with = "null_as_default")]
    pub destination: String,
}

/// The body of `DELETE /api/delete`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DeleteRequest {
    /// The model's name.
    #[serde(default, deserialize_with = "null_as_default")]
    pub model: String,
    /// The model's name, as older clients send it.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub name: String,
}

impl DeleteRequest {
    /// Whichever of `model` and `name` was given.
    #[must_use]
    pub fn target(&self) -> &str {
        model_or_name(&self.model, &self.name)
    }
}
