//! Where a blob's ranges come from: what is asked, and what an answer must say before it is believed.

use crate::{
    Descriptor,
    client::{
        ClientError, IntegrityError, endpoint,
        retry::{Failure, FailureKind},
        session::Session,
    },
};
use reqwest::{
    Response, StatusCode,
    header::{
        ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, ETAG, HeaderValue, LAST_MODIFIED, RANGE,
    },
};
use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::time::{Instant, sleep_until};
use url::Url;

/// One blob at its registry.
#[derive(Debug)]
pub(in crate::client) struct Source<'a> {
    session: &'a Session<'a>,
    blob: &'a Descriptor,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Where the registry sends us for the bytes; such a URL may be signed, and then expires.
    direct: Option<Url>,
    /// The host of the last answer, and what it called the version that it sent.
    validator: Option<String>,
    /// The registry asked for quiet until then.
    quiet: Option<Instant>,
    /// An answer came that was about the right bytes.
    proven: bool,
}

/// A body that is about to come.
#[derive(Debug)]
pub(in crate::client) struct Part {
    pub(in crate::client) response: Response,
    /// The bytes of the blob that it holds.
    pub(in crate::client) range: Range<u64>,
}

impl<'a> Source<'a> {
    /// `validator` is what an earlier transfer noted of the version that it began with.
    pub(in crate::client) fn new(
        session: &'a Session<'a>,
        blob: &'a Descriptor,
        validator: Option<String>,
    ) -> Source<'a> {
        let state = Mutex::new(State { validator, ..State::default() });
        Source { session, blob, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an answer has come: until then one request is enough to find out what the registry does.
    pub(in crate::client) fn is_proven(&self) -> bool {
        self.state().proven
    }

    pub(in crate::client) fn validator(&self) -> Option<String> {
        self.state().validator.clone()
    }

    /// Forgets which version it was: the next answer begins another one.
    pub(in crate::client) fn start_over(&self) {
        let mut state = self.state();
        (state.validator, state.proven) = (None, false);
    }

    /// Notes a failed request. The place we were sent to may be what is broken, so the registry is asked
    /// again next time; and when it asks for quiet, all connections keep it.
    pub(in crate::client) fn failed(&self, failure: &Failure) {
        let mut state = self.state();
        state.direct = None;
        if let FailureKind::Again(Some(pause)) = failure.kind {
            let pause = pause.min(self.session.limits().retry_after_max);
            let until = Instant::now() + pause;
            state.quiet = Some(state.quiet.map_or(until, |quiet| quiet.max(until)));
        }
    }

    /// Asks for `want`, or without `ranged` for everything, and checks that the answer is about it.
    pub(in crate::client) async fn open(
        &self,
        want: Range<u64>,
        ranged: bool,
    ) -> Result<Part, Failure> {
        let quiet = self.state().quiet;
        if let Some(until) = quiet {
            sleep_until(until).await;
        }
        let response = self.request(&want, ranged).await?;
        if response.headers().get(CONTENT_ENCODING).is_some_and(|value| value != "identity") {
            return Err(self.session.protocol("it compresses blobs unasked".to_owned()).into());
        }
        let range = match response.status().as_u16() {
            200 if ranged => return Err(self.over("it ignores ranges")),
            200 => self.check_whole(&response)?,
            206 if ranged => self.check_part(&response, &want)?,
            416 if ranged => return Err(self.over("it has no such bytes (416)")),
            404 => {
                let reason = format!("it lists the blob {} and does not have it", self.blob.digest);
                return Err(self.session.protocol(reason).into());
            }
            _ => return Err(self.session.refused(response).await),
        };
        self.note(&response)?;
        Ok(Part { response, range })
    }

    /// Goes straight to where the registry sent us last; when it does not let us in any more, asks the
    /// registry again.
    async fn request(&self, want: &Range<u64>, ranged: bool) -> Result<Response, Failure> {
        let direct = self.state().direct.clone();
        if let Some(direct) = direct {
            let response = self.ask(direct, want, ranged).await?;
            if !is_expired(response.status()) {
                return Ok(response);
            }
            tracing::debug!(host = %endpoint::host_of(response.url()), "a signed URL has expired");
            self.state().direct = None;
        }
        self.ask(self.session.blob_url(&self.blob.digest), want, ranged).await
    }

    async fn ask(&self, url: Url, want: &Range<u64>, ranged: bool) -> Result<Response, Failure> {
        let mut call = self.session.get(url);
        call.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if ranged {
            let range = HeaderValue::from_str(&format!("bytes={}-{}", want.start, want.end - 1));
            call.headers.insert(RANGE, range.expect("digits are plain text"));
        }
        self.session.send(&call).await
    }

    fn check_whole(&self, response: &Response) -> Result<Range<u64>, Failure> {
        match response.content_length() {
            Some(got) if got != self.blob.size => Err(self.wrong_size(got)),
            _ => Ok(0..self.blob.size),
        }
    }

    fn check_part(&self, response: &Response, want: &Range<u64>) -> Result<Range<u64>, Failure> {
        let header = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let Some((first, last, total)) = header.and_then(content_range) else {
            return Err(self.over("a part without a readable Content-Range"));
        };
        if let Some(got) = total.filter(|total| *total != self.blob.size) {
            return Err(self.wrong_size(got));
        }
        if first != want.start || last >= want.end {
            return Err(self.over("another part than the one asked for"));
        }
        match response.content_length() {
            Some(length) if length != last - first + 1 => {
                Err(self.over("a part of another length"))
            }
            _ => Ok(first..last + 1),
        }
    }

    /// Notes which version this is and where it came from. Another version than before is an error; what
    /// another host calls the same bytes says nothing.
    fn note(&self, response: &Response) -> Result<(), Failure> {
        let headers = response.headers();
        let tag = headers.get(ETAG).or_else(|| headers.get(LAST_MODIFIED));
        let host = endpoint::host_of(response.url());
        let tag = tag.and_then(|tag| tag.to_str().ok());
        let validator = tag.map(|tag| format!("{host} {tag}"));
        let own = self.session.blob_url(&self.blob.digest).origin();
        let mut state = self.state();
        if let (Some(before), Some(now)) = (&state.validator, &validator)
            && before.split(' ').next() == Some(host.as_str())
            && before != now
        {
            let error = self.session.protocol("the blob changed while it was fetched".to_owned());
            return Err(Failure { error, kind: FailureKind::Changed });
        }
        state.proven = true;
        if response.url().origin() != own {
            state.direct = Some(response.url().clone());
        }
        if validator.is_some() {
            state.validator = validator;
        }
        Ok(())
    }

    pub(in crate::client) fn wrong_size(&self, got: u64) -> Failure {
        let (digest, expected) = (self.blob.digest, self.blob.size);
        let host = self.session.host();
        ClientError::from(IntegrityError::Size { host, digest, expected, got }).into()
    }

    fn over(&self, reason: &str) -> Failure {
        Failure::over(self.session.protocol(reason.to_owned()))
    }
}

/// What hosts of signed URLs say when the signature is too old.
fn is_expired(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 401 | 403 | 404 | 410)
}

/// Reads `bytes 5-9/10`, where the total may be `*`.
pub(in crate::client) fn content_range(header: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse::<u64>().ok()?);
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    (first <= last && last < u64::MAX).then_some((first, last, total))
}

#[cfg(test)]
mod tests {
    use super::content_range;

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, 9, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, 9, None)));
        let huge = format!("bytes 0-{}/*", u64::MAX);
        for bad in
            ["", "bytes */10", "bytes 9-5/10", "items 5-9/10", "bytes 5-/10", "bytes -1-2/3", &huge]
        {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
