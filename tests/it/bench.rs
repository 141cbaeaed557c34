//! `dsk bench`: figures of a model from a file or from the store, without a daemon.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::harness::{Daemon, dsk, home, model, one_at_a_time, success};

fn tiny(folder: &Path) -> PathBuf {
    let path = folder.join("tiny.gguf");
    std::fs::write(&path, dsk_daemon_engine::gguf::testkit::tiny_model("llama", 3)).unwrap();
    path
}

fn bench(home: &Path, model: &str, arguments: &[&str]) -> Output {
    dsk(home).args(["bench", model]).args(arguments).output().unwrap()
}

fn json(home: &Path, model: &str, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    serde_json::from_str(&success(&arguments, &bench(home, model, &arguments))).unwrap()
}

fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

const SHORT: &[&str] = &["-p", "16", "-n", "4", "-r", "2", "-t", "1"];

#[test]
fn every_figure_is_named() {
    let folder = home();
    let path = tiny(folder.path());
    let path = path.to_str().unwrap();
    let report = json(folder.path(), path, &[SHORT, &["-b", "2", "-d", "3"]].concat());
    for name in [
        "prefill_tps",
        "prefill_tps_min",
        "prefill_tps_max",
        "ttft_s",
        "cold_ttft_s",
        "integer_peak_share",
        "decode_tps",
        "decode_tps_min",
        "decode_tps_max",
        "read_bandwidth_share",
        "load_s",
        "resident_bytes",
        "weights_bytes",
        "kv_bytes",
        "file_bytes",
    ] {
        assert!(report[name].as_f64().is_some_and(|value| value > 0.0), "{name}: {report}");
    }
    let counts =
        ["prompt_tokens", "generated_tokens", "repetitions", "threads", "sequences", "depth"];
    assert_eq!(counts.map(|name| report[name].as_u64().unwrap()), [16, 4, 2, 1, 2, 3]);
    assert_eq!((&report["model"], &report["architecture"]), (&path.into(), &"llama".into()));
    let table = success(SHORT, &bench(folder.path(), path, SHORT));
    assert!(table.contains("tokens/s") && table.contains("prompt of 16 tokens"), "{table}");
}

#[test]
fn a_name_is_found_in_the_store() {
    let daemon = Daemon::start();
    let path = tiny(daemon.home.path());
    let modelfile = daemon.home.path().join("Modelfile");
    std::fs::write(&modelfile, format!("FROM {}\n", path.display())).unwrap();
    daemon.run(&["create", "mine", "-f", modelfile.to_str().unwrap()]);
    let home = daemon.kill();
    let report = json(home.path(), "mine", SHORT);
    assert_eq!(report["model"], "mine");
    assert_eq!(report["file_bytes"], std::fs::metadata(&path).unwrap().len());
    refused(&bench(home.path(), "other", SHORT), 5, &["other", "dsk list"]);
}

#[test]
fn a_text_is_scored_and_its_logits_are_written() {
    let folder = home();
    let path = tiny(folder.path());
    let (text, logits) = (folder.path().join("text"), folder.path().join("logits"));
    std::fs::write(&text, "the cat sat on the mat, and that was that. ".repeat(20)).unwrap();
    let (text, logits) = (text.to_str().unwrap(), logits.to_str().unwrap());
    let arguments = ["--perplexity", text, "--ctx", "32", "--chunks", "2", "--save-logits", logits];
    let report = json(folder.path(), path.to_str().unwrap(), &arguments);
    assert_eq!(report["scored_tokens"], 2 * 15, "{report}");
    assert!(report["perplexity"].as_f64().unwrap() > 1.0);
    assert!(report["perplexity_stderr"].as_f64().unwrap() > 0.0);
    let bytes = std::fs::metadata(logits).unwrap().len();
    assert!(bytes > 0 && bytes.is_multiple_of(4 * 30), "{bytes}");
}

#[test]
fn mistakes_are_named() {
    let folder = home();
    let path = tiny(folder.path());
    let path = path.to_str().unwrap();
    let bench = |model: &str, arguments: &[&str]| bench(folder.path(), model, arguments);
    refused(&bench("/no/such.gguf", SHORT), 5, &["/no/such.gguf"]);
    refused(&bench(path, &["-p", "0", "-n", "0"]), 2, &["nothing to measure"]);
    refused(&bench(path, &["-d", "1000000"]), 2, &["context"]);
    refused(&bench(path, &["--isa", "mmx"]), 2, &["mmx", "scalar"]);
    refused(&bench(path, &["--perplexity", "/no/text", "--ctx", "32"]), 5, &["/no/text"]);
    std::fs::write(folder.path().join("broken.gguf"), "GGUF").unwrap();
    let broken = folder.path().join("broken.gguf");
    refused(&bench(broken.to_str().unwrap(), SHORT), 1, &["GGUF"]);
}

#[test]
fn a_real_model_is_measured() {
    let _turn = one_at_a_time();
    let folder = home();
    let path = model("smollm2");
    let report = json(folder.path(), path.to_str().unwrap(), &["-p", "64", "-n", "8", "-r", "1"]);
    assert!(report["prefill_tps"].as_f64().unwrap() > 1.0, "{report}");
    assert!(report["decode_tps"].as_f64().unwrap() > 1.0, "{report}");
    assert!(report["resident_bytes"].as_u64() > report["weights_bytes"].as_u64(), "{report}");
}

/// What the plan may be wrong by, in bytes.
const PLAN_ERROR_MAX: f64 = 16.0 * 1024.0 * 1024.0;

#[test]
fn a_model_takes_what_its_plan_says() {
    let _alone = one_at_a_time();
    let folder = home();
    let path = model("smollm2");
    let path = path.to_str().unwrap();
    let mut totals = Vec::new();
    for (context, kv) in [("2048", "f16"), ("8192", "f16"), ("8192", "q8_0")] {
        let report = json(folder.path(), path, &["--memory", "--ctx", context, "--kv", kv]);
        let of = |name: &str| report[name].as_f64().unwrap();
        let error = of("predicted_bytes") - of("measured_bytes");
        assert!(error.abs() <= PLAN_ERROR_MAX, "{error}: {report}");
        totals.push(of("predicted_bytes"));
    }
    // A context four times as long, then one in half the bytes: differences far beyond the error.
    assert!(totals[1] - totals[0] > 5.0 * PLAN_ERROR_MAX, "{totals:?}");
    assert!(totals[1] - totals[2] > 4.0 * PLAN_ERROR_MAX, "{totals:?}");
}
