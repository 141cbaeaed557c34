//! Named crash points at every step of the store.
//!
//! Tests build with the feature `failpoints` and start a program with `FAILPOINTS="<name>=return"`; the
//! process then sends SIGKILL to itself on reaching that step, as a power switch would. The usual actions
//! of the `fail` crate work too (`2*off->return` dies at the third pass, `sleep(50)` widens a race).
//! Without the feature a step is an empty function.

/// Every step, in the order in which a pull, then a removal, then a prune passes them.
pub const FAILPOINTS: &[&str] = &[
    "blob-created",
    "blob-journaled",
    "blob-written",
    "range-synced",
    "range-recorded",
    "blob-verified",
    "blob-synced",
    "blob-renamed",
    "blob-published",
    "blob-forgotten",
    "manifest-written",
    "manifest-synced",
    "manifest-folders",
    "manifest-renamed",
    "manifest-published",
    "remove-manifest",
    "remove-blob",
    "prune-file",
    "remove-link",
    "quarantined",
];

/// Reads the variable `FAILPOINTS`; call it once, first thing in `main`. A no-op without the feature.
pub fn arm_failpoints() {
    #[cfg(feature = "failpoints")]
    // The scenario disarms its points when dropped, and they must last as long as the process.
    std::mem::forget(fail::FailScenario::setup());
}

/// Marks that the step `name` is done: what comes next has not happened yet.
pub(crate) fn step(name: &'static str) {
    debug_assert!(FAILPOINTS.contains(&name), "{name} is missing in FAILPOINTS");
    fail::fail_point!(name, |_| kill_self());
}

/// SIGKILL, so that no destructor and no buffer gets a last word.
#[cfg(feature = "failpoints")]
fn kill_self() {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::FAILPOINTS;
    use std::{collections::BTreeSet, fs, path::Path};

    fn collect(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                let steps = text.split(concat!("step", "(\"")).skip(1);
                found.extend(steps.map(|rest| rest.split('"').next().unwrap().to_owned()));
            }
        }
    }

    #[test]
    fn the_list_names_every_step_in_the_source() {
        let mut found = BTreeSet::new();
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        let listed: BTreeSet<String> = FAILPOINTS.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(found, listed);
        assert_eq!(listed.len(), FAILPOINTS.len(), "a name is listed twice");
    }
}
