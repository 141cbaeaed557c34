//! Where the readers look: the file system of this machine, or a folder that looks like another's.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::cpu;

/// No file that is read here is longer: `/proc/cpuinfo` of 512 processors has 0.8 MB.
const TEXT_BYTES_MAX: u64 = 4 << 20;
/// What Linux can be built for at most.
const CPUS_MAX: u16 = 8192;

/// The folder that holds `proc` and `sys`, and what needs no file.
#[derive(Debug, Clone)]
pub struct Roots {
    root: PathBuf,
    calls: fn() -> Calls,
}

/// What the machine says without files: a container may have no `/proc`. 0 and empty are "unknown".
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls {
    pub(crate) threads: usize,
    pub(crate) cores: usize,
    pub(crate) features: Vec<String>,
}

impl Roots {
    /// This machine.
    pub fn system() -> Roots {
        let calls = || Calls {
            threads: std::thread::available_parallelism().map_or(0, usize::from),
            cores: sysinfo::System::physical_core_count().unwrap_or(0),
            features: cpu::detected(),
        };
        Roots { root: PathBuf::from("/"), calls }
    }

    /// The machine whose `proc` and `sys` lie in `root`; it has nothing but files.
    pub fn at(root: impl Into<PathBuf>) -> Roots {
        Roots { root: root.into(), calls: Calls::default }
    }

    /// Where `path` of that machine lies; a leading `/` is its root.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The text of a file, as far as it can be read and is text.
    pub(crate) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let mut bytes = Vec::new();
        let file = File::open(self.path(path)).ok()?;
        // A file of sysfs whose device is gone fails in the middle: what came before is no answer.
        file.take(TEXT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The text of a file that holds one word or line.
    pub(crate) fn line(&self, path: impl AsRef<Path>) -> Option<String> {
        // Texts of a device tree end with a zero byte.
        let text = self.text(path)?.trim_matches(['\0', ' ', '\t', '\r', '\n']).to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// The number a file holds.
    pub(crate) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.line(path)?.parse().ok()
    }

    /// The names in a folder, sorted.
    pub(crate) fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    pub(crate) fn calls(&self) -> Calls {
        (self.calls)()
    }
}

/// The processors or nodes of a list such as `0-3,8`; `None` for anything else, and for an empty one.
pub(crate) fn cpu_list(text: &str) -> Option<BTreeSet<u16>> {
    let mut cpus = BTreeSet::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= CPUS_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_of_processors() {
        let list = |text| cpu_list(text).map(|cpus| cpus.into_iter().collect::<Vec<_>>());
        assert_eq!(list("0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(list("5"), Some(vec![5]));
        for bad in ["", "\n", "a", "3-1", "0-4294967295", "0-8192", "1,,2", "-1"] {
            assert_eq!(list(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_list_without_end_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots::at(folder.path());
        std::fs::write(folder.path().join("long"), vec![b'1'; 5 << 20]).unwrap();
        assert_eq!(roots.text("/long").unwrap().len() as u64, TEXT_BYTES_MAX);
        assert_eq!(roots.number("/long"), None);
        assert_eq!(roots.text("/absent"), None);
    }

    proptest! {
        #[test]
        fn a_list_is_parsed_back(cpus in prop::collection::btree_set(0..CPUS_MAX, 1..40)) {
            let text: Vec<_> = cpus.iter().map(u16::to_string).collect();
            prop_assert_eq!(cpu_list(&text.join(",")), Some(cpus));
        }

        #[test]
        fn no_text_is_a_list_beyond_the_bound(text in "[0-9,\\- \n]{0,40}|.*") {
            prop_assert!(cpu_list(&text).is_none_or(|cpus| cpus.len() <= usize::from(CPUS_MAX)));
        }
    }
}
