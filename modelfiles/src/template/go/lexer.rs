//! A Go template as plain text and the tokens of its actions.

use crate::template::TemplateError;
use crate::template::limits::TAG_TOKENS_MAX;

/// A stretch of the template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    Text(String),
    /// What stands between `{{` and `}}`, with the line it begins on.
    Action(Vec<Spaced>, u32),
}

/// A token, and whether a blank stands before it: `.a .b` is two arguments, `.a.b` is one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spaced {
    pub(super) token: Token,
    pub(super) spaced: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A keyword or the name of a function.
    Word(String),
    /// `.Name`, without the dot.
    Field(String),
    /// `$name`, with the dollar.
    Variable(String),
    Text(String),
    Integer(i64),
    Float(f64),
    Dot,
    Open,
    Close,
    Pipe,
    Comma,
    Declare,
    Assign,
}

/// Splits a template. White space next to `{{-` and `-}}` is already gone from the texts.
pub(super) fn split(source: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut line = 1;
    let mut trim_next = false;
    while let Some(found) = source[at..].find("{{") {
        let open = at + found;
        let trim_before = begins_with_trim(&source[open + 2..]);
        push_text(&mut pieces, &source[at..open], trim_next, trim_before);
        line += feeds(&source[at..open]);
        let start = open + 2 + usize::from(trim_before);
        let (body, after, trim_after) = body(source, start, line)?;
        if !is_comment(body) {
            pieces.push(Piece::Action(tokens(body, line)?, line));
        }
        trim_next = trim_after;
        line += feeds(&source[open..after]);
        at = after;
    }
    push_text(&mut pieces, &source[at..], trim_next, false);
    Ok(pieces)
}

fn push_text(pieces: &mut Vec<Piece>, text: &str, trim_start: bool, trim_end: bool) {
    /// What Go trims: no other white space.
    const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];
    let text = if trim_start { text.trim_start_matches(BLANKS) } else { text };
    let text = if trim_end { text.trim_end_matches(BLANKS) } else { text };
    if !text.is_empty() {
        pieces.push(Piece::Text(String::from(text)));
    }
}

fn begins_with_trim(rest: &str) -> bool {
    let mut chars = rest.chars();
    chars.next() == Some('-') && chars.next().is_some_and(char::is_whitespace)
}

fn is_comment(body: &str) -> bool {
    body.trim_start().starts_with("/*")
}

fn feeds(text: &str) -> u32 {
    let feeds = text.bytes().filter(|byte| *byte == b'\n').count();
    u32::try_from(feeds).unwrap_or(u32::MAX)
}

/// The text of an action, where the template goes on after it, and whether white space goes.
fn body(source: &str, start: usize, line: u32) -> Result<(&str, usize, bool), TemplateError> {
    let end = action_end(&source[start..])
        .ok_or_else(|| error(line, "the action is never closed with `}}`"))?;
    let body = &source[start..start + end];
    let after = start + end + 2;
    match body.strip_suffix('-') {
        Some(trimmed) if trimmed.ends_with(char::is_whitespace) || trimmed.is_empty() => {
            Ok((trimmed, after, true))
        }
        // A comment ends in `*/`, so that its `-` needs no blank.
        Some(trimmed) if is_comment(body) => Ok((trimmed, after, true)),
        _ => Ok((body, after, false)),
    }
}

/// Where `}}` stands outside of strings and comments.
fn action_end(text: &str) -> Option<usize> {
    if is_comment(text) {
        let close = text.find("*/")?;
        return text[close..].find("}}").map(|end| close + end);
    }
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some(open) if c == open && !escaped => quote = None,
            Some('`') => {}
            Some(_) => escaped = c == '\\' && !escaped,
            None if matches!(c, '"' | '`' | '\'') => quote = Some(c),
            None if c == '}' && text[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

pub(super) fn error(line: u32, message: impl Into<String>) -> TemplateError {
    TemplateError::Syntax { line, message: message.into() }
}

fn tokens(body: &str, line: u32) -> Result<Vec<Spaced>, TemplateError> {
    let mut rest = body;
    let mut tokens = Vec::new();
    loop {
        let trimmed = rest.trim_start();
        let spaced = trimmed.len() < rest.len();
        if trimmed.is_empty() {
            return Ok(tokens);
        }
        if tokens.len() >= TAG_TOKENS_MAX {
            return Err(TemplateError::limit(format!("{TAG_TOKENS_MAX} words in one action")));
        }
        let (token, length) = token(trimmed, line)?;
        tokens.push(Spaced { token, spaced });
        rest = &trimmed[length..];
    }
}

/// The first token of a text that does not begin with a blank, and its length in bytes.
fn token(text: &str, line: u32) -> Result<(Token, usize), TemplateError> {
    for (sign, token) in [
        (":=", Token::Declare),
        ("=", Token::Assign),
        ("(", Token::Open),
        (")", Token::Close),
        ("|", Token::Pipe),
        (",", Token::Comma),
    ] {
        if text.starts_with(sign) {
            return Ok((token, sign.len()));
        }
    }
    match text.chars().next() {
        Some('"' | '`' | '\'') => quoted(text, line),
        Some('.') if !text[1..].starts_with(|c: char| c.is_ascii_digit()) => {
            let name = name(&text[1..]);
            let token = if name.is_empty() { Token::Dot } else { Token::Field(name.into()) };
            Ok((token, 1 + name.len()))
        }
        Some('$') => {
            let length = 1 + name(&text[1..]).len();
            Ok((Token::Variable(text[..length].into()), length))
        }
        Some(c) if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => number(text, line),
        Some(c) if is_name(c) => {
            let name = name(text);
            Ok((Token::Word(name.into()), name.len()))
        }
        c => Err(error(line, format!("unexpected `{}`", c.map_or_else(String::new, String::from)))),
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn name(text: &str) -> &str {
    &text[..text.find(|c| !is_name(c)).unwrap_or(text.len())]
}

fn number(text: &str, line: u32) -> Result<(Token, usize), TemplateError> {
    let numeric = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_');
    let end = text[1..].find(|c| !numeric(c)).map_or(text.len(), |end| end + 1);
    let digits = text[..end].replace('_', "");
    let token = match (digits.parse::<i64>(), digits.parse::<f64>()) {
        (Ok(integer), _) => Token::Integer(integer),
        (_, Ok(float)) if float.is_finite() => Token::Float(float),
        _ => return Err(error(line, format!("`{}` is no number", &text[..end]))),
    };
    Ok((token, end))
}

/// A string, or a character, which Go takes as its number.
fn quoted(text: &str, line: u32) -> Result<(Token, usize), TemplateError> {
    let unterminated = || error(line, "a string is never closed");
    let quote = text.chars().next().ok_or_else(unterminated)?;
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == quote {
            let length = at + 1;
            let only = out.chars().next().filter(|_| out.chars().count() == 1);
            return match (quote, only) {
                ('\'', Some(c)) => Ok((Token::Integer(i64::from(u32::from(c))), length)),
                ('\'', None) => Err(error(line, "`'…'` must hold one character")),
                _ => Ok((Token::Text(out), length)),
            };
        }
        if c != '\\' || quote == '`' {
            out.push(c);
            continue;
        }
        out.push(escape(&mut chars).ok_or_else(|| error(line, "unknown escape in a string"))?);
    }
    Err(unterminated())
}

fn escape(chars: &mut impl Iterator<Item = (usize, char)>) -> Option<char> {
    let (_, c) = chars.next()?;
    let digits = match c {
        'n' => return Some('\n'),
        't' => return Some('\t'),
        'r' => return Some('\r'),
        '\\' | '"' | '\'' => return Some(c),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => return None,
    };
    let text: String = chars.take(digits).map(|(_, c)| c).collect();
    (text.len() == digits).then_some(())?;
    char::from_u32(u32::from_str_radix(&text, 16).ok()?)
}
