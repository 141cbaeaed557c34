//! `dsk run` starts a daemon when none answers on this machine, says so, and waits for it.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use dsk_daemon_api::{ClientError, Endpoint};

use crate::connection::{Connection, interrupted};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::folders::{process_env, state};
use crate::terminal::Terminal;

/// How long the new daemon may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is asked.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long another daemon that took the port first may take, once ours has given up.
const RIVAL_TIMEOUT: Duration = Duration::from_secs(3);
/// A log longer than this is put aside before the next daemon writes to it.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Lines of the log that a failed start shows, and bytes in which they are looked for.
const LOG_LINES_SHOWN: usize = 8;
const LOG_TAIL_BYTES: u64 = 16 * 1024;

/// Makes sure that a daemon answers, by starting one if need be.
pub(crate) async fn ensure_daemon(
    connection: &Connection,
    terminal: &mut Terminal,
) -> anyhow::Result<()> {
    match connection.client.version().await {
        Err(error @ ClientError::Unreachable { .. }) if !startable(connection) => Err(error.into()),
        Err(ClientError::Unreachable { .. }) => start(connection, terminal).await,
        // Whatever else is wrong with the daemon, a second one would not mend it.
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

fn startable(connection: &Connection) -> bool {
    let plain = match &connection.target.endpoint {
        Endpoint::Tcp(url) => url.scheme() == "http",
        Endpoint::Unix(_) => true,
    };
    plain && connection.target.is_local()
}

async fn start(connection: &Connection, terminal: &mut Terminal) -> anyhow::Result<()> {
    let log = Log::open()?;
    terminal.note(&format!(
        "no daemon answers at {}: starting one (log: {})",
        connection.target.endpoint,
        log.path.display()
    ));
    let mut child = spawn(&connection.target.endpoint, &log)?;
    tokio::select! {
        started = wait(connection, &mut child, &log) => started,
        () = interrupted() => {
            Err(Failure::new(Exit::Interrupted, "interrupted while the daemon started").into())
        }
    }
}

/// Starts `dsk serve` where this command looks for it, detached from this terminal.
fn spawn(endpoint: &Endpoint, log: &Log) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("this program does not know its own path")?;
    let mut command = Command::new(program);
    command.args(["serve", "--detached"]);
    match endpoint {
        Endpoint::Tcp(url) => {
            let port = url.port_or_known_default().unwrap_or(crate::endpoint::PORT_DEFAULT);
            let host = url.host_str().unwrap_or("127.0.0.1");
            command.arg(format!("--host={host}:{port}"));
        }
        Endpoint::Unix(path) => {
            command.arg("--socket").arg(path);
        }
    }
    let (out, err) = (log.file.try_clone()?, log.file.try_clone()?);
    command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .context("the daemon could not be started")
}

async fn wait(connection: &Connection, child: &mut Child, log: &Log) -> anyhow::Result<()> {
    let mut deadline = Instant::now() + START_TIMEOUT;
    let mut exited = None;
    while Instant::now() < deadline {
        if connection.client.version().await.is_ok() {
            return Ok(());
        }
        if exited.is_none() {
            exited = child.try_wait()?;
            // Two `dsk run` at once start two daemons, and one of them finds the port taken.
            deadline = if exited.is_some() { Instant::now() + RIVAL_TIMEOUT } else { deadline };
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    let what = match exited {
        Some(status) => format!("the daemon that was started ended with {status}"),
        None => format!("the daemon did not answer within {} s", START_TIMEOUT.as_secs()),
    };
    let tail = log.tail();
    let failure = Failure::new(Exit::Unreachable, format!("{what}\n{tail}").trim_end().to_owned());
    Err(failure.hint("run it here to see what is wrong: dsk serve").into())
}

/// The log of a daemon that this command started.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    /// Where the new daemon's lines begin.
    begin: u64,
}

impl Log {
    fn open() -> anyhow::Result<Log> {
        let folder = state(&process_env).context("neither HOME nor DSK_HOME is set")?;
        Log::open_in(&folder)
    }

    fn open_in(folder: &Path) -> anyhow::Result<Log> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join("serve.log");
        if fs::metadata(&path).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
            fs::rename(&path, folder.join("serve.log.old"))
                .with_context(|| format!("cannot put {} aside", path.display()))?;
        }
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let begin = file.metadata()?.len();
        Ok(Log { path, file, begin })
    }

    /// The last lines that the new daemon wrote.
    fn tail(&self) -> String {
        let mut bytes = Vec::new();
        // A log that cannot be read makes the report shorter, not wrong.
        let _ = File::open(&self.path).and_then(|mut file| {
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(self.begin.max(end.saturating_sub(LOG_TAIL_BYTES))))?;
            file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)
        });
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
        lines[from..].iter().map(|line| format!("  | {line}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn the_tail_has_only_the_last_lines_of_this_start() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("serve.log"), "an older daemon\n").unwrap();
        let mut log = Log::open_in(folder.path()).unwrap();
        assert_eq!(log.tail(), "");
        for line in 1..=10 {
            writeln!(log.file, "line {line}").unwrap();
        }
        let tail = log.tail();
        assert!(tail.starts_with("  | line 3\n") && tail.ends_with("  | line 10\n"), "{tail}");
    }

    #[test]
    fn a_long_log_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serve.log");
        File::create(&path).unwrap().set_len(LOG_BYTES_MAX + 1).unwrap();
        let log = Log::open_in(folder.path()).unwrap();
        assert_eq!(log.begin, 0);
        assert!(folder.path().join("serve.log.old").exists());
    }
}
