//! One blob: claimed, resumed where an earlier try stopped, fetched, verified.

use super::{
    ClientError, IntegrityError, Progress, Report,
    download::{Budget, flow::Flow, source::Source},
    retry::{Failure, FailureKind, Retry},
    session::Session,
};
use crate::{Descriptor, Digest, Partial, Store, StoreError, extents::Extents};
use std::{sync::Arc, time::Duration};

/// A try that gains this many bytes makes the failures before it forgotten.
pub(super) const GAIN_BYTES: u64 = 1 << 20;
/// How often to look whether another transfer has finished the same blob.
const BUSY_INTERVAL: Duration = Duration::from_millis(50);

pub(super) struct Fetch<'a> {
    pub(super) session: &'a Session<'a>,
    pub(super) store: &'a Store,
    pub(super) blob: &'a Descriptor,
    pub(super) budget: &'a Arc<Budget>,
    pub(super) report: Report<'a>,
}

/// How a blob is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// In ranges, on several connections.
    Ranges,
    /// From the first byte to the last, on one.
    Stream,
}

impl Fetch<'_> {
    pub(super) async fn run(&self) -> Result<(), ClientError> {
        let Some(partial) = self.claim().await? else { return Ok(()) };
        let mut attempt = Attempt::new(self, Arc::new(partial));
        loop {
            match attempt.pass().await {
                Ok(Ok(digest)) => match attempt.publish(digest).await {
                    Err(StoreError::DigestMismatch { got, .. }) => attempt.doubt(got).await?,
                    published => return Ok(published?),
                },
                Ok(Err(failure)) => attempt.start_over(failure).await?,
                Err(error @ ClientError::Integrity(_)) => {
                    attempt.discard().await?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The right to write the blob, or None when it is there. Another transfer of this process may have
    /// the right; then this one watches until that ends one way or the other.
    async fn claim(&self) -> Result<Option<Partial>, ClientError> {
        let (digest, size) = (self.blob.digest, self.blob.size);
        let journaled = size > self.budget.range_of(size);
        loop {
            if self.store.blob_size(&digest)? == Some(size) {
                self.tell(size);
                return Ok(None);
            }
            let (store, budget) = (self.store.clone(), Arc::clone(self.budget));
            let open = move || {
                let partial = store.partial(&digest, size, journaled)?;
                partial.salvage(&|| budget.is_ending())?;
                Ok(partial)
            };
            match self.budget.blocking(open).await {
                Ok(partial) => return Ok(Some(partial)),
                Err(StoreError::Busy { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            self.tell(self.store.partial_size(&digest).min(size));
            tokio::time::sleep(BUSY_INTERVAL).await;
        }
    }

    pub(super) fn tell(&self, completed: u64) {
        let (digest, total) = (self.blob.digest, self.blob.size);
        (self.report)(Progress::Blob { digest, total, completed });
    }
}

/// One transfer's work on a blob that it has claimed.
struct Attempt<'a> {
    fetch: &'a Fetch<'a>,
    partial: Arc<Partial>,
    source: Source<'a>,
    way: Way,
    /// What an earlier transfer left: the first to be doubted.
    earlier: Extents,
    /// Everything was thrown away once because of its digest.
    fresh: bool,
    /// The source has changed the blob once.
    changed: bool,
    retry: Retry<'a>,
    /// The most bytes that there were before a start over.
    most: u64,
}

impl<'a> Attempt<'a> {
    fn new(fetch: &'a Fetch<'a>, partial: Arc<Partial>) -> Attempt<'a> {
        Attempt {
            fetch,
            source: Source::new(fetch.session, fetch.blob, partial.validator()),
            way: Way::Ranges,
            earlier: partial.written(),
            fresh: false,
            changed: false,
            retry: Retry::new(fetch.session.limits()),
            most: 0,
            partial,
        }
    }

    /// Fetches what is missing, and says what all bytes hash to; the inner error is one after which only
    /// a new beginning helps.
    async fn pass(&self) -> Result<Result<Digest, Failure>, ClientError> {
        let flow = Flow::start(self.fetch, &self.partial, &self.source, self.way);
        let result = flow.run().await;
        flow.end().await?;
        result
    }

    async fn publish(&self, digest: Digest) -> Result<(), StoreError> {
        let blob = self.fetch.blob;
        self.fetch.tell(blob.size);
        (self.fetch.report)(Progress::Verifying { digest: blob.digest });
        let partial = Arc::clone(&self.partial);
        self.fetch.budget.blocking(move || partial.publish(digest)).await
    }

    async fn discard(&self) -> Result<(), ClientError> {
        let partial = Arc::clone(&self.partial);
        Ok(self.fetch.budget.blocking(move || partial.discard()).await?)
    }

    /// After a wrong digest: what came from an earlier transfer is fetched again first, then everything,
    /// once; then the source is to blame.
    async fn doubt(&mut self, got: Digest) -> Result<(), ClientError> {
        let earlier = std::mem::take(&mut self.earlier);
        let kept = match earlier.is_empty() {
            true => Extents::default(),
            false => self.partial.written().without(&earlier),
        };
        if kept.is_empty() {
            if self.fresh {
                self.discard().await?;
                let (host, expected) = (self.fetch.session.host(), self.fetch.blob.digest);
                return Err(IntegrityError::Digest { host, expected, got }.into());
            }
            self.fresh = true;
        }
        self.restart(kept, "its bytes were wrong").await
    }

    /// After an answer that cannot be gone on with. A source that changed the blob gets a second chance;
    /// one that cannot send ranges is asked for everything.
    async fn start_over(&mut self, failure: Failure) -> Result<(), ClientError> {
        let again = failure.kind == FailureKind::Changed && !self.changed;
        self.changed |= again;
        self.way = if again { Way::Ranges } else { Way::Stream };
        let there = self.partial.written().bytes();
        if there >= self.most.saturating_add(GAIN_BYTES) {
            self.retry.reset();
        }
        self.most = self.most.max(there);
        let reason = failure.error.to_string();
        self.retry.pause(failure).await?;
        self.earlier = Extents::default();
        self.restart(Extents::default(), &reason).await
    }

    async fn restart(&self, kept: Extents, reason: &str) -> Result<(), ClientError> {
        if self.partial.written() != kept {
            let digest = self.fetch.blob.digest.short();
            (self.fetch.report)(Progress::Note(format!("fetching {digest} again: {reason}")));
        }
        self.source.start_over();
        let partial = Arc::clone(&self.partial);
        Ok(self.fetch.budget.blocking(move || partial.keep(kept)).await?)
    }
}
