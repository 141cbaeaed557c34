//! The files of a repository at Hugging Face, whose server makes a manifest for each quantization.

use super::tags::{Pages, get};
use crate::{
    client::{ClientError, session::Session},
    quantization::quantization,
};
use serde::Deserialize;

/// One entry of a listing.
#[derive(Deserialize)]
struct Entry {
    path: String,
    #[serde(default, rename = "type")]
    kind: String,
}

/// Whether names of this host are repositories at Hugging Face.
pub(super) fn is_hub(host: &str) -> bool {
    matches!(host, "hf.co" | "huggingface.co")
}

/// The quantizations that the repository has as one whole file each, which are tags there.
pub(super) async fn quantizations(session: &Session<'_>) -> Result<Vec<&'static str>, ClientError> {
    let (namespace, model) = (session.name.namespace(), session.name.model());
    let mut url = session.url("");
    url.set_path(&format!("/api/models/{namespace}/{model}/tree/main"));
    let mut pages = Pages::new(url);
    let mut found = Vec::new();
    while let Some(url) = pages.next.take() {
        let Some((bytes, headers)) = get(session, &url).await? else { break };
        let entries: Vec<Entry> = serde_json::from_slice(&bytes).map_err(|error| {
            session.protocol(format!("its list of files is malformed: {error}"))
        })?;
        found.extend(entries.iter().filter_map(of_file));
        pages.follow(session, &url, &headers)?;
    }
    Ok(found)
}

/// Files in parts cannot be pulled, and projectors are no variants.
fn of_file(entry: &Entry) -> Option<&'static str> {
    let stem = entry.path.strip_suffix(".gguf")?;
    let part = stem.rsplit_once("-of-").is_some_and(|(_, count)| is_number(count));
    let whole = entry.kind == "file" && !part && !stem.contains("mmproj");
    if whole { quantization(stem) } else { None }
}

fn is_number(text: &str) -> bool {
    text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_model_files_are_variants() {
        let quant = |path: &str, kind: &str| {
            of_file(&Entry { path: path.to_owned(), kind: kind.to_owned() })
        };
        assert_eq!(quant("Model-7B-Q4_K_M.gguf", "file"), Some("Q4_K_M"));
        assert_eq!(quant("Model-7B-Q4_K_M.gguf", "directory"), None);
        assert_eq!(quant("Model-70B-Q8_0-00001-of-00002.gguf", "file"), None);
        assert_eq!(quant("mmproj-Model-f16.gguf", "file"), None);
        assert_eq!(quant("README-Q4_0.md", "file"), None);
    }
}
