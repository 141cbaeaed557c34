//! `POST /api/generate`

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::Response;
use dsk_daemon_api::ollama::{GenerateLine, GenerateRequest, Think};
use dsk_daemon_api::{ApiError, ErrorCode};
use dsk_daemon_engine::{self as engine, Conversation, Done, Options, Prompt};

use super::{NDJSON, done_reason, metrics, queue_place, rfc3339};
use crate::http::answer::{self, Dialect, Moment, Text, Whole};
use crate::http::conversation::{self, message};
use crate::http::inference::{self, Idle, Model};
use crate::http::reply::{self, Native};
use crate::http::{Http, body, failure, options};
use crate::scheduler::Wants;

/// The handler.
pub(crate) async fn generate(State(http): State<Arc<Http>>, request: Request) -> Native {
    let body: GenerateRequest = body::json(request, body::CONVERSATION_BYTES_MAX).await?;
    let model = http.model(&body.model).await?;
    refuse_unsupported(&body)?;
    let keep_alive = options::keep_alive(body.keep_alive.as_ref())?;
    let merged = options::merge(Options::default(), &model.spec.parameters, &body.options)?;
    let wants = Wants { context_length: merged.context_length, keep_alive };
    if body.prompt.is_empty() && body.suffix.is_empty() {
        let idle = inference::load_or_unload(&http, &model, wants).await?;
        return Ok(reply::json(&idle_line(body.model, &idle)));
    }
    let (streamed, truncate) = (body.stream.unwrap_or(true), body.truncate.unwrap_or(true));
    let dialect = Generate { model: body.model.clone(), context: !body.raw };
    let prompt = prompt(body, &model)?;
    let request = engine::Request { prompt, options: merged.options, truncate };
    let warning = inference::warning(&model, &wants);
    let start = inference::begin(&http, model, wants, request);
    Ok(inference::warned(answer::answer(start, dialect, streamed).await?, warning))
}

fn refuse_unsupported(body: &GenerateRequest) -> Result<(), ApiError> {
    if !body.images.is_empty() {
        return Err(failure::unsupported("images"));
    }
    let shaped = !(body.template.is_empty() && body.system.is_empty() && body.context.is_empty());
    if body.raw && shaped {
        let message = "raw mode does not support template, system, or context";
        return Err(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    inference::refuse_format(body.format.as_ref())?;
    inference::refuse_logprobs(body.logprobs, body.top_logprobs)
}

/// What the model shall go on from.
fn prompt(body: GenerateRequest, model: &Model) -> Result<Prompt, ApiError> {
    let think = body.think.map(Think::enabled);
    if !body.suffix.is_empty() {
        // Whether the model can is in its vocabulary, which its runner knows.
        return Ok(Prompt::Fill { prefix: body.prompt, suffix: body.suffix });
    }
    if body.raw {
        return Ok(Prompt::Raw(body.prompt));
    }
    let think = conversation::think(think, model.facts.thinking, &body.model)?;
    let mut messages = Vec::new();
    if !body.system.is_empty() {
        messages.push(message("system", &body.system));
    }
    messages.push(message("user", &body.prompt));
    // Tokens of earlier turns begin with the model's own layers already.
    if body.context.is_empty() {
        messages = conversation::with_layers(&model.spec, messages);
    }
    let template = (!body.template.is_empty()).then_some(body.template);
    let conversation = conversation::conversation(messages, think);
    Ok(Prompt::Chat(Conversation { template, context: body.context, ..conversation }))
}

/// The whole answer of a request without a prompt.
fn idle_line(model: String, idle: &Idle) -> GenerateLine {
    GenerateLine {
        model,
        created_at: rfc3339(jiff::Timestamp::now()),
        done: true,
        done_reason: Some(idle.reason.to_owned()),
        metrics: super::load_metrics(idle.load, idle.total),
        ..GenerateLine::default()
    }
}

/// Lines of `/api/generate`.
pub(crate) struct Generate {
    pub(crate) model: String,
    /// Whether the last line has the tokens to go on from.
    pub(crate) context: bool,
}

impl Generate {
    fn line(&self, response: String, thinking: Option<String>, moment: &Moment) -> GenerateLine {
        GenerateLine {
            model: self.model.clone(),
            created_at: rfc3339(moment.now),
            response,
            thinking,
            ..GenerateLine::default()
        }
    }

    fn end(&self, line: GenerateLine, done: &Done, moment: &Moment) -> GenerateLine {
        GenerateLine {
            done: true,
            done_reason: Some(done_reason(done.reason)),
            context: if self.context { done.context.clone() } else { Vec::new() },
            metrics: metrics(done, moment),
            ..line
        }
    }
}

impl Dialect for Generate {
    const STREAM_TYPE: &'static str = NDJSON;

    fn text(&self, text: Text, moment: &Moment) -> Bytes {
        reply::line(&match text {
            Text::Content(content) => self.line(content, None, moment),
            Text::Thinking(thinking) => self.line(String::new(), Some(thinking), moment),
        })
    }

    fn done(&self, done: &Done, moment: &Moment) -> Bytes {
        reply::line(&self.end(self.line(String::new(), None, moment), done, moment))
    }

    fn ping(&self, moment: &Moment) -> Bytes {
        let queue = moment.place.map(queue_place);
        reply::line(&GenerateLine { queue, ..self.line(String::new(), None, moment) })
    }

    fn failed(&self, error: &ApiError) -> Bytes {
        reply::line(&error.native())
    }

    fn whole(&self, whole: Whole, moment: &Moment) -> Response {
        let thinking = (!whole.thinking.is_empty()).then_some(whole.thinking);
        let line = self.line(whole.content, thinking, moment);
        reply::json(&self.end(line, &whole.done, moment))
    }
}

#[cfg(test)]
mod tests;
