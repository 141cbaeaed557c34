//! SentencePiece vocabularies: characters merge to the neighbour that gives the best-scored token.
//!
//! This is the greedy algorithm that llama.cpp uses for these files: of all neighbours whose joined
//! text is a token, the pair with the highest score (the leftmost of equals) is joined, until none
//! is left. Characters that no token spells become byte tokens. The `tokenizers` crate has no model
//! that gives the same ids, so the algorithm is here.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use tokenizers::models::bpe::Vocab as Ids;

use super::TokenizerError;
use super::vocabulary::check_length;
use crate::gguf::Gguf;

/// How these vocabularies spell a space.
const SPACE: &str = "\u{2581}";

/// The bytes that a token's spelling stands for.
pub(crate) fn decode_text(text: &str) -> Vec<u8> {
    text.replace(SPACE, " ").into_bytes()
}

/// A vocabulary with scores.
pub(crate) struct SentencePiece {
    ids: Ids,
    scores: Vec<f32>,
    /// The token of each byte.
    bytes: Vec<u32>,
    /// The longest spelling in bytes: no longer text is looked up.
    longest: usize,
    /// Whether text at the start, or after a special token, gets a space in front.
    space_prefix: bool,
}

impl SentencePiece {
    pub(crate) fn read(
        gguf: &Gguf,
        ids: Ids,
        len: usize,
        unknown: Option<u32>,
    ) -> Result<SentencePiece, TokenizerError> {
        let scores = read_scores(gguf, len)?;
        let bytes = byte_tokens(&ids, unknown)?;
        let longest = ids.keys().map(String::len).max().unwrap_or(0);
        let space_prefix = gguf.get_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        Ok(SentencePiece { ids, scores, bytes, longest, space_prefix })
    }

    pub(crate) fn token_id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// `first`: nothing or a special token comes before.
    pub(crate) fn encode(&self, text: &str, first: bool, out: &mut Vec<u32>) {
        let prefix = if first && self.space_prefix { SPACE } else { "" };
        let text = format!("{prefix}{}", text.replace(' ', SPACE));
        let mut merging = Merging::new(self, &text);
        merging.run();
        for symbol in merging.symbols.iter().filter(|symbol| symbol.len > 0) {
            let part = &text[symbol.start..symbol.start + symbol.len];
            match self.ids.get(part) {
                Some(&id) => out.push(id),
                None => out.extend(part.bytes().map(|byte| self.bytes[usize::from(byte)])),
            }
        }
    }
}

fn read_scores(gguf: &Gguf, len: usize) -> Result<Vec<f32>, TokenizerError> {
    let key = "tokenizer.ggml.scores";
    let Some(array) = gguf.get_array(key)? else { return Ok(vec![0.0; len]) };
    check_length(key, array, len)?;
    let number = |value: crate::gguf::Value<'_>| {
        let score = value.as_f32().or_else(|| value.as_i64().map(|score| score as f32));
        // Adding zero makes one zero of the two, so that they compare as equal.
        score.filter(|score| !score.is_nan()).map(|score| score + 0.0)
    };
    let scores: Option<Vec<f32>> = array.iter().take(len).map(number).collect();
    scores.ok_or_else(|| {
        TokenizerError::Vocabulary(format!("{key} holds something else than numbers"))
    })
}

/// The token of each byte: `<0x0A>`, else its character, else the unknown token.
fn byte_tokens(ids: &Ids, unknown: Option<u32>) -> Result<Vec<u32>, TokenizerError> {
    let token = |byte: u8| {
        let spelled = ids.get(format!("<0x{byte:02X}>").as_str());
        let plain = || byte.is_ascii().then(|| ids.get(char::from(byte).to_string().as_str()));
        spelled.or_else(|| plain().flatten()).copied().or(unknown).ok_or_else(|| {
            TokenizerError::Vocabulary(format!("there is no token for byte 0x{byte:02X}"))
        })
    };
    (0..=u8::MAX).map(token).collect()
}

/// A run of text that is one token, or one character, so far. An empty one was merged away.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    start: usize,
    len: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

/// Two neighbours that can be joined; stale when their length is no longer `len`.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    len: usize,
}

impl Ord for Pair {
    /// The highest score is greatest, and of equal ones the leftmost.
    fn cmp(&self, other: &Pair) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Pair) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Pair) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Pair {}

struct Merging<'a> {
    vocabulary: &'a SentencePiece,
    text: &'a str,
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Pair>,
}

impl<'a> Merging<'a> {
    fn new(vocabulary: &'a SentencePiece, text: &'a str) -> Merging<'a> {
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .enumerate()
            .map(|(index, (start, character))| Symbol {
                start,
                len: character.len_utf8(),
                previous: index.checked_sub(1),
                next: Some(index + 1),
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.next = None;
        }
        let mut merging = Merging { vocabulary, text, symbols, queue: BinaryHeap::new() };
        for left in 1..merging.symbols.len() {
            merging.offer(Some(left - 1), Some(left));
        }
        merging
    }

    fn run(&mut self) {
        while let Some(pair) = self.queue.pop() {
            let (left, right) = (self.symbols[pair.left], self.symbols[pair.right]);
            if left.len == 0 || right.len == 0 || left.len + right.len != pair.len {
                continue;
            }
            self.symbols[pair.left].len = pair.len;
            self.symbols[pair.left].next = right.next;
            self.symbols[pair.right].len = 0;
            if let Some(next) = right.next {
                self.symbols[next].previous = Some(pair.left);
            }
            self.offer(left.previous, Some(pair.left));
            self.offer(Some(pair.left), right.next);
        }
    }

    /// Queues two neighbours when their joined text is a token.
    fn offer(&mut self, left: Option<usize>, right: Option<usize>) {
        let (Some(left), Some(right)) = (left, right) else { return };
        let start = self.symbols[left].start;
        let len = self.symbols[left].len + self.symbols[right].len;
        if len > self.vocabulary.longest {
            return;
        }
        if let Some(&id) = self.vocabulary.ids.get(&self.text[start..start + len]) {
            let score = self.vocabulary.scores[id as usize];
            self.queue.push(Pair { score, left, right, len });
        }
    }
}
