//! A stored model in another format, for whoever else is to read it.

use crate::{
    ManifestError, ManifestFormat, ModelConfig, Store, StoreError, StoredManifest,
    manifest::{Facts, Packed},
    media_type,
};

/// Largest template that is looked into, in bytes.
const TEMPLATE_BYTES_MAX: u64 = 4 << 20;

/// Why a model cannot be had in another format.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RepackError {
    /// It cannot be put so.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The model in a format; one that is of that format already stays as it is. Blocking.
pub(crate) fn repack(
    store: &Store,
    stored: &StoredManifest,
    format: ManifestFormat,
) -> Result<Packed, RepackError> {
    let manifest = &stored.manifest;
    let config = store.read_blob(&manifest.config.digest, ModelConfig::BYTES_MAX as u64)?;
    if manifest.is_of(format) {
        return Ok(Packed { config, manifest: stored.bytes.clone(), left_out: Vec::new() });
    }
    let config = ModelConfig::from_json(&config)?;
    let mut facts = Facts { name: stored.name.model(), config: &config, jinja: Default::default() };
    for template in manifest.of_kind(media_type::TEMPLATE) {
        let text = store.read_blob(&template.digest, TEMPLATE_BYTES_MAX)?;
        // Go's templates have no statements of this form.
        if text.windows(2).any(|two| two == b"{%") {
            facts.jinja.insert(template.digest);
        }
    }
    Ok(manifest.to(format, &facts)?)
}
