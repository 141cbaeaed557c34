//! `POST /api/chat`

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::Response;
use dsk_daemon_api::ApiError;
use dsk_daemon_api::ollama::{ChatLine, ChatRequest, Message, Think};
use dsk_daemon_engine::{self as engine, Done, Options, Prompt};

use super::{NDJSON, done_reason, metrics, queue_place, rfc3339};
use crate::http::answer::{self, Dialect, Moment, Text, Whole};
use crate::http::inference::{self, Idle};
use crate::http::reply::{self, Native};
use crate::http::{Http, body, conversation, failure, options};
use crate::scheduler::Wants;

/// The handler.
pub(crate) async fn chat(State(http): State<Arc<Http>>, request: Request) -> Native {
    let body: ChatRequest = body::json(request, body::CONVERSATION_BYTES_MAX).await?;
    let model = http.model(&body.model).await?;
    refuse_unsupported(&body)?;
    let keep_alive = options::keep_alive(body.keep_alive.as_ref())?;
    let merged = options::merge(Options::default(), &model.spec.parameters, &body.options)?;
    let wants = Wants { context_length: merged.context_length, keep_alive };
    if body.messages.is_empty() {
        let idle = inference::load_or_unload(&http, &model, wants).await?;
        return Ok(reply::json(&idle_line(body.model, &idle)));
    }
    let think = body.think.map(Think::enabled);
    let think = conversation::think(think, model.facts.thinking, &body.model)?;
    let messages = conversation::of_native(body.messages)?;
    let messages = conversation::with_layers(&model.spec, messages);
    let request = engine::Request {
        prompt: Prompt::Chat(conversation::conversation(messages, think)),
        options: merged.options,
        truncate: body.truncate.unwrap_or(true),
    };
    let warning = inference::warning(&model, &wants);
    let start = inference::begin(&http, model, wants, request);
    let dialect = Chat { model: body.model };
    Ok(inference::warned(
        answer::answer(start, dialect, body.stream.unwrap_or(true)).await?,
        warning,
    ))
}

fn refuse_unsupported(body: &ChatRequest) -> Result<(), ApiError> {
    if !body.tools.is_empty() {
        return Err(failure::unsupported("tools"));
    }
    inference::refuse_format(body.format.as_ref())?;
    inference::refuse_logprobs(body.logprobs, body.top_logprobs)
}

/// The whole answer of a request without messages.
fn idle_line(model: String, idle: &Idle) -> ChatLine {
    ChatLine {
        model,
        created_at: rfc3339(jiff::Timestamp::now()),
        message: Message::new("assistant", ""),
        done: true,
        done_reason: Some(idle.reason.to_owned()),
        queue: None,
        metrics: super::load_metrics(idle.load, idle.total),
    }
}

/// Lines of `/api/chat`.
pub(crate) struct Chat {
    pub(crate) model: String,
}

impl Chat {
    fn line(&self, content: String, thinking: Option<String>, moment: &Moment) -> ChatLine {
        ChatLine {
            model: self.model.clone(),
            created_at: rfc3339(moment.now),
            message: Message { content, thinking, ..Message::new("assistant", "") },
            ..ChatLine::default()
        }
    }

    fn end(&self, line: ChatLine, done: &Done, moment: &Moment) -> ChatLine {
        ChatLine {
            done: true,
            done_reason: Some(done_reason(done.reason)),
            metrics: metrics(done, moment),
            ..line
        }
    }
}

impl Dialect for Chat {
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

    /// An empty addition: a blank line would break clients that parse every line.
    fn ping(&self, moment: &Moment) -> Bytes {
        let queue = moment.place.map(queue_place);
        reply::line(&ChatLine { queue, ..self.line(String::new(), None, moment) })
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
