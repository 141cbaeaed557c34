//! What the tests of the HTTP API share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use dsk_daemon_api::ApiError;
use dsk_daemon_engine::gguf::testkit::tiny_model;
use dsk_daemon_engine::{Done, Event, Failure, FailureKind, FinishReason, Usage};
use dsk_registry::{Digest, ModelConfig, Name};
use futures_util::{FutureExt, StreamExt, stream};
use jiff::Timestamp;
use tokio::sync::watch;
use tower::ServiceExt;

use super::answer::{Moment, Start, Started};
use crate::config::{Config, Files, Overrides};
use crate::models::ModelSpec;
use crate::runner::scripted::Scripted;
use crate::scheduler::Place;
use crate::service::Service;

/// A model with nothing but weights.
pub(crate) fn spec() -> ModelSpec {
    ModelSpec {
        name: Name::parse("m").expect("a name"),
        digest: Digest::of(b"manifest"),
        model_digest: Digest::of(b"weights"),
        model_files: vec!["/models/blobs/sha256-weights".into()],
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
        lease: None,
    }
}

/// Always the same.
pub(crate) fn moment() -> Moment {
    Moment {
        now: Timestamp::new(1_767_323_045, 6).expect("a time"),
        total: Duration::from_nanos(900),
        load: Duration::from_nanos(100),
        place: None,
    }
}

/// The same, while the request waits in the queue.
pub(crate) fn queued() -> Moment {
    let place = Place { position: 2, expected_wait: Duration::from_secs(12) };
    Moment { place: Some(place), ..moment() }
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
    unqueued(async { super::answer::told(Started { events, load: Duration::ZERO }).await })
}

/// A request that never waited in a queue.
pub(crate) fn unqueued(
    ready: impl Future<Output = Result<Started, ApiError>> + Send + 'static,
) -> Start {
    Start { ready: ready.boxed(), place: watch::channel(Place::default()).1 }
}

/// A whole body as text.
pub(crate) async fn text(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// The API over a store of its own and scripted runners.
pub(crate) struct Daemon {
    pub(crate) router: Router,
    pub(crate) service: Arc<Service>,
    pub(crate) runners: Scripted,
    _folder: tempfile::TempDir,
}

impl Daemon {
    /// An empty one.
    pub(crate) fn new() -> Daemon {
        Daemon::with(&[], Duration::ZERO)
    }

    /// An empty one with these settings, whose models take this long to load.
    pub(crate) fn with(settings: &[(&str, &str)], load_time: Duration) -> Daemon {
        let folder = tempfile::tempdir().expect("a folder");
        let home = ("DSK_HOME".to_owned(), folder.path().display().to_string());
        let registry = ("DSK_REGISTRY".to_owned(), "http://127.0.0.1:9".to_owned());
        let mut env = BTreeMap::from([home, registry]);
        env.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let config = Config::load(&Overrides::default(), &env, &Files::default());
        let runners = Scripted::new(load_time);
        let config = config.expect("a configuration");
        let service = Service::with_launcher(config, Arc::new(runners.clone())).expect("a service");
        let router = super::router(Arc::clone(&service));
        Daemon { router, service, runners, _folder: folder }
    }

    /// One that has the model `m`, made of a tiny GGUF file.
    pub(crate) async fn with_model() -> Daemon {
        let daemon = Daemon::new();
        daemon.make("m", 1).await;
        daemon
    }

    /// Makes a model of a tiny GGUF file.
    pub(crate) async fn make(&self, name: &str, seed: u64) {
        let digest = self.service.store.put_blob(&tiny_model("llama", seed)).expect("a blob");
        let files = format!(r#"{{"m.gguf":"{digest}"}}"#);
        let body = format!(r#"{{"model":"{name}","stream":false,"files":{files}}}"#);
        let made = self.send("POST", "/api/create", &body).await;
        assert_eq!(made.0, 200, "{}", made.1);
    }

    /// Sends a request; its status and whole body.
    pub(crate) async fn send(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned()));
        let response = self.answer(request.expect("a request")).await;
        (response.status().as_u16(), text(response).await)
    }

    /// Sends a request of the test's own making.
    pub(crate) async fn answer(&self, request: Request) -> Response {
        self.router.clone().oneshot(request).await.expect("routers do not fail")
    }
}
