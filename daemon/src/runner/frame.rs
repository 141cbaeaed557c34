//! Frames on a runner's socket.
//!
//! ```text
//! +----------------+----------------------+
//! | u32 LE: length | length bytes of JSON |
//! +----------------+----------------------+
//! ```

use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest body of a frame, in bytes: a prompt that fills the largest context fits.
pub(crate) const BYTES_MAX: usize = 64 * 1024 * 1024;
/// How much of a body is allocated before its bytes have arrived.
const FIRST_BYTES: usize = 64 * 1024;

/// A frame that is not one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {0} bytes is longer than the {BYTES_MAX} allowed")]
    TooLong(u64),
    #[error("a frame is no message of this protocol: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the socket ended inside a frame")]
    Cut,
    #[error("the socket failed: {0}")]
    Io(io::Error),
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> FrameError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => FrameError::Cut,
            _ => FrameError::Io(error),
        }
    }
}

/// The bytes of a message's frame.
pub(crate) fn encode(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    if length > BYTES_MAX {
        return Err(FrameError::TooLong(length as u64));
    }
    bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(bytes)
}

/// Writes one message.
pub(crate) fn write(writer: &mut impl Write, message: &impl Serialize) -> Result<(), FrameError> {
    Ok(writer.write_all(&encode(message)?)?)
}

/// Reads one message; `None` when the other side closed between two frames.
pub(crate) fn read<T: DeserializeOwned>(reader: &mut impl Read) -> Result<Option<T>, FrameError> {
    let mut head = [0; 4];
    if !read_head(reader, &mut head)? {
        return Ok(None);
    }
    let length = body_length(head)?;
    let mut body = Vec::with_capacity(length.min(FIRST_BYTES));
    if reader.by_ref().take(length as u64).read_to_end(&mut body)? < length {
        return Err(FrameError::Cut);
    }
    Ok(Some(serde_json::from_slice(&body)?))
}

/// [`read`] for the daemon's side.
pub(crate) async fn read_async<T: DeserializeOwned>(
    reader: &mut (impl AsyncRead + Unpin),
) -> Result<Option<T>, FrameError> {
    let mut head = [0; 4];
    let first = reader.read(&mut head).await?;
    if first == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut head[first..]).await?;
    let length = body_length(head)?;
    let mut body = Vec::with_capacity(length.min(FIRST_BYTES));
    if reader.take(length as u64).read_to_end(&mut body).await? < length {
        return Err(FrameError::Cut);
    }
    Ok(Some(serde_json::from_slice(&body)?))
}

fn body_length(head: [u8; 4]) -> Result<usize, FrameError> {
    let length = u32::from_le_bytes(head) as usize;
    if length > BYTES_MAX { Err(FrameError::TooLong(length as u64)) } else { Ok(length) }
}

/// Fills `head`; `false` when there was not even a first byte.
fn read_head(reader: &mut impl Read, head: &mut [u8; 4]) -> Result<bool, FrameError> {
    let first = loop {
        match reader.read(head) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if first > 0 {
        reader.read_exact(&mut head[first..])?;
    }
    Ok(first > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn both_ways(bytes: &[u8]) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let shown = |result: Result<Option<Value>, FrameError>| match result {
            Ok(Some(value)) => value.to_string(),
            Ok(None) => "end".to_owned(),
            Err(error) => format!("error: {error}"),
        };
        vec![shown(read(&mut &bytes[..])), shown(runtime.block_on(read_async(&mut &bytes[..])))]
    }

    #[test]
    fn broken_frames_are_told_apart() {
        for (bytes, expected) in [
            (&b""[..], "end"),
            (b"\x02\0", "error: the socket ended inside a frame"),
            (b"\x05\0\0\0{}", "error: the socket ended inside a frame"),
            (b"\xff\xff\xff\xff", "error: a frame of 4294967295 bytes is longer than"),
            (b"\x02\0\0\0{]", "error: a frame is no message of this protocol"),
            (b"\x02\0\0\0{}rest", "{}"),
        ] {
            for shown in both_ways(bytes) {
                assert!(shown.starts_with(expected), "{bytes:?}: {shown}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let results = both_ways(&bytes);
            prop_assert_eq!(&results[0], &results[1]);
        }

        #[test]
        fn what_was_written_is_read(text in ".{0,200}", number in any::<i64>()) {
            let message = serde_json::json!({ "text": text, "number": number });
            let mut bytes = Vec::new();
            write(&mut bytes, &message).unwrap();
            let expected = message.to_string();
            prop_assert_eq!(both_ways(&bytes), vec![expected.clone(), expected]);
        }
    }
}
