//! Marks: where the hash of a blob stood at every sixteenth megabyte, so that damage has a place.
//!
//! A digest says only whether all bytes are right. With the state that the hash had at the beginning and at
//! the end of a range, the range can be checked alone, and a repair keeps those that are right. Marks cost
//! nothing, since a download computes them on its way. They are never believed: whatever they keep, the
//! digest of all bytes decides in the end. A blob without marks is fetched whole.

use super::{Store, StoreError, durable, journal::Journal};
use crate::{Digest, Hasher, digest::HashState, extents::Extents};
use std::{fs::File, os::unix::fs::FileExt, path::Path};

/// Bytes between two marks.
const MARK_BYTES: u64 = 16 << 20;

/// A hash that leaves marks.
#[derive(Debug, Default)]
pub(crate) struct Marker {
    hasher: Hasher,
    seen: u64,
    marks: Vec<HashState>,
}

impl Marker {
    /// Takes the next bytes.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = MARK_BYTES - self.seen % MARK_BYTES;
            let (now, later) = bytes.split_at(bytes.len().min(room as usize));
            self.hasher.update(now);
            self.seen += now.len() as u64;
            if self.seen.is_multiple_of(MARK_BYTES) {
                self.marks.push(self.hasher.state());
            }
            bytes = later;
        }
    }

    /// The digest of everything, and the marks on the way to it.
    pub(crate) fn finish(self) -> (Digest, Vec<HashState>) {
        (self.hasher.finish(), self.marks)
    }
}

impl Store {
    /// Copies to `file` what is right of a damaged blob that was put aside, until `stop` says so, and says
    /// which ranges that is: none where nothing tells.
    pub(super) fn salvage(
        &self,
        (digest, size): (&Digest, u64),
        journal: &Journal,
        (file, path): (&File, &Path),
        stop: &dyn Fn() -> bool,
    ) -> Result<Extents, StoreError> {
        let mut right = Extents::default();
        let marks = journal.marks(digest)?;
        if marks.is_empty() || marks.len() as u64 != size / MARK_BYTES {
            return Ok(right);
        }
        let Some(from) = self.put_aside_last(digest, size) else { return Ok(right) };
        let damaged = Damaged { from, size, digest, marks };
        for number in 0..=damaged.marks.len() {
            if stop() {
                break;
            }
            if let Some(piece) = damaged.right_piece(number) {
                let at = number as u64 * MARK_BYTES;
                durable::write_at(file, path, &piece, at)?;
                right.insert(at..at + piece.len() as u64);
            }
        }
        Ok(right)
    }

    /// The last damaged file of this digest, if it has as many bytes as the blob.
    fn put_aside_last(&self, digest: &Digest, size: u64) -> Option<File> {
        let all = (0..).map(|n| self.paths().quarantined(digest, n));
        let last = all.take_while(|path| path.exists()).last()?;
        let file = File::open(&last).ok()?;
        let metadata = file.metadata().ok()?;
        (metadata.is_file() && metadata.len() == size).then_some(file)
    }
}

/// A damaged blob, and what its hash was on its way when it was not.
struct Damaged<'a> {
    from: File,
    size: u64,
    digest: &'a Digest,
    marks: Vec<HashState>,
}

impl Damaged<'_> {
    /// The bytes after a mark, if they can be read and lead to the next one; the last ones, to the digest.
    fn right_piece(&self, number: usize) -> Option<Vec<u8>> {
        let at = number as u64 * MARK_BYTES;
        let mut piece = vec![0; MARK_BYTES.min(self.size - at) as usize];
        self.from.read_exact_at(&mut piece, at).ok()?;
        let before = number.checked_sub(1).map(|before| &self.marks[before]);
        let mut hasher = Hasher::from_state(before)?;
        hasher.update(&piece);
        let same = match self.marks.get(number) {
            Some(after) => hasher.state() == *after,
            None => hasher.finish() == *self.digest,
        };
        same.then_some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::weights;
    use std::io::Write;

    #[test]
    fn damage_has_a_place() {
        let size = 2 * MARK_BYTES + 1000;
        let bytes = weights(3, size as usize);
        let mut marker = Marker::default();
        bytes.chunks(999_983).for_each(|chunk| marker.update(chunk));
        let (digest, marks) = marker.finish();
        assert_eq!((digest, marks.len()), (Digest::of(&bytes), 2));
        let (first, second) = (MARK_BYTES as usize - 1, MARK_BYTES as usize);
        for (flipped, expected) in [
            (vec![], vec![0, 1, 2]),
            (vec![first], vec![1, 2]),
            (vec![second], vec![0, 2]),
            (vec![0, second], vec![2]),
            (vec![size as usize - 1], vec![0, 1]),
            (vec![0, second, size as usize - 1], vec![]),
        ] {
            let mut damaged = bytes.clone();
            flipped.iter().for_each(|at: &usize| damaged[*at] ^= 1);
            let mut from = tempfile::tempfile().unwrap();
            from.write_all(&damaged).unwrap();
            let damaged = Damaged { from, size, digest: &digest, marks: marks.clone() };
            let right = (0..3).filter(|number| damaged.right_piece(*number).is_some());
            assert_eq!(right.collect::<Vec<_>>(), expected, "{flipped:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_right() {
        let (digest, marks) = (Digest::of(b""), vec![Hasher::new().state()]);
        // Shorter than it was, as a file is to whom a bad sector ends it.
        let from = tempfile::tempfile().unwrap();
        from.set_len(MARK_BYTES / 2).unwrap();
        let damaged = Damaged { from, size: MARK_BYTES + 1, digest: &digest, marks };
        assert!((0..2).all(|number| damaged.right_piece(number).is_none()));
    }

    #[test]
    fn a_state_that_is_none_is_told() {
        let states = [Hasher::new().state(), Hasher::new().state()];
        let bytes = HashState::join(&states);
        assert_eq!(HashState::split(&bytes).unwrap(), states);
        assert!(HashState::split(&bytes[1..]).is_none());
        assert!(HashState::split(&[]).unwrap().is_empty());
    }
}
