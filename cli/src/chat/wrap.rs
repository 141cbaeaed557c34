//! Word wrap for text that arrives in pieces.

use unicode_width::UnicodeWidthChar as _;

/// Breaks lines between words at a width. Holds back the last, unfinished word until it is whole.
#[derive(Debug)]
pub(crate) struct Wrap {
    columns: usize,
    column: usize,
    spaces: String,
    word: String,
    word_columns: usize,
}

impl Wrap {
    pub(crate) fn new(columns: usize) -> Wrap {
        Wrap {
            columns: columns.max(1),
            column: 0,
            spaces: String::new(),
            word: String::new(),
            word_columns: 0,
        }
    }

    /// Takes the next piece and gives what can be printed now.
    pub(crate) fn push(&mut self, piece: &str) -> String {
        let mut out = String::new();
        for c in piece.chars() {
            match c {
                '\n' => {
                    self.flush_word(&mut out);
                    self.spaces.clear();
                    out.push('\n');
                    self.column = 0;
                }
                ' ' | '\t' => {
                    self.flush_word(&mut out);
                    self.spaces.push(c);
                }
                c => self.push_char(c, &mut out),
            }
        }
        out
    }

    /// Gives what was held back.
    pub(crate) fn finish(&mut self) -> String {
        let mut out = String::new();
        self.flush_word(&mut out);
        out
    }

    fn push_char(&mut self, c: char, out: &mut String) {
        let width = c.width().unwrap_or(0);
        // Wide characters (CJK, emoji) may be broken between any two; and a word wider than the
        // terminal has to be broken somewhere.
        if width > 1 || self.word_columns + width > self.columns {
            self.flush_word(out);
        }
        self.word.push(c);
        self.word_columns += width;
        if width > 1 {
            self.flush_word(out);
        }
    }

    fn flush_word(&mut self, out: &mut String) {
        if self.word.is_empty() {
            return;
        }
        let gap = self.spaces.chars().count();
        if self.column > 0 && self.column + gap + self.word_columns > self.columns {
            out.push('\n');
            self.column = 0;
        } else {
            out.push_str(&self.spaces);
            self.column += gap;
        }
        out.push_str(&self.word);
        self.column += self.word_columns;
        self.spaces.clear();
        self.word.clear();
        self.word_columns = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(columns: usize, pieces: &[&str]) -> String {
        let mut wrap = Wrap::new(columns);
        let mut text: String = pieces.iter().map(|piece| wrap.push(piece)).collect();
        text.push_str(&wrap.finish());
        text
    }

    #[test]
    fn lines_break_between_words_however_the_text_is_cut() {
        let text = "The quick brown fox jumps over";
        let expected = "The quick\nbrown fox\njumps over";
        assert_eq!(wrapped(10, &[text]), expected);
        let letters: Vec<String> = text.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        assert_eq!(wrapped(10, &letters), expected);
    }

    #[test]
    fn indents_and_own_line_breaks_stay() {
        assert_eq!(
            wrapped(20, &["fn main() {\n    let", " x;\n\n}"]),
            "fn main() {\n    let x;\n\n}"
        );
    }

    #[test]
    fn long_words_and_wide_characters_break_anywhere() {
        assert_eq!(wrapped(4, &["abcdefghij"]), "abcd\nefgh\nij");
        assert_eq!(wrapped(4, &["漢字漢字漢"]), "漢字\n漢字\n漢");
    }

    #[test]
    fn a_half_word_is_held_back() {
        let mut wrap = Wrap::new(80);
        assert_eq!(wrap.push("Hel"), "");
        assert_eq!(wrap.push("lo wor"), "Hello");
        assert_eq!(wrap.finish(), " wor");
    }
}
