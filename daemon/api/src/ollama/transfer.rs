//! What moves layers: `pull`, `push` and `create`, which answer with lines of progress.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Message, model_or_name};
use crate::lenient::{is_false, null_as_default};

/// How to come by the digest that fetching a file from an address takes.
pub const SHA256_HELP: &str = "the publisher lists it (Hugging Face on the file's own page), or \
     sha256sum tells it of a copy that you trust";

/// The body of `POST /api/pull`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PullRequest {
    /// The model's name; for a pull also `NAME@sha256:DIGEST`, one manifest whatever the tag means.
    #[serde(default, deserialize_with = "null_as_default")]
    pub model: String,
    /// The model's name, as older clients send it.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub name: String,
    /// Allow a registry without TLS.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_false")]
    pub insecure: bool,
    /// Lines as they come (the default) or the last one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// dsk's own: this quantization, where the name leaves it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quant: Option<String>,
    /// dsk's own: fetch the model's GGUF file from this `http` or `https` address instead of a registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// dsk's own, with `url`: what the file must hash to, 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// dsk's own: bytes per second that this transfer may take; the one that began it decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_rate: Option<u64>,
    /// dsk's own: the pin of the name in the daemon's lock file moves to what is pulled.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_false")]
    pub update_lock: bool,
    /// dsk's own, of a push: the format to push in, `modelpack`, `docker` or `ollama`; as stored without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// dsk's own: only say what would be pulled, as one [`crate::fit::PullChoice`].
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// dsk's own, with `dry_run`: another machine than the daemon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Value>,
}

impl PullRequest {
    /// Whichever of `model` and `name` was given.
    #[must_use]
    pub fn target(&self) -> &str {
        model_or_name(&self.model, &self.name)
    }
}

/// The body of `POST /api/push`: the same fields.
pub type PushRequest = PullRequest;

/// One line of progress; the last one has the status `success`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressLine {
    /// `pulling manifest`, `pulling 970aa74c0a90`, `success`, ...
    #[serde(default)]
    pub status: String,
    /// The blob that moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// How many of them are here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<u64>,
}

impl ProgressLine {
    /// A line that is only a status.
    #[must_use]
    pub fn status(status: &str) -> ProgressLine {
        ProgressLine { status: status.to_owned(), ..ProgressLine::default() }
    }
}

/// The body of `POST /api/create`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CreateRequest {
    /// The new model's name.
    #[serde(default, deserialize_with = "null_as_default")]
    pub model: String,
    /// The new model's name, as older clients send it.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub name: String,
    /// Lines as they come (the default) or the last one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// The model to start from.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub from: String,
    /// Files to start from: a path's name, and the digest of a blob the daemon has.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub files: BTreeMap<String, String>,
    /// LoRA adapters, as `files`.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub adapters: BTreeMap<String, String>,
    /// The prompt template.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub template: String,
    /// Licence texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<License>,
    /// The system message.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub system: String,
    /// Default options, by Ollama's names.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
    /// Turns that come before every conversation.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    /// A format to quantize to.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub quantize: String,
    /// The same, as older clients send it.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub quantization: String,
    /// A built-in renderer's name, kept in the config.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub renderer: String,
    /// A built-in parser's name, kept in the config.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub parser: String,
    /// The least Ollama version the model needs, kept in the config.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub requires: String,
}

impl CreateRequest {
    /// Whichever of `model` and `name` was given.
    #[must_use]
    pub fn target(&self) -> &str {
        model_or_name(&self.model, &self.name)
    }
}

/// One licence text or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum License {
    /// `"license": "..."`
    One(String),
    /// `"license": ["...", "..."]`
    Many(Vec<String>),
}

impl License {
    /// The texts, without empty ones.
    #[must_use]
    pub fn texts(self) -> Vec<String> {
        let texts = match self {
            License::One(text) => vec![text],
            License::Many(texts) => texts,
        };
        texts.into_iter().filter(|text| !text.is_empty()).collect()
    }
}
