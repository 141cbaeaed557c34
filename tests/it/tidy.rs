//! What the design promises and a machine can check: who may depend on whom, how large things may
//! grow, where `unsafe` may stand, what lies at the top level.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use syn::visit::{self, Visit};

const CRATES: &[&str] =
    &["cli", "daemon", "daemon/api", "daemon/engine", "kernels", "modelfiles", "registry"];

/// The allowed arrows between our crates; a missing name on the left may use nothing of ours.
const ARROWS: &[(&str, &[&str])] = &[
    ("dsk-cli", &["dsk-daemon", "dsk-daemon-api", "dsk-modelfiles", "dsk-registry"]),
    ("dsk-daemon", &["dsk-daemon-api", "dsk-daemon-engine", "dsk-modelfiles", "dsk-registry"]),
    ("dsk-daemon-engine", &["dsk-kernels", "dsk-modelfiles"]),
];

/// Files and folders that may hold `unsafe`, each with a reason in its module documentation.
const UNSAFE_FILES: &[&str] =
    &["daemon/engine/src/mmap.rs", "daemon/src/runner/sandbox/", "kernels/src/arch/"];

/// Ratchets: raise one only with a reason in the commit message.
const FUNCTION_LINES_MEDIAN_MAX: usize = 8;
const FUNCTION_LINES_P95_MAX: usize = 40;
const FUNCTION_LINES_MAX: usize = 80;
const FILE_LINES_P95_MAX: usize = 500;
const FILE_LINES_MAX: usize = 700;
const ENGINE_FILE_LINES_MAX: usize = 1100;
const ARCHITECTURE_LINES_MAX: usize = 200;

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("cli lies in the repository").into()
}

/// Every Rust file of product code, as (path relative to the repository, text).
fn sources() -> Vec<(String, String)> {
    let root = repository();
    let mut files = Vec::new();
    for name in CRATES {
        collect(&root.join(name).join("src"), &mut files);
    }
    files.sort();
    let relative = |path: &PathBuf| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    files.iter().map(|path| (relative(path), fs::read_to_string(path).unwrap())).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}

/// True for files that hold nothing but tests or test data makers.
fn is_test_file(path: &str) -> bool {
    let stem = Path::new(path).file_stem().unwrap().to_str().unwrap();
    stem.ends_with("tests") || path.contains("/tests/") || path.contains("testkit")
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(repository())
        .output()
        .expect("cargo metadata runs");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        seen.insert(name.to_owned());
        for dependency in package["dependencies"].as_array().unwrap() {
            let target = dependency["name"].as_str().unwrap();
            if !target.starts_with("dsk-") || dependency["kind"] == "dev" {
                continue;
            }
            let ok = allowed.get(name).is_some_and(|targets| targets.contains(&target));
            assert!(ok, "{name} must not depend on {target}; see daemon/ARCHITECTURE.md");
        }
    }
    let paths = CRATES.iter().chain(&["tests/demo"]);
    let expected = paths.map(|path| format!("dsk-{}", path.replace('/', "-")));
    assert_eq!(seen, expected.collect::<BTreeSet<_>>(), "a crate's name is its path");
}

#[test]
fn the_top_level_holds_the_mandated_entries() {
    let allowed = [
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "cli",
        "daemon",
        "kernels",
        "modelfiles",
        "registry",
        "systemd",
        "target",
        "tests",
    ];
    for entry in fs::read_dir(repository()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with('.') || allowed.contains(&name.as_str()), "stray entry {name}");
    }
}

/// Counts the places where the compiler's checks are lifted.
#[derive(Default)]
struct Unsafe(usize);

impl<'ast> Visit<'ast> for Unsafe {
    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.0 += 1;
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.0 += usize::from(matches!(signature.safety, syn::Safety::Unsafe(_)));
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.0 += usize::from(item.unsafety.is_some());
        visit::visit_item_impl(self, item);
    }
}

#[test]
fn unsafe_stands_only_where_it_is_allowed() {
    for (path, text) in sources() {
        let mut found = Unsafe::default();
        found.visit_file(&parse(&path, &text));
        let allowed = UNSAFE_FILES.iter().any(|unsafe_path| path.starts_with(unsafe_path));
        assert!(found.0 == 0 || allowed, "{path} holds `unsafe`");
        let reasons = text.matches("// SAFETY:").count();
        assert!(reasons >= found.0, "{path}: each unsafe block needs its SAFETY reason");
    }
}

fn parse(path: &str, text: &str) -> syn::File {
    syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_module_says_what_it_is() {
    for (path, text) in sources() {
        let documented = text.starts_with("//!") || is_test_file(&path);
        assert!(documented, "{path} has no module documentation");
        assert!(!path.ends_with("/mod.rs"), "{path}: use foo.rs beside foo/");
        let stem = Path::new(&path).file_stem().unwrap().to_str().unwrap();
        let vague = ["utils", "util", "helpers", "common", "misc"];
        assert!(!vague.contains(&stem), "{path}: name a module by what it does");
    }
}

#[test]
fn nothing_is_left_unfinished() {
    // Spelled apart, so that this file does not find itself.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), "#[ignore"];
    for (path, text) in sources() {
        for mark in marks {
            assert!(!text.contains(mark), "{path} holds {mark}");
        }
    }
}

/// The line counts of all functions outside test modules.
struct Functions {
    path: String,
    found: Vec<(usize, String)>,
}

impl Functions {
    fn note(&mut self, name: &syn::Ident, block: &syn::Block) {
        let braces = block.brace_token.span;
        let lines = braces.close().start().line - braces.open().start().line;
        self.found.push((lines.saturating_sub(1).max(1), format!("{}: {name}", self.path)));
    }
}

fn is_test_module(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|ident| ident == "test")
    })
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test_module(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.note(&function.sig.ident, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.note(&function.sig.ident, &function.block);
        visit::visit_impl_item_fn(self, function);
    }
}

fn percentile(sorted: &[usize], percent: usize) -> usize {
    sorted[(sorted.len() - 1) * percent / 100]
}

#[test]
fn functions_fit_a_screen() {
    let mut all = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_test_file(path)) {
        let file = parse(&path, &text);
        let mut functions = Functions { path, found: Vec::new() };
        functions.visit_file(&file);
        all.append(&mut functions.found);
    }
    all.sort();
    let lines: Vec<usize> = all.iter().map(|(lines, _)| *lines).collect();
    let (longest, name) = all.last().expect("there is code");
    assert!(percentile(&lines, 50) <= FUNCTION_LINES_MEDIAN_MAX, "the median function grew");
    assert!(percentile(&lines, 95) <= FUNCTION_LINES_P95_MAX, "too many long functions");
    assert!(*longest <= FUNCTION_LINES_MAX, "{name} has {longest} lines");
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let mut sizes = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_test_file(path)) {
        let engine = path.starts_with("daemon/engine/") || path.starts_with("kernels/");
        let max = if engine { ENGINE_FILE_LINES_MAX } else { FILE_LINES_MAX };
        let lines = text.lines().count();
        assert!(lines <= max, "{path} has {lines} lines");
        if !engine {
            sizes.push(lines);
        }
    }
    sizes.sort_unstable();
    assert!(percentile(&sizes, 95) <= FILE_LINES_P95_MAX, "too many long files");
}

#[test]
fn the_architecture_notes_stay_short_and_hold_invariants() {
    let notes = fs::read_to_string(repository().join("daemon/ARCHITECTURE.md")).unwrap();
    assert!(notes.lines().count() <= ARCHITECTURE_LINES_MAX, "the notes grew");
    assert!(notes.matches("**Invariant:**").count() >= 7, "the design names seven invariants");
    for name in CRATES {
        assert!(notes.contains(&format!("`{name}`")), "the notes do not mention {name}");
    }
}
