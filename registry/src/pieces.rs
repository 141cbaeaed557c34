//! A file as a stream, for bodies: the next piece is read while one is sent, straight into what is sent.

use crate::pump::blocking;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

/// Bytes read from the disk at once.
const PIECE_BYTES: u64 = 256 << 10;
/// Pieces that are read or wait to be sent.
const PIECES_MAX: usize = 2;

/// The `length` bytes from `first` on. A file that has fewer ends in an error.
pub(crate) fn pieces(
    file: File,
    first: u64,
    length: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    let (file, end) = (Arc::new(file), first + length);
    let starts = stream::iter((first..end).step_by(PIECE_BYTES as usize));
    let reads = starts.map(move |start| {
        let file = Arc::clone(&file);
        blocking(move || read(&file, start, PIECE_BYTES.min(end - start)))
    });
    reads.buffered(PIECES_MAX)
}

fn read(file: &File, start: u64, count: u64) -> io::Result<Bytes> {
    let mut piece = vec![0; count as usize];
    file.read_exact_at(&mut piece, start)?;
    Ok(piece.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt;
    use std::io::Write;

    async fn all(bytes: &[u8], first: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut file = tempfile::tempfile()?;
        file.write_all(bytes)?;
        let pieces: Vec<Bytes> = pieces(file, first, length).try_collect().await?;
        Ok(pieces.concat())
    }

    #[tokio::test]
    async fn pieces_come_in_order_and_no_byte_more() {
        let bytes: Vec<u8> = (0..3 * PIECE_BYTES + 5).map(|at| (at % 251) as u8).collect();
        let size = bytes.len() as u64;
        for (first, length) in [(0, size), (1, PIECE_BYTES), (size - 3, 3), (7, 0), (5, size - 9)] {
            let expected = &bytes[first as usize..(first + length) as usize];
            assert!(all(&bytes, first, length).await.unwrap() == expected, "{first}+{length}");
        }
        let cut = all(&bytes, 10, size).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }
}
