//! A runner: one resident model in a child process of the same binary.
//!
//! ```text
//! daemon                                   child (`dsk runner`)
//!   Runner ──Command──> link ═══socket═══> child::serve ──> engine
//!     ^                  │                     │
//!     └── event streams <┘ <══════Report═══════┘
//! ```
//!
//! Frames are in [`frame`], what they say in [`protocol`], the child's side in [`child`] and what it
//! may do in [`sandbox`]; the process and its socket in [`process`], its control group in [`cgroup`],
//! what it died of in [`death`], and who notices that it stands still in [`watchdog`]. [`Runner`] hands each request its own bounded stream of
//! events and turns the child's death into one failure for each of them.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use dsk_daemon_engine::{Event, Failure, FailureKind, LoadOptions, Loaded, Request};
use futures_util::Stream;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};

use sandbox::Confinement;
use watchdog::Watchdog;

mod cgroup;
mod child;
mod death;
mod frame;
mod process;
mod protocol;
pub mod sandbox;
#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod tests;
mod watchdog;

pub use child::child_main;
pub use death::{Death, DeathKind};
pub(crate) use process::{Launch, Link, PATIENCE, ProcessLauncher};
pub(crate) use protocol::{Command, Report};
pub use protocol::{LoadFailure, LoadFailureKind};

/// The folder in which the daemon of this process id makes a control group for each runner, or why it
/// makes none.
pub fn own_groups(pid: u32) -> Result<String, String> {
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let folder = cgroup::of_daemon(std::path::Path::new(cgroup::ROOT), &own, pid);
    folder.map(|folder| folder.display().to_string()).map_err(|why| why.to_string())
}

/// Events a request may be behind. A client that reads slower than this is cut off, so that it
/// neither fills memory nor stops the others: the engine's thread never waits for a client.
const EVENTS_BEHIND_MAX: usize = 8192;

/// A resident model in a child process. Dropping it ends the child.
#[derive(Debug)]
pub(crate) struct Runner {
    loaded: Loaded,
    confinement: Option<Confinement>,
    shared: Arc<Shared>,
}

/// Why a runner did not come up.
#[derive(Debug, Clone)]
pub(crate) enum SpawnError {
    /// The child said why.
    Load(LoadFailure),
    /// The child is gone, or never was.
    Died(Death),
}

#[derive(Debug)]
struct Shared {
    label: String,
    commands: mpsc::UnboundedSender<Command>,
    requests: Mutex<HashMap<u64, mpsc::Sender<Event>>>,
    /// Wakes the watchdog, which sleeps while nothing runs.
    arrived: Notify,
    next_id: AtomicU64,
    death: watch::Sender<Option<Death>>,
}

impl Shared {
    fn requests(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<Event>>> {
        // The map is whole between any two statements that hold the lock.
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, report: Report) {
        if let Report::Event { id, event } = report {
            self.deliver(id, event);
        }
    }

    /// Hands an event to its request; one that does not keep up is cancelled.
    fn deliver(&self, id: u64, event: Event) {
        let last = matches!(event, Event::Done(_) | Event::Failed(_));
        let mut requests = self.requests();
        let Some(sender) = requests.get(&id) else { return };
        let full = sender.try_send(event).is_err();
        if last || full {
            requests.remove(&id);
        }
        if full && !last {
            let _ = self.commands.send(Command::Cancel { id });
        }
    }
}

impl Runner {
    /// Starts a child on `link` and loads the model; `progress` hears fractions from 0 to 1.
    pub(crate) async fn load(
        mut link: Link,
        label: &str,
        model: Vec<PathBuf>,
        options: LoadOptions,
        progress: impl Fn(f32),
    ) -> Result<Runner, SpawnError> {
        let _ = link.commands.send(Command::Load { model, options });
        let mut watchdog = Watchdog::of_load(link.patience, Instant::now());
        let mut confinement = None;
        let loaded = loop {
            match link.hear(&mut watchdog).await {
                Some(Report::Confined(said)) => confinement = Some(said),
                Some(Report::Loading { progress: done }) => progress(done),
                Some(Report::Loaded(loaded)) => break loaded,
                Some(Report::LoadFailed(failure)) => return Err(SpawnError::Load(failure)),
                Some(Report::Pong | Report::Event { .. }) => {}
                None => return Err(SpawnError::Died(link.death().await)),
            }
        };
        if let Some(lax) = confinement.as_ref().filter(|said| !said.is_full()) {
            tracing::warn!(model = label, "the runner is {lax}");
        }
        let shared = Arc::new(Shared {
            label: label.to_owned(),
            commands: link.commands.clone(),
            requests: Mutex::default(),
            arrived: Notify::new(),
            next_id: AtomicU64::new(0),
            death: watch::Sender::new(None),
        });
        tokio::spawn(pump(link, Arc::clone(&shared)));
        Ok(Runner { loaded, confinement, shared })
    }

    /// What the child loaded.
    pub(crate) fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// How the child is confined; none where it did not say.
    pub(crate) fn confinement(&self) -> Option<&Confinement> {
        self.confinement.as_ref()
    }

    /// Resolves when the child is gone.
    pub(crate) fn died(&self) -> impl Future<Output = Death> + Send + use<> {
        let mut death = self.shared.death.subscribe();
        async move {
            match death.wait_for(Option::is_some).await {
                Ok(death) => death.clone().unwrap_or_else(Death::unknown),
                Err(_) => Death::unknown(),
            }
        }
    }

    /// Tells the child to end. Its requests fail; [`Runner::died`] resolves when it is gone.
    pub(crate) fn stop(&self) {
        let _ = self.shared.commands.send(Command::Stop);
    }

    /// Sends a request; its events come on the stream.
    pub(crate) fn submit(&self, request: Request) -> EventStream {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, events) = mpsc::channel(EVENTS_BEHIND_MAX);
        self.shared.requests().insert(id, sender);
        self.shared.arrived.notify_one();
        let sent = self.shared.commands.send(Command::Submit { id, request: Box::new(request) });
        // After the entry is in the map: the pump empties it once more when the child is gone.
        if sent.is_err() || self.shared.death.borrow().is_some() {
            self.shared.requests().remove(&id);
        }
        EventStream { id, events, shared: Arc::clone(&self.shared), ended: false, keeps: None }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Carries reports to their requests until the child is gone, then fails what is left.
async fn pump(mut link: Link, shared: Arc<Shared>) {
    loop {
        // An idle runner is not woken, and nor is the daemon on its account.
        while shared.requests().is_empty() {
            tokio::select! {
                biased;
                report = link.reports.recv() => match report {
                    Some(report) => shared.take(report),
                    None => return bury(link, &shared).await,
                },
                () = shared.arrived.notified() => {}
            }
        }
        let mut watchdog = Watchdog::of_work(link.patience, Instant::now());
        while !shared.requests().is_empty() {
            match link.hear(&mut watchdog).await {
                Some(report) => shared.take(report),
                None => return bury(link, &shared).await,
            }
        }
    }
}

async fn bury(mut link: Link, shared: &Shared) {
    let death = link.death().await;
    shared.death.send_replace(Some(death));
    shared.requests().clear();
}

/// The events of one request. It ends after [`Event::Done`] or [`Event::Failed`], one of which
/// always comes. Dropping it earlier cancels the request in the runner.
pub struct EventStream {
    id: u64,
    events: mpsc::Receiver<Event>,
    shared: Arc<Shared>,
    ended: bool,
    /// What must live as long as the request: the lease that keeps the model resident.
    keeps: Option<Arc<dyn Send + Sync>>,
}

impl EventStream {
    /// Keeps `value` until the stream is dropped.
    pub(crate) fn keep(mut self, value: Arc<dyn Send + Sync>) -> EventStream {
        self.keeps = Some(value);
        self
    }

    /// The failure of a request whose channel closed before its end.
    fn cut_off(&self) -> Failure {
        match self.shared.death.borrow().as_ref() {
            Some(death) => {
                let message = format!("the runner of {} {death}", self.shared.label);
                Failure::new(death.failure(), message)
            }
            None => Failure::new(
                FailureKind::Cancelled,
                format!("cancelled: the client was more than {EVENTS_BEHIND_MAX} events behind"),
            ),
        }
    }
}

impl Stream for EventStream {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let event = match self.events.poll_recv(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(event)) => event,
            Poll::Ready(None) => Event::Failed(self.cut_off()),
        };
        self.ended = matches!(event, Event::Done(_) | Event::Failed(_));
        Poll::Ready(Some(event))
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        if self.shared.requests().remove(&self.id).is_some() {
            let _ = self.shared.commands.send(Command::Cancel { id: self.id });
        }
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("id", &self.id).field("ended", &self.ended).finish()
    }
}
