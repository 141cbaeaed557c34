//! Text into words, the way each pre-tokenizer's regular expression does it.
//!
//! The expressions are the published ones of the models' own tokenizers. They are matched by hand:
//! each function below is one alternative, tried in order at the start of the rest of the text, and
//! every one looks at a character a bounded number of times. A backtracking engine would not be
//! linear on, say, a megabyte of spaces.

use std::sync::LazyLock;

use regex_syntax::hir::{Class as HirClass, HirKind};

use super::TokenizerError;
use crate::gguf::Gguf;

/// The pre-tokenizers that are known by name.
pub const PRE_TOKENIZERS: [&str; 4] = ["smollm", "qwen2", "deepseek-r1-qwen", "llama-bpe"];

/// How a text is split into words before merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PreTokenizer {
    /// `\p{N}` alone, then on what lies between: contractions, ` ?\p{L}+`, ` ?\p{N}+`,
    /// ` ?[^\s\p{L}\p{N}]+`, `\s+(?!\S)`, `\s+`.
    Smollm,
    /// Contractions in any case, `[^\r\n\p{L}\p{N}]?\p{L}+`, `\p{N}`,
    /// ` ?[^\s\p{L}\p{N}]+[\r\n]*`, `\s*[\r\n]+`, `\s+(?!\S)`, `\s+`.
    Qwen2,
    /// Like `Qwen2` with `\p{N}{1,3}`.
    Llama3,
}

impl PreTokenizer {
    pub(crate) fn from_gguf(gguf: &Gguf) -> Result<PreTokenizer, TokenizerError> {
        let found = gguf.need_str("tokenizer.ggml.pre")?;
        PreTokenizer::named(found)
            .ok_or_else(|| TokenizerError::PreTokenizer { found: found.to_owned() })
    }

    fn named(name: &str) -> Option<PreTokenizer> {
        match name {
            "smollm" => Some(PreTokenizer::Smollm),
            "qwen2" | "deepseek-r1-qwen" => Some(PreTokenizer::Qwen2),
            "llama-bpe" => Some(PreTokenizer::Llama3),
            _ => None,
        }
    }

    /// Calls `word` with every word of `text`, in order; together they are the text.
    pub(crate) fn split<'a>(self, text: &'a str, mut word: impl FnMut(&'a str)) {
        match self {
            PreTokenizer::Smollm => {
                for part in NumbersApart(text) {
                    each_word(part, gpt2_word, &mut word);
                }
            }
            PreTokenizer::Qwen2 => each_word(text, |rest| llama3_word(rest, 1), &mut word),
            PreTokenizer::Llama3 => each_word(text, |rest| llama3_word(rest, 3), &mut word),
        }
    }
}

/// Splits `text` by a function from the rest of the text to the length of its first word.
fn each_word<'a>(mut text: &'a str, first: impl Fn(&str) -> usize, word: &mut impl FnMut(&'a str)) {
    while !text.is_empty() {
        let (head, tail) = text.split_at(first(text));
        word(head);
        text = tail;
    }
}

/// Parts of a text in which every `\p{N}` is a part of its own.
struct NumbersApart<'a>(&'a str);

impl<'a> Iterator for NumbersApart<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let first = self.0.chars().next()?;
        let end = if first.is_numeric() {
            first.len_utf8()
        } else {
            self.0.find(char::is_numeric).unwrap_or(self.0.len())
        };
        let (part, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(part)
    }
}

/// The classes of characters that the expressions tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`
    Space,
    /// None of these.
    Other,
}

impl Class {
    fn of(character: char) -> Class {
        if character.is_ascii_alphabetic() || (!character.is_ascii() && is_letter(character)) {
            Class::Letter
        } else if character.is_numeric() {
            Class::Number
        } else if character.is_whitespace() {
            Class::Space
        } else {
            Class::Other
        }
    }
}

/// The ranges of `\p{L}`. The standard library's `is_alphabetic` is wider: it takes in marks.
static LETTERS: LazyLock<Vec<(char, char)>> = LazyLock::new(|| {
    let class = regex_syntax::parse(r"\p{L}").expect("a valid class");
    match class.kind() {
        HirKind::Class(HirClass::Unicode(class)) => {
            class.ranges().iter().map(|range| (range.start(), range.end())).collect()
        }
        other => unreachable!("a Unicode class is parsed as {other:?}"),
    }
});

fn is_letter(character: char) -> bool {
    let after = LETTERS.partition_point(|&(start, _)| start <= character);
    after.checked_sub(1).is_some_and(|index| character <= LETTERS[index].1)
}

/// The bytes of the run of `class` at the start of `text`.
fn run(text: &str, class: Class) -> usize {
    run_while(text, |character| Class::of(character) == class)
}

fn run_while(text: &str, matches: impl Fn(char) -> bool) -> usize {
    text.find(|character| !matches(character)).unwrap_or(text.len())
}

fn is_newline(character: char) -> bool {
    character == '\r' || character == '\n'
}

/// `'s|'t|'re|'ve|'m|'ll|'d`, in lower case only or in any.
fn contraction(text: &str, any_case: bool) -> Option<usize> {
    let rest = text.strip_prefix('\'')?.as_bytes();
    ["s", "t", "re", "ve", "m", "ll", "d"].iter().find_map(|ending| {
        let start = rest.get(..ending.len())?;
        let same = if any_case {
            start.eq_ignore_ascii_case(ending.as_bytes())
        } else {
            start == ending.as_bytes()
        };
        same.then_some(1 + ending.len())
    })
}

/// `\s+(?!\S)|\s+`: a run of space, without its last character when something else follows.
fn space(text: &str) -> usize {
    let end = run(text, Class::Space);
    let last = text[..end].chars().next_back().map_or(0, char::len_utf8);
    if end < text.len() && last < end { end - last } else { end }
}

/// The first word by GPT-2's expression, for a text without numbers or with one alone.
fn gpt2_word(text: &str) -> usize {
    if let Some(length) = contraction(text, false) {
        return length;
    }
    let body = text.strip_prefix(' ').unwrap_or(text);
    let prefix = text.len() - body.len();
    match body.chars().next().map(Class::of) {
        None | Some(Class::Space) => space(text),
        Some(class) => prefix + run(body, class),
    }
}

/// The first word by Llama 3's expression, with numbers of up to `digits` characters.
fn llama3_word(text: &str, digits: usize) -> usize {
    contraction(text, true)
        .or_else(|| letters_with_prefix(text))
        .or_else(|| number(text, digits))
        .or_else(|| symbols(text))
        .unwrap_or_else(|| lines_or_space(text))
}

/// `[^\r\n\p{L}\p{N}]?\p{L}+`
fn letters_with_prefix(text: &str) -> Option<usize> {
    let first = text.chars().next()?;
    let prefix = match Class::of(first) {
        Class::Letter => 0,
        Class::Number => return None,
        Class::Space | Class::Other if is_newline(first) => return None,
        Class::Space | Class::Other => first.len_utf8(),
    };
    match run(&text[prefix..], Class::Letter) {
        0 => None,
        letters => Some(prefix + letters),
    }
}

/// `\p{N}{1,digits}`
fn number(text: &str, digits: usize) -> Option<usize> {
    let numbers = text.chars().take_while(|character| character.is_numeric()).take(digits);
    match numbers.map(char::len_utf8).sum() {
        0 => None,
        bytes => Some(bytes),
    }
}

/// ` ?[^\s\p{L}\p{N}]+[\r\n]*`
fn symbols(text: &str) -> Option<usize> {
    let body = text.strip_prefix(' ').unwrap_or(text);
    let prefix = text.len() - body.len();
    match run(body, Class::Other) {
        0 => None,
        symbols => Some(prefix + symbols + run_while(&body[symbols..], is_newline)),
    }
}

/// `\s*[\r\n]+`, else `\s+(?!\S)|\s+`
fn lines_or_space(text: &str) -> usize {
    let spaces = &text[..run(text, Class::Space)];
    match spaces.rfind(is_newline) {
        Some(last) => last + 1,
        None => space(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(pre: PreTokenizer, text: &str) -> Vec<&str> {
        let mut words = Vec::new();
        pre.split(text, |word| words.push(word));
        words
    }

    #[test]
    fn each_expression_splits_as_published() {
        use PreTokenizer::{Llama3, Qwen2, Smollm};
        let table: &[(PreTokenizer, &str, &[&str])] = &[
            (Smollm, "Hello, world!", &["Hello", ",", " world", "!"]),
            (Smollm, "it's IT'S we'll", &["it", "'s", " IT", "'", "S", " we", "'ll"]),
            (Smollm, "a 123b", &["a", " ", "1", "2", "3", "b"]),
            (Smollm, "a   b  1", &["a", "  ", " b", "  ", "1"]),
            (Smollm, "x\n\n y", &["x", "\n\n", " y"]),
            (Smollm, "  ", &["  "]),
            (Smollm, "½x", &["½", "x"]),
            (Qwen2, "Hello, world!\n\nNext", &["Hello", ",", " world", "!\n\n", "Next"]),
            (Qwen2, "IT'S it'Ll", &["IT", "'S", " it", "'Ll"]),
            (Qwen2, "in 2024", &["in", " ", "2", "0", "2", "4"]),
            (Qwen2, "\tif (x) {\r\n", &["\tif", " (", "x", ")", " {\r\n"]),
            (Qwen2, "a \n \n  b", &["a", " \n \n", " ", " b"]),
            (Qwen2, "(self.x)", &["(self", ".x", ")"]),
            (Qwen2, "'tis", &["'t", "is"]),
            (Llama3, "in 20245", &["in", " ", "202", "45"]),
            (Llama3, "a1b22c333d4444", &["a", "1", "b", "22", "c", "333", "d", "444", "4"]),
            (Llama3, "I'VE 3/4", &["I", "'VE", " ", "3", "/", "4"]),
            (Llama3, "日本語テキスト。次", &["日本語テキスト", "。次"]),
            (Llama3, "e\u{301}a", &["e", "\u{301}a"]),
            (Llama3, "🙂‍🙂 ok", &["🙂‍🙂", " ok"]),
            (Llama3, "   ", &["   "]),
            (Llama3, "", &[]),
        ];
        for (pre, text, expected) in table {
            assert_eq!(words(*pre, text), *expected, "{pre:?} on {text:?}");
        }
    }

    #[test]
    fn letters_are_the_general_category() {
        let letters = ['a', 'ß', '日', 'ب', 'ª', 'ʰ', '\u{10400}'];
        let others = ['1', '\u{301}', '\u{0903}', 'Ⅷ', '_', '\u{24B6}', '🙂'];
        assert!(letters.into_iter().all(|c| Class::of(c) == Class::Letter));
        assert!(others.into_iter().all(|c| Class::of(c) != Class::Letter));
    }

    proptest::proptest! {
        #[test]
        fn words_are_the_text_and_never_empty(text in r"[ \t\r\n'a-zA-Z0-9é日½_.\u{301}]{0,60}") {
            for pre in [PreTokenizer::Smollm, PreTokenizer::Qwen2, PreTokenizer::Llama3] {
                let words = words(pre, &text);
                proptest::prop_assert!(words.iter().all(|word| !word.is_empty()));
                proptest::prop_assert_eq!(words.concat(), text.clone());
            }
        }
    }
}
