//! `/api/generate`: one prompt in, its continuation out.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Metrics, QueuePlace, Think};
use crate::lenient::{is_false, null_as_default};

/// The body of `POST /api/generate`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct GenerateRequest {
    /// The model's name.
    #[serde(default, deserialize_with = "null_as_default")]
    pub model: String,
    /// What to answer; empty asks for a load (or, with `keep_alive` 0, an unload).
    #[serde(default, deserialize_with = "null_as_default")]
    pub prompt: String,
    /// What comes after the text to be filled in, for models that can insert.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub suffix: String,
    /// In place of the model's own system message.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub system: String,
    /// In place of the model's own template.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub template: String,
    /// The tokens an earlier answer returned, to go on from.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<u32>,
    /// Lines as they come (the default) or one object at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Send the prompt as it is: no template, no system message.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_false")]
    pub raw: bool,
    /// A grammar for the answer: `"json"` or a JSON schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Value>,
    /// How long the model stays loaded afterwards: seconds or `"5m"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<Value>,
    /// Pictures, base64.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Sampling and context parameters, by Ollama's names.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Map::is_empty")]
    pub options: Map<String, Value>,
    /// Whether to think first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub think: Option<Think>,
    /// Cut a prompt that is too long, instead of an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncate: Option<bool>,
    /// Return the probability of each token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<bool>,
    /// How many alternatives of each token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<i64>,
}

/// One line of an answer of `/api/generate`, or the whole of one that is not streamed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerateLine {
    /// The model that answers, by the name the client used.
    pub model: String,
    /// RFC 3339 with nanoseconds, UTC.
    pub created_at: String,
    /// The text since the last line.
    pub response: String,
    /// What the model thought since the last line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    /// True on the last line.
    pub done: bool,
    /// Why it ended: `stop`, `length`, `load` or `unload`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_reason: Option<String>,
    /// Where the request stands, on lines without text that come before the model is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueuePlace>,
    /// The tokens of prompt and answer, to be sent with the next prompt; last line, not when raw.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<u32>,
    /// Times and counts, on the last line.
    #[serde(flatten)]
    pub metrics: Metrics,
}
