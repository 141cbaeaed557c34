//! The child process and its socket, as channels.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc as std_mpsc,
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, ChildStderr},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};

use super::{
    cgroup::{self, Group, Subtree},
    death::{Death, End},
    frame::{self, FrameError},
    protocol::{Command, Report},
    watchdog::{self, Due, Watchdog},
};

/// Reports the daemon may be behind before the child waits.
const REPORTS_BEHIND_MAX: usize = 256;
/// How long a runner may leave a ping unanswered where nothing says otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// How long a child may take to end by itself.
const GRACE: Duration = Duration::from_secs(2);
/// Lines of the child's stderr kept for the message of its death.
const STDERR_LINES_KEPT: usize = 20;
/// A longer line of the child's stderr is cut.
const STDERR_LINE_BYTES_MAX: u64 = 4096;
/// The variables of the daemon that a child needs; no other reaches it, secrets least of all.
const VARIABLES: &[&str] = &[
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "RUST_BACKTRACE",
    "RAYON_NUM_THREADS",
    "DSK_LOG",
    "CUDA_VISIBLE_DEVICES",
    "LLVM_PROFILE_FILE",
];

/// A child as channels: commands in, reports out, its death at the end.
#[derive(Debug)]
pub(crate) struct Link {
    /// Unbounded, and bounded by who may write: the scheduler admits `max_queue` requests at most.
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) died: oneshot::Receiver<Death>,
    /// Ends a child that has hung; what is sent completes "the runner of X …".
    pub(crate) hang: Option<oneshot::Sender<String>>,
    /// The process; none where a test plays it.
    pub(crate) pid: Option<u32>,
    /// How long it may leave a ping unanswered.
    pub(crate) patience: Duration,
}

impl Link {
    /// Waits for the death; it follows the end of the reports.
    pub(crate) async fn death(&mut self) -> Death {
        (&mut self.died).await.unwrap_or_else(|_| Death::unknown())
    }

    /// The next report, while the watchdog watches; `None` when the child is gone.
    pub(super) async fn hear(&mut self, watchdog: &mut Watchdog) -> Option<Report> {
        loop {
            // What was said already is heard before anyone is blamed for silence.
            tokio::select! {
                biased;
                report = self.reports.recv() => {
                    let report = report?;
                    watchdog.heard(&report, Instant::now());
                    return Some(report);
                }
                () = tokio::time::sleep_until(watchdog.next()) => self.guard(watchdog),
            }
        }
    }

    /// Does what the watchdog finds to be due.
    fn guard(&mut self, watchdog: &mut Watchdog) {
        match watchdog.look(Instant::now(), self.pid.and_then(watchdog::computed)) {
            Due::Ping => {
                let _ = self.commands.send(Command::Ping);
            }
            Due::Kill(cause) => {
                if let Some(hang) = self.hang.take() {
                    let _ = hang.send(cause);
                }
            }
        }
    }
}

/// Starts runners. The scheduler knows no more of them than this.
pub(crate) trait Launch: Send + Sync + 'static {
    /// Starts a child for the model called `label`, which is planned to take so many bytes.
    fn launch(&self, label: &str, bytes: u64) -> io::Result<Link>;
}

/// Starts `PROGRAM runner` with a socket as its standard input.
///
/// Children are started from one thread that lives as long as this value: the kernel ties a
/// child's life to the *thread* that started it, and a runtime's threads come and go.
#[derive(Debug)]
pub(crate) struct ProcessLauncher {
    spawns: std_mpsc::Sender<Spawn>,
    patience: Duration,
    subtree: Option<Subtree>,
}

struct Spawn {
    socket: OwnedFd,
    runtime: tokio::runtime::Handle,
    reply: std_mpsc::Sender<io::Result<Child>>,
}

impl ProcessLauncher {
    /// A launcher of `program`, or of the program that runs now. A runner that leaves a ping
    /// unanswered for as long as the patience lasts is killed.
    pub(crate) fn new(program: Option<PathBuf>, patience: Duration) -> io::Result<ProcessLauncher> {
        let program = match program {
            Some(program) => program,
            None => std::env::current_exe()?,
        };
        let variables: Vec<(OsString, OsString)> = VARIABLES
            .iter()
            .filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)))
            .collect();
        let (spawns, received) = std_mpsc::channel::<Spawn>();
        std::thread::Builder::new().name("runner-starter".to_owned()).spawn(move || {
            for spawn in received {
                let _guard = spawn.runtime.enter();
                let child = start(&program, &variables, spawn.socket);
                let _ = spawn.reply.send(child);
            }
        })?;
        Ok(ProcessLauncher { spawns, patience, subtree: None })
    }

    /// Gives each runner a control group of its own where this process has a subtree for them.
    pub(crate) fn with_groups(self) -> ProcessLauncher {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        match Subtree::take(Path::new(cgroup::ROOT), &own, std::process::id()) {
            Ok(subtree) => {
                tracing::debug!(?subtree, "runners get control groups of their own");
                ProcessLauncher { subtree: Some(subtree), ..self }
            }
            Err(why) => {
                tracing::info!(%why, "runners share the daemon's control group");
                self
            }
        }
    }

    fn group(&self, child: &Child, bytes: u64) -> Option<Group> {
        let group = self.subtree.as_ref()?.hold(child.id()?, bytes);
        group.inspect_err(|error| tracing::warn!(%error, "a runner has no group of its own")).ok()
    }
}

fn start(
    program: &PathBuf,
    variables: &[(OsString, OsString)],
    socket: OwnedFd,
) -> io::Result<Child> {
    tokio::process::Command::new(program)
        .arg("runner")
        .env_clear()
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            let message = format!("cannot start {} runner: {error}", program.display());
            io::Error::new(error.kind(), message)
        })
}

impl Launch for ProcessLauncher {
    fn launch(&self, label: &str, bytes: u64) -> io::Result<Link> {
        let (ours, theirs) = StdUnixStream::pair()?;
        let (reply, child) = std_mpsc::channel();
        let runtime = tokio::runtime::Handle::current();
        let spawn = Spawn { socket: theirs.into(), runtime, reply };
        let gone = || io::Error::other("the thread that starts runners is gone");
        self.spawns.send(spawn).map_err(|_| gone())?;
        let mut child = child.recv().map_err(|_| gone())??;
        let group = self.group(&child, bytes);
        let (stderr, pid) = (child.stderr.take(), child.id());
        let supervisor = Supervisor { label: label.to_owned(), child, stderr, group };
        let link = connect(ours, |ended| supervisor.watch(ended))?;
        Ok(Link { pid, patience: self.patience, ..link })
    }
}

/// Makes a link over a socket. `supervise` gets how the socket ended and says how the child died.
pub(super) fn connect<F>(
    socket: StdUnixStream,
    supervise: impl FnOnce(oneshot::Receiver<End>) -> F,
) -> io::Result<Link>
where
    F: Future<Output = Death> + Send + 'static,
{
    socket.set_nonblocking(true)?;
    let (reading, writing) = UnixStream::from_std(socket)?.into_split();
    let (commands, to_child) = mpsc::unbounded_channel();
    let (to_daemon, reports) = mpsc::channel(REPORTS_BEHIND_MAX);
    let (ended, socket_ended) = oneshot::channel();
    let (say_death, died) = oneshot::channel();
    let (hang, hung) = oneshot::channel();
    let told = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write_commands(to_child, writing, Arc::clone(&told)));
    tokio::spawn(async move {
        let _ = ended.send(end(reading, to_daemon, writer, &told, hung).await);
    });
    let death = supervise(socket_ended);
    tokio::spawn(async move {
        let _ = say_death.send(death.await);
    });
    Ok(Link { commands, reports, died, hang: Some(hang), pid: None, patience: PATIENCE })
}

/// Carries reports until the socket ends, in one way or another.
async fn end(
    reading: OwnedReadHalf,
    reports: mpsc::Sender<Report>,
    writer: JoinHandle<()>,
    told: &AtomicBool,
    hung: oneshot::Receiver<String>,
) -> End {
    let overdue = async {
        // One that was told to stop and hangs does not close its side.
        let _ = writer.await;
        match told.load(Ordering::Relaxed) {
            true => tokio::time::sleep(GRACE).await,
            false => std::future::pending().await,
        }
    };
    let hung = async {
        match hung.await {
            Ok(cause) => cause,
            // Nobody watches it any more.
            Err(_) => std::future::pending().await,
        }
    };
    let end = tokio::select! {
        end = read_reports(reading, &reports) => match end {
            Err(error @ (FrameError::TooLong(_) | FrameError::Json(_))) => End::Garbage(error),
            _ => End::Closed,
        },
        () = overdue => End::Stopped,
        cause = hung => End::Hung(cause),
    };
    // A child that was told to stop closes its side as one that dies does.
    let stopped = matches!(end, End::Closed) && told.load(Ordering::Relaxed);
    if stopped { End::Stopped } else { end }
}

/// Writes until `Stop` or until nobody is left to command: both tell the child to end, which `told`
/// says afterwards.
async fn write_commands(
    mut commands: mpsc::UnboundedReceiver<Command>,
    mut socket: OwnedWriteHalf,
    told: Arc<AtomicBool>,
) {
    while let Some(command) = commands.recv().await {
        let Ok(bytes) = frame::encode(&command) else {
            // The edge bounds a body below a frame's limit.
            tracing::error!("a command did not fit into a frame");
            continue;
        };
        // Before it is written: the child may close its side at once.
        told.fetch_or(matches!(command, Command::Stop), Ordering::Relaxed);
        if socket.write_all(&bytes).await.is_err() || told.load(Ordering::Relaxed) {
            return;
        }
    }
    told.store(true, Ordering::Relaxed);
}

async fn read_reports(
    socket: OwnedReadHalf,
    reports: &mpsc::Sender<Report>,
) -> Result<(), FrameError> {
    let mut socket = BufReader::new(socket);
    while let Some(report) = frame::read_async(&mut socket).await? {
        if reports.send(report).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Watches one child until it is gone.
struct Supervisor {
    label: String,
    child: Child,
    stderr: Option<ChildStderr>,
    group: Option<Group>,
}

impl Supervisor {
    async fn watch(mut self, ended: oneshot::Receiver<End>) -> Death {
        let lines = LastLines::default();
        let log = self.stderr.take().map(|stderr| lines.collect(stderr, self.label.clone()));
        let mut end = ended.await.unwrap_or(End::Closed);
        let (status, patient) = self.reap(&end).await;
        if let (End::Closed, false) = (&end, patient) {
            end = End::Hung("closed its socket, went on".to_owned());
        }
        if let Some(log) = log {
            // The pipe ends with the child, unless a grandchild holds it.
            let _ = tokio::time::timeout(GRACE, log).await;
        }
        let memory = self.group.take().map(|group| group.killed_for_memory());
        Death::of(&end, status, memory, &lines.text())
    }

    /// Waits for the child to end by itself, then kills it; whether it did. One that is known not to
    /// is killed at once, which ends a stopped process as well.
    async fn reap(&mut self, end: &End) -> (Option<ExitStatus>, bool) {
        if !end.must_kill()
            && let Ok(status) = tokio::time::timeout(GRACE, self.child.wait()).await
        {
            return (status.ok(), true);
        }
        let _ = self.child.start_kill();
        (self.child.wait().await.ok(), false)
    }
}

/// The last lines of a child's stderr.
#[derive(Debug, Clone, Default)]
struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    /// Reads `stderr` into the daemon's log until it ends.
    fn collect(
        &self,
        stderr: impl AsyncRead + Unpin + Send + 'static,
        label: String,
    ) -> JoinHandle<()> {
        let lines = self.clone();
        tokio::spawn(async move {
            let mut stderr = BufReader::new(stderr);
            let mut line = Vec::new();
            loop {
                line.clear();
                let mut bounded = (&mut stderr).take(STDERR_LINE_BYTES_MAX);
                match bounded.read_until(b'\n', &mut line).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => lines.push(String::from_utf8_lossy(&line).trim_end(), &label),
                }
            }
        })
    }

    fn push(&self, line: &str, label: &str) {
        tracing::info!(target: "dsk_runner", model = label, "{line}");
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == STDERR_LINES_KEPT {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<_> = lines.iter().filter(|line| !line.is_empty()).cloned().collect();
        lines.join(" | ")
    }
}
