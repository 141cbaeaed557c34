//! From events to an answer: the part every dialect shares.
//!
//! ```text
//! begin(): acquire a lease -> submit -> the first event that tells something
//!    within HOLD    -> a refusal is a real HTTP status, else the stream begins
//!    after HOLD     -> the stream begins with a ping; a refusal is its last frame
//! then: event -> the dialect's frame; silence -> ping; Done or Failed -> the last frame
//! ```
//!
//! The stream owns the events: a client that goes away drops them, and with them the generation. Dialects are pure: an [`Event`] and a [`Moment`] in, bytes out.

use std::time::Duration;

use axum::body::Bytes;
use axum::response::Response;
use dsk_daemon_api::{ApiError, ErrorCode};
use dsk_daemon_engine::{Done, Event};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::{failure, reply};
use crate::scheduler::Place;

/// How long an answer is held back so that a refusal can still be a status.
pub(crate) const HOLD: Duration = Duration::from_secs(10);
/// The longest silence in a stream.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(10);

/// A request that runs.
pub(crate) struct Started {
    /// What comes; dropping it cancels the request and gives the model back.
    pub(crate) events: BoxStream<'static, Event>,
    /// How long the model took to be in memory.
    pub(crate) load: Duration,
}

/// A request on its way to run; dropping it gives up its place.
pub(crate) struct Start {
    /// Ends when it runs, or will not.
    pub(crate) ready: BoxFuture<'static, Result<Started, ApiError>>,
    /// Where it stands in the queue for models.
    pub(crate) place: watch::Receiver<Place>,
}

/// When a frame is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Now.
    pub(crate) now: Timestamp,
    /// Since the request came.
    pub(crate) total: Duration,
    /// Of that, loading the model.
    pub(crate) load: Duration,
    /// Where the request stands, while it waits for its model.
    pub(crate) place: Option<Place>,
}

/// How one API writes an answer.
pub(crate) trait Dialect: Send + 'static {
    /// The Content-Type of a streamed answer.
    const STREAM_TYPE: &'static str;
    /// The first frame of a stream, if it has one of its own.
    fn opening(&self) -> Option<Bytes> {
        None
    }
    /// Thinking or content.
    fn text(&self, text: Text, moment: &Moment) -> Bytes;
    /// The end.
    fn done(&self, done: &Done, moment: &Moment) -> Bytes;
    /// Something for a reader that would otherwise think the connection dead.
    fn ping(&self, moment: &Moment) -> Bytes;
    /// An error after the stream has begun.
    fn failed(&self, error: &ApiError) -> Bytes;
    /// The answer as one object.
    fn whole(&self, whole: Whole, moment: &Moment) -> Response;
}

/// Text of either kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Text {
    Thinking(String),
    Content(String),
}

/// An answer that is complete.
#[derive(Debug, Clone)]
pub(crate) struct Whole {
    pub(crate) thinking: String,
    pub(crate) content: String,
    pub(crate) done: Done,
}

/// Waits for the first event that tells whether the request runs, and puts it back.
pub(crate) async fn told(started: Started) -> Result<Started, ApiError> {
    let Started { mut events, load } = started;
    let first = loop {
        match events.next().await {
            Some(Event::Queued { .. }) => {}
            Some(Event::Failed(failure)) => return Err(failure::of_request(&failure)),
            Some(event) => break event,
            None => return Err(ErrorCode::RunnerDied.into()),
        }
    };
    let events = stream::iter([first]).chain(events).boxed();
    Ok(Started { events, load })
}

/// Answers with a stream if asked to, else with one object.
pub(crate) async fn answer<D: Dialect>(
    mut start: Start,
    dialect: D,
    streamed: bool,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    if !streamed {
        let started = start.ready.await?;
        let load = started.load;
        let whole = collect(started).await?;
        return Ok(dialect.whole(whole, &moment(arrived, load, None)));
    }
    let (stage, cold) = match timeout(HOLD, &mut start.ready).await {
        Ok(started) => (Stage::Running(started?), false),
        Err(_elapsed) => (Stage::Starting(start), true),
    };
    let pump = Pump { stage, dialect, arrived, opened: false, ping_next: cold };
    Ok(reply::stream(D::STREAM_TYPE, pump.frames()))
}

async fn collect(mut started: Started) -> Result<Whole, ApiError> {
    let (mut thinking, mut content) = (String::new(), String::new());
    while let Some(event) = started.events.next().await {
        match event {
            Event::Thinking(text) => thinking.push_str(&text),
            Event::Content(text) => content.push_str(&text),
            Event::Done(done) => return Ok(Whole { thinking, content, done }),
            Event::Failed(failure) => return Err(failure::of_request(&failure)),
            Event::Queued { .. } | Event::Prefill { .. } => {}
        }
    }
    Err(ErrorCode::RunnerDied.into())
}

fn moment(arrived: Instant, load: Duration, place: Option<Place>) -> Moment {
    Moment { now: Timestamp::now(), total: arrived.elapsed(), load, place }
}

/// Where a streamed answer is.
enum Stage {
    Starting(Start),
    Running(Started),
    Ended,
}

/// Makes the frames of a streamed answer.
struct Pump<D> {
    stage: Stage,
    dialect: D,
    arrived: Instant,
    opened: bool,
    /// The stream began before anything was known: say something at once.
    ping_next: bool,
}

impl<D: Dialect> Pump<D> {
    fn frames(self) -> impl Stream<Item = Bytes> + Send {
        stream::unfold(self, |mut pump| async move {
            let frame = pump.next().await?;
            Some((frame, pump))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.opened, true)
            && let Some(frame) = self.dialect.opening()
        {
            return Some(frame);
        }
        if std::mem::take(&mut self.ping_next) {
            return Some(self.dialect.ping(&self.moment()));
        }
        let silent_until = Instant::now() + PING_EVERY;
        loop {
            match timeout_at(silent_until, self.stage.event()).await {
                Err(_elapsed) => return Some(self.dialect.ping(&self.moment())),
                Ok(None) => return None,
                Ok(Some(Err(error))) => return Some(self.failed(&error)),
                Ok(Some(Ok(event))) => {
                    if let Some(frame) = self.frame(event) {
                        return Some(frame);
                    }
                }
            }
        }
    }

    fn frame(&mut self, event: Event) -> Option<Bytes> {
        match event {
            Event::Queued { .. } | Event::Prefill { .. } => None,
            Event::Thinking(text) => Some(self.text(Text::Thinking(text))),
            Event::Content(text) => Some(self.text(Text::Content(text))),
            Event::Failed(failure) => Some(self.failed(&failure::of_request(&failure))),
            Event::Done(done) => {
                let frame = self.dialect.done(&done, &self.moment());
                self.stage = Stage::Ended;
                Some(frame)
            }
        }
    }

    fn text(&self, text: Text) -> Bytes {
        self.dialect.text(text, &self.moment())
    }

    fn failed(&mut self, error: &ApiError) -> Bytes {
        reply::log(error);
        self.stage = Stage::Ended;
        self.dialect.failed(error)
    }

    fn moment(&self) -> Moment {
        let (load, place) = match &self.stage {
            Stage::Running(started) => (started.load, None),
            Stage::Starting(start) => (Duration::ZERO, Some(*start.place.borrow())),
            Stage::Ended => (Duration::ZERO, None),
        };
        moment(self.arrived, load, place.filter(|place| place.position > 0))
    }
}

impl Stage {
    /// The next event. Dropping the future loses nothing: what it waits on stays in `self`.
    async fn event(&mut self) -> Option<Result<Event, ApiError>> {
        if let Stage::Starting(start) = self {
            match (&mut start.ready).await {
                Ok(started) => *self = Stage::Running(started),
                Err(error) => return Some(Err(error)),
            }
        }
        let Stage::Running(started) = self else { return None };
        // The runner ends every request with Done or Failed; without one it is gone.
        let event = started.events.next().await;
        Some(event.ok_or_else(|| ErrorCode::RunnerDied.into()))
    }
}

#[cfg(test)]
mod tests;
