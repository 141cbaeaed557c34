//! What the daemon counts, for `/metrics`, `dsk ps` and `dsk top`.
//!
//! [`families`] is the table of everything shown. Counters and histograms rise where things happen;
//! gauges of what is resident are set when somebody looks ([`Metrics::render`]), so that nothing
//! runs while nobody does. No label ever holds what a client sent: routes, codes and kinds are our
//! own, and a model is named only once it was found in the store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dsk_registry::Name;
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder as _, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

mod families;
mod model;
mod residency;
#[cfg(test)]
mod tests;

use families::{ALIAS_LABEL, ALIASES, FAMILIES, Family, Kind};
pub(crate) use model::ModelMetrics;
use model::Recent;
pub(crate) use residency::Eviction;

/// Models with series of their own; later ones share those of [`OTHER`].
const MODELS_MAX: usize = 256;
/// The name that stands for all models beyond the limit.
const OTHER: &str = "other";

/// Everything that is counted. One for each daemon.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    models: Mutex<HashMap<String, Arc<ModelMetrics>>>,
    by_model: ByModel,
    pub(crate) requests: IntCounterVec,
    pub(crate) queue_depth: IntGauge,
    loads: IntCounterVec,
    evictions: IntCounterVec,
    deaths: IntCounterVec,
    pub(crate) pulls_running: IntGauge,
    pulls: IntCounterVec,
    pulled_bytes: IntCounter,
    looked: Looked,
    /// One look at a time: each sets the gauges anew.
    looking: Mutex<()>,
}

/// Families with one series for each model.
#[derive(Debug)]
struct ByModel {
    waiting: IntGaugeVec,
    running: IntGaugeVec,
    kv_tokens: IntGaugeVec,
    prompt_tokens: IntCounterVec,
    generated_tokens: IntCounterVec,
    queue: HistogramVec,
    load: HistogramVec,
    prefill: HistogramVec,
    decode: HistogramVec,
    first_token: HistogramVec,
    per_token: HistogramVec,
    whole: HistogramVec,
}

/// Gauges that are set when somebody looks.
#[derive(Debug)]
struct Looked {
    kv_limit: IntGaugeVec,
    kv_ratio: GaugeVec,
    bytes: IntGaugeVec,
    resident: IntGaugeVec,
    process: IntGauge,
}

/// What a look at the scheduler found of one model.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) model: String,
    pub(crate) state: &'static str,
    /// Tokens of context in all its slots; 0 while it loads.
    pub(crate) kv_limit: u64,
    /// (device, kind, bytes)
    pub(crate) bytes: Vec<(String, &'static str, u64)>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// Everything at 0.
    pub(crate) fn new() -> Metrics {
        let registry = Registry::new();
        let to = &registry;
        let metrics = Metrics {
            models: Mutex::default(),
            by_model: ByModel::new(to),
            requests: counters(to, "dsk_requests_total"),
            queue_depth: gauge(to, "dsk_queue_depth"),
            loads: counters(to, "dsk_loads_total"),
            evictions: counters(to, "dsk_evictions_total"),
            deaths: counters(to, "dsk_runner_deaths_total"),
            pulls_running: gauge(to, "dsk_pulls_running"),
            pulls: counters(to, "dsk_pulls_total"),
            pulled_bytes: counters(to, "dsk_pulled_bytes_total").with_label_values(&[] as &[&str]),
            looked: Looked::new(to),
            looking: Mutex::default(),
            registry,
        };
        metrics.begin_at_zero();
        metrics
    }

    /// A rate over a counter that appears with its first event misses that event.
    fn begin_at_zero(&self) {
        gauges(&self.registry, "dsk_build_info")
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        for outcome in ["ok", "failed", "died"] {
            self.loads.with_label_values(&[outcome]);
        }
        for reason in Eviction::ALL {
            self.evictions.with_label_values(&[reason.word()]);
        }
        for kind in residency::DEATHS {
            self.deaths.with_label_values(&[kind]);
        }
        for outcome in ["ok", "cancelled", "failed"] {
            self.pulls.with_label_values(&[outcome]);
        }
    }

    fn models(&self) -> MutexGuard<'_, HashMap<String, Arc<ModelMetrics>>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The series of a model that was found in the store.
    pub(crate) fn model(&self, name: &Name) -> Arc<ModelMetrics> {
        let mut models = self.models();
        let mut name = name.to_string();
        if models.len() >= MODELS_MAX && !models.contains_key(&name) {
            name = OTHER.to_owned();
        }
        let known = models.entry(name).or_insert_with_key(|name| Arc::new(self.by_model.of(name)));
        Arc::clone(known)
    }

    /// The text of `/metrics`, with the gauges as of now.
    pub(crate) fn render(&self, seen: &[Seen]) -> String {
        let _one = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        self.looked.set(seen, &self.by_model.kv_tokens);
        let mut families = self.registry.gather();
        let aliases: Vec<_> = families.iter().flat_map(aliases_of).collect();
        families.extend(aliases);
        let mut text = Vec::new();
        let encoded = TextEncoder::new().encode(&families, &mut text);
        encoded.expect("families with metrics of their own kind can be written into memory");
        String::from_utf8(text).expect("names, labels and help are text")
    }
}

/// The Content-Type of [`Metrics::render`].
pub(crate) const TEXT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the daemon does, as counts and as events of one shape in the log.
impl Metrics {
    /// A pull began.
    pub(crate) fn pull_began(&self) {
        self.pulls_running.inc();
    }

    /// More bytes of a pull are here.
    pub(crate) fn pulled(&self, bytes: u64) {
        self.pulled_bytes.inc_by(bytes);
    }

    /// A pull ended: `ok`, `cancelled` or `failed`.
    pub(crate) fn pull_ended(&self, model: &Name, outcome: &'static str, bytes: u64) {
        self.pulls_running.dec();
        self.pulls.with_label_values(&[outcome]).inc();
        tracing::info!(target: "dsk_pull", %model, outcome, bytes, "a pull ended");
    }
}

pub(crate) fn milliseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl ByModel {
    fn new(to: &Registry) -> ByModel {
        ByModel {
            waiting: gauges(to, "dsk_requests_waiting"),
            running: gauges(to, "dsk_requests_running"),
            kv_tokens: gauges(to, "dsk_kv_tokens_used"),
            prompt_tokens: counters(to, "dsk_prompt_tokens_total"),
            generated_tokens: counters(to, "dsk_generated_tokens_total"),
            queue: histograms(to, "dsk_queue_seconds"),
            load: histograms(to, "dsk_load_seconds"),
            prefill: histograms(to, "dsk_prefill_seconds"),
            decode: histograms(to, "dsk_decode_seconds"),
            first_token: histograms(to, "dsk_time_to_first_token_seconds"),
            per_token: histograms(to, "dsk_time_per_output_token_seconds"),
            whole: histograms(to, "dsk_request_seconds"),
        }
    }

    fn of(&self, model: &str) -> ModelMetrics {
        let label = &[model];
        ModelMetrics {
            name: model.to_owned(),
            waiting: self.waiting.with_label_values(label),
            running: self.running.with_label_values(label),
            kv_tokens: self.kv_tokens.with_label_values(label),
            prompt_tokens: self.prompt_tokens.with_label_values(label),
            generated_tokens: self.generated_tokens.with_label_values(label),
            queue: self.queue.with_label_values(label),
            load: self.load.with_label_values(label),
            prefill: self.prefill.with_label_values(label),
            decode: self.decode.with_label_values(label),
            first_token: self.first_token.with_label_values(label),
            per_token: self.per_token.with_label_values(label),
            whole: self.whole.with_label_values(label),
            recent: Recent::default(),
        }
    }
}

impl Looked {
    fn new(to: &Registry) -> Looked {
        let ratio = family("dsk_kv_usage_ratio");
        let kv_ratio = GaugeVec::new(Opts::new(ratio.name, ratio.help), ratio.labels);
        Looked {
            kv_limit: gauges(to, "dsk_kv_tokens_limit"),
            kv_ratio: registered(to, kv_ratio),
            bytes: gauges(to, "dsk_model_bytes"),
            resident: gauges(to, "dsk_models_resident"),
            process: gauge(to, "dsk_process_resident_bytes"),
        }
    }

    fn set(&self, seen: &[Seen], kv_tokens: &IntGaugeVec) {
        self.kv_limit.reset();
        self.kv_ratio.reset();
        self.bytes.reset();
        for state in ["loading", "ready", "stopping"] {
            let count = seen.iter().filter(|model| model.state == state).count();
            self.resident.with_label_values(&[state]).set(whole(count as u64));
        }
        for model in seen {
            let label = &[model.model.as_str()];
            self.kv_limit.with_label_values(label).set(whole(model.kv_limit));
            let used = kv_tokens.with_label_values(label).get();
            let ratio = if model.kv_limit == 0 { 0.0 } else { used as f64 / model.kv_limit as f64 };
            self.kv_ratio.with_label_values(label).set(ratio.clamp(0.0, 1.0));
            for (device, kind, bytes) in &model.bytes {
                let labels = &[model.model.as_str(), device, kind];
                self.bytes.with_label_values(labels).set(whole(*bytes));
            }
        }
        let own = crate::hardware::process_memory(std::process::id());
        self.process.set(whole(own.unwrap_or(0)));
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A family again, under each of the names it has elsewhere.
fn aliases_of(family: &MetricFamily) -> impl Iterator<Item = MetricFamily> {
    let aliases = ALIASES.iter().filter(|alias| alias.of == family.name());
    aliases.map(|alias| {
        let mut copy = family.clone();
        copy.set_name(alias.name.to_owned());
        let labels = copy.mut_metric().iter_mut().flat_map(|metric| metric.mut_label());
        labels.for_each(|label| label.set_name(ALIAS_LABEL.to_owned()));
        copy
    })
}

/// The row of the table. Families are made from nothing else, so each one is documented.
fn family(name: &str) -> &'static Family {
    let found = FAMILIES.iter().find(|family| family.name == name);
    found.expect("every family that is counted stands in the table")
}

/// Adds a family to the registry that it was made for.
fn registered<C>(to: &Registry, made: prometheus::Result<C>) -> C
where
    C: prometheus::core::Collector + Clone + 'static,
{
    let made = made.expect("the names and labels of the table are valid");
    to.register(Box::new(made.clone())).expect("each row of the table is registered once");
    made
}

fn counters(to: &Registry, name: &str) -> IntCounterVec {
    let row = family(name);
    registered(to, IntCounterVec::new(Opts::new(row.name, row.help), row.labels))
}

fn gauges(to: &Registry, name: &str) -> IntGaugeVec {
    let row = family(name);
    registered(to, IntGaugeVec::new(Opts::new(row.name, row.help), row.labels))
}

fn gauge(to: &Registry, name: &str) -> IntGauge {
    gauges(to, name).with_label_values(&[] as &[&str])
}

fn histograms(to: &Registry, name: &str) -> HistogramVec {
    let row = family(name);
    let Kind::Histogram(buckets) = row.kind else { unreachable!("{name} is no histogram") };
    let options = HistogramOpts::new(row.name, row.help).buckets(buckets.to_vec());
    registered(to, HistogramVec::new(options, row.labels))
}
