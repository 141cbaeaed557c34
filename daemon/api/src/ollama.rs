//! Ollama's native API: requests and answers of `/api/*`, as its unmodified clients read them.
//!
//! Reading is as lenient as Ollama: unknown fields are ignored, `null` means "not given", and a
//! model is named by `model` or by the older `name`. Writing is as strict as its strictest clients
//! need: a field that Ollama always sends is always sent, one it omits when empty is omitted.

mod chat;
mod generate;
mod manage;
mod transfer;

pub use chat::{ChatLine, ChatRequest, FunctionCall, Message, QueuePlace, ToolCall};
pub use generate::{GenerateLine, GenerateRequest};
pub use manage::{
    CopyRequest, DeleteRequest, Details, LocalModel, PsResponse, RunningModel, ShowRequest,
    ShowResponse, TagsResponse, Tensor, VersionResponse,
};
pub use transfer::{CreateRequest, License, ProgressLine, PullRequest, PushRequest, SHA256_HELP};

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Whether, and how hard, a model is to think before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Think {
    /// On or off.
    Switch(bool),
    /// On, with an effort; a model without levels just thinks.
    Level(ThinkLevel),
}

/// The efforts a client can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ThinkLevel {
    /// A short thought.
    Low,
    /// The middle.
    Medium,
    /// A long thought.
    High,
    /// As long as it takes.
    Max,
}

impl Think {
    /// True unless thinking is switched off.
    #[must_use]
    pub fn enabled(self) -> bool {
        self != Think::Switch(false)
    }
}

impl<'de> Deserialize<'de> for Think {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Think, D::Error> {
        input.deserialize_any(ThinkVisitor)
    }
}

/// Reads `think` with a message that lists what it may be.
struct ThinkVisitor;

impl Visitor<'_> for ThinkVisitor {
    type Value = Think;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("`think` to be true, false, \"low\", \"medium\", \"high\" or \"max\"")
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<Think, E> {
        Ok(Think::Switch(on))
    }

    fn visit_str<E: Error>(self, level: &str) -> Result<Think, E> {
        match level {
            "low" => Ok(Think::Level(ThinkLevel::Low)),
            "medium" => Ok(Think::Level(ThinkLevel::Medium)),
            "high" => Ok(Think::Level(ThinkLevel::High)),
            "max" => Ok(Think::Level(ThinkLevel::Max)),
            other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
        }
    }
}

/// How long a request took, in nanoseconds, and how many tokens it was. Only the last line of an
/// answer has them, and zeros are left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// From the request's arrival to its last token.
    #[serde(default, skip_serializing_if = "crate::lenient::is_zero")]
    pub total_duration: u64,
    /// Waiting for the model to be in memory.
    #[serde(default, skip_serializing_if = "crate::lenient::is_zero")]
    pub load_duration: u64,
    /// Tokens of the prompt.
    #[serde(default, skip_serializing_if = "crate::lenient::is_zero")]
    pub prompt_eval_count: u64,
    /// Reading the prompt.
    #[serde(default, skip_serializing_if = "crate::lenient::is_zero")]
    pub prompt_eval_duration: u64,
    /// Tokens of the answer, thinking included.
    #[serde(default, skip_serializing_if = "crate::lenient::is_zero")]
    pub eval_count: u64,
    /// Writing the answer.
    #[serde(default, skip_serializing_if = "crate::lenient::is_zero")]
    pub eval_duration: u64,
}

/// The name in `model`, or else in `name`; empty when the client gave neither.
fn model_or_name<'a>(model: &'a str, name: &'a str) -> &'a str {
    if model.is_empty() { name } else { model }
}

#[cfg(test)]
mod tests;
