//! Our greedy answers against llama.cpp's, on the real models.
//!
//! `tests/golden/greedy.py` made the golden files: for five prompts, 64 tokens each, the likeliest
//! token after one another and the gap between the two largest logits at each step, by llama.cpp
//! with the weights unpacked to f32. That form leaves nothing but the order of sums to differ (the
//! logits of both agree to 1e-4), so our engine, with the weights unpacked as well, must give the
//! same tokens up to the first step where two are closer than [`GAP_MIN`].
//!
//! As they are in the file, weights are multiplied with activations of 8 bits, in both programs. The
//! rounding alone moves SmolLM2's logits after these prompts by up to 0.9, in llama.cpp as much as
//! here, and in llama.cpp by another 0.8 between batch sizes. So weights as stored are held to
//! [`ROUNDING_MAX`] only.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::engine::{KvFormat, LoadOptions, WeightForm};
use crate::executor::cpu::CpuExecutor;
use crate::executor::{Batch, Executor, SequenceId};
use crate::model::Model;

/// Logits closer than this may come in either order.
const GAP_MIN: f32 = 1e-2;
/// The same where activations were rounded to 8 bits.
const ROUNDING_MAX: f32 = 1.5;

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
fn logits(executor: &mut CpuExecutor, position: usize, tokens: &[u32]) -> Vec<f32> {
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

/// How many of the first `count` tokens are equal before two that are closer than `tie` came in the
/// other order; panics at a real difference.
fn compare(executor: &mut CpuExecutor, case: &Case, count: usize, tie: f32) -> usize {
    let mut row = logits(executor, 0, &case.ids);
    let steps = case.tokens.iter().zip(&case.gaps).take(count);
    for (step, (&want, &their_gap)) in steps.enumerate() {
        let (got, our_gap) = best(&row);
        if got != want {
            let gap = our_gap.min(their_gap);
            let what = format!("{:?} step {step}: {got} for {want}", case.prompt);
            assert!(gap < tie, "{what}, our gap {our_gap}, theirs {their_gap}");
            return step;
        }
        if step + 1 < count {
            row = logits(executor, case.ids.len() + step, &[got]);
        }
    }
    count
}

fn check(name: &str, weights: WeightForm, kv: KvFormat, tie: f32) {
    let model = Model::open(&model_path(name)).expect("a good model");
    let options = LoadOptions { context_length: Some(128), weights, kv, ..LoadOptions::default() };
    let mut executor = CpuExecutor::load(model.network(), &options, &mut |_| ()).expect("it loads");
    for case in golden(name) {
        let count = case.tokens.len();
        let equal = compare(&mut executor, &case, count, tie);
        println!("{name} {weights:?}: {equal} of {count} equal after {:?}", case.prompt);
        executor.release(SequenceId(0));
    }
}

#[test]
fn answers_are_those_of_llama_cpp() {
    for name in ["smollm2", "qwen2.5-coder"] {
        check(name, WeightForm::F32, KvFormat::F32, GAP_MIN);
        check(name, WeightForm::Stored, KvFormat::F16, ROUNDING_MAX);
    }
}
