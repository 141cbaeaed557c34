//! What a request sends back while it runs.

use serde::{Deserialize, Serialize};

/// One step of a request's life. `Done` or `Failed` comes exactly once and last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Waiting; `position` requests come before this one (the running one included).
    Queued {
        /// How many come before.
        position: u32,
    },
    /// `done` of the prompt's `total` tokens have been read.
    Prefill {
        /// Tokens read so far.
        done: u32,
        /// Tokens of the prompt.
        total: u32,
    },
    /// Text of the model's thinking.
    Thinking(String),
    /// Text of the answer.
    Content(String),
    /// The end, a good one.
    Done(Done),
    /// The end, a bad one.
    Failed(Failure),
}

/// How a request ended well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// What ended it.
    pub reason: FinishReason,
    /// What it cost.
    pub usage: Usage,
    /// Every token, of the prompt and then of the answer, the end token included.
    pub context: Vec<u32>,
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended its turn, or a stop sequence appeared.
    Stop,
    /// `num_predict` tokens were made, or the context is full.
    Length,
}

/// What a request cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the rendered prompt.
    pub prompt_tokens: u32,
    /// Tokens generated, those of thinking included, the end token not.
    pub output_tokens: u32,
    /// Those of the output tokens that were thinking.
    pub thinking_tokens: u32,
    /// Time to read the prompt, up to the first logits.
    pub prompt_ns: u64,
    /// Time from there to the end.
    pub output_ns: u64,
    /// Time spent waiting for the engine.
    pub queue_ns: u64,
}

/// How a request ended badly, in words for the person who made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Whose fault it is.
    pub kind: FailureKind,
    /// What happened.
    pub message: String,
}

impl Failure {
    /// A failure of `kind` that says `message`.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into() }
    }
}

/// Whose fault a failure is, and so what a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request itself cannot be served: an option, a feature the model lacks.
    BadRequest,
    /// The prompt is longer than the context.
    ContextLength,
    /// The template refused these messages, or is broken.
    Template,
    /// The engine is at fault.
    Internal,
    /// The caller went away or asked to stop.
    Cancelled,
    /// The process that held the model is gone.
    RunnerDied,
    /// There is not enough memory.
    OutOfMemory,
    /// Too many requests wait already.
    Busy,
}
