//! A place in the text of a Modelfile, and the pieces read from there.

use super::Place;

/// A value as found.
#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    Missing,
    /// Opened by this quote, and no line ends in it.
    Unterminated(&'static str),
}

/// Walks the text by lines; columns are counted only when a place is asked for.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    /// Byte offset of the place.
    at: usize,
    line: u32,
    /// Byte offset at which the line begins.
    line_start: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Cursor<'a> {
        Cursor { text, at: 0, line: 1, line_start: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// The rest of the line, without its line feed.
    fn rest_of_line(&self) -> &'a str {
        let rest = self.rest();
        &rest[..rest.find('\n').unwrap_or(rest.len())]
    }

    pub(super) fn place(&self) -> Place {
        let column = self.text[self.line_start..self.at].chars().count();
        Place { line: self.line, column: u32::try_from(column).unwrap_or(u32::MAX - 1) + 1 }
    }

    /// Moves past `bytes` of text, keeping count of lines.
    fn advance(&mut self, bytes: usize) {
        let passed = &self.rest()[..bytes];
        let feeds = passed.bytes().filter(|byte| *byte == b'\n').count();
        self.line = self.line.saturating_add(u32::try_from(feeds).unwrap_or(u32::MAX));
        if let Some(last) = passed.rfind('\n') {
            self.line_start = self.at + last + 1;
        }
        self.at += bytes;
    }

    /// Moves to the first character of the next instruction: past blank lines and comments.
    pub(super) fn next_instruction(&mut self) -> bool {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            self.advance(blank);
            if !self.rest().starts_with('#') {
                return !self.rest().is_empty();
            }
            self.advance(self.rest_of_line().len());
        }
    }

    /// Moves past blanks within the line.
    pub(super) fn skip_blanks(&mut self) {
        let line = self.rest_of_line();
        self.advance(line.len() - line.trim_start().len());
    }

    /// The characters up to the next blank.
    pub(super) fn word(&mut self) -> &'a str {
        let line = self.rest_of_line();
        let word = &line[..line.find(char::is_whitespace).unwrap_or(line.len())];
        self.advance(word.len());
        word
    }

    /// The value that begins here; the place is then after it.
    pub(super) fn value(&mut self) -> Value {
        self.skip_blanks();
        let line = self.rest_of_line();
        if line.starts_with("\"\"\"") {
            self.quoted("\"\"\"")
        } else if line.starts_with('"') {
            self.quoted("\"")
        } else {
            self.advance(line.len());
            match line.trim_end() {
                "" => Value::Missing,
                text => Value::Text(String::from(text)),
            }
        }
    }

    /// A text between quotes. The closing quote is one that ends a line, blanks aside: quotes
    /// within a line belong to the text.
    fn quoted(&mut self, quote: &'static str) -> Value {
        let rest = self.rest();
        let body = &rest[quote.len()..];
        let mut line_start = 0;
        for line in body.split('\n') {
            let trimmed = line.trim_end();
            if trimmed.ends_with(quote) {
                let end = line_start + trimmed.len() - quote.len();
                self.advance(quote.len() + line_start + line.len());
                return Value::Text(String::from(&body[..end]));
            }
            line_start += line.len() + 1;
        }
        // Only this line is given up, so that a forgotten quote does not swallow the file.
        self.advance(self.rest_of_line().len());
        Value::Unterminated(quote)
    }
}
