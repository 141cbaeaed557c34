//! The child process and its socket, as channels.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fmt, io,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream as StdUnixStream, process::ExitStatusExt},
    },
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc},
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
};

use super::{
    frame::{self, FrameError},
    protocol::{Command, Report},
};

/// Reports the daemon may be behind before the child waits.
const REPORTS_BEHIND_MAX: usize = 256;
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

/// Why a runner is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Death {
    cause: String,
}

impl Death {
    /// A death whose cause completes "the runner of X …".
    pub(crate) fn new(cause: impl Into<String>) -> Death {
        Death { cause: cause.into() }
    }

    pub(super) fn unknown() -> Death {
        Death::new("is gone")
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

/// A child as channels: commands in, reports out, its death at the end.
#[derive(Debug)]
pub(crate) struct Link {
    /// Unbounded, and bounded by who may write: the scheduler admits `max_queue` requests at most.
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) died: oneshot::Receiver<Death>,
    /// The child's process, where there is one.
    pub(crate) pid: Option<u32>,
}

impl Link {
    /// Waits for the death; it follows the end of the reports.
    pub(crate) async fn death(&mut self) -> Death {
        (&mut self.died).await.unwrap_or_else(|_| Death::unknown())
    }
}

/// Starts runners. The scheduler knows no more of them than this.
pub(crate) trait Launch: Send + Sync + 'static {
    /// Starts a child for the model called `label`.
    fn launch(&self, label: &str) -> io::Result<Link>;
}

/// Starts `PROGRAM runner` with a socket as its standard input.
///
/// Children are started from one thread that lives as long as this value: the kernel ties a
/// child's life to the *thread* that started it, and a runtime's threads come and go.
#[derive(Debug)]
pub(crate) struct ProcessLauncher {
    spawns: std_mpsc::Sender<Spawn>,
}

struct Spawn {
    socket: OwnedFd,
    runtime: tokio::runtime::Handle,
    reply: std_mpsc::Sender<io::Result<Child>>,
}

impl ProcessLauncher {
    /// A launcher of `program`, or of the program that runs now.
    pub(crate) fn new(program: Option<PathBuf>) -> io::Result<ProcessLauncher> {
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
        Ok(ProcessLauncher { spawns })
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
    fn launch(&self, label: &str) -> io::Result<Link> {
        let (ours, theirs) = StdUnixStream::pair()?;
        let (reply, child) = std_mpsc::channel();
        let runtime = tokio::runtime::Handle::current();
        let spawn = Spawn { socket: theirs.into(), runtime, reply };
        let gone = || io::Error::other("the thread that starts runners is gone");
        self.spawns.send(spawn).map_err(|_| gone())?;
        let mut child = child.recv().map_err(|_| gone())??;
        let (stderr, pid) = (child.stderr.take(), child.id());
        let supervisor = Supervisor { label: label.to_owned(), child, stderr };
        let link = connect(ours, |socket_ended| supervisor.watch(socket_ended))?;
        Ok(Link { pid, ..link })
    }
}

/// Makes a link over a socket. `supervise` gets how the socket ended and says how the child died.
pub(super) fn connect<F>(
    socket: StdUnixStream,
    supervise: impl FnOnce(oneshot::Receiver<Result<(), FrameError>>) -> F,
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
    let mut writer = tokio::spawn(write_commands(to_child, writing));
    tokio::spawn(async move {
        let end = tokio::select! {
            end = read_reports(reading, &to_daemon) => end,
            // Told to stop; a child that hangs does not close its side.
            () = async { let _ = (&mut writer).await; tokio::time::sleep(GRACE).await } => Ok(()),
        };
        writer.abort();
        let _ = ended.send(end);
    });
    let death = supervise(socket_ended);
    tokio::spawn(async move {
        let _ = say_death.send(death.await);
    });
    Ok(Link { commands, reports, died, pid: None })
}

/// Writes until `Stop` or until nobody is left to command; then the child reads the end.
async fn write_commands(
    mut commands: mpsc::UnboundedReceiver<Command>,
    mut socket: OwnedWriteHalf,
) {
    while let Some(command) = commands.recv().await {
        let Ok(bytes) = frame::encode(&command) else {
            // The edge bounds a body below a frame's limit.
            tracing::error!("a command did not fit into a frame");
            continue;
        };
        if socket.write_all(&bytes).await.is_err() || matches!(command, Command::Stop) {
            return;
        }
    }
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
}

impl Supervisor {
    async fn watch(mut self, socket_ended: oneshot::Receiver<Result<(), FrameError>>) -> Death {
        let lines = LastLines::default();
        let log = self.stderr.take().map(|stderr| lines.collect(stderr, self.label.clone()));
        let garbage = match socket_ended.await {
            Ok(Err(error @ (FrameError::TooLong(_) | FrameError::Json(_)))) => Some(error),
            _ => None,
        };
        if garbage.is_some() {
            let _ = self.child.start_kill();
        }
        let status = self.end().await;
        if let Some(log) = log {
            // The pipe ends with the child, unless a grandchild holds it.
            let _ = tokio::time::timeout(GRACE, log).await;
        }
        match (garbage, status) {
            (Some(error), _) => Death::new(format!("was killed because it sent garbage: {error}")),
            (None, Some(status)) => Death::new(cause(status, &lines)),
            (None, None) => Death::unknown(),
        }
    }

    /// Waits for the child to end by itself, then kills it.
    async fn end(&mut self) -> Option<ExitStatus> {
        if let Ok(status) = tokio::time::timeout(GRACE, self.child.wait()).await {
            return status.ok();
        }
        let _ = self.child.start_kill();
        self.child.wait().await.ok()
    }
}

fn cause(status: ExitStatus, lines: &LastLines) -> String {
    let mut cause = match (status.signal(), status.code()) {
        (Some(9), _) => "was killed by signal 9 (out of memory?)".to_owned(),
        (Some(signal), _) => format!("was killed by signal {signal}"),
        (None, Some(0)) => "ended".to_owned(),
        (None, code) => format!("ended with exit code {}", code.unwrap_or(-1)),
    };
    let last = lines.text();
    if !status.success() && !last.is_empty() {
        cause += "; its last words: ";
        cause += &last;
    }
    cause
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
