//! Limits of control groups, versions 1 and 2, on the whole way from this process to the root: the
//! least one holds, wherever it stands.
//!
//! `/proc/self/cgroup` says which group, `/proc/self/mountinfo` where its hierarchy is mounted and
//! which part of it. Where a container hides either, the usual places are looked at.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::Roots;
use super::roots::cpu_list;

/// No hierarchy is deeper; of a longer path the end nearest to this process counts.
const DEPTH_MAX: usize = 64;
/// Version 1 says "no limit" with the largest multiple of a page below 2^63; nothing has this much.
const NO_LIMIT: u64 = 1 << 60;

/// What control groups leave of the memory, in bytes; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MemoryLimits {
    /// The least limit.
    pub(crate) limit: Option<u64>,
    /// The least that is left below a limit; cached files count as left.
    pub(crate) available: Option<u64>,
    /// The least limit of swap space.
    pub(crate) swap_limit: Option<u64>,
    /// The least that is left of it.
    pub(crate) swap_available: Option<u64>,
}

/// What control groups leave of the processor; `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct CpuLimits {
    /// Processors' worth of time.
    pub(crate) quota: Option<f64>,
    /// The processors that may be used.
    pub(crate) cpus: Option<BTreeSet<u16>>,
}

/// Which of the two kinds of hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// One group above this process, or its own.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    version: Version,
    folder: PathBuf,
}

/// The memory that the groups of this process leave.
pub(crate) fn memory_limits(roots: &Roots) -> MemoryLimits {
    let mut least = MemoryLimits::default();
    for group in groups(roots, "memory") {
        let one = group.memory(roots);
        tighten(&mut least.limit, one.limit);
        tighten(&mut least.available, one.available);
        tighten(&mut least.swap_limit, one.swap_limit);
        tighten(&mut least.swap_available, one.swap_available);
    }
    least
}

/// The processor time and the processors that the groups of this process leave.
pub(crate) fn cpu_limits(roots: &Roots) -> CpuLimits {
    let quotas = groups(roots, "cpu").into_iter().filter_map(|group| group.quota(roots));
    let sets = groups(roots, "cpuset").into_iter().filter_map(|group| group.cpus(roots));
    CpuLimits { quota: quotas.reduce(f64::min), cpus: sets.reduce(|one, other| &one & &other) }
}

fn tighten(least: &mut Option<u64>, other: Option<u64>) {
    *least = [*least, other].into_iter().flatten().min();
}

impl Group {
    fn memory(&self, roots: &Roots) -> MemoryLimits {
        let number = |name: &str| roots.text(self.folder.join(name)).as_deref().and_then(bound);
        let (limit, used) = match self.version {
            // Beyond `high` everything in the group is slowed down until it shrinks.
            Version::Two => (
                [number("memory.max"), number("memory.high")].into_iter().flatten().min(),
                number("memory.current"),
            ),
            Version::One => (number("memory.limit_in_bytes"), number("memory.usage_in_bytes")),
        };
        let stat = roots.text(self.folder.join("memory.stat")).unwrap_or_default();
        let used = used.unwrap_or(0).saturating_sub(cached(&stat));
        let swap_limit = number("memory.swap.max");
        let swap_used = number("memory.swap.current").unwrap_or(0);
        MemoryLimits {
            limit,
            available: limit.map(|limit| limit.saturating_sub(used)),
            swap_limit,
            swap_available: swap_limit.map(|limit| limit.saturating_sub(swap_used)),
        }
    }

    fn quota(&self, roots: &Roots) -> Option<f64> {
        let text = |name: &str| roots.text(self.folder.join(name));
        match self.version {
            Version::Two => quota(&text("cpu.max")?),
            Version::One => {
                quota(&format!("{} {}", text("cpu.cfs_quota_us")?, text("cpu.cfs_period_us")?))
            }
        }
    }

    fn cpus(&self, roots: &Roots) -> Option<BTreeSet<u16>> {
        let names: &[&str] = match self.version {
            Version::Two => &["cpuset.cpus.effective", "cpuset.cpus"],
            Version::One => &["cpuset.effective_cpus", "cpuset.cpus"],
        };
        names.iter().find_map(|name| cpu_list(&roots.text(self.folder.join(name))?))
    }
}

/// A figure in bytes; `None` for `max`, for what stands for it, and for what is no figure.
fn bound(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < NO_LIMIT)
}

/// `quota period` in microseconds, as processors; `max` and -1 are no quota.
fn quota(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let quota: u64 = words.next()?.parse().ok()?;
    let period: u64 = words.next().unwrap_or("100000").parse().ok()?;
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

/// The bytes of a `memory.stat` that the kernel gives back when asked: cached files. Files of a
/// tmpfs (`shmem`) are cached as well and have no other place.
fn cached(stat: &str) -> u64 {
    let get = |name: &str| {
        let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(key, _)| *key == name)?.1.trim().parse::<u64>().ok()
    };
    // Version 1 counts a group alone, and with `total_` everything below it, which the usage does.
    let total = |name: &str| get(&format!("total_{name}")).or_else(|| get(name));
    let lists = ["inactive_file", "active_file"].map(|name| total(name).unwrap_or(0));
    let lists = lists[0].saturating_add(lists[1]);
    let Some(files) = total("file").or_else(|| total("cache")) else { return lists };
    lists.min(files.saturating_sub(total("shmem").unwrap_or(0)))
}

/// The groups of this process that a controller may limit, leaf first, both versions.
fn groups(roots: &Roots, controller: &str) -> Vec<Group> {
    let own = roots.text("/proc/self/cgroup").unwrap_or_default();
    let mounts = roots.text("/proc/self/mountinfo").unwrap_or_default();
    let mut mounts: Vec<Mount> = mounts.lines().filter_map(Mount::parse).collect();
    if mounts.is_empty() {
        mounts = Mount::usual(controller);
    }
    let mut groups = Vec::new();
    for mount in mounts.iter().filter(|mount| mount.has(controller)) {
        let path = own.lines().find_map(|line| member(line, mount.version, controller));
        let below = path.and_then(|path| below(path, &mount.root)).unwrap_or_default();
        let way = below.ancestors().take(DEPTH_MAX);
        let group = |part| Group { version: mount.version, folder: mount.point.join(part) };
        groups.extend(way.map(group));
    }
    groups
}

/// The path of a line `id:controllers:path` of `/proc/self/cgroup`, if it is about this hierarchy.
fn member<'a>(line: &'a str, version: Version, controller: &str) -> Option<&'a str> {
    let mut parts = line.splitn(3, ':');
    let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let about = match version {
        Version::Two => id == "0" && controllers.is_empty(),
        Version::One => controllers.split(',').any(|name| name == controller),
    };
    about.then_some(path)
}

/// `path` relative to `root`, the part of the hierarchy that is mounted; `None` when it lies outside,
/// as seen from within a container: then the mount's own folder is all that can be seen.
fn below(path: &str, root: &str) -> Option<PathBuf> {
    let relative = Path::new(path).strip_prefix(root).ok()?;
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    plain.then(|| relative.to_owned())
}

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    version: Version,
    /// The part of the hierarchy that is mounted.
    root: String,
    /// Where.
    point: PathBuf,
    /// Version 1: whom it limits.
    controllers: Vec<String>,
}

impl Mount {
    /// A line of `/proc/self/mountinfo`: `id parent dev root point options [tags] - type source super`.
    fn parse(line: &str) -> Option<Mount> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, point) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let version = match after.next()? {
            "cgroup2" => Version::Two,
            "cgroup" => Version::One,
            _ => return None,
        };
        let options = after.nth(1).unwrap_or_default();
        Some(Mount {
            version,
            root: unescape(root),
            point: PathBuf::from(unescape(point)),
            controllers: options.split(',').map(str::to_owned).collect(),
        })
    }

    /// Where hierarchies are mounted on nearly every machine.
    fn usual(controller: &str) -> Vec<Mount> {
        let mount = |version, point: String| Mount {
            version,
            root: "/".to_owned(),
            point: PathBuf::from(point),
            controllers: vec![controller.to_owned()],
        };
        vec![
            mount(Version::Two, "/sys/fs/cgroup".to_owned()),
            mount(Version::One, format!("/sys/fs/cgroup/{controller}")),
        ]
    }

    fn has(&self, controller: &str) -> bool {
        self.version == Version::Two || self.controllers.iter().any(|name| name == controller)
    }
}

/// The kernel writes spaces, tabs, newlines and backslashes of a path as three octal digits.
fn unescape(text: &str) -> String {
    let plain = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    plain.iter().fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests;
