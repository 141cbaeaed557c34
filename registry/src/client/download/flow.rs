//! One pass over a blob: connections that bring its parts, and whoever hands these out.

use super::{
    lane::Lane,
    source::{Part, Source},
    window::{Ahead, Window},
};
use crate::{
    Digest, Partial,
    client::{
        ClientError,
        fetch::{Fetch, GAIN_BYTES, Way},
        retry::{Failure, FailureKind, Retry},
    },
};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit},
    time::{Instant, MissedTickBehavior, interval},
};

/// How often progress is told.
const REPORT_INTERVAL: Duration = Duration::from_millis(50);
/// How often to look for a slow connection that can be helped.
const HELP_INTERVAL: Duration = Duration::from_millis(250);

pub(in crate::client) struct Flow<'a> {
    fetch: &'a Fetch<'a>,
    partial: &'a Partial,
    source: &'a Source<'a>,
    way: Way,
    lane: Lane,
    window: Mutex<Window>,
    /// An answer came that was about the right bytes.
    opened: Notify,
    /// The last report: when, and of how many bytes.
    reported: Mutex<(Option<Instant>, u64)>,
}

type Connection<'f> = BoxFuture<'f, Result<(), Failure>>;
type Permit = BoxFuture<'static, Option<OwnedSemaphorePermit>>;

impl<'a> Flow<'a> {
    pub(in crate::client) fn start(
        fetch: &'a Fetch<'a>,
        partial: &'a Arc<Partial>,
        source: &'a Source<'a>,
        way: Way,
    ) -> Flow<'a> {
        let (budget, size) = (fetch.budget, fetch.blob.size);
        let (range, ahead) = match way {
            Way::Ranges => (budget.range_of(size), budget.window()),
            Way::Stream => (size.max(1), Ahead::ALL),
        };
        let window = Window::new(size, range, ahead, partial.written());
        Flow {
            fetch,
            partial,
            source,
            way,
            lane: Lane::start(Arc::clone(partial), Arc::clone(budget)),
            window: Mutex::new(window),
            opened: Notify::new(),
            reported: Mutex::default(),
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes and records what has arrived.
    pub(in crate::client) async fn end(self) -> Result<(), ClientError> {
        Ok(self.lane.close().await?)
    }

    /// Brings all bytes, and says what they hash to. The inner error is one after which only a new
    /// beginning helps.
    pub(in crate::client) async fn run(&self) -> Result<Result<Digest, Failure>, ClientError> {
        let mut connections: FuturesUnordered<Connection<'_>> = FuturesUnordered::new();
        let mut waiting: Option<Permit> = None;
        let (mut notices, mut looks) = (self.lane.notices(), interval(HELP_INTERVAL));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.tell(self.window().bytes());
        loop {
            if let Some(digest) = self.lane.digest() {
                return Ok(Ok(digest));
            }
            if waiting.is_none() && self.wants_connection(connections.len()) {
                waiting = Some(self.permit());
            }
            let granted = async {
                match &mut waiting {
                    Some(permit) => permit.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                permit = granted => {
                    waiting = None;
                    connections.extend(permit.and_then(|permit| self.take(permit)));
                }
                Some(ended) = connections.next() => match ended {
                    Ok(()) => {}
                    Err(Failure { error, kind: FailureKind::Fatal }) => return Err(error),
                    Err(failure) => return Ok(Err(failure)),
                },
                _ = notices.changed() => self.lane.check()?,
                () = self.opened.notified() => {}
                _ = looks.tick() => connections.extend(self.help()),
            }
        }
    }

    /// The first request of a blob goes alone: its answer says what the others may ask, and where.
    fn wants_connection(&self, running: usize) -> bool {
        let alone = self.way == Way::Stream || !self.source.is_proven();
        (running == 0 || !alone) && self.window().has_more(self.lane.frontier())
    }

    fn permit(&self) -> Permit {
        let connections = Arc::clone(&self.fetch.budget.connections);
        Box::pin(async move { connections.acquire_owned().await.ok() })
    }

    fn take(&self, permit: OwnedSemaphorePermit) -> Option<Connection<'_>> {
        let id = self.window().take(self.lane.frontier(), Instant::now())?;
        Some(Box::pin(self.connection(id, permit)))
    }

    /// Gives a connection that nobody needs to the slowest part.
    fn help(&self) -> Option<Connection<'_>> {
        let budget = self.fetch.budget;
        if self.way == Way::Stream || !self.source.is_proven() || budget.is_held_back() {
            return None;
        }
        let mut window = self.window();
        if window.has_more(self.lane.frontier()) {
            return None;
        }
        let permit = Arc::clone(&budget.connections).try_acquire_owned().ok()?;
        let id = window.help(Instant::now())?;
        Some(Box::pin(self.connection(id, permit)))
    }

    async fn connection(&self, id: u32, permit: OwnedSemaphorePermit) -> Result<(), Failure> {
        let _permit = permit;
        let result = self.fill(id).await;
        let mut window = self.window();
        let another_does = window.is_doubled(id);
        window.give_back(id);
        if another_does { Ok(()) } else { result }
    }

    /// Brings one part, over as many requests as it takes.
    async fn fill(&self, id: u32) -> Result<(), Failure> {
        let mut retry = Retry::new(self.fetch.session.limits());
        loop {
            let Some(want) = self.rest(id) else { return Ok(()) };
            let Err(failure) = self.request(id, want.clone()).await else { continue };
            self.source.failed(&failure);
            if !matches!(failure.kind, FailureKind::Again(_)) {
                return Err(failure);
            }
            let start = self.rest(id).map_or(want.end, |rest| rest.start);
            if self.way == Way::Stream && start > 0 {
                // This source has shown that it cannot send the rest.
                return Err(Failure::over(failure.error));
            }
            if start >= want.start.saturating_add(GAIN_BYTES) {
                retry.reset();
            }
            retry.pause(failure).await?;
        }
    }

    fn rest(&self, id: u32) -> Option<Range<u64>> {
        self.window().rest(id)
    }

    async fn request(&self, id: u32, want: Range<u64>) -> Result<(), Failure> {
        let ranged = want != (0..self.fetch.blob.size);
        let mut part = self.source.open(want, ranged).await?;
        self.opened.notify_one();
        self.partial.set_validator(self.source.validator());
        let mut at = part.range.start;
        while let Some(chunk) = self.fetch.session.chunk(&mut part.response).await? {
            let end = at + chunk.len() as u64;
            self.check_end(&part, end)?;
            let accepted = self.window().accept(id, at..end, Instant::now());
            for new in accepted.new.iter() {
                let bytes = chunk.slice((new.start - at) as usize..(new.end - at) as usize);
                self.lane.put(new.start, bytes).await;
            }
            self.report();
            self.fetch.budget.pace(end - at).await;
            self.window().touch(id, Instant::now());
            at = end;
            // A body without a length is read to its end, which may be further than it should.
            if accepted.done && (at < part.range.end || part.response.content_length().is_some()) {
                return Ok(());
            }
        }
        if at < part.range.end {
            let reason = format!("it broke off at byte {at} of {}", self.fetch.blob.size);
            return Err(self.fetch.session.unreachable(reason));
        }
        Ok(())
    }

    /// Never a byte more than was announced.
    fn check_end(&self, part: &Part, end: u64) -> Result<(), Failure> {
        if end <= part.range.end {
            return Ok(());
        }
        if end > self.fetch.blob.size {
            return Err(self.source.wrong_size(end));
        }
        let reason = "it sends more bytes than the part has".to_owned();
        Err(Failure::over(self.fetch.session.protocol(reason)))
    }

    fn report(&self) {
        let bytes = self.window().bytes();
        let now = Instant::now();
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let due = reported.0.is_none_or(|at| now.duration_since(at) >= REPORT_INTERVAL);
        if due && bytes > reported.1 {
            *reported = (Some(now), bytes);
            drop(reported);
            self.tell(bytes);
        }
    }

    fn tell(&self, completed: u64) {
        self.fetch.tell(completed);
    }
}
