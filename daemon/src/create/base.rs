//! What a new model starts from: the layers and configuration of another, or one GGUF file.

use dsk_daemon_api::{ApiError, ErrorCode};
use dsk_daemon_engine::gguf::{Gguf, GgufError};
use dsk_daemon_engine::model::Summary;
use dsk_registry::{Digest, Layer, ModelConfig, Name, Pin, Store, StoreError, media_type};

use super::invalid;
use crate::models;

/// Layers and configuration to be changed and written under a new name.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) layers: Vec<Layer>,
    pub(super) config: ModelConfig,
    /// Keeps the layers while nothing else names them.
    pub(super) pin: Pin,
}

/// The layers of a model in the store.
pub(super) fn of_model(store: &Store, name: &Name) -> Result<Base, ApiError> {
    let found = models::find(store, name).map_err(|error| failed(&error))?;
    let leased = found.map(|found| store.lease(&found.name)).transpose();
    let leased = leased.map_err(|error| failed(&error))?.flatten();
    let (found, pin) = leased.ok_or_else(|| {
        let message = format!("model '{name}' not found; pull it first");
        ApiError::new(ErrorCode::ModelNotFound, message)
    })?;
    let config = store.read_blob(&found.manifest.config.digest, ModelConfig::BYTES_MAX as u64);
    let config = config.map_err(|error| failed(&error))?;
    let config = ModelConfig::from_json(&config)
        .map_err(|error| invalid(format!("the configuration of {name} is unusable: {error}")))?;
    Ok(Base { layers: found.manifest.layers, config, pin })
}

/// The GGUF files of a model, mostly one, whose headers were read and found sound.
pub(super) fn of_files(store: &Store, digests: &[Digest]) -> Result<Base, ApiError> {
    let pin = store.pin(digests.iter().copied());
    let mut files = Vec::new();
    for digest in digests {
        let size = store.blob_size(digest).map_err(|error| failed(&error))?;
        let size = size.ok_or_else(|| {
            let message = format!("blob \"{digest}\" not found; upload it first");
            ApiError::new(ErrorCode::BlobNotFound, message)
        })?;
        let gguf =
            Gguf::open(&store.blob_path(digest)).map_err(|error| unusable(digest, &error))?;
        // Layers are in the order of the parts, however the files were called.
        let number = gguf.get_u32("split.no").ok().flatten();
        files.push((number, Layer::new(media_type::MODEL, *digest, size), gguf));
    }
    files.sort_by_key(|(number, ..)| *number);
    let (layers, parts): (Vec<Layer>, Vec<Gguf>) =
        files.into_iter().map(|(_, layer, gguf)| (layer, gguf)).unzip();
    let first = layers.first().map_or_else(|| Digest::of(b""), |layer| layer.digest);
    let gguf = Gguf::join(parts).map_err(|error| unusable(&first, &error))?;
    gguf.check_complete().map_err(|error| unusable(&first, &error))?;
    let summary = Summary::read(&gguf).map_err(|error| unusable(&first, &error))?;
    Ok(Base { layers, config: config_of(summary), pin })
}

fn unusable(digest: &Digest, error: &GgufError) -> ApiError {
    let message = format!("{} is not a usable model file: {error}", digest.short());
    ApiError::new(ErrorCode::InvalidModel, message)
}

/// What lists of models show, so that they need not open the file.
fn config_of(summary: Summary) -> ModelConfig {
    ModelConfig {
        model_format: "gguf".to_owned(),
        model_families: vec![summary.architecture.clone()],
        model_family: summary.architecture,
        model_type: summary.size_label,
        file_type: summary.file_type,
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        ..ModelConfig::default()
    }
}

/// A failure of the store, on its way to a client.
pub(super) fn failed(error: &StoreError) -> ApiError {
    crate::http::of_store(error)
}
