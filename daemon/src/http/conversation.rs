//! Conversations: a request's messages and what the model itself adds to them.

use dsk_daemon_api::{ApiError, ErrorCode, ollama};
use dsk_daemon_engine::conversation::ToolCall;
use dsk_daemon_engine::{Conversation, Message};

use super::failure;
use crate::models::ModelSpec;

/// A native message as an internal one.
pub(crate) fn of_native(messages: Vec<ollama::Message>) -> Result<Vec<Message>, ApiError> {
    messages.into_iter().enumerate().map(|(at, message)| native(at, message)).collect()
}

fn native(at: usize, message: ollama::Message) -> Result<Message, ApiError> {
    if !message.images.is_empty() {
        return Err(failure::unsupported(&format!("messages[{at}].images")));
    }
    let calls = message.tool_calls.into_iter().map(|call| ToolCall {
        id: call.id,
        name: call.function.name,
        arguments: call.function.arguments,
    });
    Ok(Message {
        role: role(at, &message.role)?,
        content: message.content,
        thinking: message.thinking,
        tool_calls: calls.collect(),
        tool_name: message.tool_name,
        tool_call_id: message.tool_call_id,
    })
}

/// A role that templates know.
pub(crate) fn role(at: usize, role: &str) -> Result<String, ApiError> {
    let role = role.to_ascii_lowercase();
    match role.as_str() {
        // OpenAI's newer word for the same.
        "developer" => Ok("system".to_owned()),
        "system" | "user" | "assistant" | "tool" => Ok(role),
        _ => Err(ApiError::new(
            ErrorCode::InvalidRequest,
            format!("messages[{at}].role must be system, user, assistant or tool, not {role:?}"),
        )),
    }
}

/// A message of plain text.
pub(crate) fn message(role: &str, content: &str) -> Message {
    Message { role: role.to_owned(), content: content.to_owned(), ..Message::default() }
}

/// Puts in front what the model says comes in front: its system message unless the request has
/// one, then its example turns.
pub(crate) fn with_layers(model: &ModelSpec, messages: Vec<Message>) -> Vec<Message> {
    let asked = messages.iter().any(|message| message.role == "system");
    let own = model.system.as_deref().filter(|text| !asked && !text.is_empty());
    let mut all: Vec<Message> = own.map(|text| message("system", text)).into_iter().collect();
    // A leading system message stays first: templates look for it there.
    let leading = messages.iter().take_while(|message| message.role == "system").count();
    let mut rest = messages.into_iter();
    all.extend(rest.by_ref().take(leading));
    all.extend(model.messages.iter().cloned());
    all.extend(rest);
    all
}

/// Whether to think: a thinking model does unless told not to, another cannot be told to.
pub(crate) fn think(
    asked: Option<bool>,
    thinks: bool,
    model: &str,
) -> Result<Option<bool>, ApiError> {
    match (asked, thinks) {
        (asked, true) => Ok(Some(asked.unwrap_or(true))),
        (Some(true), false) => Err(failure::incapable(model, "thinking")),
        (_, false) => Ok(None),
    }
}

/// A conversation with nothing but its messages.
pub(crate) fn conversation(messages: Vec<Message>, think: Option<bool>) -> Conversation {
    Conversation { messages, think, ..Conversation::default() }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn layered(
        system: Option<&str>,
        examples: &[(&str, &str)],
        request: &[(&str, &str)],
    ) -> String {
        let mut model = crate::http::testing::spec();
        model.system = system.map(str::to_owned);
        let messages = |turns: &[(&str, &str)]| -> Vec<Message> {
            turns.iter().map(|(role, content)| message(role, content)).collect()
        };
        model.messages = messages(examples);
        let all = with_layers(&model, messages(request));
        all.iter().map(|message| format!("{}:{} ", message.role, message.content)).collect()
    }

    fn check(system: Option<&str>, request: &[(&str, &str)], expected: Expect) {
        expected.assert_eq(&layered(system, &[("user", "ex"), ("assistant", "ample")], request));
    }

    #[test]
    fn the_models_layers_come_in_front() {
        check(Some("S"), &[("user", "q")], expect!["system:S user:ex assistant:ample user:q "]);
        check(None, &[("user", "q")], expect!["user:ex assistant:ample user:q "]);
        check(
            Some("S"),
            &[("system", "mine"), ("user", "q")],
            expect!["system:mine user:ex assistant:ample user:q "],
        );
    }

    #[test]
    fn thinking() {
        assert_eq!(think(None, true, "m").unwrap(), Some(true));
        assert_eq!(think(Some(false), true, "m").unwrap(), Some(false));
        assert_eq!(think(None, false, "m").unwrap(), None);
        assert_eq!(think(Some(false), false, "m").unwrap(), None);
        let error = think(Some(true), false, "m").unwrap_err();
        assert_eq!(
            (error.code.status(), error.message.as_str()),
            (400, "\"m\" does not support thinking")
        );
    }

    #[test]
    fn roles() {
        assert_eq!(role(0, "developer").unwrap(), "system");
        assert_eq!(role(0, "User").unwrap(), "user");
        expect![[r#"messages[3].role must be system, user, assistant or tool, not "robot""#]]
            .assert_eq(&role(3, "robot").unwrap_err().message);
    }

    #[test]
    fn pictures_are_refused_by_name() {
        let mut picture = ollama::Message::new("user", "look");
        picture.images.push("aGk=".to_owned());
        let error = of_native(vec![picture]).unwrap_err();
        assert_eq!(error.message, "`messages[0].images` is not supported yet");
    }
}
