//! Tokenizers from small hand-made vocabularies: what is accepted, refused, and how text comes back.

use super::*;
use crate::gguf::testkit::{Writer, tiny_tokenizer};

fn tokenizer(writer: &Writer) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_gguf(&Gguf::parse(writer.finish()).unwrap())
}

fn tiny() -> Tokenizer {
    tokenizer(&tiny_tokenizer(Writer::new(), "qwen2")).unwrap()
}

/// A vocabulary without merges: tokens with their types.
fn plain(model: &str, tokens: &[(&str, i32)]) -> Writer {
    let names: Vec<&str> = tokens.iter().map(|(name, _)| *name).collect();
    let types: Vec<i32> = tokens.iter().map(|(_, kind)| *kind).collect();
    Writer::new()
        .str("tokenizer.ggml.model", model)
        .str("tokenizer.ggml.pre", "qwen2")
        .strings("tokenizer.ggml.tokens", &names)
        .i32s("tokenizer.ggml.token_type", &types)
}

#[test]
fn special_tokens_are_parsed_or_text() {
    let tiny = tiny();
    let id = |name: &str| tiny.token_id(name).unwrap();
    let (start, end, think) = (id("<|im_start|>"), id("<|im_end|>"), id("<think>"));
    let text = "<|im_start|>a<think><|im_end|>";
    let a = id("a");
    assert_eq!(tiny.encode(text, Special::Parse), [start, a, think, end]);
    let as_text = tiny.encode(text, Special::AsText);
    assert!(!as_text.contains(&start) && !as_text.contains(&end));
    assert!(as_text.contains(&think), "user-defined tokens are found all the same");
    assert_eq!(tiny.decode(&as_text), text);
    assert_eq!(tiny.encode("", Special::Parse), [0u32; 0]);
}

#[test]
fn the_longer_of_two_overlapping_tokens_wins() {
    let tokens = [("a", 1), ("b", 1), ("c", 1), ("ab", 4), ("bca", 4)];
    let tokenizer = tokenizer(&plain("gpt2", &tokens)).unwrap();
    assert_eq!(tokenizer.encode("abcab", Special::AsText), [0, 4, 1]);
    assert_eq!(tokenizer.encode("abab", Special::AsText), [3, 3]);
}

#[test]
fn merges_follow_their_rank() {
    let tokens: Vec<(&str, i32)> =
        ["a", "b", "c", "ab", "bc", "abc"].iter().map(|name| (*name, 1)).collect();
    let with = |merges: &[&str]| {
        let writer = plain("gpt2", &tokens).strings("tokenizer.ggml.merges", merges);
        tokenizer(&writer).unwrap().encode("abc", Special::AsText)
    };
    assert_eq!(with(&["b c", "a b"]), [0, 4]);
    assert_eq!(with(&["a b", "b c"]), [3, 2]);
    assert_eq!(with(&["b c", "a bc", "a b"]), [5]);
    // The first of two equal merges counts.
    assert_eq!(with(&["a b", "b c", "a b"]), [3, 2]);
}

#[test]
fn llama_bpe_takes_whole_words_before_merges() {
    let tokens: Vec<(&str, i32)> =
        ["a", "b", "c", "bc", "abc", "<|begin_of_text|>"].iter().map(|name| (*name, 1)).collect();
    let with = |pre: &str| {
        let names: Vec<&str> = tokens.iter().map(|(name, _)| *name).collect();
        let writer = Writer::new()
            .str("tokenizer.ggml.model", "gpt2")
            .str("tokenizer.ggml.pre", pre)
            .strings("tokenizer.ggml.tokens", &names)
            .strings("tokenizer.ggml.merges", &["b c"])
            .u32("tokenizer.ggml.bos_token_id", 5);
        tokenizer(&writer).unwrap()
    };
    assert_eq!(with("llama-bpe").encode("abc", Special::AsText), [4]);
    assert_eq!(with("qwen2").encode("abc", Special::AsText), [0, 3]);
    assert!(with("llama-bpe").add_bos() && !with("qwen2").add_bos());
}

#[test]
fn bytes_without_a_token_are_left_out() {
    let tokenizer = tokenizer(
        &plain("gpt2", &[("a", 1), ("b", 1), ("ab", 1)]).strings("tokenizer.ggml.merges", &["a b"]),
    )
    .unwrap();
    assert_eq!(tokenizer.encode("abxab", Special::AsText), [2, 2]);
    assert_eq!(tokenizer.encode("axb", Special::AsText), [0, 1], "nothing merges across the gap");
}

#[test]
fn sentencepiece_joins_by_score_and_falls_back_to_bytes() {
    let mut tokens: Vec<(String, i32)> =
        [("<unk>", 2), ("<s>", 3), ("</s>", 3)].map(|(name, kind)| (name.to_owned(), kind)).into();
    tokens.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), 6)));
    let pieces = ["▁", "a", "b", "ab", "▁a", "ba"];
    tokens.extend(pieces.map(|piece| (piece.to_owned(), 1)));
    let first = 259;
    let borrowed: Vec<(&str, i32)> = tokens.iter().map(|(name, kind)| (&**name, *kind)).collect();
    let build = |scores: [f32; 6], prefix: bool| {
        let mut all = vec![0.0; first as usize];
        all.extend(scores);
        let writer = plain("llama", &borrowed)
            .f32s("tokenizer.ggml.scores", &all)
            .bool("tokenizer.ggml.add_space_prefix", prefix);
        tokenizer(&writer).unwrap()
    };
    let [space, a, b, ab, space_a, ba] = [0, 1, 2, 3, 4, 5].map(|index| first + index);
    let left = build([0.0, 0.0, 0.0, -1.0, -2.0, -3.0], true);
    assert_eq!(left.encode("ab", Special::Parse), [space, ab]);
    assert_eq!(left.encode("aba", Special::Parse), [space, ab, a]);
    let start = build([0.0, 0.0, 0.0, -2.0, -1.0, -1.0], true);
    assert_eq!(start.encode("ab", Special::Parse), [space_a, b]);
    // Of equal scores the leftmost pair joins first.
    assert_eq!(start.encode("aba", Special::Parse), [space_a, ba]);
    let bare = build([0.0; 6], false);
    assert_eq!(bare.encode("é", Special::Parse), [3 + 0xc3, 3 + 0xa9]);
    assert_eq!(left.encode("</s>a", Special::Parse), [2, space_a], "a space after a special token");
    assert_eq!(left.decode(&[space_a, 3 + 0xc3, 3 + 0xa9, 2]), " aé");
    assert!(left.add_bos() && left.bos() == Some(1) && left.is_end(2));
}

#[test]
fn roles_come_from_keys_and_names() {
    let tiny = tiny();
    let id = |name: &str| tiny.token_id(name);
    assert_eq!((tiny.bos(), tiny.eos()), (id("<|endoftext|>"), id("<|im_end|>")));
    assert_eq!(tiny.eot(), id("<|im_end|>"));
    assert_eq!(tiny.ends(), [id("<|endoftext|>").unwrap(), id("<|im_end|>").unwrap()]);
    let fim = tiny.fim().unwrap();
    assert_eq!(Some(fim.prefix), id("<|fim_prefix|>"));
    assert_eq!((Some(fim.suffix), Some(fim.middle)), (id("<|fim_suffix|>"), id("<|fim_middle|>")));
    assert_eq!(tiny.token_text(fim.prefix), "<|fim_prefix|>");
    assert_eq!(tiny.token_bytes(fim.prefix), b"");
    assert_eq!(tiny.token_bytes(id("<think>").unwrap()), b"<think>");
    assert_eq!(tiny.token_bytes(id("Ġthe").unwrap()), b" the");
    assert_eq!((tiny.token_text(1 << 30), tiny.token_bytes(1 << 30)), ("", &b""[..]));
    assert!(!tiny.is_end(1 << 30));
}

#[test]
fn names_that_end_a_generation_are_control_tokens_whatever_the_file_says() {
    let tokens = [("a", 1), ("<|im_end|>", 1), ("</s>", 4)];
    let tokenizer = tokenizer(&plain("gpt2", &tokens)).unwrap();
    assert_eq!(tokenizer.ends(), [1, 2]);
    assert_eq!(tokenizer.encode("a<|im_end|>", Special::Parse), [0, 1]);
    assert_eq!(tokenizer.encode("a</s>", Special::AsText), [0], "no other token spells the rest");
}

#[test]
fn characters_spread_over_tokens_come_out_whole() {
    let tiny = tiny();
    let mut decoder = Decoder::new(&tiny);
    let steps: Vec<String> =
        tiny.encode("é🙂x", Special::AsText).iter().map(|&id| decoder.push(id)).collect();
    assert_eq!(steps, ["", "é", "", "", "", "🙂", "x"]);
    assert_eq!(decoder.finish(), "");

    // A byte-level token's id is its byte here.
    let stream = |bytes: &[u32]| {
        let mut decoder = Decoder::new(&tiny);
        let mut steps: Vec<String> = bytes.iter().map(|&byte| decoder.push(byte)).collect();
        steps.push(decoder.finish());
        steps
    };
    assert_eq!(stream(&[0xf0, 0x9f, 0x41]), ["", "", "\u{fffd}A", ""]);
    assert_eq!(stream(&[0xff, 0x80]), ["\u{fffd}", "\u{fffd}", ""]);
    assert_eq!(stream(&[0xe2, 0x82]), ["", "", "\u{fffd}"]);
}

#[test]
fn unusable_vocabularies_are_refused_by_name() {
    let base = || plain("gpt2", &[("a", 1), ("b", 1), ("ab", 1)]);
    let cases: [(Writer, &str); 12] = [
        (Writer::new(), "no metadata key \"tokenizer.ggml.model\""),
        (plain("rwkv", &[("a", 1)]), "tokenizer model \"rwkv\" is not supported; gpt2 and llama"),
        (
            Writer::new()
                .str("tokenizer.ggml.model", "gpt2")
                .str("tokenizer.ggml.pre", "tekken")
                .strings("tokenizer.ggml.tokens", &["a"]),
            "pre-tokenizer \"tekken\" is not supported; smollm, qwen2, deepseek-r1-qwen, llama-bpe",
        ),
        (Writer::new().str("tokenizer.ggml.model", "gpt2"), "tokenizer.ggml.tokens has 0 tokens"),
        (plain("gpt2", &[("a", 1), ("a", 1)]), "tokens 0 and 1 are both \"a\""),
        (base().u32("tokenizer.ggml.eos_token_id", 3), "eos_token_id is 3, of 3 tokens"),
        (base().strings("tokenizer.ggml.merges", &["a c"]), "merge \"a c\" does not join two"),
        (base().strings("tokenizer.ggml.merges", &["b a"]), "merge \"b a\" does not join two"),
        (base().strings("tokenizer.ggml.merges", &["ab ab"]), "merge \"ab ab\" does not join two"),
        (base().strings("tokenizer.ggml.merges", &[""]), "merge \"\" does not join two"),
        (plain("llama", &[("a", 1)]).u32("tokenizer.ggml.unknown_token_id", 9), "is 9, of 1"),
        (
            plain("llama", &[("<unk>", 2), ("<0xZZ>", 6)]),
            "byte token 1 is spelled \"<0xZZ>\", not like <0x0A>",
        ),
    ];
    for (writer, expected) in cases {
        let error = tokenizer(&writer).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} should contain {expected:?}");
    }
    let long = "x".repeat(TOKEN_BYTES_MAX + 1);
    let error = tokenizer(&plain("gpt2", &[(&long, 1)])).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("token 0 is longer than"), "{error}");
}

#[test]
fn lists_beside_the_tokens_must_be_long_enough() {
    let writer = Writer::new()
        .str("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &["<unk>", "a"])
        .f32s("tokenizer.ggml.scores", &[0.0]);
    let error = tokenizer(&writer).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("tokenizer.ggml.scores has 1 entries for 2 tokens"), "{error}");
    let writer = Writer::new()
        .str("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &["<unk>", "a"])
        .f32s("tokenizer.ggml.scores", &[0.0, f32::NAN]);
    let error = tokenizer(&writer).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("something else than numbers"), "{error}");
}
