//! Splits what a model says into thinking and answer, wherever tokens happen to cut the tags.

use crate::stop::overlap;

/// Opens the thinking.
pub(crate) const OPEN: &str = "<think>";
/// Closes it.
pub(crate) const CLOSE: &str = "</think>";

/// A piece of text and which part it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Thinking(String),
    Content(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing but white space so far: an opening tag may come.
    Start,
    /// The tag came (or the prompt ended in it); white space before the first word is dropped.
    Opened,
    Inside,
    /// The closing tag came; white space before the first word is dropped.
    Closed,
    /// The rest is the answer, tags or not.
    Answer,
}

/// Takes text as it comes and says which part each piece is.
///
/// One block of thinking is known, at the very beginning, as models are trained to write it. A tag
/// later on is the answer's own text: people do ask what `<think>` means.
#[derive(Clone, Debug)]
pub(crate) struct Splitter {
    state: State,
    held: String,
}

impl Splitter {
    /// A model that does not think, or was told not to: everything is the answer.
    pub(crate) fn off() -> Splitter {
        Splitter { state: State::Answer, held: String::new() }
    }

    /// A thinking model; `open` when the prompt itself ends in the opening tag.
    pub(crate) fn on(open: bool) -> Splitter {
        Splitter { state: if open { State::Opened } else { State::Start }, held: String::new() }
    }

    /// Whether the next text belongs to the thinking, as far as is known.
    pub(crate) fn thinking(&self) -> bool {
        matches!(self.state, State::Opened | State::Inside)
    }

    /// Takes more text, gives the parts that are certain.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Part> {
        self.held.push_str(text);
        let mut parts = Vec::new();
        while self.advance(&mut parts) {}
        parts
    }

    /// The end of the text: what was held back became no tag.
    pub(crate) fn finish(&mut self) -> Vec<Part> {
        let rest = std::mem::take(&mut self.held);
        match self.state {
            _ if rest.is_empty() => Vec::new(),
            // White space after a tag leads to nothing.
            State::Opened | State::Closed if rest.trim().is_empty() => Vec::new(),
            State::Opened | State::Inside => vec![Part::Thinking(rest)],
            State::Start | State::Closed | State::Answer => vec![Part::Content(rest)],
        }
    }

    /// One transition; false when more text is needed.
    fn advance(&mut self, parts: &mut Vec<Part>) -> bool {
        match self.state {
            State::Start => self.look_for_open(),
            State::Opened => self.skip_white_space(State::Inside),
            State::Inside => self.look_for_close(parts),
            State::Closed => self.skip_white_space(State::Answer),
            State::Answer => {
                self.emit(self.held.len(), parts, Part::Content);
                false
            }
        }
    }

    fn look_for_open(&mut self) -> bool {
        let text = self.held.trim_start();
        if let Some(rest) = text.strip_prefix(OPEN) {
            self.held = rest.to_owned();
            self.state = State::Opened;
            return true;
        }
        if OPEN.starts_with(text) {
            return false;
        }
        self.state = State::Answer;
        true
    }

    fn skip_white_space(&mut self, then: State) -> bool {
        let rest = self.held.trim_start();
        if rest.is_empty() {
            return false;
        }
        self.held = rest.to_owned();
        self.state = then;
        true
    }

    fn look_for_close(&mut self, parts: &mut Vec<Part>) -> bool {
        if let Some(at) = self.held.find(CLOSE) {
            let rest = self.held.split_off(at + CLOSE.len());
            let text = self.held[..at].trim_end().len();
            self.emit(text, parts, Part::Thinking);
            self.held = rest;
            self.state = State::Closed;
            return true;
        }
        // White space before a tag is dropped as well, so it waits with the tag.
        let certain = self.held.len() - overlap(&self.held, CLOSE);
        let certain = self.held[..certain].trim_end().len();
        self.emit(certain, parts, Part::Thinking);
        false
    }

    fn emit(&mut self, len: usize, parts: &mut Vec<Part>, part: fn(String) -> Part) {
        if len > 0 {
            let rest = self.held.split_off(len);
            parts.push(part(std::mem::replace(&mut self.held, rest)));
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    /// The whole thinking and the whole answer.
    fn collect(mut splitter: Splitter, pieces: &[&str]) -> (String, String) {
        let mut parts: Vec<Part> = pieces.iter().flat_map(|piece| splitter.push(piece)).collect();
        parts.extend(splitter.finish());
        let mut whole = (String::new(), String::new());
        for part in parts {
            match part {
                Part::Thinking(text) => whole.0 += &text,
                Part::Content(text) => whole.1 += &text,
            }
        }
        whole
    }

    fn check(splitter: Splitter, pieces: &[&str], want: Expect) {
        want.assert_eq(&format!("{:?}", collect(splitter, pieces)));
    }

    #[test]
    fn tags_are_found_across_pieces() {
        let on = Splitter::on(false);
        check(on.clone(), &["<thi", "nk>\na", "b</", "think>\n\nc"], expect![[r#"("ab", "c")"#]]);
        check(
            on.clone(),
            &["\n<think>", "a < b </t", "hen>"],
            expect![[r#"("a < b </then>", "")"#]],
        );
        check(on.clone(), &["<", "b>bold"], expect![[r#"("", "<b>bold")"#]]);
        check(on.clone(), &["<think>\n\n</think>\n\nhi"], expect![[r#"("", "hi")"#]]);
        check(on.clone(), &["<thi"], expect![[r#"("", "<thi")"#]]);
        check(on, &["say <think>x</think>"], expect![[r#"("", "say <think>x</think>")"#]]);
    }

    #[test]
    fn the_prompt_may_have_opened_it() {
        check(Splitter::on(true), &["ok", "ay</think>", "yes"], expect![[r#"("okay", "yes")"#]]);
        check(Splitter::on(true), &["never ends "], expect![[r#"("never ends ", "")"#]]);
        check(Splitter::off(), &["<think>a</think>"], expect![[r#"("", "<think>a</think>")"#]]);
    }

    #[test]
    fn text_comes_as_soon_as_it_is_certain() {
        let mut splitter = Splitter::on(true);
        assert_eq!(splitter.push("a "), [Part::Thinking("a".to_owned())]);
        assert_eq!(splitter.push("<"), []);
        assert_eq!(splitter.push("b"), [Part::Thinking(" <b".to_owned())]);
        assert!(splitter.thinking());
        assert_eq!(splitter.push("</think>c"), [Part::Content("c".to_owned())]);
        assert!(!splitter.thinking());
    }

    proptest! {
        /// However the text is cut, the parts are the same.
        #[test]
        fn cutting_does_not_matter(
            text in "(<think>|</think>|[ab<> \n]){0,12}",
            cuts in proptest::collection::vec(1usize..9, 0..40),
            open in any::<bool>(),
        ) {
            let whole = collect(Splitter::on(open), &[&text]);
            let mut pieces = Vec::new();
            let mut rest = text.as_str();
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = tail;
            }
            pieces.push(rest);
            prop_assert_eq!(collect(Splitter::on(open), &pieces), whole);
        }
    }
}
