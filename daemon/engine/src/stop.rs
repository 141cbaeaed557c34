//! Ends an answer at a stop sequence, wherever tokens happen to cut it.

/// Stop sequences of one request.
pub(crate) const STOPS_MAX: usize = 64;
/// Bytes of one stop sequence.
pub(crate) const STOP_BYTES_MAX: usize = 1024;

/// Passes text on until a stop sequence appears in it.
///
/// Only the longest end of the text that a stop sequence begins with is held back, so text is as
/// early as it can be: with the stop "###", "a#" gives "a" at once and "#" when the next token
/// shows that it was none.
#[derive(Clone, Debug)]
pub(crate) struct StopFilter {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopFilter {
    pub(crate) fn new(stops: &[String]) -> StopFilter {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        StopFilter { stops, held: String::new(), stopped: false }
    }

    /// Takes more text, gives what can be shown.
    pub(crate) fn push(&mut self, text: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(text);
        if let Some((_, at)) = first_complete(&self.held, &self.stops) {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, rest)
    }

    /// Whether a stop sequence appeared.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped
    }

    /// The end of the text: what was held back became no stop sequence.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// The end and the start of the stop sequence that is complete first, the longest of those.
///
/// Not the one that begins first: while its end is not there, nobody knows that it will come.
fn first_complete(text: &str, stops: &[String]) -> Option<(usize, usize)> {
    stops.iter().filter_map(|stop| text.find(stop).map(|at| (at + stop.len(), at))).min()
}

/// Bytes of the longest end of `text` that is a beginning of `mark`, but not all of it.
pub(crate) fn overlap(text: &str, mark: &str) -> usize {
    let longest = text.len().min(mark.len().saturating_sub(1));
    (1..=longest)
        .rev()
        .find(|&len| mark.is_char_boundary(len) && text.ends_with(&mark[..len]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|&stop| stop.to_owned()).collect();
        let mut filter = StopFilter::new(&stops);
        let mut out: Vec<String> = pieces.iter().map(|piece| filter.push(piece)).collect();
        out.push(filter.finish());
        (out, filter.stopped())
    }

    fn check(stops: &[&str], pieces: &[&str], want: &[&str], stopped: bool) {
        let (got, was_stopped) = run(stops, pieces);
        assert_eq!((got, was_stopped), (want.iter().map(|&w| w.to_owned()).collect(), stopped));
    }

    #[test]
    fn holds_back_only_what_can_become_a_stop() {
        check(&[], &["a", "b"], &["a", "b", ""], false);
        check(&["###"], &["a#", "#", "b"], &["a", "", "##b", ""], false);
        check(&["###"], &["a#", "##", "b"], &["a", "", "", ""], true);
        check(&["###"], &["a##"], &["a", "##"], false);
        check(&["aab"], &["a", "a", "a", "b", "c"], &["", "", "a", "", "", ""], true);
    }

    #[test]
    fn the_stop_that_is_complete_first_wins() {
        check(&["world", "lo"], &["hel", "lo world"], &["he", "l", ""], true);
        check(&["b", "ab"], &["xab"], &["x", ""], true);
        check(&["a", "éaéé"], &["ééé", "aéé"], &["éé", "é", ""], true);
        check(&["a", "éaéé"], &["éééaéé"], &["ééé", ""], true);
        check(&["é!"], &["caf", "é", "!"], &["caf", "", "", ""], true);
    }

    proptest! {
        /// However the text is cut, the output is the text up to the stop that is complete first.
        #[test]
        fn cutting_does_not_matter(
            text in "[ab\u{e9}]{0,24}",
            stops in proptest::collection::vec("[ab\u{e9}]{1,4}", 0..4),
            cuts in proptest::collection::vec(1usize..4, 0..24),
        ) {
            let end = first_complete(&text, &stops).map(|(_, at)| at);
            let want = &text[..end.unwrap_or(text.len())];
            let mut filter = StopFilter::new(&stops);
            let mut got = String::new();
            let mut chars = text.chars();
            for cut in cuts.into_iter().chain(std::iter::once(usize::MAX)) {
                let piece: String = chars.by_ref().take(cut).collect();
                got += &filter.push(&piece);
                prop_assert!(want.starts_with(&got));
            }
            got += &filter.finish();
            prop_assert_eq!(got, want);
            prop_assert_eq!(filter.stopped(), end.is_some());
        }
    }
}
