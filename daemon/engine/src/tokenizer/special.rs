//! Tokens that are found in a text before it is split into words.

use super::vocabulary::Vocabulary;
use super::{Special, TokenizerError};

/// Special tokens in one vocabulary; real ones have at most a few thousand.
const SPECIAL_TOKENS_MAX: usize = 1 << 14;

/// A part of a text: a token that was found, or what lies between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fragment<'a> {
    Text(&'a str),
    Token(u32),
}

struct SpecialToken {
    text: String,
    id: u32,
    /// Found only when special tokens are parsed.
    control: bool,
}

/// Control, unknown and user-defined tokens, longest first.
pub(crate) struct SpecialTokens(Vec<SpecialToken>);

impl SpecialTokens {
    pub(crate) fn new(vocabulary: &Vocabulary) -> Result<SpecialTokens, TokenizerError> {
        let is_special = |&id: &u32| vocabulary.is_control(id) || vocabulary.is_user_defined(id);
        let mut tokens: Vec<SpecialToken> = (0..vocabulary.len() as u32)
            .filter(is_special)
            .filter_map(|id| {
                let (text, control) = (vocabulary.text(id)?.to_owned(), vocabulary.is_control(id));
                Some(SpecialToken { text, id, control })
            })
            .collect();
        if tokens.len() > SPECIAL_TOKENS_MAX {
            let problem = format!("{} special tokens, {SPECIAL_TOKENS_MAX} allowed", tokens.len());
            return Err(TokenizerError::Vocabulary(problem));
        }
        tokens.sort_by_key(|token| std::cmp::Reverse(token.text.len()));
        Ok(SpecialTokens(tokens))
    }

    /// Cuts `text` at special tokens. A longer token is cut out everywhere before a shorter one is
    /// looked for, so of two that overlap the longer one wins, wherever it starts.
    pub(crate) fn partition<'a>(&self, text: &'a str, special: Special) -> Vec<Fragment<'a>> {
        if text.is_empty() {
            return Vec::new();
        }
        let mut fragments = vec![Fragment::Text(text)];
        let wanted = |token: &&SpecialToken| {
            (special == Special::Parse || !token.control) && text.contains(token.text.as_str())
        };
        for token in self.0.iter().filter(wanted) {
            fragments = fragments.iter().flat_map(|&fragment| cut(fragment, token)).collect();
        }
        fragments
    }
}

/// Cuts one fragment at every place of one token.
fn cut<'a>(fragment: Fragment<'a>, token: &SpecialToken) -> Vec<Fragment<'a>> {
    let Fragment::Text(mut rest) = fragment else { return vec![fragment] };
    let mut out = Vec::new();
    while let Some((before, after)) = rest.split_once(token.text.as_str()) {
        if !before.is_empty() {
            out.push(Fragment::Text(before));
        }
        out.push(Fragment::Token(token.id));
        rest = after;
    }
    if !rest.is_empty() {
        out.push(Fragment::Text(rest));
    }
    out
}
