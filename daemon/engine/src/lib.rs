//! A loaded model and its requests: tokens in, tokens out.
//!
//! [`Engine::load`] opens a GGUF file and starts one thread that owns it. [`Engine::submit`] queues a
//! [`Request`] (a [`Conversation`], raw text, or a gap to fill, with [`Options`]) and answers through
//! a sink of [`Event`]s: place in the queue, progress through the prompt, thinking and content as
//! text, and at last [`Event::Done`] or [`Event::Failed`]. The same types cross the runner's socket.
//!
//! What this crate does not do: HTTP, dialects, registries, processes, and the choice of which model
//! is in memory. It reads one file, which it does not trust, and never writes one.
//!
//! Inside, from bytes to text: [`gguf`] reads the file, [`model`] understands it by what [`arch`] says of
//! its family, `plan` lays out the work and the memory, [`executor`] turns
//! tokens into logits, [`sample`] logits into a token, [`tokenizer`] a token into text, and `prompt`,
//! `thinking` and `stop` stand between text and the request. [`bench`] measures all that computes.

pub mod arch;
pub mod bench;
pub mod conversation;
pub mod demand;
pub mod engine;
pub mod event;
pub mod executor;
pub mod gguf;
#[cfg(test)]
mod golden_tests;
pub mod mmap;
pub mod model;
pub mod options;
pub mod plan;
mod prompt;
pub mod sample;
mod stop;
mod thinking;
pub mod tokenizer;

pub use conversation::{Conversation, Message, Prompt, Request};
pub use demand::Demand;
pub use engine::{
    Engine, KvFormat, LoadError, LoadOptions, Loaded, RequestId, Stats, TemplateOrigin,
};
pub use event::{Done, Event, Failure, FailureKind, FinishReason, Usage};
pub use executor::{
    Batch, Bytes, Executor, ExecutorError, ExecutorKind, Logits, SequenceId, SequenceRows,
};
pub use options::{OptionError, Options};
