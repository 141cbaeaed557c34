//! Marks: where the hash of a blob stood at every sixteenth megabyte, so that damage has a place.
//!
//! A digest says only whether all bytes are right. With the state that the hash had at the beginning and at
//! the end of a range, the range can be checked alone, and a repair keeps those that are right. Marks cost
//! nothing, since a download computes them on its way. They are never believed: whatever they keep, the
//! digest of all bytes decides in the end. A blob without marks is fetched whole.

use super::{Store, StoreError, durable, journal::Journal};
use crate::{Digest, Hasher, digest::HashState, extents::Extents};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Bytes between two marks.
const MARK_BYTES: u64 = 16 << 20;
/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

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

/// The ranges of `file` that are what was hashed when the marks were made. The rest after the last mark ends
/// in the digest itself.
fn right_ranges(
    file: &File,
    (size, digest): (u64, &Digest),
    marks: &[HashState],
) -> io::Result<Extents> {
    let (mut right, mut buffer) = (Extents::default(), vec![0; READ_BYTES]);
    for number in 0..=marks.len() {
        let start = number as u64 * MARK_BYTES;
        let end = size.min(start + MARK_BYTES);
        let before = number.checked_sub(1).map(|before| &marks[before]);
        let Some(mut hasher) = Hasher::from_state(before) else { continue };
        let mut at = start;
        while at < end {
            let count = buffer.len().min((end - at) as usize);
            file.read_exact_at(&mut buffer[..count], at)?;
            hasher.update(&buffer[..count]);
            at += count as u64;
        }
        let same = match marks.get(number) {
            Some(after) => hasher.state() == *after,
            None => hasher.finish() == *digest,
        };
        if same {
            right.insert(start..end);
        }
    }
    Ok(right)
}

impl Store {
    /// Copies a damaged blob that was put aside to `file`, and says which ranges of it are right. None where
    /// nothing tells, or nothing is.
    pub(super) fn salvage(
        &self,
        (digest, size): (&Digest, u64),
        journal: &Journal,
        (file, path): (&File, &Path),
    ) -> Result<Option<Extents>, StoreError> {
        let Some((source, from)) = self.put_aside_last(digest, size) else { return Ok(None) };
        let marks = journal.marks(digest)?;
        if marks.len() as u64 != size / MARK_BYTES || marks.is_empty() {
            return Ok(None);
        }
        let read = right_ranges(&source, (size, digest), &marks);
        let right = read.map_err(|error| StoreError::io(&from, error))?;
        for range in right.iter() {
            copy_range(&source, (file, path), range)?;
        }
        Ok((!right.is_empty()).then_some(right))
    }

    /// The last damaged file of this digest, if it has as many bytes as the blob.
    fn put_aside_last(&self, digest: &Digest, size: u64) -> Option<(File, PathBuf)> {
        let all = (0..).map(|n| self.paths().quarantined(digest, n));
        let last = all.take_while(|path| path.exists()).last()?;
        let file = File::open(&last).ok()?;
        let metadata = file.metadata().ok()?;
        (metadata.is_file() && metadata.len() == size).then_some((file, last))
    }
}

fn copy_range(
    source: &File,
    (file, path): (&File, &Path),
    range: std::ops::Range<u64>,
) -> Result<(), StoreError> {
    let (mut at, mut buffer) = (range.start, vec![0; READ_BYTES]);
    while at < range.end {
        let count = buffer.len().min((range.end - at) as usize);
        let piece = &mut buffer[..count];
        source.read_exact_at(piece, at).map_err(|error| StoreError::io(path, error))?;
        durable::write_at(file, path, piece, at)?;
        at += count as u64;
    }
    Ok(())
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
            (vec![], format!("0-{size}")),
            (vec![first], format!("{MARK_BYTES}-{size}")),
            (vec![second], format!("0-{MARK_BYTES} {}-{size}", 2 * MARK_BYTES)),
            (vec![0, second], format!("{}-{size}", 2 * MARK_BYTES)),
            (vec![size as usize - 1], format!("0-{}", 2 * MARK_BYTES)),
            (vec![0, second, size as usize - 1], String::new()),
        ] {
            let mut damaged = bytes.clone();
            flipped.iter().for_each(|at: &usize| damaged[*at] ^= 1);
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&damaged).unwrap();
            let right = right_ranges(&file, (size, &digest), &marks).unwrap();
            assert_eq!(right.to_string(), expected, "{flipped:?}");
        }
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
