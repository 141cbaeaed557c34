//! `cargo demo [MODEL]`: the main job from nothing. Builds `dsk`, fetches a real model, shares it from
//! the embedded registry, pulls it by digest into an empty store, asks it something, and prints what
//! happened. MODEL is `smollm2` (the default) or `qwen2.5-coder`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long a server may take to answer first.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// What is asked of each model, by the name that `tests/models.py` knows.
const MODELS: &[(&str, &str, &str)] = &[
    ("smollm2", "smollm2:135m", "Why is the sky blue?"),
    ("qwen2.5-coder", "qwen2.5-coder:0.5b", "Write a Python function that reverses a string."),
];

/// A child process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

struct Demo {
    root: PathBuf,
    dsk: PathBuf,
    folder: PathBuf,
}

fn main() -> Result<()> {
    let wanted = std::env::args().nth(1).unwrap_or_else(|| MODELS[0].0.to_owned());
    let known = MODELS.iter().find(|(key, ..)| *key == wanted);
    let names: Vec<_> = MODELS.iter().map(|(key, ..)| *key).collect();
    let (key, name, question) =
        known.with_context(|| format!("unknown model {wanted}; known: {}", names.join(", ")))?;
    let demo = Demo::prepare()?;
    let gguf = demo.fetch(key)?;
    let (_registry, address) = demo.serve_registry()?;
    demo.publish(&address, name, &gguf)?;
    demo.pull_and_ask(&address, name, question)
}

impl Demo {
    fn prepare() -> Result<Demo> {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("no root")?.to_owned();
        say("building dsk (release)");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let build = ["build", "--release", "--package", "dsk-cli", "--bin", "dsk"];
        finish(Command::new(cargo).args(build).current_dir(&root))?;
        // Both programs are built into the same folder.
        let dsk = std::env::current_exe()?.with_file_name("dsk");
        let folder = root.join("target/demo");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Ok(Demo { root, dsk, folder })
    }

    fn fetch(&self, key: &str) -> Result<PathBuf> {
        say(&format!("fetching {key} into target/models"));
        let script = self.root.join("tests/models.py");
        let output = Command::new("python3").arg(script).arg(key).stderr(Stdio::inherit()).output();
        let output = output.context("python3 must be installed")?;
        ensure!(output.status.success(), "tests/models.py failed");
        Ok(String::from_utf8(output.stdout)?.trim().into())
    }

    /// A `dsk` with a home of its own, so that nothing of the user's is touched.
    fn command(&self, home: &str) -> Command {
        let mut command = Command::new(&self.dsk);
        let home = self.folder.join(home);
        command.env("DSK_HOME", &home).env("DSK_SOCKET", home.join("dsk.sock"));
        command
    }

    fn serve_registry(&self) -> Result<(Running, String)> {
        let mut command = self.command("registry");
        command.args(["registry", "serve", "--listen", "127.0.0.1:0", "--root"]);
        command.arg(self.folder.join("registry/store"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let running = Running(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().rsplit("http://").next().unwrap_or_default().to_owned();
        ensure!(!address.is_empty(), "the registry did not say where it listens");
        say(&format!("the embedded registry listens on {address}"));
        Ok((running, address))
    }

    /// Starts a daemon with an empty store; gives the address that clients are told by DSK_HOST.
    fn serve_daemon(&self, home: &str) -> Result<(Running, String)> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        fs::create_dir_all(self.folder.join(home))?;
        let log = fs::File::create(self.folder.join(home).join("daemon.log"))?;
        let mut command = self.command(home);
        command.arg("serve").env("DSK_HOST", &address).stderr(log).stdout(Stdio::null());
        let running = Running(command.spawn()?);
        let began = Instant::now();
        while TcpStream::connect(&address).is_err() {
            if began.elapsed() > START_TIMEOUT {
                bail!("the daemon did not answer; see target/demo/{home}/daemon.log");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok((running, address))
    }

    fn publish(&self, registry: &str, name: &str, gguf: &Path) -> Result<()> {
        say("publishing the model: dsk create, dsk push");
        let (_daemon, host) = self.serve_daemon("author")?;
        let modelfile = self.folder.join("Modelfile");
        let text = "SYSTEM You are a helpful assistant.\nPARAMETER temperature 0\nPARAMETER num_predict 200\n";
        fs::write(&modelfile, format!("FROM {}\n{text}", gguf.display()))?;
        let full = format!("{registry}/library/{name}");
        let dsk = || {
            let mut command = self.command("author");
            command.env("DSK_HOST", &host);
            command
        };
        finish(dsk().args(["create", &full, "-f"]).arg(&modelfile))?;
        finish(dsk().args(["push", &full]))
    }

    fn pull_and_ask(&self, registry: &str, name: &str, question: &str) -> Result<()> {
        let (daemon, host) = self.serve_daemon("user")?;
        let dsk = || {
            let mut command = self.command("user");
            command.env("DSK_HOST", &host);
            command
        };
        let full = format!("{registry}/library/{name}");
        say(&format!("dsk pull {full}"));
        let began = Instant::now();
        finish(dsk().args(["pull", &full]))?;
        let seconds = began.elapsed().as_secs_f64();
        say(&format!("dsk run {name} {question:?}"));
        finish(dsk().args(["run", &full, question, "--verbose"]))?;
        say("what is loaded: dsk ps");
        finish(dsk().arg("ps"))?;
        self.report(daemon.0.id(), seconds)
    }

    fn report(&self, daemon: u32, pull_seconds: f64) -> Result<()> {
        let blobs = fs::read_dir(self.folder.join("user/models/blobs"))?;
        let mut bytes = 0;
        for blob in blobs {
            bytes += blob?.metadata()?.len();
        }
        let megabytes = bytes as f64 / 1e6;
        say(&format!(
            "pulled {megabytes:.1} MB in {pull_seconds:.2} s ({:.0} MB/s), every blob checked by its sha256",
            megabytes / pull_seconds
        ));
        say(&format!("resident memory: daemon {:.1} MB", resident_megabytes(daemon)?));
        for runner in children(daemon)? {
            say(&format!("resident memory: runner {:.1} MB", resident_megabytes(runner)?));
        }
        Ok(())
    }
}

#[expect(clippy::print_stderr, reason = "a program for people to watch")]
fn say(text: &str) {
    eprintln!("\x1b[1m==> {text}\x1b[0m");
}

fn finish(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// VmRSS of /proc/PID/status.
fn resident_megabytes(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
    Ok(kib * 1024.0 / 1e6)
}

fn children(pid: u32) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("children"))?;
        all.extend(text.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
    }
    Ok(all)
}
