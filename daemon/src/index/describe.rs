//! What a model is, from its configuration, its template and its file's header.

use dsk_daemon_engine::{
    gguf::{Gguf, GgufError},
    model::Summary,
};
use dsk_modelfiles::template::Template;
use dsk_registry::{Store, StoredManifest};

use crate::models::ModelSpec;

/// The derived columns of a row.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Details {
    pub(super) format: String,
    pub(super) family: String,
    pub(super) families: Vec<String>,
    pub(super) parameter_size: String,
    pub(super) quantization: String,
    pub(super) context_length: Option<u64>,
    pub(super) embedding_length: Option<u64>,
    pub(super) capabilities: Vec<String>,
}

impl Details {
    /// Reads them, and says whether they hold for as long as the manifest does. A model that cannot be read
    /// is listed with what is known: it exists, it can be deleted, and running it gives the right error.
    pub(super) fn read(store: &Store, stored: &StoredManifest) -> (Details, bool) {
        let spec = match ModelSpec::resolve(store, &stored.name) {
            Ok(spec) => spec,
            Err(error) => {
                tracing::debug!(model = %stored.name, %error, "a model cannot be described");
                // A file that is missing may come back; one with the wrong bytes stays as it is.
                let here = |digest| store.open_blob(digest).is_ok();
                let whole = stored.manifest.blobs().iter().all(|blob| here(&blob.digest));
                return (Details::default(), whole);
            }
        };
        match Gguf::open_all(&spec.model_files).map(|gguf| Summary::read(&gguf)) {
            Ok(Ok(summary)) => (Details::from_parts(&spec, Some(&summary)), true),
            Ok(Err(error)) => {
                tracing::debug!(model = %stored.name, %error, "a header is not understood");
                (Details::from_parts(&spec, None), true)
            }
            Err(error) => {
                tracing::debug!(model = %stored.name, %error, "a model file cannot be read");
                (Details::from_parts(&spec, None), !matches!(error, GgufError::Open { .. }))
            }
        }
    }

    /// What the configuration says comes first: it is what other programs show.
    fn from_parts(spec: &ModelSpec, summary: Option<&Summary>) -> Details {
        let config = &spec.config;
        let or_header = |text: &str, header: fn(&Summary) -> String| match text {
            "" => summary.map(header).unwrap_or_default(),
            text => text.to_owned(),
        };
        // 0: the file does not say.
        let number = |of: fn(&Summary) -> u32| summary.map(of).filter(|n| *n > 0).map(u64::from);
        let family = or_header(&config.model_family, |summary| summary.architecture.clone());
        let families = match config.model_families.is_empty() {
            true if !family.is_empty() => vec![family.clone()],
            _ => config.model_families.clone(),
        };
        Details {
            format: or_header(&config.model_format, |_| "gguf".to_owned()),
            parameter_size: or_header(&config.model_type, |summary| summary.size_label.clone()),
            quantization: or_header(&config.file_type, |summary| summary.file_type.clone()),
            context_length: number(|summary| summary.context_length).or(config.context_length),
            embedding_length: number(|summary| summary.embedding_length)
                .or(config.embedding_length),
            capabilities: capabilities(spec, summary),
            family,
            families,
        }
    }
}

/// What the model can do, in Ollama's words.
fn capabilities(spec: &ModelSpec, summary: Option<&Summary>) -> Vec<String> {
    if !spec.config.capabilities.is_empty() {
        return spec.config.capabilities.clone();
    }
    let own = summary.and_then(|summary| summary.chat_template.as_deref());
    let template = spec.template.as_deref().or(own);
    let features = template.and_then(|source| Template::detect(source).ok()).map(|t| t.features());
    let mut capabilities = vec!["completion".to_owned()];
    if let Some(features) = features {
        let named = [
            (features.tools, "tools"),
            (features.suffix, "insert"),
            (features.thinking, "thinking"),
        ];
        let named = named.iter().filter(|(has, _)| *has);
        capabilities.extend(named.map(|(_, name)| (*name).to_owned()));
    }
    if !spec.projectors.is_empty() {
        capabilities.push("vision".to_owned());
    }
    capabilities
}
