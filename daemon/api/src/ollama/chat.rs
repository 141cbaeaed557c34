//! `/api/chat`: a conversation in, the next message out.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Metrics, Think};
use crate::lenient::null_as_default;

/// The body of `POST /api/chat`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The model's name.
    #[serde(default, deserialize_with = "null_as_default")]
    pub model: String,
    /// The conversation so far; empty asks for a load (or, with `keep_alive` 0, an unload).
    #[serde(default, deserialize_with = "null_as_default")]
    pub messages: Vec<Message>,
    /// Lines as they come (the default) or one object at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// A grammar for the answer: `"json"` or a JSON schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Value>,
    /// How long the model stays loaded afterwards: seconds or `"5m"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<Value>,
    /// Functions the model may call.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Value>,
    /// Sampling and context parameters, by Ollama's names.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Map::is_empty")]
    pub options: Map<String, Value>,
    /// Whether to think first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub think: Option<Think>,
    /// Drop the oldest turns of a conversation that is too long, instead of an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncate: Option<bool>,
    /// Return the probability of each token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<bool>,
    /// How many alternatives of each token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<i64>,
}

/// One turn of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub role: String,
    /// The text.
    #[serde(default, deserialize_with = "null_as_default")]
    pub content: String,
    /// What the model thought before it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    /// Pictures, base64.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Calls the model made.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The tool whose result this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_name: Option<String>,
    /// The call whose result this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl Message {
    /// A message of plain text.
    #[must_use]
    pub fn new(role: &str, content: &str) -> Message {
        Message { role: role.to_owned(), content: content.to_owned(), ..Message::default() }
    }
}

/// A call of a function, as a model asks for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Names the call, so that a result can refer to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What to call.
    pub function: FunctionCall,
}

/// The function of a [`ToolCall`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FunctionCall {
    /// The place of the call among those of its message.
    #[serde(default, deserialize_with = "null_as_default")]
    pub index: u64,
    /// The function's name.
    #[serde(default)]
    pub name: String,
    /// Its arguments, in the order the model wrote them.
    #[serde(default, deserialize_with = "null_as_default")]
    pub arguments: Map<String, Value>,
}

/// One line of an answer of `/api/chat`, or the whole of one that is not streamed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatLine {
    /// The model that answers, by the name the client used.
    pub model: String,
    /// RFC 3339 with nanoseconds, UTC.
    pub created_at: String,
    /// The text since the last line.
    pub message: Message,
    /// True on the last line.
    pub done: bool,
    /// Why it ended: `stop`, `length`, `load` or `unload`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_reason: Option<String>,
    /// Where the request stands, on lines without text that come before the model is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueuePlace>,
    /// Times and counts, on the last line.
    #[serde(flatten)]
    pub metrics: Metrics,
}

/// A place in the queue for models.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct QueuePlace {
    /// From 1, in the order of arrival.
    pub position: u64,
    /// How long it will wait from now, an estimate.
    pub expected_seconds: f64,
}
