//! The first bytes of a blob, without the rest: what a model file says of itself before it is pulled.

use super::{
    ClientError, IntegrityError,
    download::source::content_range,
    retry::{Failure, Retry},
    session::Session,
};
use crate::Descriptor;
use reqwest::{
    Response,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, HeaderValue, RANGE},
};

/// Bytes asked for first; every further request doubles what is there.
const FIRST_BYTES: u64 = 1 << 20;

/// The first bytes of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The bytes, from the blob's first on.
    pub bytes: Vec<u8>,
    /// Whether the caller had what it wanted when reading stopped; else the bound or the end came first.
    pub complete: bool,
}

type Enough<'a> = &'a (dyn Fn(&[u8]) -> bool + Send + Sync);

pub(super) async fn read(
    session: &Session<'_>,
    blob: &Descriptor,
    bytes_max: u64,
    enough: Enough<'_>,
) -> Result<Header, ClientError> {
    let (max, mut bytes) = (bytes_max.min(blob.size), Vec::new());
    let mut retry = Retry::new(session.limits());
    let mut read = Read { session, blob, max, enough };
    while (bytes.len() as u64) < max {
        let want = FIRST_BYTES.max(2 * bytes.len() as u64).min(max);
        let before = bytes.len();
        match read.request(&mut bytes, want).await {
            Ok(true) => return Ok(Header { bytes, complete: true }),
            Ok(false) if bytes.len() > before => retry.reset(),
            Ok(false) => read.refuse("it sends no bytes")?,
            Err(failure) => retry.pause(failure).await?,
        }
    }
    let complete = enough(&bytes);
    Ok(Header { bytes, complete })
}

struct Read<'a> {
    session: &'a Session<'a>,
    blob: &'a Descriptor,
    max: u64,
    enough: Enough<'a>,
}

impl Read<'_> {
    /// Brings the bytes up to `want`, or further when the registry sends the whole blob anyway; true
    /// once they are enough.
    async fn request(&mut self, bytes: &mut Vec<u8>, want: u64) -> Result<bool, Failure> {
        let first = bytes.len() as u64;
        let response = self.ask(first, want - 1).await?;
        match response.status().as_u16() {
            206 => {
                let end = self.check_part(&response, first, want - 1)? + 1;
                self.fill(response, bytes, end).await?;
                Ok((self.enough)(bytes))
            }
            // Ranges are ignored: the body is read only as far as it is wanted, then closed.
            200 => self.whole(response, bytes).await,
            404 => Err(self.wrong("it lists the weights and does not have them").into()),
            _ => Err(self.session.refused(response).await),
        }
    }

    async fn ask(&self, first: u64, last: u64) -> Result<Response, Failure> {
        let mut call = self.session.get(self.session.blob_url(&self.blob.digest));
        call.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let range = HeaderValue::from_str(&format!("bytes={first}-{last}"));
        call.headers.insert(RANGE, range.expect("digits are plain text"));
        let response = self.session.send(&call).await?;
        match response.headers().get(CONTENT_ENCODING) {
            Some(value) if value != "identity" => Err(self.wrong("it compresses blobs").into()),
            _ => Ok(response),
        }
    }

    /// The last byte of the part, which lies within what was asked for.
    fn check_part(&self, response: &Response, asked: u64, until: u64) -> Result<u64, ClientError> {
        let header = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let part = header.and_then(content_range);
        let (first, last, total) =
            part.ok_or_else(|| self.wrong("a part without a readable Content-Range"))?;
        if let Some(got) = total.filter(|total| *total != self.blob.size) {
            let (digest, expected) = (self.blob.digest, self.blob.size);
            let host = self.session.host();
            return Err(IntegrityError::Size { host, digest, expected, got }.into());
        }
        if first != asked || last > until {
            return Err(self.wrong("another part than the one asked for"));
        }
        Ok(last)
    }

    /// Appends the body until there are `end` bytes, and none more.
    async fn fill(
        &self,
        mut response: Response,
        bytes: &mut Vec<u8>,
        end: u64,
    ) -> Result<(), Failure> {
        while (bytes.len() as u64) < end {
            let Some(chunk) = self.session.chunk(&mut response).await? else {
                return Err(self.session.unreachable(format!("it broke off before byte {end}")));
            };
            let room = (end - bytes.len() as u64).min(chunk.len() as u64);
            bytes.extend_from_slice(&chunk[..room as usize]);
        }
        Ok(())
    }

    /// Reads a whole blob from its start, asking at each doubling whether that will do.
    async fn whole(&self, mut response: Response, bytes: &mut Vec<u8>) -> Result<bool, Failure> {
        bytes.clear();
        let mut next = FIRST_BYTES.min(self.max);
        while let Some(chunk) = self.session.chunk(&mut response).await? {
            let room = (self.max - bytes.len() as u64).min(chunk.len() as u64);
            bytes.extend_from_slice(&chunk[..room as usize]);
            if bytes.len() as u64 >= next {
                if (self.enough)(bytes) {
                    return Ok(true);
                }
                if next == self.max {
                    return Ok(false);
                }
                next = (2 * next).min(self.max);
            }
        }
        Err(self.session.unreachable(format!("it broke off at byte {}", bytes.len())))
    }

    fn refuse(&self, reason: &str) -> Result<(), ClientError> {
        Err(self.wrong(reason))
    }

    fn wrong(&self, reason: &str) -> ClientError {
        self.session.protocol(format!("{reason} ({})", self.blob.digest))
    }
}
