//! Starts the built `dsk` as a user would: a daemon with its own home, an embedded registry, the
//! CLI against either. Everything is gone when the value is dropped.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::tidy::repository;

/// How long a daemon or registry may take to answer first. Shared machines are slow at times.
const START_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) const DSK: &str = env!("CARGO_BIN_EXE_dsk");

/// A `dsk` command that sees nothing of the developer's own settings.
pub(crate) fn dsk(home: &Path) -> Command {
    let mut command = Command::new(DSK);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["DSK_", "OLLAMA_", "XDG_", "FAILPOINTS"].iter().any(|start| name.starts_with(start)) {
            command.env_remove(name);
        }
    }
    command
        .env("HOME", home)
        .env("DSK_HOME", home.join("dsk"))
        .env("XDG_RUNTIME_DIR", home)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    command
}

/// A port nobody listened on a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A folder for one test; its path is short enough for Unix sockets.
pub(crate) fn home() -> TempDir {
    tempfile::Builder::new().prefix("dsk-it-").tempdir().unwrap()
}

/// The path of a real model, fetched once into target/models.
pub(crate) fn model(name: &str) -> PathBuf {
    static ONE_FETCH: Mutex<()> = Mutex::new(());
    let _guard = ONE_FETCH.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let output = Command::new("python3")
        .arg(repository().join("tests/models.py"))
        .arg(name)
        .stderr(Stdio::inherit())
        .output()
        .expect("python3 runs");
    assert!(output.status.success(), "tests/models.py could not fetch {name}");
    String::from_utf8(output.stdout).unwrap().trim().into()
}

/// Tests that run a real model take turns: memory and two cores are all a build machine has.
pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A running `dsk serve`.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) home: TempDir,
    pub(crate) port: u16,
}

impl Daemon {
    pub(crate) fn start() -> Daemon {
        Daemon::start_with(home(), |_| {})
    }

    /// Starts on `home`, which may hold the state of an earlier daemon.
    pub(crate) fn start_with(home: TempDir, adjust: impl FnOnce(&mut Command)) -> Daemon {
        let port = free_port();
        let mut command = dsk(home.path());
        let log = std::fs::File::create(home.path().join("daemon.log")).unwrap();
        command.arg("serve").env("DSK_HOST", format!("127.0.0.1:{port}")).stderr(log);
        adjust(&mut command);
        let child = command.spawn().expect("dsk serve starts");
        let mut daemon = Daemon { child, home, port };
        daemon.wait_until_ready();
        daemon
    }

    fn wait_until_ready(&mut self) {
        let began = Instant::now();
        while http_get(self.port, "/").is_none() {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("dsk serve ended with {status} before it answered: {}", self.log());
            }
            assert!(began.elapsed() < START_TIMEOUT, "dsk serve did not answer in time");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the daemon has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("daemon.log")).unwrap_or_default()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The processes it started: its runners.
    pub(crate) fn children(&self) -> Vec<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let lists =
            tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("children")));
        let all: String = lists.map(Result::unwrap).collect();
        all.split_whitespace().map(|id| id.parse().unwrap()).collect()
    }

    /// A `dsk` command that talks to this daemon.
    pub(crate) fn dsk(&self) -> Command {
        let mut command = dsk(self.home.path());
        command.env("DSK_HOST", format!("127.0.0.1:{}", self.port));
        command
    }

    /// Runs a verb and returns its standard output; any failure fails the test with what it said.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        success(arguments, &self.dsk().args(arguments).output().unwrap())
    }

    /// Waits for the process to end by itself (or by a failpoint) and gives its home back.
    pub(crate) fn wait(mut self) -> TempDir {
        self.reaped()
    }

    /// Asks politely, as systemd does, and gives the exit status.
    pub(crate) fn terminate(mut self) -> std::process::ExitStatus {
        signal(self.child.id(), "TERM");
        self.child.wait().unwrap()
    }

    /// Ends it with kill -9 and gives its home back.
    pub(crate) fn kill(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.reaped()
    }

    fn reaped(&mut self) -> TempDir {
        self.child.wait().unwrap();
        std::mem::replace(&mut self.home, home())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("the daemon's log:\n{}", self.log());
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A running `dsk registry serve`.
pub(crate) struct Registry {
    child: Child,
    _root: TempDir,
    pub(crate) address: String,
}

impl Registry {
    pub(crate) fn start() -> Registry {
        Registry::start_with(|command, root| {
            command.arg("--root").arg(root);
        })
    }

    /// Starts one with other flags; `adjust` also gets a folder to keep models in.
    pub(crate) fn start_with(adjust: impl FnOnce(&mut Command, &Path)) -> Registry {
        let root = home();
        let mut command = dsk(root.path());
        command.args(["registry", "serve", "--listen", "127.0.0.1:0"]);
        adjust(&mut command, &root.path().join("store"));
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("dsk registry serve starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit("http://").next().unwrap().to_owned();
        assert!(address.starts_with("127.0.0.1:"), "unexpected first line {line:?}");
        Registry { child, _root: root, address }
    }

    /// Puts a GGUF file into the registry under `name`, through a daemon and a push.
    pub(crate) fn fill(&self, name: &str, gguf: &Path) {
        let daemon = Daemon::start();
        let modelfile = daemon.home.path().join("Modelfile");
        std::fs::write(&modelfile, format!("FROM {}\n", gguf.display())).unwrap();
        let full = self.name(name);
        daemon.run(&["create", &full, "-f", modelfile.to_str().unwrap()]);
        daemon.run(&["push", &full]);
    }

    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/library/{name}", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) fn success(arguments: &[&str], output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "dsk {arguments:?}: {}\n{text}\n{errors}", output.status);
    text
}

pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill -s {name} {pid}");
}

/// The body of a GET, or None when nothing answers.
pub(crate) fn http_get(port: u16, path: &str) -> Option<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    Some(reply.split_once("\r\n\r\n")?.1.to_owned())
}
