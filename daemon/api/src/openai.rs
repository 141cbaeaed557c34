//! The part of OpenAI's API that dsk speaks: `/v1/models` and `/v1/chat/completions`.
//!
//! Reading is lenient: unknown fields are ignored and `null` means "not given". Fields that would
//! change the answer but that dsk does not honour are kept here, so that the daemon can refuse them
//! by name instead of ignoring them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::lenient::null_as_default;

/// The body of `POST /v1/chat/completions`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ChatCompletionRequest {
    /// The model's name.
    #[serde(default, deserialize_with = "null_as_default")]
    pub model: String,
    /// The conversation so far.
    #[serde(default, deserialize_with = "null_as_default")]
    pub messages: Vec<ChatMessage>,
    /// Server-sent events instead of one object.
    #[serde(default, deserialize_with = "null_as_default")]
    pub stream: bool,
    /// What a stream carries besides.
    #[serde(default, deserialize_with = "null_as_default")]
    pub stream_options: StreamOptions,
    /// Most tokens to write; the older name.
    pub max_tokens: Option<i64>,
    /// Most tokens to write.
    pub max_completion_tokens: Option<i64>,
    /// Fixes the choice of tokens.
    pub seed: Option<i64>,
    /// Texts that end the answer.
    pub stop: Option<Stop>,
    /// 1.0 unless given.
    pub temperature: Option<f64>,
    /// 1.0 unless given.
    pub top_p: Option<f64>,
    /// Against tokens in proportion to how often they came.
    pub frequency_penalty: Option<f64>,
    /// Against tokens that came at all.
    pub presence_penalty: Option<f64>,
    /// `none`, `minimal`, `low`, `medium`, `high`, `max`, ...
    pub reasoning_effort: Option<String>,
    /// The same, in an object.
    pub reasoning: Option<Reasoning>,
    /// How many answers; only 1.
    pub n: Option<i64>,
    /// A grammar for the answer.
    pub response_format: Option<Map<String, Value>>,
    /// Functions the model may call.
    #[serde(default, deserialize_with = "null_as_default")]
    pub tools: Vec<Value>,
    /// Whether it must call one.
    pub tool_choice: Option<Value>,
    /// Weights of tokens.
    #[serde(default, deserialize_with = "null_as_default")]
    pub logit_bias: Map<String, Value>,
    /// Return the probability of each token.
    #[serde(default, deserialize_with = "null_as_default")]
    pub logprobs: bool,
    /// How many alternatives of each token.
    pub top_logprobs: Option<i64>,
    /// How long the model stays loaded afterwards; dsk's addition.
    pub keep_alive: Option<Value>,
}

impl ChatCompletionRequest {
    /// The effort asked for, wherever the client put it.
    #[must_use]
    pub fn effort(&self) -> Option<&str> {
        let nested = self.reasoning.as_ref().and_then(|reasoning| reasoning.effort.as_deref());
        self.reasoning_effort.as_deref().or(nested)
    }
}

/// The `reasoning` object of a request.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Reasoning {
    /// As `reasoning_effort`.
    pub effort: Option<String>,
}

/// The `stream_options` object of a request.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct StreamOptions {
    /// End the stream with a chunk of token counts.
    #[serde(default, deserialize_with = "null_as_default")]
    pub include_usage: bool,
}

/// One text that ends an answer, or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Stop {
    /// `"stop": "x"`
    One(String),
    /// `"stop": ["x", "y"]`
    Many(Vec<String>),
}

impl Stop {
    /// The texts, without empty ones.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        let texts = match self {
            Stop::One(text) => std::slice::from_ref(text),
            Stop::Many(texts) => texts,
        };
        texts.iter().filter(|text| !text.is_empty()).cloned().collect()
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ChatMessage {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub role: String,
    /// Text, parts, or nothing (beside calls).
    pub content: Option<Content>,
    /// What the model thought, as dsk and Ollama return it.
    pub reasoning: Option<String>,
    /// The same, by DeepSeek's name.
    pub reasoning_content: Option<String>,
    /// Calls the model made.
    #[serde(default, deserialize_with = "null_as_default")]
    pub tool_calls: Vec<MessageToolCall>,
    /// The call whose result this is.
    pub tool_call_id: Option<String>,
    /// The tool whose result this is.
    pub name: Option<String>,
}

/// A message's content.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// A string.
    Text(String),
    /// Parts, of which dsk takes the text ones.
    Parts(Vec<ContentPart>),
}

/// One part of a message.
#[derive(Debug, Clone, Deserialize)]
pub struct ContentPart {
    /// `text`, `image_url`, `input_audio`, ...
    #[serde(rename = "type", default, deserialize_with = "null_as_default")]
    pub kind: String,
    /// A text part's text.
    #[serde(default, deserialize_with = "null_as_default")]
    pub text: String,
}

/// A call in a message that a client sends back.
#[derive(Debug, Clone, Deserialize)]
pub struct MessageToolCall {
    /// Names the call.
    pub id: Option<String>,
    /// What was called.
    pub function: MessageFunction,
}

/// The function of a [`MessageToolCall`].
#[derive(Debug, Clone, Deserialize)]
pub struct MessageFunction {
    /// The function's name.
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
    /// Its arguments: JSON, as a string.
    #[serde(default, deserialize_with = "null_as_default")]
    pub arguments: String,
}

/// The answer of `POST /v1/chat/completions`, not streamed.
#[derive(Debug, Clone, Serialize)]
pub struct ChatCompletion {
    /// `chatcmpl-...`
    pub id: String,
    /// `chat.completion`
    pub object: &'static str,
    /// Unix seconds.
    pub created: i64,
    /// The model that answered.
    pub model: String,
    /// What would change if the same seed answered otherwise.
    pub system_fingerprint: &'static str,
    /// One answer.
    pub choices: Vec<Choice>,
    /// What it cost.
    pub usage: Usage,
}

/// One answer.
#[derive(Debug, Clone, Serialize)]
pub struct Choice {
    /// 0.
    pub index: u32,
    /// The message.
    pub message: AnswerMessage,
    /// `stop` or `length`.
    pub finish_reason: &'static str,
}

/// The message of an answer.
#[derive(Debug, Clone, Default, Serialize)]
pub struct AnswerMessage {
    /// `assistant`
    pub role: &'static str,
    /// The text.
    pub content: String,
    /// What the model thought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// The same, by DeepSeek's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
}

/// One event of a streamed answer.
#[derive(Debug, Clone, Serialize)]
pub struct ChatCompletionChunk {
    /// The same in every chunk of an answer.
    pub id: String,
    /// `chat.completion.chunk`
    pub object: &'static str,
    /// Unix seconds, the same in every chunk.
    pub created: i64,
    /// The model that answers.
    pub model: String,
    /// As in [`ChatCompletion`].
    pub system_fingerprint: &'static str,
    /// One, or none in the chunk of token counts.
    pub choices: Vec<ChunkChoice>,
    /// In the last chunk, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What a chunk adds to an answer.
#[derive(Debug, Clone, Serialize)]
pub struct ChunkChoice {
    /// 0.
    pub index: u32,
    /// The addition.
    pub delta: Delta,
    /// `null` until the chunk that ends the answer.
    pub finish_reason: Option<&'static str>,
}

/// The text a chunk adds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Delta {
    /// Only in the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// Text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Thinking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// The same, by DeepSeek's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
}

/// Counts of tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: u64,
    /// Of the answer, thinking included.
    pub completion_tokens: u64,
    /// Their sum.
    pub total_tokens: u64,
    /// The answer's, by kind.
    pub completion_tokens_details: CompletionDetails,
}

/// The kinds of tokens in an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CompletionDetails {
    /// Of thinking.
    pub reasoning_tokens: u64,
}

/// The answer of `GET /v1/models`.
#[derive(Debug, Clone, Serialize)]
pub struct ModelList {
    /// `list`
    pub object: &'static str,
    /// The models of the store.
    pub data: Vec<Model>,
}

/// One model of [`ModelList`], and the answer of `GET /v1/models/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Model {
    /// Its name.
    pub id: String,
    /// `model`
    pub object: &'static str,
    /// When its manifest was written, Unix seconds.
    pub created: i64,
    /// The namespace of its name.
    pub owned_by: String,
}

#[cfg(test)]
mod tests;
