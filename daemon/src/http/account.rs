//! What becomes of each request, as counts and as one event in the log at its end.
//!
//! An [`Account`] is opened for every request before its route runs and closed when nobody holds it
//! any more: after the answer, after the last frame of a stream, or where a client went away. A
//! request that asks a model has a [`Record`] too, which hears every event of its answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dsk_daemon_api::ErrorCode;
use dsk_daemon_engine::{Event, Usage};
use dsk_registry::Name;
use tokio::time::Instant;

use super::failure;
use crate::metrics::{Metrics, ModelMetrics, milliseconds};

tokio::task_local! {
    /// The account of the request whose handler runs.
    static CURRENT: Arc<Account>;
}

/// The route of a path that nobody serves.
const UNROUTED: &str = "other";
/// The outcome of a request that ended well.
const OK: &str = "ok";
/// The outcome of one whose client did not wait for the end.
const CANCELLED: &str = "cancelled";

/// One HTTP request, until it ends.
#[derive(Debug)]
pub(crate) struct Account {
    metrics: Arc<Metrics>,
    id: String,
    dialect: &'static str,
    /// The route's pattern, never the path: labels are bounded by the routes there are.
    route: String,
    outcome: OnceLock<&'static str>,
    /// A record will tell the outcome.
    recorded: AtomicBool,
}

/// The error a response was made of, for whoever looks at the response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused(pub(crate) ErrorCode);

impl Account {
    pub(crate) fn open(metrics: Arc<Metrics>, id: &str, route: Option<&str>) -> Arc<Account> {
        let route = route.unwrap_or(UNROUTED);
        Arc::new(Account {
            metrics,
            id: id.to_owned(),
            dialect: dialect(route),
            route: route.to_owned(),
            outcome: OnceLock::new(),
            recorded: AtomicBool::new(false),
        })
    }

    /// Runs a handler; what it calls finds the account.
    pub(crate) async fn during<T>(self: Arc<Account>, handler: impl Future<Output = T>) -> T {
        CURRENT.scope(self, handler).await
    }

    /// Notes what the handler answered.
    pub(crate) fn answered(&self, refused: Option<Refused>) {
        match refused {
            Some(Refused(code)) => self.settle(code.name()),
            None if self.recorded.load(Ordering::Relaxed) => {}
            None => self.settle(OK),
        }
    }

    /// The first outcome counts.
    fn settle(&self, outcome: &'static str) {
        let _ = self.outcome.set(outcome);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let outcome = self.outcome.get().copied().unwrap_or(CANCELLED);
        let labels = [self.dialect, self.route.as_str(), outcome];
        self.metrics.requests.with_label_values(&labels).inc();
    }
}

fn dialect(route: &str) -> &'static str {
    let of_dsk = ["/api/dsk/", "/ui", "/metrics"];
    match route {
        UNROUTED => "other",
        _ if route.starts_with("/v1/") => "openai",
        _ if of_dsk.iter().any(|start| route.starts_with(start)) => "dsk",
        _ => "ollama",
    }
}

/// Where a request for a model stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its model is not ready, or there is no room for it.
    Model,
    /// Its turn has not come.
    Turn,
    /// Its prompt is read, or its answer made.
    Running,
    Ended,
}

/// A request that asks a model, told of each step; it reports when it is dropped.
#[derive(Debug)]
pub(crate) struct Record {
    /// `None` outside a handler, in tests of a part.
    account: Option<Arc<Account>>,
    metrics: Arc<Metrics>,
    model: Arc<ModelMetrics>,
    arrived: Instant,
    phase: Phase,
    /// Tokens whose keys and values it holds.
    kv_tokens: i64,
    load: Duration,
    first_token: bool,
    usage: Usage,
    outcome: &'static str,
}

impl Record {
    /// Opens the record of a request that begins to wait for its model.
    pub(crate) fn open(metrics: &Arc<Metrics>, model: &Name) -> Record {
        let account = CURRENT.try_with(Arc::clone).ok();
        if let Some(account) = &account {
            account.recorded.store(true, Ordering::Relaxed);
        }
        let model = metrics.model(model);
        metrics.queue_depth.inc();
        model.waiting.inc();
        Record {
            account,
            metrics: Arc::clone(metrics),
            model,
            arrived: Instant::now(),
            phase: Phase::Model,
            kv_tokens: 0,
            load: Duration::ZERO,
            first_token: false,
            usage: Usage::default(),
            outcome: CANCELLED,
        }
    }

    /// The model is ready, after `load`.
    pub(crate) fn ready(&mut self, load: Duration) {
        self.load = load;
        self.enter(Phase::Turn);
    }

    /// The request was refused before it ran.
    pub(crate) fn refused(&mut self, code: ErrorCode) {
        self.outcome = code.name();
    }

    /// Something happened to it.
    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::Queued { .. } => {}
            Event::Prefill { done, .. } => {
                self.enter(Phase::Running);
                self.hold(i64::from(*done));
            }
            Event::Thinking(_) | Event::Content(_) => self.text(),
            Event::Done(done) => {
                self.enter(Phase::Running);
                self.usage = done.usage;
                self.outcome = OK;
                self.model.answered(&done.usage);
                self.model.whole.observe(self.arrived.elapsed().as_secs_f64());
                self.enter(Phase::Ended);
            }
            Event::Failed(failure) => {
                self.outcome = failure::of_request(failure).code.name();
                self.enter(Phase::Ended);
            }
        }
    }

    fn text(&mut self) {
        self.enter(Phase::Running);
        self.hold(self.kv_tokens + 1);
        if !std::mem::replace(&mut self.first_token, true) {
            self.model.first_token.observe(self.arrived.elapsed().as_secs_f64());
        }
    }

    fn hold(&mut self, tokens: i64) {
        self.model.kv_tokens.add(tokens - self.kv_tokens);
        self.kv_tokens = tokens;
    }

    fn enter(&mut self, phase: Phase) {
        let before = std::mem::replace(&mut self.phase, phase);
        if before == phase {
            return;
        }
        match before {
            Phase::Model => self.metrics.queue_depth.dec(),
            Phase::Running => self.model.running.dec(),
            Phase::Turn | Phase::Ended => {}
        }
        let waited = |phase| matches!(phase, Phase::Model | Phase::Turn);
        if waited(before) && !waited(phase) {
            self.model.waiting.dec();
        }
        match phase {
            Phase::Running => {
                self.model.running.inc();
                self.model.queue.observe(self.arrived.elapsed().as_secs_f64());
            }
            Phase::Ended => self.hold(0),
            Phase::Model | Phase::Turn => {}
        }
    }

    /// The one event of a request. Its text is the user's, and not in it.
    fn report(&self) {
        let ms = |nanoseconds| milliseconds(Duration::from_nanos(nanoseconds));
        let account = self.account.as_ref();
        tracing::info!(
            target: "dsk_request",
            id = account.map_or("", |account| account.id.as_str()),
            dialect = account.map_or("", |account| account.dialect),
            route = account.map_or("", |account| account.route.as_str()),
            model = self.model.name.as_str(),
            outcome = self.outcome,
            load_ms = milliseconds(self.load),
            queue_ms = ms(self.usage.queue_ns),
            prefill_ms = ms(self.usage.prompt_ns),
            decode_ms = ms(self.usage.output_ns),
            total_ms = milliseconds(self.arrived.elapsed()),
            prompt_tokens = self.usage.prompt_tokens,
            output_tokens = self.usage.output_tokens,
            "request ended"
        );
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.enter(Phase::Ended);
        self.report();
        if let Some(account) = &self.account {
            account.settle(self.outcome);
        }
    }
}

#[cfg(test)]
mod tests;
