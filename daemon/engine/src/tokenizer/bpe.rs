//! Byte-level BPE: each byte of a word is spelled as one printable character, then pairs merge.

use std::collections::HashSet;
use std::sync::LazyLock;

use tokenizers::Model as _;
use tokenizers::models::bpe::{BPE, Vocab as Ids};

use super::TokenizerError;
use super::split::PreTokenizer;
use super::vocabulary::Vocabulary;
use crate::gguf::Gguf;

/// Merges in one file; there is at most about one for each token.
const MERGES_MAX: usize = 1 << 21;
/// Words whose tokens each thread remembers.
const CACHED_WORDS: usize = 4096;

/// The first character that spells a byte which is not printable by itself.
const SHIFTED: u32 = 0x100;

/// How each byte is spelled: printable Latin-1 as itself, the others from U+0100 on, in order.
static SPELLINGS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut shifted = SHIFTED;
    std::array::from_fn(|byte| {
        if matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) {
            return char::from(byte as u8);
        }
        let spelling = char::from_u32(shifted).expect("under 0x200, no surrogate");
        shifted += 1;
        spelling
    })
});

/// The way back: the byte that each character below 0x200 spells.
static BYTES: LazyLock<[Option<u8>; 0x200]> = LazyLock::new(|| {
    let mut bytes = [None; 0x200];
    for (byte, &spelling) in SPELLINGS.iter().enumerate() {
        bytes[spelling as usize] = Some(byte as u8);
    }
    bytes
});

/// The bytes that a token's spelling stands for. A character that spells no byte is itself.
pub(crate) fn decode_text(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match BYTES.get(character as usize).copied().flatten() {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// Words from a pre-tokenizer, tokens from the merges of the `tokenizers` crate.
pub(crate) struct ByteLevel {
    pre: PreTokenizer,
    merges: BPE,
    /// Bytes that no token spells. A word is cut there, as nothing can merge across them.
    missing: Vec<char>,
}

impl ByteLevel {
    pub(crate) fn read(
        gguf: &Gguf,
        pre: PreTokenizer,
        ids: Ids,
    ) -> Result<ByteLevel, TokenizerError> {
        let longest = ids.keys().map(String::len).max().unwrap_or(0);
        let merges = read_merges(gguf, longest)?;
        let spelled = |spelling: &&char| !ids.contains_key(spelling.to_string().as_str());
        let missing = SPELLINGS.iter().filter(spelled).copied().collect();
        let merges = BPE::builder()
            .vocab_and_merges(ids, merges)
            .cache_capacity(CACHED_WORDS)
            .ignore_merges(pre == PreTokenizer::Llama3)
            .build()
            .map_err(|error| unusable_merge(gguf, error.to_string()))?;
        Ok(ByteLevel { pre, merges, missing })
    }

    pub(crate) fn token_id(&self, text: &str) -> Option<u32> {
        self.merges.token_to_id(text)
    }

    pub(crate) fn encode(&self, text: &str, out: &mut Vec<u32>) {
        let mut spelled = String::new();
        self.pre.split(text, |word| {
            spelled.clear();
            spelled.extend(word.bytes().map(|byte| SPELLINGS[usize::from(byte)]));
            self.encode_word(&spelled, out);
        });
    }

    fn encode_word(&self, word: &str, out: &mut Vec<u32>) {
        for part in word.split(self.missing.as_slice()).filter(|part| !part.is_empty()) {
            // Fails only for an unknown token that is named but absent; none is named.
            let tokens = self.merges.tokenize(part).unwrap_or_default();
            out.extend(tokens.iter().map(|token| token.id));
        }
    }
}

/// The pairs that merge, best first. That their parts and the whole are tokens is left to who looks
/// them up; none is longer than the `longest` token.
fn read_merges(gguf: &Gguf, longest: usize) -> Result<Vec<(String, String)>, TokenizerError> {
    let key = "tokenizer.ggml.merges";
    let count = gguf.get_array(key)?.map_or(0, |array| array.len());
    if count > MERGES_MAX {
        let problem = format!("{count} merges, {MERGES_MAX} allowed");
        return Err(TokenizerError::Vocabulary(problem));
    }
    let mut seen = HashSet::with_capacity(count);
    let mut merges = Vec::with_capacity(count);
    for merge in gguf.get_strings(key)?.into_iter().flatten() {
        let (left, right) = split_merge(merge)
            .filter(|(left, right)| left.len() + right.len() <= longest)
            .ok_or_else(|| unusable(merge))?;
        // Of two equal merges the first has the better rank.
        if seen.insert(merge) {
            merges.push((left.to_owned(), right.to_owned()));
        }
    }
    Ok(merges)
}

/// The first merge whose parts or whole are no tokens; `otherwise` where there is none.
fn unusable_merge(gguf: &Gguf, otherwise: String) -> TokenizerError {
    let find = || {
        let (_, ids) = Vocabulary::read(gguf)?;
        let merges = gguf.get_strings("tokenizer.ggml.merges")?;
        let usable = |merge: &str| {
            split_merge(merge).is_some_and(|(left, right)| is_merge(left, right, &ids))
        };
        let bad = merges.into_iter().flatten().find(|merge| !usable(merge));
        Ok::<_, TokenizerError>(bad.map(unusable))
    };
    find().unwrap_or_else(Some).unwrap_or(TokenizerError::Vocabulary(otherwise))
}

/// Cuts at the first space that is not the first character.
fn split_merge(merge: &str) -> Option<(&str, &str)> {
    let first = merge.chars().next()?.len_utf8();
    let space = first + merge[first..].find(' ')?;
    Some((&merge[..space], &merge[space + 1..]))
}

fn is_merge(left: &str, right: &str, ids: &Ids) -> bool {
    let known = |text: &str| ids.contains_key(text);
    known(left) && known(right) && known(&format!("{left}{right}"))
}

fn unusable(merge: &str) -> TokenizerError {
    let shown: String = merge.chars().take(64).collect();
    TokenizerError::Vocabulary(format!("merge {shown:?} does not join two tokens to a third"))
}
