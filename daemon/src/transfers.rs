//! Pulls and pushes. They belong to the daemon, not to the request that began them: whoever asks for
//! the same one joins it, hears where it stands and then what changes, and only when the last caller
//! leaves is it cancelled (what was fetched stays, and the next pull resumes).
//!
//! A transfer's progress is a small board with one entry per blob and step ([`board`]). A caller
//! reads what changed since it last looked, so a slow one skips figures and holds up nobody.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use dsk_daemon_api::ApiError;
use dsk_registry::{ClientError, Digest, ManifestFormat, Name, Progress, WebFile};
use futures_util::{Stream, future::BoxFuture};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::pins::PinError;
use crate::variants::VariantError;

mod board;
mod counted;
mod mover;
#[cfg(test)]
mod tests;

use board::Board;
use counted::Counted;
pub(crate) use mover::RegistryMover;

use crate::metrics::Metrics;

/// The shortest time between two looks at a board: clients redraw no faster.
const INTERVAL: Duration = Duration::from_millis(60);
/// Changed entries that may wait for a caller to read them.
const UNREAD_MAX: usize = 16;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From a registry into the store.
    Pull,
    /// From the store to a registry.
    Push,
}

/// How a model is to be pulled.
#[derive(Debug, Clone, Default)]
pub struct Pull {
    /// Plain HTTP to other machines is allowed.
    pub insecure: bool,
    /// The quantization that is wanted, where the name leaves it open.
    pub quant: Option<String>,
    /// A file to fetch from a web server and make a model of, instead of a registry's.
    pub file: Option<WebFile>,
    /// Bytes per second that it may fetch; who joins a pull takes it as it is.
    pub limit_rate: Option<u64>,
    /// The manifest to fetch, whatever the name's tag means.
    pub digest: Option<Digest>,
    /// The name's pin in the lock file moves to what is pulled.
    pub update_lock: bool,
}

/// How a model is to be pushed.
#[derive(Debug, Clone, Default)]
pub struct Push {
    /// Plain HTTP to other machines is allowed.
    pub insecure: bool,
    /// The format to push it in; none for the one that it is stored in.
    pub format: Option<ManifestFormat>,
    /// Bytes per second that it may send; who joins a push takes it as it is.
    pub limit_rate: Option<u64>,
}

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The registry, the network or the disk.
    #[error(transparent)]
    Registry(#[from] ClientError),
    /// No variant of the model could be chosen.
    #[error(transparent)]
    Variant(VariantError),
    /// No model could be made of what was fetched.
    #[error("{0}")]
    Unusable(ApiError),
    /// The lock file, or what it pins.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// Somebody paused it; what is here stays.
    #[error("the pull of {name} was paused; dsk pull {name} goes on from here")]
    Paused {
        /// The model.
        name: Name,
    },
}

impl From<VariantError> for TransferError {
    fn from(error: VariantError) -> TransferError {
        match error {
            VariantError::Registry(error) => TransferError::Registry(error),
            error => TransferError::Variant(error),
        }
    }
}

/// The transfers that are under way.
#[derive(Debug, Clone)]
pub struct Transfers {
    inner: Arc<Inner>,
}

/// Progress as it comes, then the end: after `Success` or an error the stream is over. The error is
/// shared by everyone who joined. Dropping it leaves the transfer.
pub struct Transfer {
    lines: mpsc::Receiver<Result<Progress, Arc<TransferError>>>,
    _seat: Seat,
}

/// What does the work; the registry's client, or a script in tests.
pub(crate) trait Mover: Send + Sync + 'static {
    fn run(&self, job: Job) -> BoxFuture<'static, Result<(), TransferError>>;
}

/// One transfer for a [`Mover`].
pub(crate) struct Job {
    pub(crate) what: Key,
    /// Bytes per second.
    pub(crate) limit_rate: Option<u64>,
    pub(crate) progress: Box<dyn Fn(Progress) + Send + Sync>,
    pub(crate) cancel: CancellationToken,
}

/// What makes two requests one transfer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) direction: Direction,
    pub(crate) name: Name,
    /// Plain HTTP to other machines is allowed.
    pub(crate) insecure: bool,
    /// The quantization that is wanted, where the name leaves it open.
    pub(crate) quant: Option<String>,
    /// A file to make the model of.
    pub(crate) file: Option<WebFile>,
    /// The manifest that is wanted.
    pub(crate) digest: Option<Digest>,
    /// The pin of the name may move.
    pub(crate) update_lock: bool,
    /// The format to push in.
    pub(crate) format: Option<ManifestFormat>,
}

struct Inner {
    mover: Box<dyn Mover>,
    running: Mutex<HashMap<Key, Arc<Running>>>,
    /// The models whose last pull somebody paused.
    paused: Mutex<BTreeSet<Name>>,
    next_id: AtomicU64,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfers").field("running", &self.running().len()).finish()
    }
}

/// A transfer under way.
struct Running {
    id: u64,
    board: Board,
    /// How many callers attend; changed only under the lock of `Inner::running`.
    seats: AtomicU64,
    cancel: CancellationToken,
    /// Why it is cancelled: somebody paused it, rather than all callers having left.
    pausing: AtomicBool,
    finished: CancellationToken,
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, HashMap<Key, Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn paused(&self) -> MutexGuard<'_, BTreeSet<Name>> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transfers {
    pub(crate) fn new(mover: impl Mover, metrics: Arc<Metrics>) -> Transfers {
        let mover = Box::new(mover);
        let (running, next_id) = (Mutex::default(), AtomicU64::new(0));
        let paused = Mutex::default();
        Transfers { inner: Arc::new(Inner { mover, running, paused, next_id, metrics }) }
    }

    /// Pulls a model, or joins the pull that is under way.
    pub fn pull(&self, name: Name, asked: Pull) -> Transfer {
        let Pull { insecure, quant, file, limit_rate, digest, update_lock } = asked;
        self.inner.paused().remove(&name);
        let direction = Direction::Pull;
        let format = None;
        let key = Key { direction, name, insecure, quant, file, digest, update_lock, format };
        self.join(key, limit_rate)
    }

    /// Pushes a model, or joins the push that is under way.
    pub fn push(&self, name: Name, asked: Push) -> Transfer {
        let Push { insecure, format, limit_rate } = asked;
        let (direction, quant, file, digest) = (Direction::Push, None, None, None);
        let update_lock = false;
        let key = Key { direction, name, insecure, quant, file, digest, update_lock, format };
        self.join(key, limit_rate)
    }

    /// Ends the pulls of a model for all who attend, and waits until they have let go of their files; what
    /// is here stays for the next pull. False when there are none.
    pub async fn pause(&self, name: &Name) -> bool {
        let pulls: Vec<Arc<Running>> = {
            let running = self.inner.running();
            let of_name = |key: &&Key| key.direction == Direction::Pull && key.name == *name;
            running
                .iter()
                .filter(|(key, _)| of_name(key))
                .map(|(_, pull)| Arc::clone(pull))
                .collect()
        };
        for pull in &pulls {
            pull.pausing.store(true, Ordering::Relaxed);
            pull.cancel.cancel();
        }
        for pull in &pulls {
            pull.finished.cancelled().await;
        }
        if !pulls.is_empty() {
            self.inner.paused().insert(name.clone());
        }
        !pulls.is_empty()
    }

    /// Whether the last pull of a model was paused, as far as this daemon knows.
    pub fn is_paused(&self, name: &Name) -> bool {
        self.inner.paused().contains(name)
    }

    /// The models that are being transferred.
    pub fn running(&self) -> Vec<(Direction, Name)> {
        let running = self.inner.running();
        let mut names: Vec<_> =
            running.keys().map(|key| (key.direction, key.name.clone())).collect();
        names.sort();
        names
    }

    /// Cancels everything and waits until it has wound down.
    pub(crate) async fn stop(&self) {
        let running: Vec<_> = self.inner.running().values().cloned().collect();
        for transfer in &running {
            transfer.cancel.cancel();
        }
        for transfer in running {
            transfer.finished.cancelled().await;
        }
    }

    fn join(&self, key: Key, limit_rate: Option<u64>) -> Transfer {
        let mut map = self.inner.running();
        let current = map.get(&key).cloned();
        let transfer = match current {
            Some(current) if !current.cancel.is_cancelled() => current,
            ending => {
                let transfer = self.start(&key, limit_rate, ending);
                map.insert(key.clone(), Arc::clone(&transfer));
                transfer
            }
        };
        transfer.seats.fetch_add(1, Ordering::Relaxed);
        drop(map);
        let (sender, lines) = mpsc::channel(UNREAD_MAX);
        tokio::spawn(relay(Arc::clone(&transfer), sender));
        Transfer { lines, _seat: Seat { inner: Arc::clone(&self.inner), transfer } }
    }

    /// Begins a transfer, after the cancelled one of the same model has let go of its files.
    fn start(
        &self,
        key: &Key,
        limit_rate: Option<u64>,
        ending: Option<Arc<Running>>,
    ) -> Arc<Running> {
        let transfer = Arc::new(Running {
            id: self.inner.next_id.fetch_add(1, Ordering::Relaxed),
            board: Board::default(),
            seats: AtomicU64::new(0),
            cancel: CancellationToken::new(),
            pausing: AtomicBool::new(false),
            finished: CancellationToken::new(),
        });
        let (inner, ours, key) = (Arc::clone(&self.inner), Arc::clone(&transfer), key.clone());
        tokio::spawn(async move {
            if let Some(ending) = ending {
                ending.finished.cancelled().await;
            }
            let finished = ours.finished.clone().drop_guard();
            let pull = (key.direction == Direction::Pull)
                .then(|| Arc::new(Counted::begin(Arc::clone(&inner.metrics), key.name.clone())));
            let job = Job { limit_rate, ..job(&key, &ours, pull.clone()) };
            let result = inner.mover.run(job).await;
            if let Some(pull) = pull {
                pull.end(&result);
            }
            let mut map = inner.running();
            if map.get(&key).is_some_and(|current| current.id == ours.id) {
                map.remove(&key);
            }
            drop(map);
            ours.board.end(result.map_err(|error| Arc::new(ours.explained(error, &key.name))));
            drop(finished);
        });
        transfer
    }
}

impl Running {
    /// An end that somebody asked for says so.
    fn explained(&self, error: TransferError, name: &Name) -> TransferError {
        match error {
            TransferError::Registry(ClientError::Cancelled)
                if self.pausing.load(Ordering::Relaxed) =>
            {
                TransferError::Paused { name: name.clone() }
            }
            error => error,
        }
    }
}

fn job(key: &Key, transfer: &Arc<Running>, pull: Option<Arc<Counted>>) -> Job {
    let board = Arc::clone(transfer);
    let progress = Box::new(move |line| {
        if let Some(pull) = &pull {
            pull.progress(&line);
        }
        board.board.put(line);
    });
    let cancel = transfer.cancel.clone();
    Job { what: key.clone(), limit_rate: None, progress, cancel }
}

/// Carries what changes on the board to one caller, until the end or until the caller is gone.
async fn relay(transfer: Arc<Running>, lines: mpsc::Sender<Result<Progress, Arc<TransferError>>>) {
    let mut seen = 0;
    let mut changes = transfer.board.changes();
    loop {
        changes.borrow_and_update();
        let news = transfer.board.since(seen);
        seen = news.version;
        for line in news.lines {
            if lines.send(Ok(line)).await.is_err() {
                return;
            }
        }
        match news.end {
            None => {}
            Some(Ok(())) => return,
            Some(Err(error)) => {
                let _ = lines.send(Err(error)).await;
                return;
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = lines.closed() => return,
        }
        // Steps come at once, figures at most this often.
        if !transfer.board.has_step_since(seen) {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = transfer.finished.cancelled() => {}
            }
        }
    }
}

/// One caller's part in a transfer; the last one to go cancels it.
struct Seat {
    inner: Arc<Inner>,
    transfer: Arc<Running>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let _map = self.inner.running();
        if self.transfer.seats.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.transfer.cancel.cancel();
        }
    }
}

impl Stream for Transfer {
    type Item = Result<Progress, Arc<TransferError>>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.lines.poll_recv(context)
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer").field("id", &self._seat.transfer.id).finish()
    }
}
