//! GGUF files in folders of any program, and the names of the models that they make.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use dsk_registry::{Name, Shard, quantization};

/// Folders below the one that was named.
const DEPTH_MAX: usize = 8;
/// Files that are looked at; a folder with more is a mistake.
const FILES_MAX: usize = 100_000;
/// The longest model or tag.
const PART_CHARACTERS: usize = 80;

/// A file that makes a model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    /// Where it is; the first of the files of a model that has several.
    pub(super) path: PathBuf,
    /// The model's name.
    pub(super) name: String,
}

/// Files that were seen and make no model, with the reason.
type LeftOut = Vec<(PathBuf, &'static str)>;

/// The model of one file.
pub(super) fn file(path: &Path) -> Found {
    Found { path: path.to_owned(), name: name_of(path) }
}

/// The models in a folder, each once, by path.
pub(super) fn folder(folder: &Path) -> io::Result<(Vec<Found>, LeftOut)> {
    let mut files = BTreeSet::new();
    walk(folder, DEPTH_MAX, &mut files)?;
    let (mut found, mut left_out) = (Vec::new(), Vec::new());
    let mut names = BTreeSet::new();
    for path in files {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
        let one = file(&path);
        if stem.contains("mmproj") {
            left_out.push((path, "it is the vision part of another file"));
        } else if let Some(why) = part_without_model(&path) {
            left_out.extend(why.map(|why| (path, why)));
        } else if !names.insert(one.name.clone()) {
            left_out.push((path, "another file has the same name; use --as"));
        } else {
            found.push(one);
        }
    }
    Ok((found, left_out))
}

/// Collects the GGUF files below a folder. A Hugging Face cache has its files twice: under their names,
/// as links in `snapshots`, and under their digests in `blobs`, where nothing ends in `.gguf`.
fn walk(folder: &Path, depth: usize, files: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let kind = std::fs::symlink_metadata(&path)?.file_type();
        if kind.is_dir() && depth > 0 {
            // A folder that cannot be read hides its files and no others.
            let _unreadable = walk(&path, depth - 1, files);
        } else if is_gguf(&path) && path.is_file() && files.len() < FILES_MAX {
            files.insert(path);
        }
    }
    Ok(())
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// Whether a file is a part of a model that is found by another file, its first one, or, then with the
/// reason, by none.
fn part_without_model(path: &Path) -> Option<Option<&'static str>> {
    let shard = Shard::parse(path.file_name()?.to_str()?)?;
    let whole = Shard::paths(path).iter().all(|part| part.is_file());
    match (whole, shard.number) {
        (false, _) => Some(Some("it is a part of a model, and others are missing")),
        (true, 1) => None,
        (true, _) => Some(None),
    }
}

/// `hf.co/USER/REPO:QUANT` for a file in a Hugging Face cache, else a name made of the file's:
/// `SmolLM2-135M-Instruct-Q8_0.gguf` is `smollm2-135m-instruct:q8_0`.
pub(in crate::verbs) fn name_of(path: &Path) -> String {
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = match Shard::parse(&file_name) {
        Some(shard) => shard.stem.into(),
        None => path.file_stem().unwrap_or_default().to_string_lossy(),
    };
    let quant = quantization(&stem);
    if let Some(repository) = hub_repository(path) {
        let tag = quant.unwrap_or("latest");
        let name = format!("hf.co/{repository}:{tag}");
        if Name::parse(&name).is_ok() {
            return name;
        }
    }
    let stem = stem.to_lowercase();
    let tag = quant.map(str::to_lowercase);
    let model = tag.as_ref().and_then(|tag| stem.strip_suffix(tag.as_str())).unwrap_or(&stem);
    let model = plain(model.trim_end_matches(['-', '_', '.']));
    match tag {
        Some(tag) if !model.is_empty() => format!("{model}:{tag}"),
        _ if !model.is_empty() => model,
        _ => "model".to_owned(),
    }
}

/// `USER/REPO` of a path through `models--USER--REPO/snapshots/`.
fn hub_repository(path: &Path) -> Option<String> {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let at = parts.iter().position(|part| *part == "snapshots")?;
    let (user, repository) = parts[..at].last()?.strip_prefix("models--")?.split_once("--")?;
    Some(format!("{user}/{repository}"))
}

/// Text with what a name cannot have replaced.
fn plain(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let text: String = text.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    let begins = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.trim_start_matches(|c| !begins(c)).chars().take(PART_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn names_of_files() {
        for (path, name) in [
            ("/d/SmolLM2-135M-Instruct-Q8_0.gguf", "smollm2-135m-instruct:q8_0"),
            ("/d/llama-3.2.Q4_K_M.gguf", "llama-3.2:q4_k_m"),
            ("/d/my model (1).gguf", "my-model--1-"),
            ("/d/Q4_K_M.gguf", "model"),
            ("/d/.gguf", "gguf"),
            ("/d/Big-70B-Q8_0-00001-of-00002.gguf", "big-70b:q8_0"),
            (
                "/c/hub/models--Qwen--Qwen3-4B-GGUF/snapshots/ab12/Qwen3-4B-Q4_K_M.gguf",
                "hf.co/Qwen/Qwen3-4B-GGUF:Q4_K_M",
            ),
            ("/c/hub/models--u--r/snapshots/ab12/plain.gguf", "hf.co/u/r:latest"),
            ("/c/hub/models--broken/snapshots/ab12/plain.gguf", "plain"),
        ] {
            assert_eq!(name_of(Path::new(path)), name, "{path}");
            assert!(Name::parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn folders_of_other_programs() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        put("lmstudio/pub/repo/A-1B-Q4_0.gguf");
        put("lmstudio/pub/repo/mmproj-A-1B.gguf");
        put("lmstudio/pub/repo/notes.txt");
        put("lmstudio/other/A-1B-Q4_0.gguf");
        put("hub/models--u--r/blobs/0a8c");
        put("hub/models--u--r/refs/main");
        put("cut-00002-of-00003.gguf");
        put("Big-Q8_0-00001-of-00002.gguf");
        put("Big-Q8_0-00002-of-00002.gguf");
        let snapshot = folder.path().join("hub/models--u--r/snapshots/ab");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::os::unix::fs::symlink("../../blobs/0a8c", snapshot.join("r-Q8_0.gguf")).unwrap();
        std::os::unix::fs::symlink("../../blobs/gone", snapshot.join("r-Q4_0.gguf")).unwrap();
        let (found, left_out) = super::folder(folder.path()).unwrap();
        let mut text = String::new();
        for Found { path, name } in found {
            let path = path.strip_prefix(folder.path()).unwrap().display().to_string();
            text.push_str(&format!("{name} <- {path}\n"));
        }
        for (path, why) in left_out {
            let path = path.strip_prefix(folder.path()).unwrap().display().to_string();
            text.push_str(&format!("{path}: {why}\n"));
        }
        expect![[r#"
            big:q8_0 <- Big-Q8_0-00001-of-00002.gguf
            hf.co/u/r:Q8_0 <- hub/models--u--r/snapshots/ab/r-Q8_0.gguf
            a-1b:q4_0 <- lmstudio/other/A-1B-Q4_0.gguf
            cut-00002-of-00003.gguf: it is a part of a model, and others are missing
            lmstudio/pub/repo/A-1B-Q4_0.gguf: another file has the same name; use --as
            lmstudio/pub/repo/mmproj-A-1B.gguf: it is the vision part of another file
        "#]]
        .assert_eq(&text);
    }
}
