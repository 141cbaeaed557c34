//! A daemon with no model: what it costs to leave it running.
//!
//! `DSK_IDLE_BINARY` names another `dsk` to measure, a release build for example; it must hold the
//! whole promise. Of the debug build under test only the memory of its own is judged: the pages of
//! its unoptimised text are no promise of ours.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{DSK, free_port, home, http_get};

/// The promise, in bytes.
const PSS_MAX: u64 = 15 << 20;
/// And in wakeups a second, of all threads together.
const WAKEUPS_MAX: f64 = 2.0;
/// For the start's own work to end.
const SETTLE: Duration = Duration::from_secs(6);
const WATCH: Duration = Duration::from_secs(5);

struct Idle(Child);

impl Drop for Idle {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Context switches of each thread so far: each wakeup ends with one.
fn switches(pid: u32) -> BTreeMap<String, u64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let count = |task: std::fs::DirEntry| {
        // A thread that ends meanwhile has nothing to read.
        let text = std::fs::read_to_string(task.path().join("status")).ok()?;
        let id = task.file_name().to_string_lossy().into_owned();
        Some((id, figures(&text, "ctxt_switches:")))
    };
    tasks.filter_map(count).collect()
}

/// Wakeups between two looks; a thread that ended in between woke up for that.
fn woken(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> u64 {
    let ended = before.keys().filter(|id| !after.contains_key(*id)).count();
    let switched = after.iter().map(|(id, count)| count - before.get(id).unwrap_or(&0));
    switched.sum::<u64>() + ended as u64
}

/// The sum of the figures in lines whose name ends so.
fn figures(text: &str, end: &str) -> u64 {
    let figure = |line: &str| {
        let (name, rest) = line.split_once(char::is_whitespace)?;
        name.ends_with(end).then(|| rest.split_whitespace().next()?.parse::<u64>().ok())?
    };
    text.lines().filter_map(figure).sum()
}

/// Bytes of one line of the process's memory map, added up by the kernel.
fn memory(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_else(|| panic!("no {name} in {text}")) * 1024
}

#[test]
fn an_idle_daemon_sleeps_and_is_small() {
    let given = std::env::var("DSK_IDLE_BINARY").ok();
    let home = home();
    let port = free_port();
    let child = Command::new(given.as_deref().unwrap_or(DSK))
        .arg("serve")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.path())
        .env("DSK_HOME", home.path())
        .env("XDG_RUNTIME_DIR", home.path())
        .env("DSK_HOST", format!("127.0.0.1:{port}"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let daemon = Idle(child);
    let pid = daemon.0.id();
    let began = Instant::now();
    while http_get(port, "/").is_none() {
        assert!(began.elapsed() < Duration::from_secs(60), "it did not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Path::new(&format!("/proc/{pid}/smaps_rollup")).exists());
    std::thread::sleep(SETTLE);
    let (before, began) = (switches(pid), Instant::now());
    std::thread::sleep(WATCH);
    let rate = woken(&before, &switches(pid)) as f64 / began.elapsed().as_secs_f64();
    let (pss, own) = (memory(pid, "Pss"), memory(pid, "Pss_Anon"));
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
    println!(
        "{rate:.2} wakeups/s, {threads} threads, {:.1} MiB PSS, {:.1} MiB of its own",
        mib(pss),
        mib(own)
    );
    assert!(rate < WAKEUPS_MAX, "{rate:.2} wakeups a second");
    let judged = if given.is_some() { pss } else { own };
    assert!(judged <= PSS_MAX, "{:.1} MiB", mib(judged));
}
