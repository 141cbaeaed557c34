//! Logits of a tiny F32 model of every family, against those of an independent implementation
//! (`tests/golden/families.py`).

use serde::Deserialize;

use super::CpuExecutor;
use crate::engine::{KvFormat, LoadOptions};
use crate::executor::{Batch, Executor, SequenceId};
use crate::gguf::Gguf;
use crate::gguf::testkit::families;
use crate::model::Model;

/// How far a logit may be off, relative to the largest of its row: sums in another order.
const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Golden {
    seed: u64,
    tokens: Vec<u32>,
    positions: Vec<usize>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    family: String,
    context: u32,
    logits: Vec<Vec<f32>>,
}

fn logits(golden: &Golden, case: &Case) -> Vec<Vec<f32>> {
    let bytes = families::family(&case.family, golden.seed).expect("a family of the test kit");
    let model = Model::from_gguf(Gguf::parse(bytes).expect("a good file")).expect("a good model");
    let context_length = Some(case.context);
    let (kv, threads) = (KvFormat::F32, Some(2));
    let options = LoadOptions { context_length, threads, kv, ..LoadOptions::default() };
    let mut executor = CpuExecutor::load(model.network(), &options, &mut |_| ()).expect("it loads");
    let mut batch = Batch::default();
    batch.push(SequenceId(0), 0, &golden.tokens, false);
    batch.logits = golden.positions.clone();
    let logits = executor.step(&batch).expect("it runs");
    let rows = 0..golden.positions.len();
    rows.map(|row| logits.row(row).expect("asked for").to_vec()).collect()
}

/// The largest difference of a row, relative to its largest logit.
fn worst(got: &[Vec<f32>], want: &[Vec<f32>]) -> f32 {
    let row = |(got, want): (&Vec<f32>, &Vec<f32>)| {
        let largest = want.iter().fold(0.0f32, |most, logit| most.max(logit.abs()));
        let off = got.iter().zip(want).map(|(got, want)| (got - want).abs());
        off.fold(0.0f32, f32::max) / largest
    };
    got.iter().zip(want).map(row).fold(0.0, f32::max)
}

#[test]
fn logits_of_every_family_are_those_of_an_independent_implementation() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/families.json");
    let text = std::fs::read_to_string(path).expect("the golden file is there");
    let golden: Golden = serde_json::from_str(&text).expect("the golden file is JSON");
    let mut wrong = Vec::new();
    for case in &golden.cases {
        let off = worst(&logits(&golden, case), &case.logits);
        println!("{} at context {}: {off:e}", case.family, case.context);
        if off.is_nan() || off > TOLERANCE {
            wrong.push(format!("{} at context {}: {off:e}", case.family, case.context));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
