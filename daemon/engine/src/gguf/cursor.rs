//! A bounded reader over bytes: every read is checked against what is left.

use super::error::GgufError;

/// Reads little-endian numbers and strings from `bytes`, front to back.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at byte `at` of `bytes`; beyond the end there is nothing left to read.
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> Cursor<'a> {
        Cursor { bytes, at: at.min(bytes.len()) }
    }

    /// The offset of the next byte.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], GgufError> {
        if count > self.left() {
            return Err(self.short(count as u64, what));
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    /// The error for a read of `need` bytes that are not there.
    fn short(&self, need: u64, what: &str) -> GgufError {
        GgufError::at(self.at, format!("{what} needs {need} bytes and {} are left", self.left()))
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    pub(crate) fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A count of things of at least `min_bytes` bytes each, which therefore must fit what is left.
    /// This is what keeps allocations in proportion to the file.
    pub(crate) fn count(&mut self, min_bytes: usize, what: &str) -> Result<usize, GgufError> {
        let start = self.at;
        let count = self.u64(what)?;
        let most = (self.left() / min_bytes) as u64;
        if count > most {
            let problem =
                format!("{what} is {count}, and the rest of the file holds {most} at most");
            return Err(GgufError::at(start, problem));
        }
        Ok(count as usize)
    }

    /// A string: its length in bytes, then UTF-8.
    pub(crate) fn text(&mut self, max_bytes: usize, what: &str) -> Result<&'a str, GgufError> {
        let start = self.at;
        let len = self.u64(what)?;
        let left = self.left();
        if len > left as u64 {
            let problem = format!("{what} is {len} bytes long, and {left} are left");
            return Err(GgufError::at(start, problem));
        }
        if len > max_bytes as u64 {
            let problem = format!("{what} is {len} bytes long, and {max_bytes} are allowed");
            return Err(GgufError::at(start, problem));
        }
        let bytes = self.take(len as usize, what)?;
        std::str::from_utf8(bytes).map_err(|_| GgufError::at(start, format!("{what} is not UTF-8")))
    }
}
