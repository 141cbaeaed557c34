//! The executor on tiny models: against candle, and against itself in other batches.

use super::*;
use crate::executor::candle::{CandleExecutor, Precision};
use crate::gguf::Gguf;
use crate::gguf::testkit::{families, tiny_model, tiny_writer};
use crate::model::Model;

/// How far logits may be from candle's, relative to the largest: both compute in f32, the cache is
/// of half precision in one of them.
const CANDLE_TOLERANCE: f32 = 2e-3;

fn model(bytes: Vec<u8>) -> Model {
    Model::from_gguf(Gguf::parse(bytes).expect("a good file")).expect("a good model")
}

fn options(threads: usize, sequences: usize) -> LoadOptions {
    LoadOptions {
        threads: Some(threads),
        sequences: Some(sequences),
        context_length: Some(256),
        ..LoadOptions::default()
    }
}

fn load(architecture: &str, threads: usize, sequences: usize) -> CpuExecutor {
    let model = model(tiny_model(architecture, 7));
    CpuExecutor::load(model.network(), &options(threads, sequences), &mut |_| ()).expect("it loads")
}

fn tokens(seed: u32, count: usize) -> Vec<u32> {
    (0..count as u32).map(|index| (index * 37 + seed * 11) % 290).collect()
}

/// The logits of every one of `tokens`.
fn logits_of(executor: &mut impl Executor, tokens: &[u32], chunk: usize) -> Vec<Vec<f32>> {
    let mut rows = Vec::new();
    for (index, part) in tokens.chunks(chunk).enumerate() {
        let mut batch = Batch::default();
        batch.push(SequenceId(0), index * chunk, part, false);
        batch.logits = (0..part.len()).collect();
        let logits = executor.step(&batch).expect("it runs");
        rows.extend((0..part.len()).map(|row| logits.row(row).expect("asked for").to_vec()));
    }
    rows
}

#[test]
fn logits_are_candles() {
    for architecture in ["llama", "qwen2"] {
        let mut ours = load(architecture, 2, 1);
        let model = model(tiny_model(architecture, 7));
        let candle =
            CandleExecutor::load(model.network(), &options(1, 1), Precision::Unpacked, &mut |_| ());
        let mut candle = candle.expect("it loads");
        let tokens = tokens(1, 100);
        let got = logits_of(&mut ours, &tokens, 100).pop().expect("a row");
        let mut batch = Batch::default();
        batch.push(SequenceId(0), 0, &tokens, true);
        let want = candle.step(&batch).expect("it runs").row(0).expect("asked for").to_vec();
        let largest = want.iter().fold(0.0f32, |most, logit| most.max(logit.abs()));
        assert!(largest > 0.1, "the model says something");
        for (token, (got, want)) in got.iter().zip(&want).enumerate() {
            let off = (got - want).abs() / largest;
            assert!(off < CANDLE_TOLERANCE, "{architecture} token {token}: {got} for {want}");
        }
    }
}

#[test]
fn a_model_in_several_files_gives_the_same_logits() {
    for architecture in ["llama", "qwen2"] {
        let tokens = tokens(4, 60);
        let whole = logits_of(&mut load(architecture, 2, 1), &tokens, 60);
        let files = tiny_writer(architecture, 7).split(3);
        let parts = files.into_iter().map(|bytes| Gguf::parse(bytes).expect("a good file"));
        let joined = Model::from_gguf(Gguf::join(parts.collect()).expect("one model"));
        let joined = joined.expect("a good model");
        let network = joined.network();
        let mut ours = CpuExecutor::load(network, &options(2, 1), &mut |_| ()).expect("it loads");
        assert!(logits_of(&mut ours, &tokens, 60) == whole, "{architecture}");
        // The offsets of its tensors are those of three files: candle must not take one for another.
        let precision = Precision::Unpacked;
        let candle = |model: &Model| {
            CandleExecutor::load(model.network(), &options(1, 1), precision, &mut |_| ())
        };
        let mut candles = [candle(&joined), candle(&model(tiny_model(architecture, 7)))]
            .map(|candle| candle.expect("it loads"));
        let mut batch = Batch::default();
        batch.push(SequenceId(0), 0, &tokens, true);
        let [parted, plain] = candles.each_mut().map(|candle| {
            candle.step(&batch).expect("it runs").row(0).expect("asked for").to_vec()
        });
        assert!(parted == plain, "{architecture}");
    }
}

#[test]
fn logits_do_not_depend_on_chunks_or_threads() {
    for architecture in ["llama", "qwen2"] {
        let tokens = tokens(2, 150);
        let whole = logits_of(&mut load(architecture, 1, 1), &tokens, 150);
        for (threads, chunk) in [(1, 1), (2, 150), (3, 7), (2, 64), (4, 33)] {
            let got = logits_of(&mut load(architecture, threads, 1), &tokens, chunk);
            assert!(got == whole, "{architecture}: {threads} threads, chunks of {chunk}");
        }
    }
}

/// Behind 512 tokens the context of a single token is cut, so that all workers have a part of it.
#[test]
fn decoding_in_spans_gives_the_same_bits() {
    let text = tokens(6, 1100);
    let load = |threads| {
        let bytes = families::family("llama-yarn", 7).expect("a family of the test kit");
        let options = LoadOptions { context_length: Some(2048), ..options(threads, 1) };
        CpuExecutor::load(model(bytes).network(), &options, &mut |_| ()).expect("it loads")
    };
    let whole = logits_of(&mut load(1), &text, text.len());
    for threads in [1, 2, 4] {
        let mut executor = load(threads);
        logits_of(&mut executor, &text[..1000], 1000);
        for (at, want) in whole.iter().enumerate().skip(1000) {
            let mut batch = Batch::default();
            batch.push(SequenceId(0), at, &text[at..=at], true);
            let logits = executor.step(&batch).expect("it runs");
            assert!(logits.row(0) == Some(want.as_slice()), "{threads} threads, token {at}");
        }
    }
}

#[test]
fn logits_do_not_depend_on_who_else_is_in_the_batch() {
    let texts: Vec<Vec<u32>> = (0..5).map(|seed| tokens(seed, 60 + seed as usize)).collect();
    let mut alone = load("qwen2", 2, 1);
    let want: Vec<_> = texts.iter().map(|text| logits_of(&mut alone, text, 64).pop()).collect();
    let mut together = load("qwen2", 2, 5);
    // Sequences start one after the other and read chunks of different lengths side by side.
    let mut read = [0usize; 5];
    let mut got = vec![None; 5];
    for turn in 0.. {
        let mut batch = Batch::default();
        let mut asked = Vec::new();
        for (index, text) in texts.iter().enumerate().filter(|(index, _)| turn >= *index) {
            let end = text.len().min(read[index] + 9 + 4 * index);
            if read[index] < text.len() {
                let last = end == text.len();
                batch.push(SequenceId(index as u32), read[index], &text[read[index]..end], last);
                asked.extend(last.then_some(index));
                read[index] = end;
            }
        }
        if batch.tokens.is_empty() {
            break;
        }
        let logits = together.step(&batch).expect("it runs");
        for (row, index) in asked.into_iter().enumerate() {
            got[index] = logits.row(row).map(<[f32]>::to_vec);
        }
    }
    assert!(got == want);
}

#[test]
fn a_sequence_that_starts_anew_holds_nothing_of_the_last() {
    let mut executor = load("llama", 2, 2);
    let first = logits_of(&mut executor, &tokens(3, 40), 40);
    logits_of(&mut executor, &tokens(4, 120), 40);
    assert!(logits_of(&mut executor, &tokens(3, 40), 40) == first);
    executor.release(SequenceId(0));
    assert!(logits_of(&mut executor, &tokens(3, 40), 40) == first);
}

#[test]
fn more_tokens_than_a_step_has_room_for_run_in_parts() {
    let text = tokens(5, 300);
    let model = model(tiny_model("llama", 7));
    let wide = LoadOptions { context_length: Some(512), ..options(2, 3) };
    let mut executor = CpuExecutor::load(model.network(), &wide, &mut |_| ()).expect("it loads");
    let mut batch = Batch::default();
    for sequence in 0..3 {
        batch.push(SequenceId(sequence), 0, &text, true);
    }
    assert!(batch.tokens.len() > executor.plan.limits.step_tokens);
    let logits = executor.step(&batch).expect("it runs");
    assert_eq!(logits.row(0), logits.row(1));
    assert_eq!(logits.row(0), logits.row(2));
    assert!(logits.row(3).is_none());
}

#[test]
fn a_batch_out_of_bounds_is_refused() {
    let mut executor = load("llama", 1, 1);
    let mut step = |position: usize, tokens: &[u32]| {
        let mut batch = Batch::default();
        batch.push(SequenceId(0), position, tokens, true);
        executor.step(&batch).map(|_| ()).expect_err("refused").to_string()
    };
    assert_eq!(step(0, &tokens(1, 257)), "position 256 is past the context of 256 tokens");
    assert_eq!(step(0, &[300]), "token 300 is not below the vocabulary of 300");
    assert!(step(5, &[1]).ends_with("it does not continue its sequence"));
    let mut batch = Batch::default();
    batch.push(SequenceId(0), 0, &[1, 2], true);
    batch.logits = vec![1, 0];
    assert!(matches!(executor.step(&batch), Err(ExecutorError::Batch(_))));
}

#[test]
fn damaged_weights_are_refused_by_name() {
    for tensor in ["blk.1.ffn_up.weight", "blk.0.ffn_norm.weight", "token_embd.weight"] {
        let mut bytes = tiny_model("llama", 1);
        let gguf = Gguf::parse(bytes.clone()).expect("a good file");
        let info = gguf.tensor(tensor).expect("it is there");
        let at = (gguf.data_offset() + info.offset) as usize + 4 * 17;
        bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        let refused = CpuExecutor::load(model(bytes).network(), &options(2, 1), &mut |_| ());
        let error = refused.map(|_| ()).expect_err("refused").to_string();
        assert!(
            error.contains(&format!("{tensor:?}")) && error.contains("not a finite number"),
            "{error}"
        );
    }
}

#[test]
fn options_without_sense_are_refused() {
    let model = model(tiny_model("llama", 1));
    let refused = |options: LoadOptions| {
        CpuExecutor::load(model.network(), &options, &mut |_| ())
            .map(|_| ())
            .expect_err("refused")
            .to_string()
    };
    let short = LoadOptions { context_length: Some(3), ..LoadOptions::default() };
    assert_eq!(refused(short), "a context of 3 tokens is too short, 16 is the least");
    let isa = LoadOptions { isa: Some("mmx".to_owned()), ..LoadOptions::default() };
    let error = refused(isa);
    assert!(error.starts_with("this processor cannot run instruction set \"mmx\"; it has scalar"));
}

#[test]
fn memory_is_as_planned() {
    let model = model(tiny_model("qwen2", 7));
    let mut executor =
        CpuExecutor::load(model.network(), &options(2, 2), &mut |_| ()).expect("it loads");
    let file: u64 = model.gguf().tensors().iter().filter_map(|tensor| tensor.bytes).sum();
    let bytes = executor.bytes();
    assert!(bytes.weights >= file && bytes.weights < file + (16 << 10), "{bytes:?} for {file}");
    // Two layers, two heads, keys and values of 16 numbers, 2 x 256 tokens of half precision.
    assert_eq!(bytes.kv, 2 * 2 * 32 * 512 * 2, "{bytes:?}");
    assert_eq!((executor.sequences(), executor.context_length()), (2, 256));
    assert_eq!(logits_of(&mut executor, &[1, 2, 3], 3).len(), 3);
}
