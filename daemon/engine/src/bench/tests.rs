use std::path::Path;
use std::time::Duration;

use super::perplexity::Likelihood;
use super::speed::{Spread, Work};
use super::*;
use crate::executor::{Batch, SequenceId};
use crate::gguf::testkit::tiny_model;
use crate::tokenizer::Special;

const TEXT: &str = "the cat sat on the mat and the dog sat on the log, and that was that. ";

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn tiny(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("tiny.gguf");
    fs::write(&path, tiny_model("llama", 3)).expect("a file");
    path
}

fn short() -> BenchOptions {
    BenchOptions { prompt_tokens: 8, generate: 3, repetitions: 2, ..BenchOptions::default() }
}

fn text(folder: &tempfile::TempDir, context: usize) -> PerplexityOptions {
    let path = folder.path().join("text.txt");
    fs::write(&path, TEXT.repeat(8)).expect("a file");
    PerplexityOptions { text: path, context, chunks: None, save_logits: None }
}

#[test]
fn a_run_reports_every_figure() {
    let folder = folder();
    let path = tiny(&folder);
    let options = BenchOptions { sequences: 2, depth: 5, threads: Some(2), ..short() };
    let mut stages = Vec::new();
    let report = run(std::slice::from_ref(&path), &options, &mut |stage| stages.push(stage))
        .expect("a report");
    let prefill = report.prefill.as_ref().expect("prompts were timed");
    let decode = report.decode.as_ref().expect("generation was timed");
    assert!(prefill.prefill_tps_min <= prefill.prefill_tps);
    assert!(prefill.prefill_tps <= prefill.prefill_tps_max);
    assert!((prefill.prefill_tps * prefill.ttft_s - 16.0).abs() < 1e-6, "8 tokens, twice");
    assert!(decode.decode_tps_min <= decode.decode_tps && decode.decode_tps_min > 0.0);
    assert!(decode.read_bandwidth_share.is_some_and(|share| share > 0.0));
    assert!(prefill.integer_peak_share.is_some_and(|share| share > 0.0));
    assert_eq!((report.threads, report.sequences, report.depth), (2, 2, 5));
    assert_eq!(report.file_bytes, fs::metadata(&path).expect("the file").len());
    assert!(report.resident_bytes > 0 && report.weights_bytes > 0 && report.load_s > 0.0);
    assert!(stages.contains(&Stage::Repetition { number: 2, of: 2 }), "{stages:?}");
    assert!(stages.contains(&Stage::Machine));
}

#[test]
fn the_json_is_flat_and_leaves_out_what_does_not_apply() {
    let folder = folder();
    let report = run(&[tiny(&folder)], &BenchOptions { generate: 0, ..short() }, &mut |_| ());
    let json = serde_json::to_value(report.expect("a report")).expect("JSON");
    let object = json.as_object().expect("an object");
    assert!(object.values().all(|value| !value.is_object() && !value.is_null()), "{json}");
    assert!(object["prefill_tps"].as_f64().is_some_and(|speed| speed > 0.0));
    assert_eq!(object["kv"], "f16");
    assert!(!object.contains_key("decode_tps") && !object.contains_key("perplexity"), "{json}");
}

#[test]
fn what_cannot_be_run_is_refused() {
    let folder = folder();
    let path = tiny(&folder);
    let refused = |options: BenchOptions| {
        let error = run(std::slice::from_ref(&path), &options, &mut |_| ()).expect_err("a refusal");
        (error.kind(), error.to_string())
    };
    let (kind, said) = refused(BenchOptions { prompt_tokens: 0, generate: 0, ..short() });
    assert_eq!(kind, BenchErrorKind::Options, "{said}");
    let (kind, said) = refused(BenchOptions { depth: 1 << 40, ..short() });
    assert_eq!(kind, BenchErrorKind::Options, "{said}");
    let (kind, said) = refused(BenchOptions { isa: Some("mmx".to_owned()), ..short() });
    assert_eq!(kind, BenchErrorKind::Options, "{said}");
    assert!(said.contains("mmx") && said.contains("scalar"), "{said}");
    let (kind, said) =
        refused(BenchOptions { sequences: 2, executor: ExecutorKind::Candle, ..short() });
    assert_eq!(kind, BenchErrorKind::Options, "{said}");
    fs::write(&path, b"GGUF and nothing").expect("a file");
    assert_eq!(refused(short()).0, BenchErrorKind::Other);
}

/// Against logits of whole chunks, one token a step, scored by the definition.
#[test]
fn perplexity_is_that_of_the_second_halves() {
    let folder = folder();
    let path = tiny(&folder);
    let saved = folder.path().join("logits");
    let options = PerplexityOptions {
        save_logits: Some(saved.clone()),
        chunks: Some(3),
        ..text(&folder, 20)
    };
    let report =
        perplexity(std::slice::from_ref(&path), &short(), &options, &mut |_| ()).expect("a report");
    let got = report.perplexity.expect("a score");
    let (losses, rows) = naive(&path, 20, 3);
    assert_eq!((got.scored_tokens, got.scored_chunks), (losses.len() as u64, 3));
    assert_eq!(losses.len(), 3 * 9, "positions 10 to 18 of each chunk");
    let mean = losses.iter().sum::<f64>() / losses.len() as f64;
    assert!((got.perplexity / mean.exp() - 1.0).abs() < 1e-9, "{} {}", got.perplexity, mean.exp());
    let bytes: Vec<u8> = rows.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(fs::read(&saved).expect("the logits"), bytes);
}

fn naive(path: &Path, context: usize, chunks: usize) -> (Vec<f64>, Vec<Vec<f32>>) {
    let model = Model::open(path).expect("a model");
    let load = BenchOptions::default().load(context);
    let mut executor = executor::open(model.network(), &load, &mut |_| ()).expect("an executor");
    let tokenizer = model.tokenizer();
    let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
    let mut tokens: Vec<u32> = bos.into_iter().collect();
    tokens.extend(tokenizer.encode(&TEXT.repeat(8), Special::AsText));
    let (mut losses, mut rows) = (Vec::new(), Vec::new());
    for chunk in tokens.chunks_exact(context).take(chunks) {
        let mut chunk = chunk.to_vec();
        chunk[0] = bos.unwrap_or(chunk[0]);
        for at in 0..context - 1 {
            let mut batch = Batch::default();
            batch.push(SequenceId(0), at, &chunk[at..=at], true);
            let logits = executor.step(&batch).expect("a step");
            let row = logits.row(0).expect("a row").to_vec();
            if at >= context / 2 {
                let exponentials = row.iter().map(|&value| f64::from(value).exp()).sum::<f64>();
                losses.push(exponentials.ln() - f64::from(row[chunk[at + 1] as usize]));
                rows.push(row);
            }
        }
    }
    (losses, rows)
}

#[test]
fn both_executors_score_alike() {
    let folder = folder();
    let path = tiny(&folder);
    let score = |executor| {
        let options = BenchOptions { executor, ..short() };
        let report =
            perplexity(std::slice::from_ref(&path), &options, &text(&folder, 32), &mut |_| ());
        report.expect("a report").perplexity.expect("a score").perplexity
    };
    let (ours, theirs) = (score(ExecutorKind::Cpu), score(ExecutorKind::Candle));
    assert!((ours / theirs - 1.0).abs() < 1e-3, "{ours} {theirs}");
}

#[test]
fn texts_that_cannot_be_scored_are_refused() {
    let folder = folder();
    let path = tiny(&folder);
    let refused = |options: &PerplexityOptions| {
        let error = perplexity(std::slice::from_ref(&path), &short(), options, &mut |_| ())
            .expect_err("a refusal");
        (error.kind(), error.to_string())
    };
    let gone = PerplexityOptions { text: folder.path().join("none.txt"), ..text(&folder, 16) };
    let (kind, said) = refused(&gone);
    assert!(kind == BenchErrorKind::NotFound && said.contains("none.txt"), "{said}");
    assert_eq!(refused(&text(&folder, 3)).0, BenchErrorKind::Options);
    let brief = text(&folder, 64);
    fs::write(&brief.text, "the cat").expect("a file");
    let (kind, said) = refused(&brief);
    assert!(kind == BenchErrorKind::Options && said.contains("64"), "{said}");
    let nowhere = PerplexityOptions {
        save_logits: Some(folder.path().join("no/such/folder")),
        ..text(&folder, 16)
    };
    assert!(refused(&nowhere).1.contains("no/such/folder"));
}

#[test]
fn likelihoods() {
    let mut likelihood = Likelihood::default();
    assert_eq!((likelihood.perplexity(), likelihood.standard_error()), (1.0, 0.0));
    // Four equal logits: each token has probability 1/4, whatever their size.
    for size in [0.0, 80.0, -1000.0] {
        likelihood.add(&[size; 4], 2).expect("a token of four");
    }
    assert!((likelihood.perplexity() - 4.0).abs() < 1e-9);
    assert!(likelihood.standard_error() < 1e-6);
    // Probabilities 1/2 and 1/8: the geometric mean is 1/4; losses differ by ln 4, the deviation of
    // the mean of two is ln 4 / 2 over the root of one.
    let mut likelihood = Likelihood::default();
    likelihood.add(&[0.0, 0.0], 0).expect("a token of two");
    likelihood.add(&[0.0; 8], 0).expect("a token of eight");
    assert!((likelihood.perplexity() - 4.0).abs() < 1e-9);
    assert!((likelihood.standard_error() - 4.0 * 4.0_f64.ln() / 2.0).abs() < 1e-9);
    assert!(likelihood.add(&[0.0; 2], 2).is_err());
}

#[test]
fn spreads() {
    let of = |millis: &[u64]| {
        Spread::of(&millis.iter().map(|&millis| Duration::from_millis(millis)).collect::<Vec<_>>())
    };
    assert_eq!(of(&[]), None);
    assert_eq!(of(&[3000, 1000, 2000]), Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
    assert_eq!(of(&[4000, 1000]), Some(Spread { median: 2.5, least: 1.0, most: 4.0 }));
}

/// The tiny model by hand: layers of 4 attention and 3 feed-forward matrices, and the head.
#[test]
fn work_is_that_of_the_matrices() {
    let folder = folder();
    let options = BenchOptions { sequences: 2, depth: 6, ..short() };
    let bench = Bench::load(&[tiny(&folder)], &options, 16, &mut |_| ()).expect("a model");
    let header = bench.model.header();
    let [embedding, feed_forward, heads, heads_kv, blocks, vocabulary] = [
        header.embedding_length,
        header.feed_forward_length,
        header.head_count,
        header.head_count_kv,
        header.block_count,
        header.vocab_size,
    ]
    .map(f64::from);
    let keys = embedding / heads * heads_kv;
    let layer =
        2.0 * embedding * embedding + 2.0 * embedding * keys + 3.0 * embedding * feed_forward;
    let head = embedding * vocabulary;
    let work = Work::of(&bench, &options);
    assert_eq!(work.prefill, 2.0 * (8.0 * blocks * layer + head));
    // f32 weights, and the keys and values of 7.5 tokens of two sequences.
    let cache = 2.0 * 7.5 * bench.executor.bytes().kv as f64 / 32.0;
    assert!((work.decode - (4.0 * (blocks * layer + head) + cache)).abs() < 1.0, "{}", work.decode);
}
