//! Ids against llama.cpp's, for the texts in `tests/golden/strings.json` at the repository's root.
//! `tests/golden/tokens.py` wrote the expectations; real models are fetched by `tests/models.py`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::{Special, Tokenizer};
use crate::gguf::Gguf;

/// What llama.cpp says of one vocabulary.
#[derive(Deserialize)]
struct Golden {
    vocab_size: usize,
    ends: Vec<u32>,
    /// For every text: ids with special tokens parsed, and those with them as text if others.
    rows: Vec<Vec<Vec<u32>>>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn golden<T: for<'a> Deserialize<'a>>(file: &str) -> T {
    let path = root().join("tests/golden").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The path of a real model; fetched when it is not there yet.
fn model(name: &str) -> PathBuf {
    let script = root().join("tests/models.py");
    let output = Command::new("python3").arg(&script).arg(name).output().expect("python3 runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tests/models.py {name} failed: {errors}");
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
}

/// Compares every text both ways; all differences are shown at once.
fn compare(path: &Path, expected: &str) {
    let texts: Vec<String> = golden("strings.json");
    let golden: Golden = golden(expected);
    let gguf = Gguf::open_header(path).expect("a readable header");
    let tokenizer = Tokenizer::from_gguf(&gguf).expect("a known tokenizer");
    assert!(texts.len() >= 500 && golden.rows.len() == texts.len(), "every text has ids");
    assert_eq!(tokenizer.vocab_size(), golden.vocab_size);
    assert_eq!(tokenizer.ends(), golden.ends, "the tokens that end a generation");
    let mut differences = Vec::new();
    for (text, row) in texts.iter().zip(&golden.rows) {
        for (special, want) in [(Special::Parse, &row[0]), (Special::AsText, &row[row.len() - 1])] {
            let got = tokenizer.encode(text, special);
            if got != *want {
                differences.push(format!("{text:?} {special:?}:\n  got  {got:?}\n  want {want:?}"));
            }
        }
    }
    let count = differences.len();
    differences.truncate(12);
    assert!(count == 0, "{count} differences, such as\n{}", differences.join("\n"));
}

#[test]
fn smollm2_has_the_ids_of_llama_cpp() {
    compare(&model("smollm2"), "tokens-smollm2.json");
}

#[test]
fn qwen2_5_coder_has_the_ids_of_llama_cpp() {
    compare(&model("qwen2.5-coder"), "tokens-qwen2.5-coder.json");
}

#[test]
fn deepseek_r1_qwen_has_the_ids_of_llama_cpp() {
    compare(&model("deepseek-r1-7b-header"), "tokens-deepseek-r1-qwen.json");
}

#[test]
fn sentencepiece_has_the_ids_of_llama_cpp() {
    compare(&root().join("tests/golden/sentencepiece.gguf"), "tokens-sentencepiece.json");
}

/// What is encoded comes back, for texts whose every byte the vocabulary can spell.
#[test]
fn text_survives_a_round_trip() {
    let gguf = Gguf::open_header(&model("qwen2.5-coder")).expect("a readable header");
    let tokenizer = Tokenizer::from_gguf(&gguf).expect("a known tokenizer");
    for text in golden::<Vec<String>>("strings.json") {
        assert_eq!(tokenizer.decode(&tokenizer.encode(&text, Special::AsText)), text);
    }
}

/// A megabyte in one word, in every family: a quadratic merge would take minutes.
#[test]
fn long_words_take_linear_time() {
    let sentencepiece = root().join("tests/golden/sentencepiece.gguf");
    for path in [model("smollm2"), model("deepseek-r1-7b-header"), sentencepiece] {
        let gguf = Gguf::open_header(&path).expect("a readable header");
        let tokenizer = Tokenizer::from_gguf(&gguf).expect("a known tokenizer");
        for part in ["a", " ", "\n", "=", "日", "'", "<|im_start|>", "1"] {
            let text = part.repeat((1 << 20) / part.len());
            let start = std::time::Instant::now();
            let ids = tokenizer.encode(&text, Special::Parse);
            let elapsed = start.elapsed();
            assert!(!ids.is_empty());
            assert!(elapsed.as_secs() < 20, "{part:?} took {elapsed:?} in {}", path.display());
        }
    }
}
