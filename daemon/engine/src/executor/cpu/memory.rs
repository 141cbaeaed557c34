//! Whether there is room for a model, asked before anything is allocated.

use std::path::Path;

use crate::executor::{Bytes, ExecutorError};

/// Refuses a model that needs more than is available, with both numbers.
pub(super) fn check(needed: Bytes) -> Result<(), ExecutorError> {
    check_against(needed, available())
}

fn check_against(needed: Bytes, available: Option<u64>) -> Result<(), ExecutorError> {
    match available {
        Some(available) if needed.total() > available => Err(ExecutorError::Memory(format!(
            "the model takes {} (weights {}, keys and values {}, buffers {}), and {} are available; \
             use a smaller model, a shorter context or fewer sequences",
            mebibytes(needed.total()),
            mebibytes(needed.weights),
            mebibytes(needed.kv),
            mebibytes(needed.other.saturating_add(needed.runtime)),
            mebibytes(available),
        ))),
        _ => Ok(()),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// Bytes that this process may still take, by the kernel's own estimate and the limit of the control
/// group; none where the system does not tell.
fn available() -> Option<u64> {
    let system = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo(&text));
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    system.into_iter().chain(groups_left(Path::new("/sys/fs/cgroup"), &own)).min()
}

/// The least that this process's control group (version 2, as /proc/self/cgroup names it) and the groups
/// above it leave.
fn groups_left(root: &Path, own: &str) -> Option<u64> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let folder = root.join(path);
    folder.ancestors().take_while(|folder| folder.starts_with(root)).filter_map(group_left).min()
}

/// `MemAvailable` of /proc/meminfo, which is in KiB.
fn meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What a control group leaves; pages of files on disk count as free, they can be dropped.
fn group_left(folder: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let max: u64 = read("memory.max")?.trim().parse().ok()?;
    let current: u64 = read("memory.current")?.trim().parse().ok()?;
    let stat = read("memory.stat").unwrap_or_default();
    let bytes = |name: &str| -> Option<u64> {
        stat.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
    };
    // Files in memory are among them.
    let file = bytes("file ").unwrap_or(0).saturating_sub(bytes("shmem ").unwrap_or(0));
    Some(max.saturating_sub(current.saturating_sub(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_refused_with_both_numbers() {
        let needed = Bytes { weights: 5 << 20, kv: 2 << 20, other: 1 << 20, runtime: 0 };
        assert_eq!(check_against(needed, Some(8 << 20)), Ok(()));
        assert_eq!(check_against(needed, None), Ok(()));
        let error = check_against(needed, Some((8 << 20) - 1)).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "not enough memory: the model takes 8 MiB (weights 5 MiB, keys and values 2 MiB, \
             buffers 1 MiB), and 8 MiB are available"
            ),
            "{error}"
        );
    }

    #[test]
    fn the_kernels_numbers_are_read() {
        assert_eq!(meminfo("MemTotal: 9 kB\nMemAvailable:   1024 kB\n"), Some(1 << 20));
        assert_eq!(meminfo("MemTotal: 9 kB\n"), None);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(group_left(folder.path()), None);
        for (name, text) in [
            ("memory.max", "1000\n"),
            ("memory.current", "700\n"),
            ("memory.stat", "anon 1\nfile 250\nshmem 50\n"),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        assert_eq!(group_left(folder.path()), Some(500));
        // The limit of a group above counts.
        std::fs::create_dir_all(folder.path().join("system.slice/dsk.service")).unwrap();
        assert_eq!(groups_left(folder.path(), "0::/system.slice/dsk.service\n"), Some(500));
        let inner = folder.path().join("system.slice/dsk.service");
        std::fs::write(inner.join("memory.max"), "400\n").unwrap();
        std::fs::write(inner.join("memory.current"), "300\n").unwrap();
        assert_eq!(groups_left(folder.path(), "0::/system.slice/dsk.service\n"), Some(100));
        assert_eq!(groups_left(folder.path(), "1:memory:/other\n"), Some(500));
        std::fs::write(folder.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(group_left(folder.path()), None);
    }
}
