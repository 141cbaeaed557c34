//! What a source offers for a name that leaves the quantization open.
//!
//! Tags fall into groups by what stands before the quantization: `7b-q4_K_M` and `7b-q8_0` are one,
//! `7b-base-q8_0` is another model. The group is the one of the name's own tag, else the one with a tag
//! whose weights are those that the name leads to; nothing is guessed.

use super::{ClientError, Reference, manifest, manifest::Found, session::Session};
use crate::{
    DEFAULT_TAG, Descriptor, Manifest,
    manifest::Index,
    media_type,
    quantization::{quantization, split},
};
use std::collections::{BTreeMap, BTreeSet};

pub(super) mod hub;
pub(super) mod tags;

/// Most variants that are looked at, each of which takes a request.
const VARIANTS_MAX: usize = 48;

/// One variant of a model at its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceVariant {
    /// The quantization, as llama.cpp writes it; empty when its source does not say.
    pub quant: String,
    /// What to pull.
    pub reference: Reference,
    /// The model's files, mostly one.
    pub weights: Vec<Descriptor>,
    /// The bytes of all layers.
    pub bytes: u64,
}

impl SourceVariant {
    /// The bytes of the model's files.
    pub fn weights_bytes(&self) -> u64 {
        self.weights.iter().map(|file| file.size).fold(0, u64::saturating_add)
    }
}

/// What the caller knows of a model that its source may not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// The tag that `latest` stands for.
    pub latest: Option<String>,
    /// Tags worth asking for, one by one, at a source that does not list its tags.
    pub tags: Vec<String>,
}

/// Tags with a quantization, by what stands before it.
type Groups = BTreeMap<String, Vec<(String, &'static str)>>;

pub(super) async fn of(
    session: &Session<'_>,
    hints: &Hints,
) -> Result<Vec<SourceVariant>, ClientError> {
    let own = Reference::Tag(session.name.tag().to_owned());
    let own = match manifest::find(session, &own).await {
        Ok(Found::Index(index)) => return entries(session, &index).await,
        Ok(Found::Manifest(manifest)) => weights(&manifest).cloned(),
        Err(ClientError::NotFound { .. }) => None,
        // No manifest is made there of a model in several files.
        Err(ClientError::Protocol { .. }) if hub::is_hub(session.name.host()) => None,
        Err(error) => return Err(error),
    };
    if session.name.tag() == DEFAULT_TAG && hub::is_hub(session.name.host()) {
        let files = hub::quantizations(session).await?;
        let tags = files.into_iter().map(|quant| (quant.to_owned(), quant)).collect();
        return resolved(session, tags).await;
    }
    let listed = tags::list(session).await?.unwrap_or_else(|| hints.tags.clone());
    of_groups(session, grouped(listed), own.as_ref(), hints).await
}

/// What one reference leads to.
pub(super) async fn literal(
    session: &Session<'_>,
    reference: Option<&Reference>,
) -> Result<SourceVariant, ClientError> {
    let own = Reference::Tag(session.name.tag().to_owned());
    let reference = reference.unwrap_or(&own);
    let manifest = manifest::of_model(session, reference).await?.manifest;
    let quant = match reference {
        Reference::Tag(tag) => quantization(tag).unwrap_or_default(),
        Reference::Digest(_) => "",
    };
    let variant = variant(quant, reference.clone(), &manifest);
    variant.ok_or_else(|| session.protocol("its manifest names no model file".to_owned()))
}

fn weights(manifest: &Manifest) -> Option<&crate::Layer> {
    manifest.of_kind(media_type::MODEL).next()
}

fn variant(quant: &str, reference: Reference, manifest: &Manifest) -> Option<SourceVariant> {
    weights(manifest)?;
    let weights = manifest.of_kind(media_type::MODEL).map(crate::Layer::descriptor).collect();
    Some(SourceVariant { quant: quant.to_owned(), reference, weights, bytes: manifest.size() })
}

/// The entries of an index that name their quantization.
async fn entries(session: &Session<'_>, index: &Index) -> Result<Vec<SourceVariant>, ClientError> {
    let named = index.manifests.iter().filter_map(|entry| {
        entry.quantization().map(|quant| (Reference::Digest(entry.digest), quant))
    });
    let variants = fetched(session, named.collect()).await?;
    if variants.is_empty() {
        let reason = "its index names no quantization that could be told apart".to_owned();
        return Err(session.protocol(reason));
    }
    Ok(variants)
}

fn grouped(tags: Vec<String>) -> Groups {
    let mut groups = Groups::new();
    for tag in tags {
        if let Some((stem, quant)) = split(&tag) {
            let stem = stem.to_ascii_lowercase();
            groups.entry(stem).or_default().push((tag, quant));
        }
    }
    groups
}

async fn of_groups(
    session: &Session<'_>,
    mut groups: Groups,
    own: Option<&crate::Layer>,
    hints: &Hints,
) -> Result<Vec<SourceVariant>, ClientError> {
    let stems = stems(session.name.tag(), hints);
    if let Some(group) = stems.iter().find_map(|stem| groups.remove(stem)) {
        return resolved(session, group).await;
    }
    // The last stem is the most telling one: empty when all that is known is `latest`.
    let stem = stems.last().map_or("", String::as_str);
    let begins = |group: &str| stem.is_empty() || group.starts_with(&format!("{stem}-"));
    groups.retain(|group, _| begins(group));
    let one = groups.len() == 1;
    for group in groups.into_values() {
        let variants = resolved(session, group).await?;
        let same = |variant: &SourceVariant| {
            own.is_some_and(|own| variant.weights.iter().any(|file| own.digest == file.digest))
        };
        if variants.iter().any(same) || (own.is_none() && one) {
            return Ok(variants);
        }
    }
    Ok(Vec::new())
}

/// What may stand before the quantization in the tags of a name, best first and in lower case.
fn stems(tag: &str, hints: &Hints) -> Vec<String> {
    let mut stems = vec![tag.to_ascii_lowercase()];
    if tag == DEFAULT_TAG {
        stems.push(String::new());
        stems.extend(hints.latest.as_deref().map(str::to_ascii_lowercase));
    }
    stems
}

async fn resolved(
    session: &Session<'_>,
    tags: Vec<(String, &'static str)>,
) -> Result<Vec<SourceVariant>, ClientError> {
    let named = tags.into_iter().map(|(tag, quant)| (Reference::Tag(tag), quant)).collect();
    fetched(session, named).await
}

/// The variants with their sizes, smallest first. One that cannot be had is left out.
async fn fetched(
    session: &Session<'_>,
    mut named: Vec<(Reference, &'static str)>,
) -> Result<Vec<SourceVariant>, ClientError> {
    let mut seen = BTreeSet::new();
    named.retain(|(_, quant)| seen.insert(*quant));
    named.truncate(VARIANTS_MAX);
    let mut variants = Vec::new();
    for (reference, quant) in named {
        match manifest::of_model(session, &reference).await {
            Ok(found) => variants.extend(variant(quant, reference, &found.manifest)),
            Err(
                error @ (ClientError::NotFound { .. }
                | ClientError::Integrity(_)
                | ClientError::Format { .. }
                | ClientError::Protocol { .. }),
            ) => tracing::warn!(%reference, %error, "a variant that cannot be had"),
            Err(error) => return Err(error),
        }
    }
    variants.sort_by(|a, b| (a.weights_bytes(), &a.quant).cmp(&(b.weights_bytes(), &b.quant)));
    Ok(variants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_grouped_by_what_stands_before_the_quantization() {
        let tags = ["7b", "7b-q4_K_M", "7B-Q8_0", "7b-base-f16", "Q4_0", "latest"];
        let groups = grouped(tags.map(str::to_owned).to_vec());
        let groups: Vec<_> =
            groups.iter().map(|(stem, tags)| (stem.as_str(), tags.len())).collect();
        assert_eq!(groups, [("", 1), ("7b", 2), ("7b-base", 1)]);
    }

    #[test]
    fn what_may_stand_before_it() {
        let known = Hints { latest: Some("7b".to_owned()), tags: Vec::new() };
        assert_eq!(stems("7B", &known), ["7b"]);
        assert_eq!(stems("latest", &known), ["latest", "", "7b"]);
        assert_eq!(stems("latest", &Hints::default()), ["latest", ""]);
    }
}
