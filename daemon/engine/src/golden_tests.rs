//! Our greedy answers against llama.cpp's, on the real models.
//!
//! `tests/golden/greedy.py` made the golden files: for five prompts, 64 tokens each, the likeliest
//! token after one another and the gap between the two largest logits at each step, with keys and
//! values in f32. Both sides quantise activations to 8 bits before they multiply, in blocks of
//! different sizes and summed in another order, so logits differ a little. The tokens must be equal
//! up to the first step where one side's two best tokens are closer than [`GAP_MIN`].

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::engine::LoadOptions;
use crate::executor::candle::CandleExecutor;
use crate::executor::{Batch, Executor, SequenceId};
use crate::model::Model;

/// Logits closer than this may come in either order.
const GAP_MIN: f32 = 1e-2;

/// One prompt of a golden file.
#[derive(Deserialize)]
struct Case {
    prompt: String,
    ids: Vec<u32>,
    tokens: Vec<u32>,
    gaps: Vec<f32>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The file of a real model, fetched if need be.
fn model_path(name: &str) -> PathBuf {
    let output = Command::new("python3")
        .args(["tests/models.py", name])
        .current_dir(root())
        .output()
        .expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
}

fn golden(name: &str) -> Vec<Case> {
    let path = root().join("tests/golden").join(format!("greedy-{name}.json"));
    let text = std::fs::read_to_string(&path).expect("the golden file is in the repository");
    serde_json::from_str(&text).expect("the golden file is JSON")
}

/// The logits after `tokens`, the first one at `position`.
fn logits(executor: &mut CandleExecutor, position: usize, tokens: &[u32]) -> Vec<f32> {
    let mut batch = Batch::default();
    batch.push(SequenceId(0), position, tokens, true);
    let logits = executor.step(&batch).expect("the step runs");
    logits.row(0).expect("the last row was asked for").to_vec()
}

/// The likeliest token and its distance to the next one.
fn best(logits: &[f32]) -> (u32, f32) {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    (order[0], logits[order[0] as usize] - logits[order[1] as usize])
}

/// How many tokens are equal before a tie that went the other way; panics at a real difference.
fn compare(executor: &mut CandleExecutor, case: &Case) -> usize {
    let mut row = logits(executor, 0, &case.ids);
    for (step, (&want, &their_gap)) in case.tokens.iter().zip(&case.gaps).enumerate() {
        let (got, our_gap) = best(&row);
        if got != want {
            let gap = our_gap.min(their_gap);
            let what = format!("{:?} step {step}: {got} for {want}", case.prompt);
            assert!(gap < GAP_MIN, "{what}, our gap {our_gap}, theirs {their_gap}");
            return step;
        }
        row = logits(executor, case.ids.len() + step, &[got]);
    }
    case.tokens.len()
}

fn check(name: &str) {
    let model = Model::open(&model_path(name)).expect("a good model");
    let options = LoadOptions { context_length: Some(128), ..LoadOptions::default() };
    let mut executor = CandleExecutor::load(&model, &options, &mut |_| ()).expect("it loads");
    for case in golden(name) {
        let equal = compare(&mut executor, &case);
        println!("{name}: {equal} of {} tokens equal after {:?}", case.tokens.len(), case.prompt);
        executor.release(SequenceId(0));
    }
}

#[test]
fn smollm2_answers_as_llama_cpp_does() {
    check("smollm2");
}

#[test]
fn qwen_coder_answers_as_llama_cpp_does() {
    check("qwen2.5-coder");
}
