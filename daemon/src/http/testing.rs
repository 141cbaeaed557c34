//! What the tests of the HTTP API share.

use std::time::{Duration, UNIX_EPOCH};

use axum::response::Response;
use dsk_daemon_engine::{Done, Event, Failure, FailureKind, FinishReason, Usage};
use dsk_registry::{Digest, ModelConfig, Name};
use futures_util::{FutureExt, StreamExt, stream};
use jiff::Timestamp;

use super::answer::{Moment, Start, Started};
use crate::models::ModelSpec;

/// A model with nothing but weights.
pub(crate) fn spec() -> ModelSpec {
    ModelSpec {
        name: Name::parse("m").expect("a name"),
        digest: Digest::of(b"manifest"),
        model_digest: Digest::of(b"weights"),
        model_path: "/models/blobs/sha256-weights".into(),
        config: ModelConfig::default(),
        template: None,
        system: None,
        parameters: serde_json::Map::new(),
        messages: Vec::new(),
        licenses: Vec::new(),
        adapters: Vec::new(),
        projectors: Vec::new(),
        modified: UNIX_EPOCH,
        size: 7,
        model_bytes: 7,
    }
}

/// Always the same.
pub(crate) fn moment() -> Moment {
    Moment {
        now: Timestamp::new(1_767_323_045, 6).expect("a time"),
        total: Duration::from_nanos(900),
        load: Duration::from_nanos(100),
    }
}

/// The end of an answer of two tokens.
pub(crate) fn done(reason: FinishReason) -> Done {
    Done {
        reason,
        usage: Usage {
            prompt_tokens: 5,
            output_tokens: 2,
            thinking_tokens: 1,
            prompt_ns: 30,
            output_ns: 40,
            queue_ns: 0,
        },
        context: vec![1, 2, 3],
    }
}

/// The failure of a runner that was killed.
pub(crate) fn died() -> Event {
    Event::Failed(Failure::new(FailureKind::RunnerDied, "the runner of m was killed"))
}

/// A request that begins at once and then has these events.
pub(crate) fn start(events: Vec<Event>) -> Start {
    let events = stream::iter(events).boxed();
    async { super::answer::told(Started { events, load: Duration::ZERO }).await }.boxed()
}

/// A whole body as text.
pub(crate) async fn text(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    String::from_utf8(bytes.to_vec()).expect("text")
}
