//! How the daemon is installed and who can reach it: the unit, the store's lock, origins, ports.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use dsk_daemon::config::Config;

use super::Finding;

/// The units that come with this version.
const SYSTEM_UNIT: &str = include_str!("../../../../systemd/dsk.service");
const USER_UNIT: &str = include_str!("../../../../systemd/user/dsk.service");
/// Where a unit for the machine is looked for, the strongest first; below the root.
const SYSTEM_FOLDERS: &[&str] =
    &["etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system"];
/// The same for a user's.
const USER_FOLDERS: &[&str] = &["etc/systemd/user", "usr/lib/systemd/user"];
/// The port of Ollama, which its clients use unless told otherwise.
const OLLAMA_PORT: u16 = 11_434;

/// Whether the installed unit is the one of this version, and what it lacks.
pub(super) fn unit(root: &Path, home: Option<&Path>) -> Finding {
    const CHECK: &str = "unit";
    let below = |folders: &[&str]| -> Vec<PathBuf> {
        folders.iter().map(|folder| root.join(folder).join("dsk.service")).collect()
    };
    let own = home.map(|home| home.join(".config/systemd/user/dsk.service"));
    let system = below(SYSTEM_FOLDERS).into_iter().map(|path| (path, SYSTEM_UNIT));
    let user = own.into_iter().chain(below(USER_FOLDERS)).map(|path| (path, USER_UNIT));
    let found = system
        .chain(user)
        .find_map(|(path, packaged)| Some((fs::read_to_string(&path).ok()?, path, packaged)));
    let Some((text, path, packaged)) = found else {
        return Finding::ok(CHECK, "not installed as a service of systemd");
    };
    let missing: Vec<&str> =
        settings(packaged).filter(|line| !settings(&text).any(|other| other == *line)).collect();
    let path = path.display();
    if missing.is_empty() {
        let version = env!("CARGO_PKG_VERSION");
        return Finding::ok(CHECK, format!("{path} holds all of the unit of {version}"));
    }
    Finding::warn(
        CHECK,
        format!("{path} is not the unit of this version; it lacks {}", missing.join(", ")),
        "install this version's unit, and put changes into a drop-in: systemctl edit dsk",
    )
}

/// The settings of a unit's service, which is where its hardening is. The program's path differs.
fn settings(unit: &str) -> impl Iterator<Item = &str> {
    let service = unit.split("[Service]").nth(1).unwrap_or_default();
    let service = service.split("\n[").next().unwrap_or_default();
    let lines = service.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with(['#', ';']))
        .filter(|line| !line.starts_with("ExecStart="))
}

/// Who owns the models folder. `daemon` is the process that answers, when it is on this machine.
pub(super) fn lock(models: &Path, daemon: Option<u32>) -> Finding {
    const CHECK: &str = "store lock";
    let path = models.join("dsk.lock");
    let Ok(file) = File::open(&path) else {
        return Finding::ok(CHECK, "free: no daemon has used this models folder");
    };
    // Let go with the file, at once.
    if !matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
        return match daemon {
            None => Finding::ok(CHECK, "free"),
            Some(pid) => {
                Finding::ok(CHECK, format!("free: the daemon (process {pid}) has another folder"))
            }
        };
    }
    let owner = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
    match daemon {
        Some(pid) if owner == pid.to_string() => {
            Finding::ok(CHECK, format!("held by the daemon (process {pid})"))
        }
        _ => Finding::fail(
            CHECK,
            format!("{} is held by process {owner}, which does not answer", models.display()),
            format!("stop it (kill {owner}), or choose another folder with DSK_MODELS"),
        ),
    }
}

/// Which web pages may use the daemon.
pub(super) fn origins(config: &Config) -> Finding {
    const CHECK: &str = "origins";
    if config.origins.iter().any(|origin| origin.contains('*')) {
        return Finding::warn(
            CHECK,
            format!("any page that matches {} can use the daemon", config.origins.join(", ")),
            "name the origins that need it: DSK_ORIGINS=https://app.example",
        );
    }
    match config.origins.is_empty() {
        true => Finding::ok(CHECK, "pages of this machine only"),
        false => Finding::ok(CHECK, format!("this machine's and {}", config.origins.join(", "))),
    }
}

/// Whether another machine can reach the daemon; there are no keys yet.
pub(super) fn exposure(config: &Config) -> Finding {
    const CHECK: &str = "exposure";
    if config.host.ip().is_loopback() {
        return Finding::ok(CHECK, format!("{} is reached from this machine only", config.host));
    }
    Finding::fail(
        CHECK,
        format!("whoever reaches {} can use, add and delete models, without a key", config.host),
        "listen on 127.0.0.1 and put a proxy that asks for a password in front, or a firewall",
    )
}

/// Whether somebody else has the port that Ollama's clients use.
pub(super) fn ollama_port(config: &Config, proc: &Path) -> Option<Finding> {
    const CHECK: &str = "ollama port";
    if config.host.port() == OLLAMA_PORT {
        return None;
    }
    let Some(holder) = holder(proc, OLLAMA_PORT) else {
        return Some(Finding::ok(CHECK, format!("nobody listens on {OLLAMA_PORT}")));
    };
    Some(Finding::warn(
        CHECK,
        format!(
            "{holder} listens on {OLLAMA_PORT}, where clients of Ollama ask, and dsk on {}",
            config.host.port()
        ),
        format!("point the clients at {}, or stop that program and give dsk its port", config.host),
    ))
}

/// Who listens on a port of this machine, as the kernel's tables tell: its name and process where
/// this user may see them.
pub(super) fn holder(proc: &Path, port: u16) -> Option<String> {
    let tables = ["net/tcp", "net/tcp6"].map(|table| fs::read_to_string(proc.join(table)));
    let text: Vec<String> = tables.into_iter().filter_map(Result::ok).collect();
    let socket = text.iter().flat_map(|table| table.lines()).find_map(|row| listener(row, port))?;
    let owner = fs::read_dir(proc).ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let link = format!("socket:[{socket}]");
        let mut files = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        files.find(|file| fs::read_link(file.path()).is_ok_and(|to| to == Path::new(&link)))?;
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        Some(format!("{} (process {pid})", name.trim()))
    });
    Some(owner.unwrap_or_else(|| "a program of another user".to_owned()))
}

/// The inode of a row of `/proc/net/tcp` that listens on the port: `0: 0100007F:2CAA 00000000:0000 0A …`.
fn listener(row: &str, port: u16) -> Option<&str> {
    const LISTENING: &str = "0A";
    let fields: Vec<&str> = row.split_whitespace().collect();
    let (_, local) = fields.get(1)?.rsplit_once(':')?;
    let here = u16::from_str_radix(local, 16).ok()? == port;
    (here && *fields.get(3)? == LISTENING).then(|| fields.get(9).copied())?
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn config(overrides: &[(dsk_daemon::config::Key, &str)]) -> Config {
        let mut all = dsk_daemon::config::Overrides::default();
        for (key, value) in overrides {
            all.set(*key, Some(*value));
        }
        let env = std::collections::BTreeMap::from([("HOME".to_owned(), "/h".to_owned())]);
        Config::load(&all, &env, &dsk_daemon::config::Files::default()).unwrap()
    }

    #[test]
    fn a_unit_is_compared_with_the_packaged_one() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(unit(root.path(), None).detail, "not installed as a service of systemd");
        let folder = root.path().join("usr/lib/systemd/system");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("dsk.service");
        fs::write(&path, SYSTEM_UNIT.replace("/usr/bin/dsk", "/opt/dsk")).unwrap();
        assert_eq!(unit(root.path(), None).level, Level::Ok);
        fs::write(&path, SYSTEM_UNIT.replace("NoNewPrivileges=yes\n", "")).unwrap();
        let finding = unit(root.path(), None);
        assert_eq!(finding.level, Level::Warn);
        assert!(finding.detail.ends_with("it lacks NoNewPrivileges=yes"), "{finding:?}");
        let home = tempfile::tempdir().unwrap();
        let user = home.path().join(".config/systemd/user");
        fs::create_dir_all(&user).unwrap();
        fs::write(user.join("dsk.service"), USER_UNIT).unwrap();
        fs::remove_file(&path).unwrap();
        let finding = unit(root.path(), Some(home.path()));
        assert!(finding.detail.contains("user/dsk.service holds all"), "{finding:?}");
    }

    #[test]
    fn the_owner_of_a_store_is_told() {
        let models = tempfile::tempdir().unwrap();
        assert_eq!(lock(models.path(), None).level, Level::Ok);
        let path = models.path().join("dsk.lock");
        fs::write(&path, "41\n").unwrap();
        assert_eq!(lock(models.path(), None).detail, "free");
        assert!(lock(models.path(), Some(7)).detail.contains("another folder"));
        let held = File::options().write(true).open(&path).unwrap();
        held.lock().unwrap();
        assert_eq!(lock(models.path(), Some(41)).level, Level::Ok);
        let finding = lock(models.path(), None);
        assert_eq!(finding.level, Level::Fail);
        assert!(finding.detail.contains("held by process 41"), "{finding:?}");
    }

    #[test]
    fn reach_is_judged() {
        use dsk_daemon::config::Key;
        let usual = config(&[]);
        assert_eq!((origins(&usual).level, exposure(&usual).level), (Level::Ok, Level::Ok));
        let open = config(&[
            (Key::Host, "0.0.0.0:1"),
            (Key::InsecureBind, "true"),
            (Key::Origins, "https://*"),
        ]);
        assert_eq!((origins(&open).level, exposure(&open).level), (Level::Warn, Level::Fail));
    }

    #[test]
    fn the_holder_of_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = holder(Path::new("/proc"), port).unwrap();
        assert!(found.ends_with(&format!("(process {})", std::process::id())), "{found}");
        drop(listener);
        assert_eq!(holder(Path::new("/proc"), port), None);
        let row = "   0: 0100007F:2CAA 00000000:0000 0A 0:0 00:0 0 0 0 4711 1";
        assert_eq!(super::listener(row, OLLAMA_PORT), Some("4711"));
        assert_eq!(super::listener(row, 80), None);
        assert_eq!(super::listener("  sl  local_address rem_address   st", 80), None);
    }
}
