//! Commands on their way to the engine's thread, and the counts both sides keep.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{RequestId, Stats};
use crate::conversation::Request;
use crate::event::{Event, Failure, FailureKind};

/// Where a request's events go.
pub type Sink = Box<dyn FnMut(Event) + Send>;

/// A request that has not started.
pub(super) struct Pending {
    pub(super) id: RequestId,
    pub(super) request: Request,
    pub(super) sink: Sink,
    pub(super) submitted: Instant,
    /// Whether the sink took the events so far.
    pub(super) alive: bool,
}

pub(super) enum Command {
    Submit(Box<Pending>),
    Cancel(RequestId),
}

#[derive(Default)]
struct State {
    commands: Vec<Command>,
    stats: Stats,
    closed: bool,
}

/// Shared by an engine's handle and its thread.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Inbox {
    /// Nothing runs under this lock that can panic half way, so a poisoned state is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more waiting request and says how many come before it.
    pub(super) fn reserve(&self, waiting_max: usize) -> Result<usize, Failure> {
        let mut state = self.lock();
        if state.stats.queued as usize >= waiting_max {
            let text = format!("{waiting_max} requests wait for this model already; try again");
            return Err(Failure::new(FailureKind::Busy, text));
        }
        let position = state.stats.queued + state.stats.running;
        state.stats.queued += 1;
        Ok(position as usize)
    }

    pub(super) fn push(&self, command: Command) {
        self.lock().commands.push(command);
        self.changed.notify_one();
    }

    /// The commands since the last call, or `None` once closed. With `wait`, blocks until one of
    /// the two is there.
    pub(super) fn take(&self, wait: bool) -> Option<Vec<Command>> {
        let mut state = self.lock();
        while wait && state.commands.is_empty() && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed { None } else { Some(std::mem::take(&mut state.commands)) }
    }

    /// The commands that nobody will take any more.
    pub(super) fn leftover(&self) -> Vec<Command> {
        std::mem::take(&mut self.lock().commands)
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    pub(super) fn stats(&self) -> Stats {
        self.lock().stats
    }

    /// Changes the counts.
    pub(super) fn count(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut self.lock().stats);
    }
}

/// Hands one event to a sink; false when the sink panicked and is of no more use.
pub(super) fn deliver(sink: &mut Sink, event: Event) -> bool {
    catch_unwind(AssertUnwindSafe(|| sink(event))).is_ok()
}
