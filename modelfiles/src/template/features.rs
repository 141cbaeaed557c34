//! What a template has a place for, read from the template itself.

use super::go::Go;

/// The abilities a template shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// It tells the model of tools.
    pub tools: bool,
    /// It knows of thinking: it opens, closes or strips the model's thoughts.
    pub thinking: bool,
    /// It can ask the model to fill a gap before a suffix.
    pub suffix: bool,
}

/// Jinja templates speak of tools and thoughts by agreed names.
pub(super) fn of_jinja(source: &str) -> Features {
    let has = |word: &str| source.contains(word);
    Features {
        tools: mentions_variable(source, "tools"),
        thinking: has("</think>")
            || has("enable_thinking")
            || has("reasoning_content")
            || has("<think>"),
        suffix: mentions_variable(source, "suffix"),
    }
}

/// Whether `word` stands in the template's tags as a name of its own.
fn mentions_variable(source: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    source.match_indices(word).any(|(at, _)| {
        let before = source[..at].chars().next_back();
        let after = source[at + word.len()..].chars().next();
        let within_tag = match (source[..at].rfind("{%"), source[..at].rfind("{{")) {
            (None, None) => false,
            (a, b) => {
                let open = a.max(b).unwrap_or(0);
                let close = source[..at].rfind("%}").max(source[..at].rfind("}}"));
                close.is_none_or(|close| close < open)
            }
        };
        within_tag
            && !before.is_some_and(|c| is_name(c) || matches!(c, '.' | '\'' | '"' | '<' | '/'))
            && !after.is_some_and(is_name)
    })
}

/// Go templates are known by the fields they read.
pub(super) fn of_go(go: &Go) -> Features {
    let thinking_tags = go.source().contains("</think>");
    Features {
        tools: go.mentions("Tools"),
        thinking: go.mentions("Thinking") || go.mentions("Think") || thinking_tags,
        suffix: go.mentions("Suffix"),
    }
}
