//! The checks of this machine: configuration, folders, disk, network.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dsk_daemon::config::{Config, ConfigError};
use dsk_registry::{Client, ClientConfig};
use jiff::Timestamp;
use url::Url;

use super::Finding;
use crate::units;

/// Less free disk than this and most models do not fit.
const SPACE_WARN_BYTES: u64 = 10_000_000_000;
/// Less than this and none does.
const SPACE_FAIL_BYTES: u64 = 500_000_000;
/// A disk that needs longer for an fsync makes every commit of a blob wait.
const SYNC_WARN: Duration = Duration::from_millis(100);
/// How many fsyncs are measured; the middle one counts.
const SYNC_SAMPLES: usize = 5;
const SYNC_BYTES: usize = 4096;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const HTTPS_PORT: u16 = 443;
const CLOCK: &str = "clock";
/// Certificates and tokens live longer than this; a machine whose clock is off by more has no time
/// service.
const SKEW_WARN: Duration = Duration::from_secs(60);

/// The configuration's mistakes, one finding each.
pub(super) fn configuration(config: Result<&Config, &ConfigError>) -> Vec<Finding> {
    const CHECK: &str = "configuration";
    match config {
        Err(ConfigError(problems)) => problems
            .iter()
            .map(|problem| {
                Finding::fail(CHECK, problem.to_string(), format!("correct {}", problem.place))
            })
            .collect(),
        Ok(_) => vec![Finding::ok(CHECK, "no mistakes; `dsk config` shows it")],
    }
}

/// Whether a folder is there and can be written.
pub(super) fn folder(check: &'static str, path: &Path) -> Finding {
    let shown = path.display();
    let existing = nearest_existing(path);
    if !existing.is_dir() {
        let detail = format!("{} is no folder", existing.display());
        return Finding::fail(check, detail, "move that file away, or set another folder");
    }
    if let Err(error) = tempfile_in(&existing) {
        let detail = format!("{} cannot be written: {error}", existing.display());
        let next = "give this user write access to it, or set DSK_HOME or DSK_MODELS";
        return Finding::fail(check, detail, next);
    }
    let made = if existing == path { "is there" } else { "will be made" };
    Finding::ok(check, format!("{shown} {made}"))
}

/// Free space where the models lie.
pub(super) fn space(models: &Path) -> Finding {
    const CHECK: &str = "disk space";
    let folder = nearest_existing(models);
    let free = match rustix::fs::statvfs(&folder) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => {
            let detail = format!("unknown at {}: {error}", folder.display());
            return Finding::warn(CHECK, detail, "look at it with: df");
        }
    };
    let detail = format!("{} free at {}", units::bytes(free), folder.display());
    let next = "free some (`dsk rm MODEL`), or put the models elsewhere with DSK_MODELS";
    match free {
        free if free < SPACE_FAIL_BYTES => Finding::fail(CHECK, detail, next),
        free if free < SPACE_WARN_BYTES => Finding::warn(CHECK, detail, next),
        _ => Finding::ok(CHECK, detail),
    }
}

/// How long the disk of the models takes to make a small write durable.
pub(super) fn sync_latency(models: &Path) -> Finding {
    const CHECK: &str = "disk sync";
    let folder = nearest_existing(models);
    match measure_sync(&folder) {
        Ok(time) if time > SYNC_WARN => Finding::warn(
            CHECK,
            format!("{} for an fsync: pulls will be slow to finish", units::duration(time)),
            "put the models on a local disk with DSK_MODELS",
        ),
        Ok(time) => Finding::ok(CHECK, format!("{} for an fsync", units::duration(time))),
        Err(error) => Finding::warn(
            CHECK,
            format!("not measured in {}: {error}", folder.display()),
            "make the folder writable",
        ),
    }
}

/// Whether the registry's host resolves and takes a connection.
pub(super) fn registry(registry: Option<&Url>) -> Finding {
    const CHECK: &str = "registry";
    let host = registry.and_then(Url::host_str).unwrap_or(dsk_registry::DEFAULT_HOST);
    let port = registry.and_then(Url::port_or_known_default).unwrap_or(HTTPS_PORT);
    let host = host.trim_matches(['[', ']']);
    match connect(host, port) {
        Ok(time) => {
            let time = units::duration(time);
            Finding::ok(CHECK, format!("{host}:{port} takes connections ({time})"))
        }
        Err(error) => Finding::fail(
            CHECK,
            format!("{host}:{port} cannot be reached: {error}"),
            "check the network and its proxy; DSK_REGISTRY names another registry",
        ),
    }
}

/// Whether this machine's clock agrees with the registry's.
pub(super) async fn clock(registry: Option<&Url>) -> Finding {
    let config = ClientConfig { registry: registry.cloned(), ..ClientConfig::default() };
    let date = match Client::new(config) {
        Ok(client) => client.date().await,
        Err(error) => Err(error),
    };
    match date {
        Ok(date) => skew(date.as_deref(), Timestamp::now()),
        Err(error) => Finding::warn(
            CLOCK,
            format!("not compared: {error}"),
            "make the registry reachable, or look at it with: timedatectl",
        ),
    }
}

fn skew(date: Option<&str>, now: Timestamp) -> Finding {
    let theirs = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
    let Some(theirs) = theirs else {
        return Finding::ok(CLOCK, "not compared: the registry does not tell the time");
    };
    let apart = Duration::from_secs(now.duration_since(theirs.timestamp()).abs().as_secs() as u64);
    let detail = format!("{} from the registry's", units::whole_seconds(apart));
    match apart {
        apart if apart > SKEW_WARN => Finding::warn(
            CLOCK,
            format!("{detail}: certificates and tokens will be refused"),
            "set the clock: timedatectl set-ntp true",
        ),
        _ => Finding::ok(CLOCK, detail),
    }
}

fn connect(host: &str, port: u16) -> io::Result<Duration> {
    let start = Instant::now();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(_) => return Ok(start.elapsed()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The folder itself, or the nearest one above that is there.
fn nearest_existing(path: &Path) -> PathBuf {
    path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/")).to_owned()
}

/// A file that only this check knows, removed again when it is dropped.
struct Probe {
    path: PathBuf,
    file: File,
}

impl Drop for Probe {
    fn drop(&mut self) {
        // A probe that cannot be removed is an empty file with a telling name.
        let _ = fs::remove_file(&self.path);
    }
}

fn tempfile_in(folder: &Path) -> io::Result<Probe> {
    let path = folder.join(format!(".dsk-doctor-{}", std::process::id()));
    let file = File::options().write(true).create_new(true).open(&path)?;
    Ok(Probe { path, file })
}

fn measure_sync(folder: &Path) -> io::Result<Duration> {
    let mut probe = tempfile_in(folder)?;
    let mut times = Vec::with_capacity(SYNC_SAMPLES);
    for _ in 0..SYNC_SAMPLES {
        probe.file.write_all(&[0; SYNC_BYTES])?;
        let start = Instant::now();
        probe.file.sync_all()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[SYNC_SAMPLES / 2])
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_folder_that_will_be_made_is_judged_by_its_parent() {
        let parent = tempfile::tempdir().unwrap();
        let finding = folder("models folder", &parent.path().join("a/b"));
        assert_eq!(finding.level, Level::Ok);
        assert!(finding.detail.ends_with("a/b will be made"), "{finding:?}");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0, "the probe is gone");
    }

    #[test]
    fn a_file_in_the_way_is_a_failure() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let finding = folder("models folder", &file.path().join("models"));
        assert_eq!(finding.level, Level::Fail);
        assert!(finding.detail.contains("is no folder"), "{finding:?}");
    }

    #[test]
    fn the_disk_is_measured() {
        let folder = tempfile::tempdir().unwrap();
        assert!(measure_sync(folder.path()).unwrap() > Duration::ZERO);
        assert!(space(folder.path()).detail.contains(" free at "));
    }

    #[test]
    fn a_clock_that_is_wrong_is_told() {
        let now: Timestamp = "2024-05-06T07:08:09Z".parse().unwrap();
        let judged = |date| {
            let finding = skew(date, now);
            (finding.level, finding.detail)
        };
        let (level, detail) = judged(Some("Mon, 06 May 2024 07:08:12 GMT"));
        assert_eq!((level, detail.as_str()), (Level::Ok, "3s from the registry's"));
        let (level, detail) = judged(Some("Mon, 06 May 2024 09:08:09 GMT"));
        assert_eq!(level, Level::Warn);
        assert!(detail.contains("certificates"), "{detail}");
        assert_eq!(judged(None).0, Level::Ok);
        assert_eq!(judged(Some("yesterday")).0, Level::Ok);
    }

    #[test]
    fn a_registry_nobody_serves_is_a_failure() {
        // A port that was free a moment ago, and that nobody listens on any more.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url: Url = format!("http://127.0.0.1:{port}").parse().unwrap();
        let finding = registry(Some(&url));
        assert_eq!(finding.level, Level::Fail, "{finding:?}");
    }
}
