//! Tokens to text, as they come.

use std::fmt;

use super::Tokenizer;
use super::vocabulary::Pieces;

/// Turns a stream of tokens into a stream of text that is UTF-8 at every step.
///
/// A character may be spread over tokens: its first bytes are held back until the rest comes. Bytes
/// that no continuation can complete become U+FFFD at once.
#[derive(Clone)]
pub struct Decoder<'a> {
    pieces: &'a Pieces,
    /// The start of a character: at most three bytes between calls.
    pending: Vec<u8>,
}

impl<'a> Decoder<'a> {
    /// Starts a stream of the tokenizer's tokens. Control tokens give no text.
    pub fn new(tokenizer: &'a Tokenizer) -> Decoder<'a> {
        Decoder { pieces: &tokenizer.pieces, pending: Vec::new() }
    }

    /// The text that is certain after one more token; often empty.
    pub fn push(&mut self, id: u32) -> String {
        self.pending.extend_from_slice(self.pieces.get(id));
        let mut text = String::new();
        let held = loop {
            match std::str::from_utf8(&self.pending) {
                Ok(valid) => {
                    text.push_str(valid);
                    break 0;
                }
                Err(error) => {
                    let (valid, rest) = self.pending.split_at(error.valid_up_to());
                    text.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    let Some(invalid) = error.error_len() else { break rest.len() };
                    text.push(char::REPLACEMENT_CHARACTER);
                    self.pending.drain(..error.valid_up_to() + invalid);
                }
            }
        };
        self.pending.drain(..self.pending.len() - held);
        text
    }

    /// What is still held back when the stream ends: U+FFFD for an unfinished character.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

impl fmt::Debug for Decoder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("pending", &self.pending).finish_non_exhaustive()
    }
}
