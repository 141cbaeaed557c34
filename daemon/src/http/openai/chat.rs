//! `POST /v1/chat/completions`
//!
//! The temperature and top_p an OpenAI client does not give are 1.0, unless the model's own
//! parameters say otherwise: what its maker recommends is better than either default.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Request, State};
use dsk_daemon_api::openai::{ChatCompletionRequest, ChatMessage, Content, ContentPart};
use dsk_daemon_api::{ApiError, ErrorCode};
use dsk_daemon_engine::conversation::ToolCall;
use dsk_daemon_engine::{self as engine, Message, Options, Prompt};
use serde_json::{Map, Value, json};

use super::frames::Completion;
use crate::http::reply::OpenAi;
use crate::http::{Http, answer, body, conversation, failure, inference, options};
use crate::scheduler::Wants;

/// Numbers answers, so that no two of this process have the same id.
static ANSWERS: AtomicU64 = AtomicU64::new(0);

/// The handler.
pub(crate) async fn completions(State(http): State<Arc<Http>>, request: Request) -> OpenAi {
    let body: ChatCompletionRequest = body::json(request, body::CONVERSATION_BYTES_MAX).await?;
    let model = http.model(&body.model).await?;
    refuse_unsupported(&body)?;
    if body.messages.is_empty() {
        return Err(invalid("[] is too short - 'messages'").into());
    }
    let keep_alive = options::keep_alive(body.keep_alive.as_ref())?;
    let defaults = Options { temperature: 1.0, top_p: 1.0, ..Options::default() };
    let merged = options::merge(defaults, &model.spec.parameters, &request_options(&body)?)?;
    let wants = Wants { context_length: merged.context_length, keep_alive };
    let think = conversation::think(effort(&body)?, model.facts.thinking, &body.model)?;
    let messages = messages(body.messages)?;
    let messages = conversation::with_layers(&model.spec, messages);
    let request = engine::Request {
        prompt: Prompt::Chat(conversation::conversation(messages, think)),
        options: merged.options,
        // An agent must hear that its prompt did not fit, not lose the start of it.
        truncate: false,
    };
    let dialect = Completion {
        id: format!("chatcmpl-{}", ANSWERS.fetch_add(1, Ordering::Relaxed)),
        created: jiff::Timestamp::now().as_second(),
        model: body.model,
        include_usage: body.stream_options.include_usage,
    };
    let warning = inference::warning(&model, &wants);
    let start = inference::begin(&http, model, wants, request);
    Ok(inference::warned(answer::answer(start, dialect, body.stream).await?, warning))
}

fn refuse_unsupported(body: &ChatCompletionRequest) -> Result<(), ApiError> {
    let format = body.response_format.as_ref().and_then(|format| format.get("type"));
    let plain = format.is_none_or(|kind| kind == "text");
    let chosen =
        body.tool_choice.as_ref().is_some_and(|choice| choice != "none" && choice != "auto");
    let refused = [
        (!body.tools.is_empty(), "tools"),
        (chosen, "tool_choice"),
        (!plain, "response_format"),
        (body.logprobs || body.top_logprobs.is_some_and(|top| top > 0), "logprobs"),
        (!body.logit_bias.is_empty(), "logit_bias"),
        (body.n.is_some_and(|n| n > 1), "n"),
    ];
    match refused.into_iter().find(|(asked, _)| *asked) {
        Some((_, field)) => Err(failure::unsupported(field)),
        None if body.n.is_some_and(|n| n < 1) => Err(invalid("n must be 1")),
        None => Ok(()),
    }
}

/// The request's sampling, by the names the options have everywhere else.
fn request_options(body: &ChatCompletionRequest) -> Result<Map<String, Value>, ApiError> {
    let limit = body.max_completion_tokens.or(body.max_tokens);
    if let Some(limit) = limit.filter(|limit| *limit < 1) {
        return Err(invalid(format!("max_tokens must be at least 1, got {limit}")));
    }
    let given = [
        ("temperature", body.temperature.map(Value::from)),
        ("top_p", body.top_p.map(Value::from)),
        ("frequency_penalty", body.frequency_penalty.map(Value::from)),
        ("presence_penalty", body.presence_penalty.map(Value::from)),
        ("seed", body.seed.map(Value::from)),
        ("num_predict", limit.map(Value::from)),
        ("stop", body.stop.as_ref().map(|stop| json!(stop.texts()))),
    ];
    let given = given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Ok(given.collect())
}

/// Whether an effort asks for thinking.
fn effort(body: &ChatCompletionRequest) -> Result<Option<bool>, ApiError> {
    match body.effort() {
        None => Ok(None),
        Some("none") => Ok(Some(false)),
        Some("minimal" | "low" | "medium" | "high" | "xhigh" | "max" | "ultra") => Ok(Some(true)),
        Some(other) => Err(invalid(format!(
            "reasoning_effort must be none, minimal, low, medium, high or max, not {other:?}"
        ))),
    }
}

fn messages(messages: Vec<ChatMessage>) -> Result<Vec<Message>, ApiError> {
    messages.into_iter().enumerate().map(|(at, one)| message(at, one)).collect()
}

fn message(at: usize, message: ChatMessage) -> Result<Message, ApiError> {
    let tool_calls = message.tool_calls.into_iter().map(|call| {
        let arguments = arguments(&call.function.arguments).map_err(|error| {
            invalid(format!("messages[{at}].tool_calls: arguments are not a JSON object: {error}"))
        })?;
        Ok(ToolCall { id: call.id, name: call.function.name, arguments })
    });
    Ok(Message {
        role: conversation::role(at, &message.role)?,
        content: message.content.map(|content| text(at, content)).transpose()?.unwrap_or_default(),
        thinking: message.reasoning_content.or(message.reasoning),
        tool_calls: tool_calls.collect::<Result<_, ApiError>>()?,
        tool_name: message.name,
        tool_call_id: message.tool_call_id,
    })
}

/// A call's arguments; a call without any has an empty text in some clients.
fn arguments(text: &str) -> serde_json::Result<Map<String, Value>> {
    if text.trim().is_empty() { Ok(Map::new()) } else { serde_json::from_str(text) }
}

fn text(at: usize, content: Content) -> Result<String, ApiError> {
    let parts = match content {
        Content::Text(text) => return Ok(text),
        Content::Parts(parts) => parts,
    };
    let texts = parts.into_iter().map(|ContentPart { kind, text }| match kind.as_str() {
        "text" => Ok(text),
        other => Err(failure::unsupported(&format!("messages[{at}].content of type {other}"))),
    });
    texts.collect::<Result<Vec<_>, _>>().map(|texts| texts.join("\n"))
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, message)
}

#[cfg(test)]
mod tests;
