//! Chat templates: a conversation in, the prompt's text out.
//!
//! Two languages are in use. GGUF files and Hugging Face repositories carry Jinja templates;
//! Ollama's registry carries Go templates. [`Template::detect`] tells them apart. Both are programs
//! by strangers, so both run under limits ([`limits`]); exceeding one is [`TemplateError::Limit`].

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

mod features;
mod go;
mod jinja;
mod json_text;
pub mod limits;
#[cfg(test)]
mod tests;

pub use features::Features;

/// A template that was parsed without fault.
#[derive(Debug, Clone)]
pub struct Template {
    language: Language,
    features: Features,
}

#[derive(Debug, Clone)]
enum Language {
    Jinja(jinja::Jinja),
    Go(go::Go),
}

/// Why a template cannot be used, or made no prompt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template's text is wrong.
    #[error("line {line}: {message}")]
    Syntax {
        /// Line of the template, from 1.
        line: u32,
        /// What is wrong.
        message: String,
    },
    /// The template failed on this conversation.
    #[error("the chat template failed: {message}")]
    Failed {
        /// What went wrong.
        message: String,
    },
    /// The template itself refused the conversation, with `raise_exception`.
    #[error("the chat template refuses this conversation: {message}")]
    Refused {
        /// The template's own words.
        message: String,
    },
    /// The template needs more than a prompt may cost.
    #[error("the chat template exceeds the limit of {limit}")]
    Limit {
        /// The limit, with its unit.
        limit: String,
    },
}

impl TemplateError {
    fn limit(limit: impl Into<String>) -> TemplateError {
        TemplateError::Limit { limit: limit.into() }
    }

    fn failed(message: impl Into<String>) -> TemplateError {
        TemplateError::Failed { message: message.into() }
    }
}

/// What a prompt is made from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// The conversation, oldest first.
    pub messages: &'a [Message],
    /// Tool definitions in OpenAI's form.
    pub tools: &'a [Value],
    /// Whether to end with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
    /// The text of the token that begins a sequence.
    pub bos_token: &'a str,
    /// The text of the token that ends one.
    pub eos_token: &'a str,
    /// Whether the model shall think; `None` leaves it to the template.
    pub think: Option<bool>,
    /// The text after the gap, when the model shall fill one.
    pub suffix: Option<&'a str>,
}

/// One turn of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// What was said.
    pub content: String,
    /// What was thought before it was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    /// Tools the assistant called.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The tool whose result this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_name: Option<String>,
    /// The call whose result this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

/// One call of a tool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolCall {
    /// Names the call in the tool's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The tool.
    pub name: String,
    /// Its arguments by name.
    pub arguments: Map<String, Value>,
}

impl Template {
    /// Parses a Jinja template.
    pub fn jinja(source: &str) -> Result<Template, TemplateError> {
        check_size(source)?;
        let jinja = jinja::Jinja::parse(source)?;
        Ok(Template { language: Language::Jinja(jinja), features: features::of_jinja(source) })
    }

    /// Parses a Go template.
    pub fn go(source: &str) -> Result<Template, TemplateError> {
        check_size(source)?;
        let go = go::Go::parse(source)?;
        let features = features::of_go(&go);
        Ok(Template { language: Language::Go(go), features })
    }

    /// Parses a template of either language.
    pub fn detect(source: &str) -> Result<Template, TemplateError> {
        if is_jinja(source) { Template::jinja(source) } else { Template::go(source) }
    }

    /// Makes the prompt.
    pub fn render(&self, context: &Context<'_>) -> Result<String, TemplateError> {
        match &self.language {
            Language::Jinja(jinja) => jinja.render(context),
            Language::Go(go) => go.render(context),
        }
    }

    /// What the template has a place for.
    pub fn features(&self) -> Features {
        self.features
    }

    /// The text it was parsed from.
    pub fn source(&self) -> &str {
        match &self.language {
            Language::Jinja(jinja) => jinja.source(),
            Language::Go(go) => go.source(),
        }
    }
}

fn check_size(source: &str) -> Result<(), TemplateError> {
    if source.len() > limits::SOURCE_BYTES_MAX {
        let limit = limits::SOURCE_BYTES_MAX;
        return Err(TemplateError::limit(format!("{limit} bytes of template text")));
    }
    Ok(())
}

/// Jinja has statements in `{% %}` and comments in `{# #}`; Go has neither. A template with
/// expressions only is Jinja's when they have no dot in front, as in `{{ messages[0].content }}`.
fn is_jinja(source: &str) -> bool {
    if source.contains("{%") || source.contains("{#") {
        return true;
    }
    let expressions = source.split("{{").skip(1).filter_map(|rest| rest.split("}}").next());
    expressions.map(|text| text.trim_start_matches('-').trim_start()).any(|text| {
        ["messages", "bos_token", "eos_token", "'", "raise_exception("]
            .iter()
            .any(|start| text.starts_with(start))
    })
}
