//! The variables a chat template sees, as Hugging Face names them.

use minijinja::value::{Serde, Value};

use super::ordered::Ordered;
use crate::template::{Context, Message, ToolCall};

/// How the arguments of a tool call are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arguments {
    Object,
    /// As JSON text.
    Text,
}

/// The variables, and how many bytes of text they hold.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) root: Value,
    pub(super) bytes: usize,
}

impl Input {
    pub(super) fn new(context: &Context<'_>, arguments: Arguments, null_content: bool) -> Input {
        let mut root = Ordered::default();
        let messages = context.messages.iter();
        let messages: Vec<Value> =
            messages.map(|message| message_value(message, arguments, null_content)).collect();
        root.set("messages", messages);
        root.set("add_generation_prompt", context.add_generation_prompt);
        root.set("bos_token", context.bos_token);
        root.set("eos_token", context.eos_token);
        // Absent rather than empty: templates ask whether tools are defined.
        if !context.tools.is_empty() {
            root.set("tools", Value::from(Serde(context.tools)));
        }
        if let Some(think) = context.think {
            root.set("enable_thinking", think);
            root.set("thinking", think);
        }
        if let Some(suffix) = context.suffix {
            root.set("suffix", suffix);
        }
        Input { root: root.finish(), bytes: bytes(context) }
    }
}

fn bytes(context: &Context<'_>) -> usize {
    let messages: usize = context
        .messages
        .iter()
        .map(|message| message.content.len() + message.thinking.as_ref().map_or(0, String::len))
        .sum();
    let tools: usize = context.tools.iter().map(|tool| tool.to_string().len()).sum();
    messages + tools
}

fn message_value(message: &Message, arguments: Arguments, null_content: bool) -> Value {
    let mut fields = Ordered::default();
    fields.set("role", message.role.as_str());
    if null_content && message.content.is_empty() && !message.tool_calls.is_empty() {
        fields.set("content", Value::from(()));
    } else {
        fields.set("content", message.content.as_str());
    }
    if let Some(thinking) = &message.thinking {
        fields.set("reasoning_content", thinking.as_str());
        fields.set("thinking", thinking.as_str());
    }
    if !message.tool_calls.is_empty() {
        let calls: Vec<Value> =
            message.tool_calls.iter().map(|call| call_value(call, arguments)).collect();
        fields.set("tool_calls", calls);
    }
    if let Some(name) = &message.tool_name {
        fields.set("name", name.as_str());
    }
    if let Some(id) = &message.tool_call_id {
        fields.set("tool_call_id", id.as_str());
    }
    fields.finish()
}

fn call_value(call: &ToolCall, arguments: Arguments) -> Value {
    let mut function = Ordered::default();
    function.set("name", call.name.as_str());
    function.set(
        "arguments",
        match arguments {
            Arguments::Object => Value::from(Serde(&call.arguments)),
            Arguments::Text => {
                Value::from(serde_json::Value::from(call.arguments.clone()).to_string())
            }
        },
    );
    let mut fields = Ordered::default();
    fields.set("type", "function");
    if let Some(id) = &call.id {
        fields.set("id", id.as_str());
    }
    fields.set("function", function.finish());
    fields.finish()
}
