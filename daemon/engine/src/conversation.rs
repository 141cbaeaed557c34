//! What a caller asks: the one internal form that every dialect is translated into.

use serde::{Deserialize, Serialize};

pub use dsk_modelfiles::template::{Message, ToolCall};

use crate::options::Options;

/// One generation: what to continue, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// What to continue.
    pub prompt: Prompt,
    /// How to choose the tokens, and when to end.
    #[serde(default)]
    pub options: Options,
    /// When the prompt is longer than the context: drop the oldest turns (`true`) or fail.
    #[serde(default)]
    pub truncate: bool,
}

/// The text that the model continues.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// Turns that the model's template makes into text.
    Chat(Conversation),
    /// Text as it is; special tokens written in it count as such.
    Raw(String),
    /// Text with a gap, for models that were trained to fill one.
    Fill {
        /// What stands before the gap.
        prefix: String,
        /// What stands behind it.
        suffix: String,
    },
}

/// Turns, and how they are rendered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Conversation {
    /// What was said so far, the question last.
    pub messages: Vec<Message>,
    /// Tools that the model may call, as their JSON declarations.
    #[serde(default)]
    pub tools: Vec<serde_json::Value>,
    /// Whether a thinking model thinks before it answers; `None` leaves it to the template.
    #[serde(default)]
    pub think: Option<bool>,
    /// Takes the place of the model's own template.
    #[serde(default)]
    pub template: Option<String>,
    /// Tokens that come before everything else: the `context` of an earlier [`crate::Done`].
    #[serde(default)]
    pub context: Vec<u32>,
}
