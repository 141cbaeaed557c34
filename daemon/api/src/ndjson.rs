//! Lines of JSON out of a stream of bytes that arrives in pieces of any size.

use bytes::{Bytes, BytesMut};

/// The longest line that is believed: 32 MiB, room for the tokens of a very long conversation.
pub const LINE_BYTES_MAX: usize = 32 << 20;

/// A line that did not end within [`LineDecoder`]'s limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {max} bytes")]
pub struct LineTooLong {
    /// The limit.
    pub max: usize,
}

/// Cuts bytes into lines. Blank lines are skipped; a last line needs no newline.
#[derive(Debug)]
pub struct LineDecoder {
    buffer: BytesMut,
    /// How far `buffer` was searched already, so that a long line is not searched again and again.
    searched: usize,
    max: usize,
}

impl LineDecoder {
    /// A decoder that refuses lines of more than `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> LineDecoder {
        LineDecoder { buffer: BytesMut::new(), searched: 0, max }
    }

    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole line without its end, if there is one.
    pub fn next_line(&mut self) -> Result<Option<Bytes>, LineTooLong> {
        while let Some(end) = self.find_newline()? {
            let line = self.buffer.split_to(end + 1).freeze();
            self.searched = 0;
            let line = without_end(&line);
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// What is left when the stream has ended: a last line that had no newline.
    pub fn finish(&mut self) -> Option<Bytes> {
        self.searched = 0;
        let rest = without_end(&self.buffer.split().freeze());
        (!rest.is_empty()).then_some(rest)
    }

    fn find_newline(&mut self) -> Result<Option<usize>, LineTooLong> {
        let found = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let length = found.map_or(self.buffer.len(), |at| self.searched + at);
        if length > self.max {
            return Err(LineTooLong { max: self.max });
        }
        self.searched = length;
        Ok(found.map(|_| length))
    }
}

/// The line without `\n` or `\r\n`.
fn without_end(line: &Bytes) -> Bytes {
    let end = line.strip_suffix(b"\n").unwrap_or(line);
    let end = end.strip_suffix(b"\r").unwrap_or(end);
    line.slice(..end.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines_of(pieces: &[&[u8]], max: usize) -> Result<Vec<Vec<u8>>, LineTooLong> {
        let mut decoder = LineDecoder::new(max);
        let mut lines = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            while let Some(line) = decoder.next_line()? {
                lines.push(line.to_vec());
            }
        }
        lines.extend(decoder.finish().map(|line| line.to_vec()));
        Ok(lines)
    }

    #[test]
    fn blank_lines_and_carriage_returns_are_not_lines() {
        let lines = lines_of(&[b"\n\r\n{}\r\n\n[1]"], 16).unwrap();
        assert_eq!(lines, [b"{}".to_vec(), b"[1]".to_vec()]);
    }

    #[test]
    fn a_line_that_never_ends_is_refused_at_the_limit() {
        assert_eq!(lines_of(&[b"12345678"], 8).unwrap().len(), 1);
        assert_eq!(lines_of(&[b"1234", b"56789"], 8), Err(LineTooLong { max: 8 }));
        assert_eq!(lines_of(&[b"123456789\n"], 8), Err(LineTooLong { max: 8 }));
    }

    proptest! {
        /// However the bytes are cut, the lines are the same.
        #[test]
        fn cuts_do_not_matter(
            lines in prop::collection::vec("[a-z{}\":,é]{1,20}", 0..8),
            cuts in prop::collection::vec(1_usize..7, 1..60),
        ) {
            let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            let mut rest = text.as_bytes();
            let mut pieces = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            let read = lines_of(&pieces, 1024).unwrap();
            let wanted = lines.into_iter().map(String::into_bytes).collect::<Vec<_>>();
            prop_assert_eq!(read, wanted);
        }
    }
}
