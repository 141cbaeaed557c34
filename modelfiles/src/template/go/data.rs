//! The conversation as a Go template sees it, under the names Ollama gives its parts.

use std::rc::Rc;

use serde_json::Value as Json;

use super::value::{Entry, Value};
use crate::template::{Context, Message, ToolCall};

/// Messages of one role that follow each other, as one; a tool's results stay apart.
pub(super) fn collate(messages: &[Message]) -> Vec<Message> {
    let mut collated: Vec<Message> = Vec::new();
    for message in messages {
        match collated.last_mut() {
            Some(last) if last.role == message.role && message.role != "tool" => {
                if !last.content.is_empty() && !message.content.is_empty() {
                    last.content.push_str("\n\n");
                }
                last.content.push_str(&message.content);
                last.tool_calls.extend(message.tool_calls.iter().cloned());
            }
            _ => collated.push(message.clone()),
        }
    }
    collated
}

/// All system messages as one text.
pub(super) fn system(messages: &[Message]) -> String {
    let texts: Vec<&str> = messages
        .iter()
        .filter(|message| message.role == "system")
        .map(|message| message.content.as_str())
        .collect();
    texts.join("\n\n")
}

/// The variables of a template that goes over the messages itself.
pub(super) fn conversation(context: &Context<'_>) -> Value {
    let collated = collate(context.messages);
    let mut fields = common(context, &system(context.messages), "", "");
    fields.push(plain("Messages", Value::list(collated.iter().map(message).collect())));
    fields.push(plain("Tools", Value::list(context.tools.iter().map(tool).collect())));
    Value::Map(Rc::new(fields))
}

/// The variables of a template that knows one exchange only.
pub(super) fn exchange(context: &Context<'_>, system: &str, prompt: &str, response: &str) -> Value {
    Value::Map(Rc::new(common(context, system, prompt, response)))
}

fn common(context: &Context<'_>, system: &str, prompt: &str, response: &str) -> Vec<Entry> {
    vec![
        plain("System", Value::text(system)),
        plain("Prompt", Value::text(prompt)),
        plain("Response", Value::text(response)),
        plain("Suffix", Value::text(context.suffix.unwrap_or(""))),
        plain("Think", Value::Bool(context.think == Some(true))),
        plain("ThinkLevel", Value::text("")),
        plain("IsThinkSet", Value::Bool(context.think.is_some())),
    ]
}

/// A field that JSON leaves out.
fn plain(name: &str, value: Value) -> Entry {
    Entry { name: Rc::from(name), key: None, value }
}

/// A field under its names in templates and in JSON.
fn field(name: &str, key: &str, value: Value) -> Entry {
    Entry { name: Rc::from(name), key: Some(Rc::from(key)), value }
}

fn message(message: &Message) -> Value {
    let text = |text: &Option<String>| Value::text(text.as_deref().unwrap_or(""));
    let calls = message.tool_calls.iter().enumerate();
    Value::Map(Rc::new(vec![
        field("Role", "role", Value::text(&message.role)),
        field("Content", "content", Value::text(&message.content)),
        plain("Thinking", text(&message.thinking)),
        plain("Images", Value::list(Vec::new())),
        plain(
            "ToolCalls",
            Value::list(calls.map(|(index, call)| tool_call(index, call)).collect()),
        ),
        plain("ToolName", text(&message.tool_name)),
        plain("ToolCallID", text(&message.tool_call_id)),
    ]))
}

fn tool_call(index: usize, call: &ToolCall) -> Value {
    let arguments = Value::from(&Json::from(call.arguments.clone()));
    let function = Value::Map(Rc::new(vec![
        plain("Index", Value::Integer(i64::try_from(index).unwrap_or(0))),
        field("Name", "name", Value::text(&call.name)),
        field("Arguments", "arguments", arguments),
    ]));
    Value::Map(Rc::new(vec![
        plain("ID", Value::text(call.id.as_deref().unwrap_or(""))),
        field("Function", "function", function),
    ]))
}

/// How a part of a tool's definition is named in templates, and what its own parts are.
struct Shape {
    /// Key in JSON and name in templates, in the order they are written.
    fields: &'static [(&'static str, &'static str)],
    /// The shape of the part under this key.
    inner: Option<(&'static str, &'static Shape)>,
}

static TOOL: Shape = Shape {
    fields: &[("type", "Type"), ("items", "Items"), ("function", "Function")],
    inner: Some(("function", &FUNCTION)),
};
static FUNCTION: Shape = Shape {
    fields: &[("name", "Name"), ("description", "Description"), ("parameters", "Parameters")],
    inner: Some(("parameters", &PARAMETERS)),
};
static PARAMETERS: Shape = Shape {
    fields: &[
        ("type", "Type"),
        ("$defs", "Defs"),
        ("items", "Items"),
        ("required", "Required"),
        ("properties", "Properties"),
    ],
    inner: None,
};
static PROPERTY: Shape = Shape {
    fields: &[
        ("anyOf", "AnyOf"),
        ("type", "Type"),
        ("items", "Items"),
        ("description", "Description"),
        ("enum", "Enum"),
    ],
    inner: None,
};

fn tool(tool: &Json) -> Value {
    shaped(tool, &TOOL)
}

/// An object with the fields of a shape first, in its order and under its names, then the others.
fn shaped(json: &Json, shape: &Shape) -> Value {
    let Some(object) = json.as_object() else { return Value::from(json) };
    let known = shape.fields.iter().filter_map(|(key, name)| {
        let value = object.get(*key)?;
        Some(field(name, key, part(key, value, shape)))
    });
    let is_known = |key: &str| shape.fields.iter().any(|(known, _)| *known == key);
    let others = object.iter().filter(|(key, _)| !is_known(key));
    let others = others.map(|(key, value)| field(key, key, Value::from(value)));
    Value::Map(Rc::new(known.chain(others).collect()))
}

fn part(key: &str, value: &Json, shape: &Shape) -> Value {
    match shape.inner {
        Some((inner, shape)) if inner == key => shaped(value, shape),
        None if key == "properties" => match value.as_object() {
            Some(properties) => {
                let entry = |(key, value)| field(key, key, shaped(value, &PROPERTY));
                Value::Map(Rc::new(
                    properties.iter().map(|(k, v)| entry((k.as_str(), v))).collect(),
                ))
            }
            None => Value::from(value),
        },
        _ => Value::from(value),
    }
}
