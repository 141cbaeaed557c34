//! candle on tiny models: chunks, bounds, and what it claims to need.

use super::*;
use crate::gguf::Gguf;
use crate::gguf::testkit::{TINY_CONTEXT, tiny_model};
use crate::model::Model;

/// How far logits may differ that were summed in another order.
const TOLERANCE: f32 = 1e-4;

fn load(architecture: &str, context: Option<u32>) -> CandleExecutor {
    let gguf = Gguf::parse(tiny_model(architecture, 7)).expect("a good file");
    let model = Model::from_gguf(gguf).expect("a good model");
    let options = LoadOptions { context_length: context, ..LoadOptions::default() };
    CandleExecutor::load(model.network(), &options, Precision::Packed, &mut |_| ())
        .expect("it loads")
}

fn tokens(count: u32) -> Vec<u32> {
    (0..count).map(|index| index * 37 % 290).collect()
}

fn step(
    executor: &mut CandleExecutor,
    position: usize,
    tokens: &[u32],
) -> Result<Vec<f32>, ExecutorError> {
    let mut batch = Batch::default();
    batch.push(SequenceId(0), position, tokens, true);
    Ok(executor.step(&batch)?.row(0).expect("asked for").to_vec())
}

/// The logits after `tokens`, read in chunks of the given sizes, the last one again and again.
fn chunked(executor: &mut CandleExecutor, tokens: &[u32], sizes: &[usize]) -> Vec<f32> {
    let mut sizes = sizes.iter().copied().chain(std::iter::repeat(sizes[sizes.len() - 1]));
    let (mut position, mut logits) = (0, Vec::new());
    while position < tokens.len() {
        let end = tokens.len().min(position + sizes.next().expect("endless"));
        logits = step(executor, position, &tokens[position..end]).expect("it runs");
        position = end;
    }
    logits
}

#[test]
fn logits_do_not_depend_on_chunks() {
    for architecture in ["llama", "qwen2"] {
        let mut executor = load(architecture, None);
        let tokens = tokens(150);
        let whole = chunked(&mut executor, &tokens, &[150]);
        assert!(whole.iter().any(|&logit| logit.abs() > 0.01), "the model says something");
        for sizes in [&[1][..], &[64], &[7, 20, 64], &[149, 1]] {
            let got = chunked(&mut executor, &tokens, sizes);
            let differ = |(a, b): (&f32, &f32)| (a - b).abs();
            let worst = whole.iter().zip(&got).map(differ).fold(0.0, f32::max);
            assert!(worst < TOLERANCE, "{architecture} in chunks of {sizes:?}: {worst}");
        }
    }
}

#[test]
fn logits_depend_on_every_token_and_its_place() {
    for architecture in ["llama", "qwen2"] {
        let mut executor = load(architecture, None);
        let whole = step(&mut executor, 0, &[5, 6, 7, 8]).expect("it runs");
        for other in [[4, 6, 7, 8], [6, 5, 7, 8], [5, 6, 7, 9]] {
            assert_ne!(step(&mut executor, 0, &other).expect("it runs"), whole, "{other:?}");
        }
        // A sequence that starts anew holds nothing of the last one, bit for bit.
        assert_eq!(step(&mut executor, 0, &[5, 6, 7, 8]).expect("it runs"), whole);
    }
}

#[test]
fn a_batch_out_of_bounds_is_refused() {
    let mut executor = load("llama", Some(32));
    let error = |got: Result<Vec<f32>, ExecutorError>| got.expect_err("refused").to_string();
    assert_eq!(
        error(step(&mut executor, 0, &tokens(33))),
        "position 32 is past the context of 32 tokens"
    );
    assert_eq!(
        error(step(&mut executor, 0, &[300])),
        "token 300 is not below the vocabulary of 300"
    );
    assert_eq!(
        error(step(&mut executor, 5, &[1])),
        "this executor cannot run the batch: it does not continue its sequence"
    );
    let mut two = Batch::default();
    two.push(SequenceId(0), 0, &[1], true);
    two.push(SequenceId(1), 0, &[1], true);
    assert!(matches!(executor.step(&two), Err(ExecutorError::Batch(_))));
    // After all that it still works, to the last position.
    assert_eq!(step(&mut executor, 0, &tokens(32)).expect("it runs").len(), 300);
}

#[test]
fn a_released_sequence_is_gone() {
    let mut executor = load("qwen2", None);
    step(&mut executor, 0, &[1, 2]).expect("it runs");
    executor.release(SequenceId(0));
    assert!(matches!(step(&mut executor, 2, &[3]), Err(ExecutorError::Batch(_))));
}

#[test]
fn pieces_are_aligned_and_few() {
    let mut lengths = Vec::new();
    let (mut position, end) = (0, 64 + 16 + 4 + 3);
    while position < end {
        let len = piece(position, end - position);
        assert!(position.is_multiple_of(len));
        lengths.push(len);
        position += len;
    }
    assert_eq!(lengths, [64, 16, 4, 1, 1, 1]);
}

#[test]
fn the_context_is_what_model_and_tables_allow() {
    let check = |asked, most| choose_context(asked, most).map_err(|error| error.to_string());
    assert_eq!(check(None, 131_072), Ok(4096));
    assert_eq!(check(None, TINY_CONTEXT), Ok(TINY_CONTEXT));
    assert_eq!(check(Some(9000), 4096), Ok(4096));
    assert_eq!(check(Some(100), 4096), Ok(100));
    let short = "a context of 3 tokens is too short, 16 is the least";
    assert_eq!(check(Some(3), 4096), Err(short.to_owned()));
}

#[test]
fn bytes_follow_from_tensors_and_context() {
    let (short, long) = (load("llama", Some(128)).bytes(), load("llama", Some(512)).bytes());
    assert_eq!(short.weights, long.weights);
    // Two layers, two heads of 16 numbers each for keys and for values, in f32.
    assert_eq!(short.kv, 2 * 2 * 2 * 16 * 4 * 128);
    assert_eq!(long.kv, 4 * short.kv);
    assert_eq!(long.total(), long.weights + long.kv + long.other + long.runtime);
}
