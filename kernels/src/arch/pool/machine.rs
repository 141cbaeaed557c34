//! How many threads this process can keep busy.

use std::collections::BTreeSet;
use std::path::Path;

/// Threads for arithmetic: what affinity and the cgroup's quota allow, but no more than physical cores,
/// since two threads of one core share the units that the arithmetic is done in.
pub fn default_threads() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    match cores(&processors(&status), Path::new("/sys/devices/system/cpu")) {
        0 => allowed,
        cores => allowed.min(cores),
    }
}

/// The processors this process may run on, as the kernel lists them: "0-3,8".
fn processors(status: &str) -> Vec<usize> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.unwrap_or_default().trim().split(',').flat_map(range).collect()
}

fn range(text: &str) -> std::ops::Range<usize> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => first..last.saturating_add(1),
        _ => 0..0,
    }
}

/// Different cores among the processors, or 0 where the system does not tell. Processors of one core
/// name the same siblings.
fn cores(processors: &[usize], system: &Path) -> usize {
    let siblings = |processor| {
        let file = format!("cpu{processor}/topology/thread_siblings_list");
        std::fs::read_to_string(system.join(file)).ok()
    };
    let siblings: Option<BTreeSet<String>> = processors.iter().map(siblings).collect();
    siblings.map_or(0, |siblings| siblings.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_listed_as_the_kernel_does() {
        let allowed = |list: &str| processors(&format!("Name:\tx\nCpus_allowed_list:\t{list}\n"));
        assert_eq!(allowed("0-1"), [0, 1]);
        assert_eq!(allowed("3"), [3]);
        assert_eq!(allowed("0-2,8,10-11"), [0, 1, 2, 8, 10, 11]);
        assert!(allowed("nonsense").is_empty());
        assert!(processors("Name:\tx\n").is_empty());
    }

    #[test]
    fn two_processors_of_a_core_are_one_core() {
        let system = std::env::temp_dir().join(format!("dsk-cores-{}", std::process::id()));
        for (processor, siblings) in ["0,2\n", "1,3\n", "0,2\n", "1,3\n"].iter().enumerate() {
            let topology = system.join(format!("cpu{processor}/topology"));
            std::fs::create_dir_all(&topology).expect("a folder");
            std::fs::write(topology.join("thread_siblings_list"), siblings).expect("a file");
        }
        assert_eq!(cores(&[0, 1, 2, 3], &system), 2);
        assert_eq!(cores(&[0, 2], &system), 1);
        assert_eq!(cores(&[0, 4], &system), 0, "nothing is known of processor 4");
        std::fs::remove_dir_all(&system).expect("the folder");
    }

    #[test]
    fn there_is_at_least_one_thread() {
        assert!(default_threads() >= 1);
    }
}
