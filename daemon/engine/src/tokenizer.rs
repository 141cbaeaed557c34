//! Text to token ids and back, as the model's file defines it.
//!
//! Two families are read: byte-level BPE (`tokenizer.ggml.model` = `gpt2`) with the pre-tokenizers
//! in [`PRE_TOKENIZERS`], and SentencePiece (`llama`). Ids are those of llama.cpp for any text,
//! which `golden_tests` holds; where the vocabulary's file is incomplete the same rules fill in.
//!
//! Encoding takes time linear in the text (times a logarithm inside one word), whatever the text:
//! words are found by hand-written scanners, not by a backtracking expression, and merges come from
//! a heap. There is therefore no limit on the length of the text.
//!
//! This module adds no begin-of-sequence token and knows no chat template: callers do that.

mod bpe;
mod decoder;
mod ends;
#[cfg(test)]
mod golden_tests;
mod special;
mod split;
mod spm;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::fmt;

use bpe::ByteLevel;
pub use decoder::Decoder;
use ends::Roles;
use special::{Fragment, SpecialTokens};
pub use split::PRE_TOKENIZERS;
use spm::SentencePiece;
use vocabulary::{Pieces, Vocabulary};
pub use vocabulary::{TOKEN_BYTES_MAX, VOCABULARY_MAX};

use crate::gguf::{Gguf, GgufError};

/// Why a file's tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The metadata itself cannot be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A family of tokenizers that is not read.
    #[error("tokenizer model {found:?} is not supported; gpt2 and llama are")]
    Model {
        /// The name in the file.
        found: String,
    },
    /// A way to find words that is not known; guessing would give other tokens.
    #[error("pre-tokenizer {found:?} is not supported; {} are", PRE_TOKENIZERS.join(", "))]
    PreTokenizer {
        /// The name in the file.
        found: String,
    },
    /// The vocabulary contradicts itself or a limit.
    #[error("tokenizer vocabulary: {0}")]
    Vocabulary(String),
}

/// Whether the names of control tokens in a text mean those tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// They do: the text is a rendered template.
    Parse,
    /// They are text like any other. User-defined tokens are found all the same: they stand for
    /// their own text.
    AsText,
}

/// The tokens that frame a gap to fill: prefix, suffix, and where the middle starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fim {
    /// Comes before the text before the gap.
    pub prefix: u32,
    /// Comes before the text after the gap.
    pub suffix: u32,
    /// Comes last; the model goes on with the middle.
    pub middle: u32,
}

/// A model's tokenizer. Immutable.
pub struct Tokenizer {
    encoder: Encoder,
    special: SpecialTokens,
    vocabulary: Vocabulary,
    pieces: Pieces,
    roles: Roles,
}

enum Encoder {
    ByteLevel(Box<ByteLevel>),
    SentencePiece(Box<SentencePiece>),
}

/// The family of a tokenizer.
enum Kind {
    ByteLevel,
    SentencePiece,
}

impl Kind {
    fn read(gguf: &Gguf) -> Result<Kind, TokenizerError> {
        match gguf.need_str("tokenizer.ggml.model")? {
            "gpt2" => Ok(Kind::ByteLevel),
            "llama" => Ok(Kind::SentencePiece),
            found => Err(TokenizerError::Model { found: found.to_owned() }),
        }
    }
}

impl Tokenizer {
    /// Refuses a tokenizer that is not known, at no cost.
    pub fn check(gguf: &Gguf) -> Result<(), TokenizerError> {
        match Kind::read(gguf)? {
            Kind::ByteLevel => split::PreTokenizer::from_gguf(gguf).map(|_| ()),
            Kind::SentencePiece => Ok(()),
        }
    }

    /// Builds the tokenizer that the file's metadata describes.
    pub fn from_gguf(gguf: &Gguf) -> Result<Tokenizer, TokenizerError> {
        match Kind::read(gguf)? {
            Kind::ByteLevel => Tokenizer::byte_level(gguf),
            Kind::SentencePiece => Tokenizer::sentence_piece(gguf),
        }
    }

    fn byte_level(gguf: &Gguf) -> Result<Tokenizer, TokenizerError> {
        let (mut vocabulary, ids) = Vocabulary::read(gguf)?;
        let pre = split::PreTokenizer::from_gguf(gguf)?;
        let roles = Roles::read(gguf, &mut vocabulary, &ids, ends::Defaults::byte_level(pre))?;
        let pieces = vocabulary.pieces(bpe::decode_text)?;
        let special = SpecialTokens::new(&vocabulary)?;
        let encoder = Encoder::ByteLevel(Box::new(ByteLevel::read(gguf, pre, ids)?));
        Ok(Tokenizer { encoder, special, vocabulary, pieces, roles })
    }

    fn sentence_piece(gguf: &Gguf) -> Result<Tokenizer, TokenizerError> {
        let (mut vocabulary, ids) = Vocabulary::read(gguf)?;
        let defaults = ends::Defaults::sentence_piece();
        let roles = Roles::read(gguf, &mut vocabulary, &ids, defaults)?;
        let pieces = vocabulary.pieces(spm::decode_text)?;
        let special = SpecialTokens::new(&vocabulary)?;
        let encoder = SentencePiece::read(gguf, ids, vocabulary.len(), roles.unknown)?;
        let encoder = Encoder::SentencePiece(Box::new(encoder));
        Ok(Tokenizer { encoder, special, vocabulary, pieces, roles })
    }

    /// The tokens of `text`, without a begin-of-sequence token.
    pub fn encode(&self, text: &str, special: Special) -> Vec<u32> {
        let mut out = Vec::with_capacity(text.len() / 3);
        let mut after_special = true;
        for fragment in self.special.partition(text, special) {
            match (fragment, &self.encoder) {
                (Fragment::Token(id), _) => out.push(id),
                (Fragment::Text(text), Encoder::ByteLevel(bpe)) => bpe.encode(text, &mut out),
                (Fragment::Text(text), Encoder::SentencePiece(spm)) => {
                    spm.encode(text, after_special, &mut out);
                }
            }
            after_special = matches!(fragment, Fragment::Token(_));
        }
        out
    }

    /// The token that begins a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.roles.bos
    }

    /// The token that ends a sequence.
    pub fn eos(&self) -> Option<u32> {
        self.roles.eos
    }

    /// The token that ends a turn of a conversation.
    pub fn eot(&self) -> Option<u32> {
        self.roles.eot
    }

    /// The token that ends a message after which the model waits for a tool.
    pub fn eom(&self) -> Option<u32> {
        self.roles.eom
    }

    /// Whether the model expects [`Tokenizer::bos`] at the start of every sequence.
    pub fn add_bos(&self) -> bool {
        self.roles.add_bos && self.roles.bos.is_some()
    }

    /// Whether the model expects [`Tokenizer::eos`] at the end of a text that is embedded.
    pub fn add_eos(&self) -> bool {
        self.roles.add_eos && self.roles.eos.is_some()
    }

    /// Whether generation ends with this token: end of sequence, turn or message, and the tokens
    /// that are known by name to mean so.
    pub fn is_end(&self, id: u32) -> bool {
        self.roles.ends.binary_search(&id).is_ok()
    }

    /// Every token for which [`Tokenizer::is_end`] holds, in order.
    pub fn ends(&self) -> &[u32] {
        &self.roles.ends
    }

    /// Whether the token is a mark for the model, not text.
    pub fn is_control(&self, id: u32) -> bool {
        self.vocabulary.is_control(id)
    }

    /// The tokens for filling a gap, when the model has all three.
    pub fn fim(&self) -> Option<Fim> {
        self.roles.fim
    }

    /// How many tokens there are; ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// The bytes the token stands for in text; none for control tokens and ids out of range.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.pieces.get(id)
    }

    /// The token as the vocabulary spells it: the name of a control token, the encoded text of
    /// another; empty for an id out of range.
    pub fn token_text(&self, id: u32) -> &str {
        self.vocabulary.text(id).unwrap_or_default()
    }

    /// The token that the vocabulary spells exactly like this.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        match &self.encoder {
            Encoder::ByteLevel(bpe) => bpe.token_id(text),
            Encoder::SentencePiece(spm) => spm.token_id(text),
        }
    }

    /// The text of `ids`. Bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut decoder = Decoder::new(self);
        let mut text: String = ids.iter().map(|&id| decoder.push(id)).collect();
        text.push_str(&decoder.finish());
        text
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}
