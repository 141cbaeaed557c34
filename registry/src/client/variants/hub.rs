//! The files of a repository at Hugging Face, whose server makes a manifest for each quantization that is
//! one file. For one in several files it makes none, so it is made here: of the list of the repository's
//! files, which has the sha256 of each, and the files are fetched by their names.

use super::tags::{Pages, get};
use crate::{
    Descriptor, Digest, Layer, Manifest, ModelConfig, Shard,
    client::{ClientError, Reference, canonical_host, session::Session},
    media_type,
    quantization::quantization,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use url::Url;

/// The revision whose files are taken.
const REVISION: &str = "main";
/// Files of a repository that are kept; the rest is left out.
const FILES_MAX: usize = 10_000;

/// One entry of a listing.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::client) struct Entry {
    path: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    lfs: Option<Pointer>,
}

/// What stands for a large file in git.
#[derive(Clone, Debug, Deserialize)]
struct Pointer {
    /// The sha256 of the bytes, in hexadecimal.
    oid: String,
    size: u64,
}

/// Whether names of this host are repositories at Hugging Face.
pub(in crate::client) fn is_hub(host: &str) -> bool {
    // A name that no DNS has (RFC 6761): what stands for the hub in tests.
    #[cfg(test)]
    if host.starts_with("hub.test:") {
        return true;
    }
    canonical_host(host) == "hf.co"
}

/// The quantizations that the repository has, which are tags there.
pub(super) async fn quantizations(session: &Session<'_>) -> Result<Vec<&'static str>, ClientError> {
    Ok(session.files_of_hub().await?.iter().filter_map(of_file).collect())
}

/// The repository's GGUF files.
pub(in crate::client) async fn list(session: &Session<'_>) -> Result<Vec<Entry>, ClientError> {
    let (namespace, model) = (session.name.namespace(), session.name.model());
    let mut url = session.url("");
    url.set_path(&format!("/api/models/{namespace}/{model}/tree/{REVISION}"));
    url.set_query(Some("recursive=true"));
    let mut pages = Pages::new(url);
    let mut found = Vec::new();
    while let Some(url) = pages.next.take() {
        let Some((bytes, headers)) = get(session, &url).await? else { break };
        let entries: Vec<Entry> = serde_json::from_slice(&bytes).map_err(|error| {
            session.protocol(format!("its list of files is malformed: {error}"))
        })?;
        found.extend(entries.into_iter().filter(|entry| entry.path.ends_with(".gguf")));
        if found.len() > FILES_MAX {
            tracing::warn!(name = %session.name, "more files than {FILES_MAX}: the rest is left out");
            found.truncate(FILES_MAX);
            break;
        }
        pages.follow(session, &url, &headers)?;
    }
    Ok(found)
}

/// Projectors are no variants, and of a model in several files the first stands for all.
fn of_file(entry: &Entry) -> Option<&'static str> {
    let stem = match Shard::parse(&entry.path) {
        Some(shard) if shard.number == 1 => shard.stem,
        Some(_) => return None,
        None => entry.path.strip_suffix(".gguf")?,
    };
    let model = entry.kind == "file" && !stem.contains("mmproj");
    if model { quantization(stem) } else { None }
}

/// A manifest for a tag whose model is in several files, and its configuration's bytes; None where the
/// repository has none such.
pub(in crate::client) async fn manifest_of_parts(
    session: &Session<'_>,
    reference: &Reference,
) -> Result<Option<(Manifest, Vec<u8>)>, ClientError> {
    let tag = match reference {
        Reference::Tag(tag) => tag,
        // One that was made before is made again, as long as the files are the same.
        Reference::Digest(_) => session.name.tag(),
    };
    let Some(files) = parts(session.files_of_hub().await?, tag) else { return Ok(None) };
    let mut layers = Vec::new();
    for entry in files {
        let (digest, size) = content(entry).ok_or_else(|| {
            session.protocol(format!("its list gives no sha256 for {}", excerpt(&entry.path)))
        })?;
        let path = (media_type::FILE_PATH.to_owned(), entry.path.clone());
        let annotations = BTreeMap::from([path]);
        layers.push(Layer { annotations, ..Layer::new(media_type::MODEL, digest, size) });
    }
    let quant = quantization(tag).unwrap_or_default().to_owned();
    let config = ModelConfig {
        model_format: "gguf".to_owned(),
        file_type: quant,
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        ..ModelConfig::default()
    };
    let config = config.to_json();
    let (digest, size) = (Digest::of(&config), config.len() as u64);
    let media_type = media_type::CONFIG.to_owned();
    let manifest = Manifest::new(Descriptor { media_type, digest, size }, layers);
    let other = |asked: &Digest| Digest::of(&manifest.to_json()) != *asked;
    if matches!(reference, Reference::Digest(asked) if other(asked)) {
        return Ok(None);
    }
    Ok(Some((manifest, config)))
}

/// The files of the one model in several that the tag means: the one whose name ends in the tag, else the
/// only one of that quantization, else for a tag that states none the only one there is.
fn parts<'a>(entries: &'a [Entry], tag: &str) -> Option<Vec<&'a Entry>> {
    let mut models: BTreeMap<(&str, u32), Vec<&Entry>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.kind == "file") {
        if let Some(shard) = Shard::parse(&entry.path).filter(|one| !one.stem.contains("mmproj")) {
            models.entry((shard.stem, shard.count)).or_default().push(entry);
        }
    }
    models.retain(|_, files| Shard::are_one(files.iter().map(|entry| entry.path.as_str())));
    let wanted = quantization(tag);
    models.retain(|(stem, _), _| wanted.is_none() || quantization(stem) == wanted);
    let tail = format!("-{tag}").to_ascii_lowercase();
    let named = models.keys().find(|(stem, _)| stem.to_ascii_lowercase().ends_with(&tail)).copied();
    let only = (models.len() == 1).then(|| models.keys().next().copied()).flatten();
    let mut files = models.remove(&named.or(only)?)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Some(files)
}

/// What a file's bytes hash to, and how many there are.
fn content(entry: &Entry) -> Option<(Digest, u64)> {
    let pointer = entry.lfs.as_ref()?;
    Some((format!("sha256:{}", pointer.oid).parse().ok()?, pointer.size))
}

/// Tells the session where the weights of a manifest are that was made here.
pub(in crate::client) fn learn(session: &Session<'_>, manifest: &Manifest) {
    for layer in manifest.of_kind(media_type::MODEL) {
        if let Some(path) = layer.annotations.get(media_type::FILE_PATH) {
            session.know(layer.digest, address(session, path));
        }
    }
}

/// Tells the session where every file is that the repository lists; false when it lists none.
pub(in crate::client) async fn learn_all(session: &Session<'_>) -> Result<bool, ClientError> {
    let entries = session.files_of_hub().await?;
    for entry in entries {
        if let Some((digest, _)) = content(entry) {
            session.know(digest, address(session, &entry.path));
        }
    }
    Ok(!entries.is_empty())
}

/// Where a file of the repository is. Each part of its path stays one, whatever it is called.
fn address(session: &Session<'_>, path: &str) -> Url {
    let mut url = session.url("");
    let (namespace, model) = (session.name.namespace(), session.name.model());
    url.set_path(&format!("/{namespace}/{model}/resolve/{REVISION}"));
    if let Ok(mut parts) = url.path_segments_mut() {
        parts.extend(path.split('/').filter(|part| !matches!(*part, "" | "." | "..")));
    }
    url
}

fn excerpt(path: &str) -> String {
    crate::digest::excerpt(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: &str) -> Entry {
        Entry { path: path.to_owned(), kind: kind.to_owned(), lfs: None }
    }

    #[test]
    fn only_model_files_are_variants() {
        let quant = |path: &str, kind: &str| of_file(&entry(path, kind));
        assert_eq!(quant("Model-7B-Q4_K_M.gguf", "file"), Some("Q4_K_M"));
        assert_eq!(quant("Model-7B-Q4_K_M.gguf", "directory"), None);
        assert_eq!(quant("Q8_0/Model-70B-Q8_0-00001-of-00002.gguf", "file"), Some("Q8_0"));
        assert_eq!(quant("Q8_0/Model-70B-Q8_0-00002-of-00002.gguf", "file"), None);
        assert_eq!(quant("mmproj-Model-f16.gguf", "file"), None);
        assert_eq!(quant("README-Q4_0.md", "file"), None);
    }

    #[test]
    fn the_parts_that_a_tag_means() {
        let entries: Vec<Entry> = [
            "m-Q8_0-00002-of-00002.gguf",
            "m-Q8_0-00001-of-00002.gguf",
            "UD/m-UD-Q8_0-00001-of-00001.gguf",
            "cut-Q4_0-00001-of-00002.gguf",
            "mmproj-Q5_0-00001-of-00001.gguf",
            "m-Q6_K-00001-of-00001.gguf",
            "whole-Q5_K_M.gguf",
        ]
        .map(|path| entry(path, "file"))
        .into();
        let found = |tag: &str| {
            let files = parts(&entries, tag)?;
            Some(files.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>().join(" "))
        };
        let both = "m-Q8_0-00001-of-00002.gguf m-Q8_0-00002-of-00002.gguf";
        assert_eq!(found("UD-Q8_0").as_deref(), Some("UD/m-UD-Q8_0-00001-of-00001.gguf"));
        assert_eq!(found("q6_k").as_deref(), Some("m-Q6_K-00001-of-00001.gguf"));
        for none in ["Q4_0", "Q5_0", "Q5_K_M", "latest"] {
            assert_eq!(found(none), None, "{none}");
        }
        let two: Vec<Entry> = entries[..2].to_vec();
        let path = |files: Vec<&Entry>| files[0].path.clone() + " " + &files[1].path;
        assert_eq!(parts(&two, "latest").map(path).as_deref(), Some(both));
        assert_eq!(parts(&two, "Q8_0").map(path).as_deref(), Some(both));
    }
}
