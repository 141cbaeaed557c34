//! The list of tokens: what each is spelled like and what kind it is.

use tokenizers::models::bpe::Vocab as Ids;

use super::TokenizerError;
use crate::gguf::{Array, Gguf};

/// Tokens in one vocabulary; the largest real ones have about 260,000.
pub const VOCABULARY_MAX: usize = 1 << 20;
/// The longest spelling of a token in bytes; real ones go to a few hundred (runs of spaces).
pub const TOKEN_BYTES_MAX: usize = 1 << 14;

/// What kind of token it is. Being special comes on top of the file's type: tokens that end a
/// generation are control tokens even when the file calls them normal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Attributes {
    /// Text in the family's own encoding.
    normal: bool,
    /// Stands for what the vocabulary cannot spell.
    unknown: bool,
    /// A mark for the model.
    control: bool,
    /// Found in a text before anything else, and spelled plainly.
    user_defined: bool,
    /// One byte, spelled `<0xAB>`.
    byte: bool,
}

impl Attributes {
    /// From the numbers of `tokenizer.ggml.token_type`. Unused (5) and undefined tokens have none.
    fn from_type(number: i64) -> Attributes {
        let none = Attributes::default();
        match number {
            1 => Attributes { normal: true, ..none },
            2 => Attributes { unknown: true, ..none },
            3 => Attributes { control: true, ..none },
            4 => Attributes { user_defined: true, ..none },
            6 => Attributes { byte: true, ..none },
            _ => none,
        }
    }

    fn spelled_plainly(self) -> bool {
        self.unknown || self.control || self.user_defined
    }
}

/// Every token's spelling and attributes, by id.
pub(crate) struct Vocabulary {
    /// All spellings, one after the other.
    texts: String,
    /// Where each spelling ends in `texts`.
    ends: Vec<usize>,
    attributes: Vec<Attributes>,
}

impl Vocabulary {
    /// Reads tokens and types; also returns the way back from a spelling to its id.
    pub(crate) fn read(gguf: &Gguf) -> Result<(Vocabulary, Ids), TokenizerError> {
        let key = "tokenizer.ggml.tokens";
        let array = gguf.get_array(key)?;
        let len = array.map_or(0, |array| array.len());
        if len == 0 || len > VOCABULARY_MAX {
            let problem = format!("{key} has {len} tokens; 1 to {VOCABULARY_MAX} are allowed");
            return Err(TokenizerError::Vocabulary(problem));
        }
        let tokens = gguf.get_strings(key)?.into_iter().flatten();
        let mut vocabulary = Vocabulary {
            texts: String::new(),
            ends: Vec::with_capacity(len),
            attributes: read_types(gguf, len)?,
        };
        let mut ids = Ids::with_capacity(len);
        for token in tokens {
            vocabulary.push(token, &mut ids)?;
        }
        if vocabulary.len() != len {
            return Err(TokenizerError::Vocabulary(
                "the file changed while it was read".to_owned(),
            ));
        }
        Ok((vocabulary, ids))
    }

    fn push(&mut self, token: &str, ids: &mut Ids) -> Result<(), TokenizerError> {
        let id = self.ends.len() as u32;
        if token.len() > TOKEN_BYTES_MAX {
            let problem = format!("token {id} is longer than {TOKEN_BYTES_MAX} bytes");
            return Err(TokenizerError::Vocabulary(problem));
        }
        // A token without a spelling is kept, under a name that no text is likely to hold.
        let name = if token.is_empty() { format!("[EMPTY_{id}]") } else { token.to_owned() };
        self.texts.push_str(&name);
        self.ends.push(self.texts.len());
        match ids.insert(name, id) {
            None => Ok(()),
            Some(first) => {
                let problem = format!("tokens {first} and {id} are both {token:?}");
                Err(TokenizerError::Vocabulary(problem))
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.attributes.len()
    }

    pub(crate) fn text(&self, id: u32) -> Option<&str> {
        let index = id as usize;
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.texts[start..end])
    }

    fn attributes(&self, id: u32) -> Attributes {
        self.attributes.get(id as usize).copied().unwrap_or_default()
    }

    pub(crate) fn is_control(&self, id: u32) -> bool {
        let attributes = self.attributes(id);
        attributes.control || attributes.unknown
    }

    pub(crate) fn is_user_defined(&self, id: u32) -> bool {
        self.attributes(id).user_defined
    }

    pub(crate) fn make_control(&mut self, id: u32) {
        if let Some(attributes) = self.attributes.get_mut(id as usize) {
            attributes.control = true;
        }
    }

    /// The bytes that each token stands for, given the family's decoding of a normal spelling.
    pub(crate) fn pieces(&self, decode: fn(&str) -> Vec<u8>) -> Result<Pieces, TokenizerError> {
        let mut pieces = Pieces::default();
        for id in 0..self.len() as u32 {
            let (attributes, text) = (self.attributes(id), self.text(id).unwrap_or_default());
            // Control tokens give no text; their names are in the vocabulary.
            if attributes.control || attributes.unknown {
                pieces.push(&[]);
            } else if attributes.spelled_plainly() {
                pieces.push(text.as_bytes());
            } else if attributes.normal {
                pieces.push(&decode(text));
            } else if attributes.byte {
                pieces.push(&[byte_value(text).ok_or_else(|| not_a_byte(id, text))?]);
            } else {
                pieces.push(&[]);
            }
        }
        Ok(pieces)
    }
}

fn not_a_byte(id: u32, text: &str) -> TokenizerError {
    TokenizerError::Vocabulary(format!("byte token {id} is spelled {text:?}, not like <0x0A>"))
}

/// The byte that a spelling like `<0x0A>` means.
fn byte_value(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let hex = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hex { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// The types of `len` tokens; all normal when the file does not say.
fn read_types(gguf: &Gguf, len: usize) -> Result<Vec<Attributes>, TokenizerError> {
    let key = "tokenizer.ggml.token_type";
    let Some(types) = gguf.get_array(key)? else {
        return Ok(vec![Attributes::from_type(1); len]);
    };
    check_length(key, types, len)?;
    let wrong = || TokenizerError::Vocabulary(format!("{key} holds something else than integers"));
    let number = |value: crate::gguf::Value<'_>| value.as_i64().ok_or_else(wrong);
    let types: Vec<Attributes> = types
        .iter()
        .take(len)
        .map(|value| number(value).map(Attributes::from_type))
        .collect::<Result<_, _>>()?;
    Ok(types)
}

/// A list beside the tokens must not be shorter than they are.
pub(crate) fn check_length(key: &str, array: Array<'_>, len: usize) -> Result<(), TokenizerError> {
    if array.len() >= len {
        return Ok(());
    }
    let problem = format!("{key} has {} entries for {len} tokens", array.len());
    Err(TokenizerError::Vocabulary(problem))
}

/// Byte strings by token id.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Pieces {
    fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        self.ends.push(self.bytes.len());
    }

    /// The bytes of token `id`; none for an id out of range.
    pub(crate) fn get(&self, id: u32) -> &[u8] {
        let index = id as usize;
        let Some(&end) = self.ends.get(index) else { return &[] };
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..end]
    }
}
