//! A control group for each runner, where the daemon was given a subtree of its own.
//!
//! It holds a runner to what was planned for it, so that a model that grows costs itself and not the
//! machine, and it counts: a runner that is killed for want of memory is known to be. systemd gives
//! the subtree with `Delegate=`; a container or root may have one as well. Without it runners share
//! the daemon's group, and a kill by the kernel can only be guessed at.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// Where the kernel shows them.
pub(super) const ROOT: &str = "/sys/fs/cgroup";
/// The daemon's own group within its subtree: version 2 wants processes in leaves only.
const LEAF: &str = "daemon";
/// What a runner may take beyond what was planned: code, allocator, prompts, an estimate's error.
const MARGIN_BYTES: u64 = 1 << 30;

/// The subtree that runners' groups are made in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subtree {
    folder: PathBuf,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    /// The file with the most bytes a group may take.
    fn limit(self) -> &'static str {
        match self {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        }
    }

    /// The file with the line `oom_kill N`.
    fn events(self) -> &'static str {
        match self {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        }
    }
}

/// Why there is no subtree, in words for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Undelegated(String);

impl fmt::Display for Undelegated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Subtree {
    /// Takes the subtree that the process `pid` is in, if it is its own: nobody else may live there.
    /// `own` is the text of its `/proc/<pid>/cgroup`. With version 2 the process moves into a leaf.
    pub(super) fn take(root: &Path, own: &str, pid: u32) -> Result<Subtree, Undelegated> {
        let (folder, version) = place(root, own)?;
        let shown = folder.display();
        let residents = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        if residents.split_whitespace().ne([pid.to_string().as_str()]) {
            return Err(Undelegated(format!("{shown} is not the daemon's alone")));
        }
        let folder = match version {
            Version::One => folder,
            Version::Two => settle(&folder, pid).map_err(|error| {
                Undelegated(format!("{} was not delegated ({error})", folder.display()))
            })?,
        };
        sweep(&folder);
        Ok(Subtree { folder, version })
    }

    /// Puts a runner into a group of its own, held to the bytes planned for it.
    pub(super) fn hold(&self, pid: u32, bytes: u64) -> io::Result<Group> {
        let folder = self.folder.join(format!("runner-{pid}"));
        fs::create_dir(&folder)?;
        let group = Group { folder, version: self.version };
        let limit = bytes.saturating_add(bytes / 4).saturating_add(MARGIN_BYTES);
        if self.version == Version::Two {
            // All of a runner or nothing of it.
            write(&group.folder, "memory.oom.group", "1")?;
        }
        write(&group.folder, self.version.limit(), &limit.to_string())?;
        write(&group.folder, "cgroup.procs", &pid.to_string())?;
        Ok(group)
    }
}

/// Where the daemon of this process id makes groups for its runners, or why it makes none. Only
/// looks.
pub(super) fn of_daemon(root: &Path, own: &str, pid: u32) -> Result<PathBuf, Undelegated> {
    let (folder, version) = place(root, own)?;
    let settled = folder.file_name().is_some_and(|name| name == LEAF);
    let alone = fs::read_to_string(folder.join("cgroup.procs"))
        .is_ok_and(|residents| residents.trim() == pid.to_string());
    match (version, folder.parent()) {
        (Version::Two, Some(base)) if settled => Ok(base.to_owned()),
        (Version::One, _) if alone => Ok(folder),
        _ => Err(Undelegated(format!("{} is not the daemon's alone", folder.display()))),
    }
}

/// The group that accounts for a process's memory.
fn place(root: &Path, own: &str) -> Result<(PathBuf, Version), Undelegated> {
    let path = |marker: &str| own.lines().find_map(|line| Some(line.split_once(marker)?.1));
    match (path(":memory:/"), path("0::/")) {
        (Some(path), _) => Ok((root.join("memory").join(path), Version::One)),
        (None, Some(path)) => Ok((root.join(path), Version::Two)),
        (None, None) => Err(Undelegated("there are no control groups here".to_owned())),
    }
}

/// Moves the daemon into a leaf of its group, as version 2 wants before a group may have others below
/// it that are limited. Gives the folder of those.
fn settle(folder: &Path, pid: u32) -> io::Result<PathBuf> {
    let settled = folder.file_name().is_some_and(|name| name == LEAF);
    let base = folder.parent().filter(|_| settled).unwrap_or(folder);
    let leaf = base.join(LEAF);
    if !settled {
        match fs::create_dir(&leaf) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => write(&leaf, "cgroup.procs", &pid.to_string())?,
        }
    }
    let enabled = write(base, "cgroup.subtree_control", "+memory");
    if enabled.is_err() && !settled {
        // Back to where it was.
        let _ = write(base, "cgroup.procs", &pid.to_string());
        let _ = fs::remove_dir(&leaf);
    }
    enabled.map(|()| base.to_owned())
}

/// Removes what an earlier daemon left when it was killed: groups of runners that are gone.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        if let Some(pid) = name.strip_prefix("runner-")
            && !Path::new("/proc").join(pid).exists()
        {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Writes to a file that the kernel made; it is never created.
fn write(folder: &Path, file: &str, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    fs::OpenOptions::new().write(true).open(folder.join(file))?.write_all(text.as_bytes())
}

/// A runner's own group. Dropping it removes it; the runner must be gone.
#[derive(Debug)]
pub(super) struct Group {
    folder: PathBuf,
    version: Version,
}

impl Group {
    /// Whether the kernel killed a process of it for want of memory.
    pub(super) fn killed_for_memory(&self) -> bool {
        let events = fs::read_to_string(self.folder.join(self.version.events()));
        events.is_ok_and(|text| kills(&text) > 0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.folder) {
            tracing::debug!(%error, folder = %self.folder.display(), "a control group is left");
        }
    }
}

fn kills(events: &str) -> u64 {
    let line = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder as the kernel shows a group: files are there and can be written.
    fn group(folder: &Path, residents: &str) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("cgroup.subtree_control"), "").unwrap();
        fs::write(folder.join("cgroup.procs"), residents).unwrap();
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_delegated_subtree_is_taken_and_the_daemon_settles_in_a_leaf() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("system.slice/dsk.service");
        group(&own, "7\n");
        group(&own.join(LEAF), "");
        fs::create_dir(own.join(format!("runner-{}", u32::MAX))).unwrap();
        let text = "0::/system.slice/dsk.service\n";
        let subtree = Subtree::take(root.path(), text, 7).unwrap();
        assert_eq!(subtree, Subtree { folder: own.clone(), version: Version::Two });
        assert_eq!(read(&own.join("cgroup.subtree_control")), "+memory");
        assert_eq!(read(&own.join("daemon/cgroup.procs")), "7");
        assert_eq!(fs::read_dir(&own).unwrap().count(), 3, "what a killed daemon left is gone");
        let looked = |own: &str| of_daemon(root.path(), own, 7);
        assert_eq!(looked("0::/system.slice/dsk.service/daemon\n"), Ok(own));
        assert!(looked(text).is_err());
        // Placed in the leaf by systemd, or started again from within.
        let again = Subtree::take(root.path(), "0::/system.slice/dsk.service/daemon\n", 7);
        assert_eq!(again, Ok(subtree));
        let old = root.path().join("memory/own");
        group(&old, "7\n");
        let taken = Subtree::take(root.path(), "4:memory:/own\n0::/\n", 7);
        assert_eq!(taken, Ok(Subtree { folder: old.clone(), version: Version::One }));
        assert_eq!(of_daemon(root.path(), "4:memory:/own\n", 7), Ok(old));
    }

    #[test]
    fn what_is_not_delegated_is_left_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let take = |own: &str| Subtree::take(root.path(), own, 7).unwrap_err().to_string();
        assert_eq!(take(""), "there are no control groups here");
        assert!(take("0::/\n").ends_with("is not the daemon's alone"));
        let shared = root.path().join("shared");
        group(&shared, "7\n8\n");
        assert!(take("0::/shared\n").ends_with("shared is not the daemon's alone"));
        assert_eq!(fs::read_dir(&shared).unwrap().count(), 2);
        // The kernel may refuse at the last step, too.
        // Blanks in front: a plain file is overwritten from its start, which shows the way back.
        group(&shared, "  7\n");
        group(&shared.join(LEAF), "");
        fs::remove_file(shared.join("cgroup.subtree_control")).unwrap();
        let error = take("0::/shared\n");
        assert!(error.contains("shared was not delegated"), "{error}");
        assert_eq!(read(&shared.join("cgroup.procs")), "7 7\n", "it went back");
    }

    #[test]
    fn kills_for_memory_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        for (version, file, text, killed) in [
            (Version::Two, "memory.events", "low 0\nmax 7\noom 1\noom_kill 1\n", true),
            (Version::Two, "memory.events", "low 0\nmax 7\noom 0\noom_kill 0\n", false),
            (Version::One, "memory.oom_control", "oom_kill_disable 0\noom_kill 2\n", true),
            (Version::One, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n", false),
        ] {
            fs::write(folder.path().join(file), text).unwrap();
            let group = Group { folder: folder.path().to_owned(), version };
            assert_eq!(group.killed_for_memory(), killed, "{text}");
            std::mem::forget(group);
        }
    }

    /// A group of this test below its own, where the machine lets it make one.
    struct Own(PathBuf);

    impl Own {
        fn make() -> Option<Own> {
            let text = fs::read_to_string("/proc/self/cgroup").ok()?;
            let (folder, version) = place(Path::new(ROOT), &text).ok()?;
            let folder = folder.join(format!("dsk-test-{}", std::process::id()));
            // With version 2 the test's own process would have to move.
            let made = version == Version::One && fs::create_dir(&folder).is_ok();
            made.then_some(Own(folder))
        }
    }

    impl Drop for Own {
        fn drop(&mut self) {
            fs::remove_dir(&self.0).ok();
        }
    }

    #[test]
    fn a_process_over_its_limit_is_known_to_be() {
        let Some(own) = Own::make() else { return println!("not run: no group can be made here") };
        let subtree = Subtree { folder: own.0.clone(), version: Version::One };
        // It waits for its input to end, then keeps more and more.
        let mut hog = std::process::Command::new("sh")
            .args(["-c", "read line; x=x; while :; do x=$x$x; done"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let group = subtree.hold(hog.id(), 0).unwrap();
        write(&group.folder, group.version.limit(), &(32 << 20).to_string()).unwrap();
        assert!(!group.killed_for_memory());
        drop(hog.stdin.take());
        use std::os::unix::process::ExitStatusExt as _;
        assert_eq!(hog.wait().unwrap().signal(), Some(9));
        assert!(group.killed_for_memory());
        let folder = group.folder.clone();
        drop(group);
        assert!(!folder.exists());
    }
}
