//! Content digests: sha256 and nothing else, parsed once at the edge.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{
    Digest as _,
    digest::common::hazmat::{SerializableState, SerializedState},
};
use std::{fmt, str::FromStr};

/// Characters of a digest in hexadecimal.
const HEX_CHARS: usize = 64;

/// The sha256 of some bytes. Parsing is the only way in from outside, so a path made of one is safe.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why a text is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Another algorithm, or none at all.
    #[error("digest {0:?} is not a sha256 digest (expected sha256:<64 hex digits>)")]
    Algorithm(String),
    /// The right algorithm, but not 64 lowercase hexadecimal digits.
    #[error("digest {0:?} is malformed: after sha256: come exactly 64 lowercase hex digits")]
    Malformed(String),
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(sha2::Sha256::digest(bytes).into())
    }

    /// 64 lowercase hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(hex_char).collect()
    }

    /// The first 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }
}

/// Where a [`Hasher`] stands after some bytes: another one can go on from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HashState(SerializedState<sha2::Sha256>);

impl HashState {
    /// Several as bytes.
    pub(crate) fn join(states: &[HashState]) -> Vec<u8> {
        states.iter().flat_map(|state| state.0.iter().copied()).collect()
    }

    /// What [`HashState::join`] made; none for anything else.
    pub(crate) fn split(bytes: &[u8]) -> Option<Vec<HashState>> {
        let length = SerializedState::<sha2::Sha256>::default().len();
        let states = bytes.chunks(length).map(|state| state.try_into().ok().map(HashState));
        states.collect()
    }
}

/// Hashes bytes as they arrive.
#[derive(Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Hasher {
        Hasher::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Where it stands.
    pub(crate) fn state(&self) -> HashState {
        HashState(self.0.serialize())
    }

    /// One that stands where another stood, or at the beginning; none for a state that is none.
    pub(crate) fn from_state(state: Option<&HashState>) -> Option<Hasher> {
        let Some(HashState(state)) = state else { return Some(Hasher::new()) };
        sha2::Sha256::deserialize(state).ok().map(Hasher)
    }

    /// The digest of everything seen so far.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

fn hex_char(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).expect("a nibble is below 16")
}

/// The value of a lowercase hexadecimal digit. Uppercase is refused: one digest has one spelling.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// A text short enough to repeat in an error.
pub(crate) fn excerpt(text: &str) -> String {
    const EXCERPT_CHARS: usize = 100;
    match text.char_indices().nth(EXCERPT_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    /// Accepts `sha256:<hex>` and, as file names have it, `sha256-<hex>`.
    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let hex = text
            .strip_prefix("sha256:")
            .or_else(|| text.strip_prefix("sha256-"))
            .ok_or_else(|| DigestError::Algorithm(excerpt(text)))?;
        let malformed = || DigestError::Malformed(excerpt(text));
        let hex: &[u8; HEX_CHARS] = hex.as_bytes().try_into().map_err(|_| malformed())?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let high = nibble(pair[0]).ok_or_else(malformed)?;
            *byte = high << 4 | nibble(pair[1]).ok_or_else(malformed)?;
        }
        Ok(Digest(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn check(text: &str, expected: Expect) {
        let answer = match text.parse::<Digest>() {
            Ok(digest) => format!("ok {digest}"),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&answer);
    }

    #[test]
    fn of_nothing_is_the_known_constant() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(Digest::of(b"").short(), "e3b0c44298fc");
        assert_eq!(Hasher::new().finish(), Digest::of(b""));
    }

    #[test]
    fn the_file_name_form_is_the_same_digest() {
        assert_eq!(EMPTY.replace(':', "-").parse(), Ok(Digest::of(b"")));
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        check(
            "sha512:00",
            expect![[
                r#"digest "sha512:00" is not a sha256 digest (expected sha256:<64 hex digits>)"#
            ]],
        );
        check(
            "sha256:../../../etc/passwd",
            expect![[
                r#"digest "sha256:../../../etc/passwd" is malformed: after sha256: come exactly 64 lowercase hex digits"#
            ]],
        );
        for bad in [&EMPTY.to_uppercase(), &EMPTY[..70], &format!("{EMPTY}0"), ""] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_to_itself_or_not_at_all(text in "(sha256[:-])?[0-9a-fA-F./\\PC]{0,70}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text.replace("sha256-", "sha256:"));
            }
        }

        #[test]
        fn display_then_parse_is_the_identity(bytes: Vec<u8>) {
            let digest = Digest::of(&bytes);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
            prop_assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{digest}\""));
        }
    }
}
