use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dsk_daemon_engine::Usage;

use super::*;
use crate::runner::{Death, DeathKind};

/// One sample: its name and labels as written, and its value.
type Samples = BTreeMap<String, f64>;

/// What `/metrics` says, read strictly: each family has its help and type first, its samples stand
/// together, no sample comes twice, every character is where the format wants it.
#[derive(Debug, Default)]
pub(crate) struct Text {
    /// The type by family, in the order of appearance.
    pub(crate) families: Vec<(String, String)>,
    pub(crate) samples: Samples,
}

pub(crate) fn parse(text: &str) -> Text {
    let mut parsed = Text::default();
    let mut helped = None;
    assert!(text.ends_with('\n'), "the last line must end");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("help has a text");
            assert!(!help.is_empty() && help == help.trim(), "{line}");
            helped = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type has a word");
            assert_eq!(helped.as_deref(), Some(name), "help comes before the type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            let new = !parsed.families.iter().any(|(known, _)| known == name);
            assert!(new, "{name} comes twice");
            parsed.families.push((name.to_owned(), kind.to_owned()));
        } else {
            let (family, kind) = parsed.families.last().expect("a sample follows its type");
            let (sample, value) = sample(line);
            let name = sample.split('{').next().unwrap_or_default();
            let rest = name.strip_prefix(family.as_str());
            let allowed: &[&str] =
                if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(rest.is_some_and(|rest| allowed.contains(&rest)), "{line} below {family}");
            assert!(parsed.samples.insert(sample, value).is_none(), "{line} comes twice");
        }
    }
    parsed
}

/// Splits `name{label="value",...} number`, checking each part.
fn sample(line: &str) -> (String, f64) {
    let (sample, value) = line.rsplit_once(' ').expect("a sample has a value");
    let value: f64 = value.parse().expect("a value is a number");
    let (name, labels) = match sample.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}').expect("labels are closed")),
        None => (sample, ""),
    };
    let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    assert!(!name.is_empty() && name.chars().all(of_name), "{line}");
    assert!(!name.starts_with(|c: char| c.is_ascii_digit()), "{line}");
    let mut rest = labels;
    while !rest.is_empty() {
        let (label, value) = rest.split_once("=\"").expect("a label has a quoted value");
        assert!(label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
        let end = closing_quote(value);
        rest = value[end + 1..].strip_prefix(',').unwrap_or(&value[end + 1..]);
    }
    (sample.to_owned(), value)
}

fn closing_quote(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at,
            _ => {}
        }
    }
    panic!("a label's value is not closed: {text}");
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn seen(model: &str) -> Seen {
    Seen {
        model: model.to_owned(),
        state: "ready",
        kv_limit: 4096,
        bytes: vec![("cpu".to_owned(), "weights", 1000)],
    }
}

fn usage() -> Usage {
    Usage {
        prompt_tokens: 5,
        output_tokens: 10,
        prompt_ns: 50_000_000,
        output_ns: 200_000_000,
        ..Usage::default()
    }
}

/// Everything that can be counted, once.
fn everything() -> Metrics {
    let metrics = Metrics::new();
    let model = metrics.model(&name("m"));
    model.answered(&usage());
    model.queue.observe(0.1);
    model.first_token.observe(0.1);
    model.whole.observe(0.3);
    model.kv_tokens.add(1024);
    metrics.requests.with_label_values(&["ollama", "/api/chat", "ok"]).inc();
    metrics.loaded(&name("m"), Duration::from_secs(1), 1000);
    metrics.load_failed(&name("m"), false, &"is corrupt");
    metrics.evicted(&name("m"), Eviction::Idle);
    let killed = Death::new(DeathKind::Signal(9), "was killed");
    metrics.died(&name("m"), &killed);
    metrics.pull_began();
    metrics.pulled(7);
    metrics.pull_ended(&name("m"), "ok", 7);
    metrics
}

#[test]
fn the_text_has_exactly_the_families_of_the_table() {
    let text = everything().render(&[seen("m:latest")]);
    let parsed = parse(&text);
    let word = |kind: Kind| match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    };
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    for row in FAMILIES {
        expected.insert(row.name.to_owned(), word(row.kind).to_owned());
        assert!(text.contains(&format!("# HELP {} {}\n", row.name, row.help)), "{}", row.name);
        assert_eq!(row.name.ends_with("_total"), row.kind == Kind::Counter, "{}", row.name);
    }
    for alias in ALIASES {
        expected.insert(alias.name.to_owned(), word(family(alias.of).kind).to_owned());
    }
    assert_eq!(parsed.families.into_iter().collect::<BTreeMap<_, _>>(), expected);
}

#[test]
fn counts_are_what_happened() {
    let text = everything().render(&[seen("m:latest")]);
    let samples = parse(&text).samples;
    let cases = [
        (r#"dsk_requests_total{dialect="ollama",outcome="ok",route="/api/chat"}"#, 1.0),
        (r#"dsk_prompt_tokens_total{model="m:latest"}"#, 5.0),
        (r#"vllm:prompt_tokens_total{model_name="m:latest"}"#, 5.0),
        (r#"vllm:generation_tokens_total{model_name="m:latest"}"#, 10.0),
        (r#"dsk_kv_tokens_used{model="m:latest"}"#, 1024.0),
        (r#"dsk_kv_usage_ratio{model="m:latest"}"#, 0.25),
        (r#"vllm:gpu_cache_usage_perc{model_name="m:latest"}"#, 0.25),
        (r#"vllm:time_per_output_token_seconds_sum{model_name="m:latest"}"#, 0.02),
        (r#"vllm:time_per_output_token_seconds_bucket{model_name="m:latest",le="0.01"}"#, 0.0),
        (r#"vllm:time_per_output_token_seconds_bucket{model_name="m:latest",le="0.02"}"#, 1.0),
        (r#"dsk_load_seconds_bucket{model="m:latest",le="+Inf"}"#, 1.0),
        (r#"dsk_model_bytes{device="cpu",kind="weights",model="m:latest"}"#, 1000.0),
        (r#"dsk_models_resident{state="ready"}"#, 1.0),
        (r#"dsk_models_resident{state="loading"}"#, 0.0),
        (r#"dsk_loads_total{outcome="ok"}"#, 1.0),
        (r#"dsk_loads_total{outcome="died"}"#, 0.0),
        (r#"dsk_evictions_total{reason="idle"}"#, 1.0),
        (r#"dsk_evictions_total{reason="room"}"#, 0.0),
        (r#"dsk_runner_deaths_total{kind="signal"}"#, 1.0),
        ("dsk_pulls_running", 0.0),
        ("dsk_pulled_bytes_total", 7.0),
    ];
    for (sample, value) in cases {
        assert_eq!(samples.get(sample), Some(&value), "{sample} in\n{text}");
    }
}

#[test]
fn what_left_memory_is_shown_no_more() {
    let metrics = everything();
    metrics.render(&[seen("m:latest")]);
    let text = metrics.render(&[]);
    let samples = parse(&text).samples;
    assert!(!samples.keys().any(|name| name.starts_with("dsk_model_bytes")), "{text}");
    assert_eq!(samples[r#"dsk_models_resident{state="ready"}"#], 0.0);
}

#[test]
fn models_beyond_the_limit_share_one_name() {
    let metrics = Metrics::new();
    for number in 0..2 * MODELS_MAX {
        metrics.model(&name(&format!("m{number}"))).prompt_tokens.inc();
    }
    let samples = parse(&metrics.render(&[])).samples;
    let tokens = samples.iter().filter(|(name, _)| name.starts_with("dsk_prompt_tokens_total"));
    let tokens: BTreeMap<_, _> = tokens.collect();
    assert_eq!(tokens.len(), MODELS_MAX + 1);
    let shared = r#"dsk_prompt_tokens_total{model="other"}"#.to_owned();
    assert_eq!(tokens[&shared], &(MODELS_MAX as f64));
}

#[test]
fn buckets_rise() {
    for row in FAMILIES {
        if let Kind::Histogram(buckets) = row.kind {
            assert!(buckets.is_sorted_by(|a, b| a < b), "{}", row.name);
        }
    }
    let names: BTreeSet<_> = FAMILIES.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), FAMILIES.len());
}
