//! What a parser has to say about a place in a text.

use std::fmt;

/// One fault of a Modelfile, with where it is and, when there is one, how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// What is wrong, naming the word that is.
    pub message: String,
    /// What to write instead, when that can be guessed.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Edits (insertions, deletions, replacements) that still count as a slip of the fingers.
const TYPO_EDITS_MAX: usize = 2;

/// The candidate nearest to `word`, when it is near enough to be what was meant.
pub(crate) fn did_you_mean<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    // A long word is no slip, and its distance is not worth computing.
    if word.chars().count() > 40 {
        return None;
    }
    let word = word.to_lowercase();
    candidates
        .map(|candidate| (edits(&word, &candidate.to_lowercase()), candidate))
        .filter(|(edits, candidate)| *edits <= TYPO_EDITS_MAX && *edits < candidate.len())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, one row at a time.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (a, b, want) in [("", "", 0), ("from", "form", 2), ("stop", "stpo", 2), ("a", "abc", 2)]
        {
            assert_eq!(edits(a, b), want, "{a} {b}");
        }
    }

    #[test]
    fn only_near_words_are_offered() {
        let known = ["temperature", "top_k", "top_p"];
        assert_eq!(did_you_mean("temprature", known.into_iter()), Some("temperature"));
        assert_eq!(did_you_mean("TOP_K", known.into_iter()), Some("top_k"));
        assert_eq!(did_you_mean("verbosity", known.into_iter()), None);
    }
}
