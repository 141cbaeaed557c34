//! Runners that die, stop and outgrow their memory at every phase: their request ends with an error
//! that names the cause, in bounded time; the daemon lives, its memory comes back, and the next
//! request works.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::harness::{DSK, Daemon, home, http_get, model, one_at_a_time, signal};

/// What a runner may leave unanswered here; the default is too long for a test.
const TIMEOUT: Duration = Duration::from_secs(3);
/// A death is noticed when the socket closes; the rest is a slow machine.
const DEATH_NOTICED: Duration = Duration::from_secs(5);
/// A stopped runner is noticed after a ping's interval and the timeout.
const STOP_NOTICED: Duration = Duration::from_secs(TIMEOUT.as_secs() * 4 / 3 + 4);
/// Idle threads of the runtime leave after ten seconds, and their stacks with them.
const SETTLED: Duration = Duration::from_secs(12);
/// What the daemon's own memory may grow by ...
const GROWTH_PERCENT_MAX: u64 = 1;
/// ... beyond what it differs by from one look to the next, either way: pages of the heap that a small
/// thing still lies in.
const HEAP_NOISE_BYTES: u64 = 48 << 10;
/// A prompt that takes a few seconds to read.
const LONG_PROMPT_WORDS: usize = 1500;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Load,
    Prefill,
    Decode,
    Idle,
}

const PHASES: [Phase; 4] = [Phase::Load, Phase::Prefill, Phase::Decode, Phase::Idle];

/// Names for one model, each with a death count of its own: three within a minute and a model is
/// refused for a while, which is tested elsewhere.
fn make(daemon: &Daemon, name: &str) {
    let modelfile = daemon.home.path().join("Modelfile");
    let weights = model("smollm2");
    fs::write(&modelfile, format!("FROM {}\nSYSTEM {name}\n", weights.display())).unwrap();
    daemon.run(&["create", name, "-f", modelfile.to_str().unwrap()]);
}

/// A request whose answer is read line by line on a thread.
struct Request {
    lines: mpsc::Receiver<String>,
}

impl Request {
    fn send(daemon: &Daemon, name: &str, prompt: &str, tokens: u32) -> Request {
        let body = serde_json::json!({
            "model": name, "prompt": prompt, "keep_alive": "5m",
            "options": { "num_predict": tokens, "num_ctx": 4096, "temperature": 0 },
        })
        .to_string();
        let port = daemon.port;
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        write!(
            stream,
            "POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let json = BufReader::new(stream).lines().map_while(Result::ok);
            for line in json.filter(|line| line.starts_with('{')) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Request { lines }
    }

    /// The next line of the answer that holds `what`, or the last line there is.
    fn until(&self, what: &str, within: Duration) -> String {
        let began = Instant::now();
        let mut last = String::new();
        while let Some(left) = within.checked_sub(began.elapsed()) {
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(what) => return line,
                Ok(line) => last = line,
                Err(mpsc::RecvTimeoutError::Disconnected) => return last,
                Err(mpsc::RecvTimeoutError::Timeout) => break,
            }
        }
        panic!("no {what:?} within {within:?}; last {last:?}");
    }
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn runner(daemon: &Daemon) -> u32 {
    wait_for("a runner", || daemon.children().first().copied())
}

fn no_runner(daemon: &Daemon) {
    wait_for("the runner's end", || daemon.children().is_empty().then_some(()));
}

fn works(daemon: &Daemon, name: &str) {
    let answer = Request::send(daemon, name, "Say hello.", 2).until("\"done\":true", ANSWER);
    assert!(answer.contains("\"done\":true"), "{answer}");
}

/// A short answer, loading included, on a machine that does much else.
const ANSWER: Duration = Duration::from_secs(60);

/// Sends a signal. The handler of Rust's standard library swallows a SIGSEGV that no bad access came
/// with and leaves the next one to the kernel, so that one is sent until it has done its work.
fn hit(runner: u32, name: &str) {
    signal(runner, name);
    while name == "SEGV" && lives(runner) {
        std::thread::sleep(Duration::from_millis(20));
        let again = Command::new("kill").args(["-s", name, &runner.to_string()]).output();
        assert!(again.is_ok(), "kill runs, whether the process is there or not");
    }
}

fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Sends `name` to the model's runner in a phase, and returns the error that its request ends with.
fn strike(daemon: &Daemon, model: &str, phase: Phase, name: &str) -> String {
    let bound = if name == "STOP" { STOP_NOTICED } else { DEATH_NOTICED };
    let long = "word ".repeat(LONG_PROMPT_WORDS);
    if phase != Phase::Load {
        works(daemon, model);
    }
    // The model before this one may be on its way out while this one loads.
    let leaving = if phase == Phase::Load { daemon.children() } else { Vec::new() };
    let request = match phase {
        Phase::Load | Phase::Decode => Request::send(daemon, model, "Tell a long story.", 3000),
        Phase::Prefill => Request::send(daemon, model, &long, 3000),
        // A dead one is gone before the next request, which gets another; a stopped one looks idle.
        Phase::Idle => {
            let runner = runner(daemon);
            hit(runner, name);
            if name != "STOP" {
                wait_for("its end", || (!daemon.children().contains(&runner)).then_some(()));
                return String::new();
            }
            return Request::send(daemon, model, "Say hello.", 2).until("error", bound);
        }
    };
    match phase {
        Phase::Decode => drop(request.until("response", ANSWER)),
        Phase::Prefill => std::thread::sleep(Duration::from_millis(300)),
        _ => {}
    }
    let new = || daemon.children().into_iter().find(|child| !leaving.contains(child));
    hit(wait_for("a runner", new), name);
    request.until("\"error\"", bound)
}

/// The bytes of the daemon that are its own, once it has settled: those of its program are shared with every other `dsk`
/// that runs, and count by how many there are.
fn own_bytes(daemon: &Daemon) -> u64 {
    no_runner(daemon);
    std::thread::sleep(SETTLED);
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", daemon.pid())).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn start() -> Daemon {
    Daemon::start_with(home(), adjust)
}

fn adjust(command: &mut Command) {
    let timeout = format!("{}s", TIMEOUT.as_secs());
    command.env("DSK_RUNNER_TIMEOUT", timeout).env("DSK_MAX_LOADED", "1");
    // The daemon keeps the last lines of its log, which fill memory up to their own bound.
    command.env("DSK_LOG", "error");
}

/// The name of the model that dies so.
fn victim(signal: &str, phase: Phase) -> String {
    format!("{signal}-{phase:?}").to_lowercase()
}

#[test]
fn a_signal_at_any_phase_costs_one_request_and_nothing_else() {
    let _turn = one_at_a_time();
    let daemon = start();
    let signals =
        [("KILL", "signal 9"), ("SEGV", "segmentation fault"), ("STOP", "answered nothing")];
    // What is made once, for each model and each way to die, is made before the first look.
    for (name, _) in signals {
        for phase in PHASES {
            make(&daemon, &victim(name, phase));
            works(&daemon, &victim(name, phase));
        }
    }
    let mut before = None;
    for (name, cause) in signals {
        for phase in PHASES {
            let model = victim(name, phase);
            let error = strike(&daemon, &model, phase, name);
            let expected = format!("the runner of {model}:latest");
            let told = error.contains(&expected) && error.contains(cause);
            assert!(told || error.is_empty(), "{name} in {phase:?}: {error}");
            works(&daemon, &model);
        }
        let status = http_get(daemon.port, "/api/dsk/status").unwrap();
        assert!(status.contains("\"running\":0"), "{status}");
        daemon.run(&["stop", &victim(name, Phase::Idle)]);
        before.get_or_insert_with(|| own_bytes(&daemon));
    }
    let (before, after) = (before.unwrap(), own_bytes(&daemon));
    let bound = before + before * GROWTH_PERCENT_MAX / 100 + HEAP_NOISE_BYTES;
    assert!(after <= bound, "the daemon's memory grew from {before} to {after} bytes");
}

/// A control group for one daemon; version 1, or none.
struct Group(PathBuf);

impl Group {
    fn make() -> Option<Group> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = own.lines().find_map(|line| Some(line.split_once(":memory:/")?.1))?;
        let folder = Path::new("/sys/fs/cgroup/memory").join(path);
        let folder = folder.join(format!("dsk-it-{}", std::process::id()));
        fs::create_dir(&folder).ok()?;
        Some(Group(folder))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes are gone a moment after the daemon; the kernel refuses until then.
        for _ in 0..200 {
            for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
                fs::remove_dir(entry.path()).ok();
            }
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The same command, run in the group.
fn enter(group: &Group, command: &mut Command, log: fs::File) {
    let mut inside = Command::new("sh");
    let script = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
    inside.args(["-c", script, group.0.to_str().unwrap(), DSK, "serve"]).stderr(log);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    *command = inside;
}

/// Has a runner outgrow its group in a phase: its request, and the group.
fn starve(daemon: &Daemon, group: &Group, model: &str, phase: Phase) -> (Request, PathBuf) {
    let own = |runner: u32| group.0.join(format!("runner-{runner}"));
    if phase == Phase::Load {
        let leaving = daemon.children();
        let request = Request::send(daemon, model, "Say hello.", 2);
        let new = || daemon.children().into_iter().find(|child| !leaving.contains(child));
        let own = own(wait_for("a runner", new));
        // Enough to start with, and not for the weights.
        wait_for("its group", || limit(&own, 24 << 20).ok());
        return (request, own);
    }
    works(daemon, model);
    let own = own(runner(daemon));
    let used = fs::read_to_string(own.join("memory.usage_in_bytes"));
    let used: u64 = used.expect("the runner has a group of its own").trim().parse().unwrap();
    let before = fs::read_to_string(own.join("memory.limit_in_bytes")).unwrap();
    assert!(before.trim().parse::<u64>().unwrap() > used, "{before} for {used}");
    // Keys and values of a long prompt are too much, and so are those of a long answer.
    let (prompt, tokens) = match phase {
        Phase::Prefill => ("word ".repeat(LONG_PROMPT_WORDS), 10),
        _ => ("Tell a long story.".to_owned(), 3000),
    };
    let request = Request::send(daemon, model, &prompt, tokens);
    if phase == Phase::Decode {
        drop(request.until("response", ANSWER));
    }
    limit(&own, used + (1 << 20)).unwrap();
    (request, own)
}

fn limit(group: &Path, bytes: u64) -> std::io::Result<()> {
    fs::write(group.join("memory.limit_in_bytes"), bytes.to_string())
}

#[test]
fn a_runner_over_its_memory_is_named_and_replaced() {
    let Some(group) = Group::make() else {
        return println!("not run: this machine lets the test make no memory control group");
    };
    let _turn = one_at_a_time();
    let home = home();
    let log = fs::File::create(home.path().join("daemon.log")).unwrap();
    let daemon = Daemon::start_with(home, |command| {
        adjust(command);
        enter(&group, command, log);
    });
    // Idle, it allocates nothing.
    for phase in [Phase::Load, Phase::Prefill, Phase::Decode] {
        let model = victim("OOM", phase);
        make(&daemon, &model);
        let (request, own) = starve(&daemon, &group, &model, phase);
        let error = request.until("\"error\"", ANSWER);
        assert!(error.contains("took more memory than it may"), "{phase:?}: {error}");
        works(&daemon, &model);
        assert!(!own.exists(), "the dead runner's group is removed");
    }
    drop(daemon);
}
