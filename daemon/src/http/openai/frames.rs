//! An answer in OpenAI's shape: one object, or server-sent events.
//!
//! ```text
//! data: {..., "choices":[{"delta":{"role":"assistant","content":""}}]}     first
//! data: {..., "choices":[{"delta":{"reasoning":"..", "reasoning_content":".."}}]}
//! data: {..., "choices":[{"delta":{"content":".."}}]}
//! data: {..., "choices":[{"delta":{},"finish_reason":"stop"}]}
//! data: {..., "choices":[],"usage":{..}}                                    if asked for
//! data: [DONE]
//! ```
//!
//! Thinking goes out under both names in use: `reasoning`, and DeepSeek's `reasoning_content`.

use axum::body::Bytes;
use axum::response::Response;
use dsk_daemon_api::ApiError;
use dsk_daemon_api::openai::{
    AnswerMessage, ChatCompletion, ChatCompletionChunk, Choice, ChunkChoice, CompletionDetails,
    Delta, Usage,
};
use dsk_daemon_engine::{self as engine, Done, FinishReason};

use crate::http::answer::{Dialect, Moment, Text, Whole};
use crate::http::reply;

/// Changes when the same seed and prompt would be answered otherwise.
const FINGERPRINT: &str = "fp_dsk";

/// One answer.
pub(super) struct Completion {
    pub(super) id: String,
    pub(super) created: i64,
    pub(super) model: String,
    pub(super) include_usage: bool,
}

impl Completion {
    fn chunk(&self, delta: Delta, finish_reason: Option<&'static str>) -> ChatCompletionChunk {
        ChatCompletionChunk {
            id: self.id.clone(),
            object: "chat.completion.chunk",
            created: self.created,
            model: self.model.clone(),
            system_fingerprint: FINGERPRINT,
            choices: vec![ChunkChoice { index: 0, delta, finish_reason }],
            usage: None,
        }
    }

    fn usage_chunk(&self, done: &Done) -> ChatCompletionChunk {
        ChatCompletionChunk {
            choices: Vec::new(),
            usage: Some(usage(&done.usage)),
            ..self.chunk(Delta::default(), None)
        }
    }
}

impl Dialect for Completion {
    const STREAM_TYPE: &'static str = "text/event-stream";

    fn opening(&self) -> Option<Bytes> {
        let delta =
            Delta { role: Some("assistant"), content: Some(String::new()), ..Delta::default() };
        Some(reply::event(&self.chunk(delta, None)))
    }

    fn text(&self, text: Text, _moment: &Moment) -> Bytes {
        let delta = match text {
            Text::Content(text) => Delta { content: Some(text), ..Delta::default() },
            Text::Thinking(text) => Delta {
                reasoning: Some(text.clone()),
                reasoning_content: Some(text),
                ..Delta::default()
            },
        };
        reply::event(&self.chunk(delta, None))
    }

    fn done(&self, done: &Done, _moment: &Moment) -> Bytes {
        let finish = self.chunk(Delta::default(), Some(finish_reason(done.reason)));
        let mut frames = reply::event(&finish).to_vec();
        if self.include_usage {
            frames.extend_from_slice(&reply::event(&self.usage_chunk(done)));
        }
        frames.extend_from_slice(b"data: [DONE]\n\n");
        frames.into()
    }

    /// A comment, which readers of events skip.
    fn ping(&self, moment: &Moment) -> Bytes {
        let Some(place) = moment.place else { return Bytes::from_static(b": keep-alive\n\n") };
        let (position, seconds) = (place.position, place.expected_wait.as_secs());
        format!(": queued at {position}, about {seconds} s to go\n\n").into()
    }

    fn failed(&self, error: &ApiError) -> Bytes {
        reply::event(&error.openai())
    }

    fn whole(&self, whole: Whole, _moment: &Moment) -> Response {
        let thinking = (!whole.thinking.is_empty()).then_some(whole.thinking);
        reply::json(&ChatCompletion {
            id: self.id.clone(),
            object: "chat.completion",
            created: self.created,
            model: self.model.clone(),
            system_fingerprint: FINGERPRINT,
            choices: vec![Choice {
                index: 0,
                message: AnswerMessage {
                    role: "assistant",
                    content: whole.content,
                    reasoning: thinking.clone(),
                    reasoning_content: thinking,
                },
                finish_reason: finish_reason(whole.done.reason),
            }],
            usage: usage(&whole.done.usage),
        })
    }
}

fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

fn usage(usage: &engine::Usage) -> Usage {
    let (prompt, output) = (u64::from(usage.prompt_tokens), u64::from(usage.output_tokens));
    Usage {
        prompt_tokens: prompt,
        completion_tokens: output,
        total_tokens: prompt + output,
        completion_tokens_details: CompletionDetails {
            reasoning_tokens: usage.thinking_tokens.into(),
        },
    }
}
