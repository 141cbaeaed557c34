//! Wire types and the error table of every dialect, and a typed client.
//!
//! What a program sees of dsk on the wire is written down here once: [`ollama`] is Ollama's native
//! API, [`openai`] the part of OpenAI's that dsk speaks, [`ErrorCode`] every error with its HTTP
//! status and text. [`Client`] speaks the native API over TCP or a Unix socket.
//!
//! This crate does not decide anything: it opens no model, reads no store and knows none of dsk's
//! other crates. The daemon translates between these types and its own conversation type.

pub mod client;
pub mod error;
pub mod fit;
mod lenient;
pub mod ndjson;
pub mod ollama;
pub mod openai;
pub mod status;
pub mod store;

pub use client::{Client, ClientError, Endpoint};
pub use error::{ApiError, ErrorCode};
