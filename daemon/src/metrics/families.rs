//! Every metric family that `/metrics` shows, with its help: the one table of them.

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Observations, counted in these buckets.
    Histogram(&'static [f64]),
}

/// One family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
}

/// Waits, from one that nobody notices to one that a proxy gives up on.
const WAITS: &[f64] =
    &[0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0];
/// Times for one token: from 1000 tokens a second to one in five seconds.
const TOKEN: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 5.0];

const MODEL: &[&str] = &["model"];

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels, help }
}

const fn times(name: &'static str, buckets: &'static [f64], help: &'static str) -> Family {
    Family { name, kind: Kind::Histogram(buckets), labels: MODEL, help }
}

/// dsk's own families. `model` is the name of a model in the store, or `other` beyond a limit.
pub(crate) const FAMILIES: &[Family] = &[
    counter(
        "dsk_requests_total",
        &["dialect", "route", "outcome"],
        "HTTP requests that ended, streams at their end: ok, cancelled, or the code of the error.",
    ),
    gauge("dsk_queue_depth", &[], "Requests that wait for their model: for its load, or for room."),
    gauge("dsk_requests_waiting", MODEL, "Requests that wait for the model or their turn in it."),
    gauge("dsk_requests_running", MODEL, "Requests whose prompt is read or answer is made."),
    counter("dsk_prompt_tokens_total", MODEL, "Tokens of the prompts of answered requests."),
    counter(
        "dsk_generated_tokens_total",
        MODEL,
        "Tokens of the answers of answered requests, thinking included.",
    ),
    times(
        "dsk_queue_seconds",
        WAITS,
        "Time a request waited, for its model and then for its turn, until its first step.",
    ),
    times("dsk_load_seconds", WAITS, "Time a model took to load."),
    times("dsk_prefill_seconds", WAITS, "Time to read a prompt, up to the first logits."),
    times("dsk_decode_seconds", WAITS, "Time from there to the end of the answer."),
    times(
        "dsk_time_to_first_token_seconds",
        WAITS,
        "Time from a request's arrival to the first text of its answer.",
    ),
    times(
        "dsk_time_per_output_token_seconds",
        TOKEN,
        "Time for one token of an answer, the mean of each request.",
    ),
    times("dsk_request_seconds", WAITS, "Time from a request's arrival to the end of its answer."),
    gauge("dsk_kv_tokens_used", MODEL, "Tokens whose keys and values requests hold."),
    gauge("dsk_kv_tokens_limit", MODEL, "Tokens there is room for, in all slots of the model."),
    gauge("dsk_kv_usage_ratio", MODEL, "The used part of that room, from 0 to 1."),
    gauge(
        "dsk_model_bytes",
        &["model", "device", "kind"],
        "Bytes a resident model holds on a device: weights, kv or other.",
    ),
    gauge("dsk_models_resident", &["state"], "Models in memory: loading, ready or stopping."),
    counter("dsk_loads_total", &["outcome"], "Loads that ended: ok, failed or died."),
    counter("dsk_evictions_total", &["reason"], "Models that left memory, by the reason."),
    counter("dsk_runner_deaths_total", &["kind"], "Runners that died without being told to."),
    gauge("dsk_pulls_running", &[], "Pulls under way."),
    counter("dsk_pulls_total", &["outcome"], "Pulls that ended: ok, cancelled or failed."),
    counter("dsk_pulled_bytes_total", &[], "Bytes of layers that pulls fetched."),
    gauge("dsk_build_info", &["version"], "Always 1; the labels tell what runs."),
    gauge("dsk_process_resident_bytes", &[], "Resident memory of the daemon, without its runners."),
];

/// A name under which gateways built for vLLM look for one of our families.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Alias {
    pub(crate) name: &'static str,
    pub(crate) of: &'static str,
}

const fn alias(name: &'static str, of: &'static str) -> Alias {
    Alias { name, of }
}

/// The label that holds the model's name in vLLM's families.
pub(crate) const ALIAS_LABEL: &str = "model_name";

/// vLLM's names. Both names of the cache's use are there: it was renamed, gateways were not.
pub(crate) const ALIASES: &[Alias] = &[
    alias("vllm:num_requests_running", "dsk_requests_running"),
    alias("vllm:num_requests_waiting", "dsk_requests_waiting"),
    alias("vllm:gpu_cache_usage_perc", "dsk_kv_usage_ratio"),
    alias("vllm:kv_cache_usage_perc", "dsk_kv_usage_ratio"),
    alias("vllm:prompt_tokens_total", "dsk_prompt_tokens_total"),
    alias("vllm:generation_tokens_total", "dsk_generated_tokens_total"),
    alias("vllm:time_to_first_token_seconds", "dsk_time_to_first_token_seconds"),
    alias("vllm:time_per_output_token_seconds", "dsk_time_per_output_token_seconds"),
    alias("vllm:e2e_request_latency_seconds", "dsk_request_seconds"),
];
