//! One blob: resumed where an earlier try stopped, checked against its descriptor byte by byte.

use super::{
    ClientError, IntegrityError, Progress, Report,
    retry::{Failure, FailureKind, Retry},
    session::{Call, Session},
};
use crate::{
    Descriptor, Ingest, Store, StoreError,
    pump::{Pump, blocking},
};
use reqwest::{
    Response,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, HeaderValue, RANGE},
};
use std::time::{Duration, Instant};

/// A try that gains this many bytes makes the failures before it forgotten.
const GAIN_BYTES: u64 = 1 << 20;
/// How often progress is told.
const REPORT_INTERVAL: Duration = Duration::from_millis(50);
/// How often to look whether another transfer has finished the same blob.
const BUSY_INTERVAL: Duration = Duration::from_millis(50);

pub(super) struct Fetch<'a> {
    pub(super) session: &'a Session<'a>,
    pub(super) store: &'a Store,
    pub(super) blob: &'a Descriptor,
    pub(super) report: Report<'a>,
}

/// What a response's first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// The ones after those that are there.
    Resume,
    /// The blob's first: the registry ignores ranges, or was asked for all.
    Over,
}

impl Fetch<'_> {
    pub(super) async fn run(&self) -> Result<(), ClientError> {
        let Some(mut ingest) = self.claim().await? else { return Ok(()) };
        // Bytes of an earlier try can be wrong; that shows at the end, and is worth one fresh start.
        let mut resumed = ingest.offset() > 0;
        loop {
            ingest = self.download(ingest).await?;
            self.tell(self.blob.size);
            (self.report)(Progress::Verifying { digest: self.blob.digest });
            match blocking(move || ingest.commit()).await {
                Ok(()) => return Ok(()),
                Err(StoreError::DigestMismatch { .. }) if resumed => resumed = false,
                Err(error) => return Err(error.into()),
            }
            match self.claim().await? {
                Some(again) => ingest = again,
                None => return Ok(()),
            }
        }
    }

    /// The right to write the blob, or None when it is there. Another transfer of this process may have
    /// the right; then this one watches until that ends one way or the other.
    async fn claim(&self) -> Result<Option<Ingest>, ClientError> {
        let (digest, size) = (self.blob.digest, self.blob.size);
        loop {
            if self.store.blob_size(&digest)? == Some(size) {
                self.tell(size);
                return Ok(None);
            }
            let store = self.store.clone();
            match blocking(move || store.ingest(&digest)).await {
                Ok(ingest) => return Ok(Some(ingest)),
                Err(StoreError::Busy { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            self.tell(self.store.partial_size(&digest).min(size));
            tokio::time::sleep(BUSY_INTERVAL).await;
        }
    }

    /// Fills the ingest to the blob's size, over as many requests as it takes.
    async fn download(&self, mut ingest: Ingest) -> Result<Ingest, ClientError> {
        let mut retry = Retry::new(self.session.limits());
        if ingest.offset() > self.blob.size {
            ingest = restart(ingest).await?;
        }
        while ingest.offset() < self.blob.size {
            let before = ingest.offset();
            let outcome;
            (ingest, outcome) = self.request(ingest).await?;
            let Err(failure) = outcome else { continue };
            if ingest.offset() >= before.saturating_add(GAIN_BYTES) {
                retry.reset();
            }
            if failure.kind == FailureKind::Over {
                ingest = restart(ingest).await?;
            }
            if matches!(failure.error, ClientError::Integrity(_)) {
                ingest.discard();
                return Err(failure.error);
            }
            retry.pause(failure).await?;
        }
        Ok(ingest)
    }

    /// One request. The ingest comes back with whatever was gained; the outer error is the store's.
    async fn request(
        &self,
        mut ingest: Ingest,
    ) -> Result<(Ingest, Result<(), Failure>), ClientError> {
        let (mut response, start) = match self.head(ingest.offset()).await {
            Ok(head) => head,
            Err(failure) => return Ok((ingest, Err(failure))),
        };
        if start == Start::Over && ingest.offset() > 0 {
            ingest = restart(ingest).await?;
        }
        let offset = ingest.offset();
        let pump = Pump::start(ingest, Ingest::write);
        let outcome = self.stream(&mut response, &pump, offset).await;
        let (ingest, written) = pump.finish().await;
        written?;
        Ok((ingest, outcome))
    }

    /// Asks for the bytes from `offset` on, and checks that the answer is about them.
    async fn head(&self, offset: u64) -> Result<(Response, Start), Failure> {
        let mut call: Call<'_> = self.session.get(self.session.blob_url(&self.blob.digest));
        call.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if offset > 0 {
            let range = HeaderValue::from_str(&format!("bytes={offset}-"));
            call.headers.insert(RANGE, range.expect("digits are plain text"));
        }
        let response = self.session.send(&call).await?;
        if response.headers().get(CONTENT_ENCODING).is_some_and(|value| value != "identity") {
            return Err(self.session.protocol("it compresses blobs unasked".to_owned()).into());
        }
        let start = match response.status().as_u16() {
            200 => self.check_whole(&response)?,
            206 if offset > 0 => self.check_part(&response, offset)?,
            416 if offset > 0 => return Err(self.over("it has no bytes to resume with (416)")),
            404 => {
                let reason = format!("it lists the blob {} and does not have it", self.blob.digest);
                return Err(self.session.protocol(reason).into());
            }
            _ => return Err(self.session.refused(response).await),
        };
        Ok((response, start))
    }

    fn check_whole(&self, response: &Response) -> Result<Start, Failure> {
        match response.content_length() {
            Some(got) if got != self.blob.size => Err(self.wrong_size(got)),
            _ => Ok(Start::Over),
        }
    }

    fn check_part(&self, response: &Response, offset: u64) -> Result<Start, Failure> {
        let header = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let Some((first, last, total)) = header.and_then(content_range) else {
            return Err(self.over("a part without a readable Content-Range"));
        };
        if let Some(got) = total.filter(|total| *total != self.blob.size) {
            return Err(self.wrong_size(got));
        }
        if first != offset || last >= self.blob.size {
            return Err(self.over("another part than the one asked for"));
        }
        match response.content_length() {
            Some(length) if length != last - first + 1 => {
                Err(self.over("a part of another length"))
            }
            _ => Ok(Start::Resume),
        }
    }

    /// Moves the body into the pump, never a byte more than the blob has.
    async fn stream(
        &self,
        response: &mut Response,
        pump: &Pump<Ingest>,
        offset: u64,
    ) -> Result<(), Failure> {
        let (mut completed, mut reported) = (offset, None::<Instant>);
        while let Some(chunk) = self.session.chunk(response).await? {
            completed += chunk.len() as u64;
            if completed > self.blob.size {
                return Err(self.wrong_size(completed));
            }
            if !pump.send(chunk).await {
                break;
            }
            if reported.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL) {
                reported = Some(Instant::now());
                self.tell(completed);
            }
        }
        if completed < self.blob.size {
            let reason = format!("it broke off at byte {completed} of {}", self.blob.size);
            return Err(self.session.unreachable(reason));
        }
        Ok(())
    }

    fn tell(&self, completed: u64) {
        let (digest, total) = (self.blob.digest, self.blob.size);
        (self.report)(Progress::Blob { digest, total, completed });
    }

    fn wrong_size(&self, got: u64) -> Failure {
        let (digest, expected) = (self.blob.digest, self.blob.size);
        ClientError::from(IntegrityError::Size { digest, expected, got }).into()
    }

    fn over(&self, reason: &str) -> Failure {
        Failure::over(self.session.protocol(reason.to_owned()))
    }
}

async fn restart(mut ingest: Ingest) -> Result<Ingest, ClientError> {
    let restarted = move || ingest.restart().map(|()| ingest);
    Ok(blocking(restarted).await?)
}

/// Reads `bytes 5-9/10`, where the total may be `*`.
pub(super) fn content_range(header: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    (first <= last).then_some((first, last, total))
}

#[cfg(test)]
mod tests {
    use super::content_range;

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, 9, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, 9, None)));
        for bad in ["", "bytes */10", "bytes 9-5/10", "items 5-9/10", "bytes 5-/10", "bytes -1-2/3"]
        {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
