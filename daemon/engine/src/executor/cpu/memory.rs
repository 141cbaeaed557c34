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
            mebibytes(needed.other),
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
    let group = group_left(Path::new("/sys/fs/cgroup"));
    system.into_iter().chain(group).min()
}

/// `MemAvailable` of /proc/meminfo, which is in KiB.
fn meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What a control group (version 2) leaves; pages of files count as free, they can be dropped.
fn group_left(folder: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let max: u64 = read("memory.max")?.trim().parse().ok()?;
    let current: u64 = read("memory.current")?.trim().parse().ok()?;
    let stat = read("memory.stat").unwrap_or_default();
    let file = stat.lines().find_map(|line| line.strip_prefix("file "));
    let file: u64 = file.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0);
    Some(max.saturating_sub(current.saturating_sub(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_refused_with_both_numbers() {
        let needed = Bytes { weights: 5 << 20, kv: 2 << 20, other: 1 << 20 };
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
            ("memory.stat", "anon 1\nfile 200\n"),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        assert_eq!(group_left(folder.path()), Some(500));
        std::fs::write(folder.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(group_left(folder.path()), None);
    }
}
