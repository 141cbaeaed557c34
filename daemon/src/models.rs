//! A model's name made into what a runner and a dialect need: the layers, read and bounded.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use dsk_modelfiles::template::Message;
use dsk_registry::{
    Digest, Layer, ModelConfig, Name, Pin, Store, StoreError, StoredManifest, media_type,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

#[cfg(test)]
mod tests;

/// The longest text layer (template, system, licence), in bytes.
pub const TEXT_BYTES_MAX: u64 = 1024 * 1024;
/// The longest JSON layer (parameters, messages, configuration), in bytes.
pub const JSON_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How many licences a model may come with.
const LICENSES_MAX: usize = 64;

/// A model in the store, resolved.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// Its name, as the store spells it.
    pub name: Name,
    /// The digest of its manifest: its identity.
    pub digest: Digest,
    /// The digest of the weights; where they are in several files, of the list of their digests.
    pub model_digest: Digest,
    /// The weights' files, mostly one.
    pub model_files: Vec<PathBuf>,
    /// The configuration blob.
    pub config: ModelConfig,
    /// The template layer.
    pub template: Option<String>,
    /// The system prompt layer.
    pub system: Option<String>,
    /// The parameters layer, options by name.
    pub parameters: Map<String, Value>,
    /// Turns that every conversation starts with.
    pub messages: Vec<Message>,
    /// The licences, as text.
    pub licenses: Vec<String>,
    /// The files of adapters.
    pub adapters: Vec<PathBuf>,
    /// The files of projectors.
    pub projectors: Vec<PathBuf>,
    /// When the manifest was written.
    pub modified: SystemTime,
    /// The bytes of all layers.
    pub size: u64,
    /// The bytes of the weights.
    pub model_bytes: u64,
    /// Keeps its files from being deleted while anybody has this; `None` in tests.
    pub lease: Option<Arc<Pin>>,
}

/// Why a model cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// There is no such model.
    #[error("model {name} not found")]
    NotFound {
        /// The name that was asked for.
        name: Name,
    },
    /// A layer of the model is broken.
    #[error("model {name}: its {layer} layer {digest} {reason}")]
    Layer {
        /// The model.
        name: Box<Name>,
        /// What the layer is: `template`, `params`, …
        layer: &'static str,
        /// The layer's blob.
        digest: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// The manifest names no weights.
    #[error("model {name} has no weights: its manifest has no layer of type {}", media_type::MODEL)]
    NoWeights {
        /// The model.
        name: Name,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blocking task was cut short.
    #[error("the task that read the model was cut short")]
    Interrupted,
}

/// The manifest of `name`: spelled exactly, else in another case.
pub fn find(store: &Store, name: &Name) -> Result<Option<StoredManifest>, StoreError> {
    if let Some(found) = store.manifest(name)? {
        return Ok(Some(found));
    }
    // Names only: no manifest is read for a model that is not here.
    let wanted = name.full();
    let names = store.names()?;
    let found = names.into_iter().find(|one| one.full().eq_ignore_ascii_case(&wanted));
    found.map_or(Ok(None), |name| store.manifest(&name))
}

impl ModelSpec {
    /// Reads a model's layers. Blocking.
    pub fn resolve(store: &Store, name: &Name) -> Result<ModelSpec, ModelsError> {
        let missing = || ModelsError::NotFound { name: name.clone() };
        let found = find(store, name)?.ok_or_else(missing)?;
        let (stored, lease) = store.lease(&found.name)?.ok_or_else(missing)?;
        let spec = Layers { store, stored: &stored }.spec()?;
        Ok(ModelSpec { lease: Some(Arc::new(lease)), ..spec })
    }

    /// [`ModelSpec::resolve`] off the async threads.
    pub async fn resolve_async(store: &Store, name: &Name) -> Result<ModelSpec, ModelsError> {
        let (store, name) = (store.clone(), name.clone());
        tokio::task::spawn_blocking(move || ModelSpec::resolve(&store, &name))
            .await
            .unwrap_or(Err(ModelsError::Interrupted))
    }

    /// The context that the model's own parameters ask for.
    pub fn context_length(&self) -> Option<u32> {
        self.parameters.get("num_ctx").and_then(Value::as_u64)?.try_into().ok()
    }
}

struct Layers<'a> {
    store: &'a Store,
    stored: &'a StoredManifest,
}

impl Layers<'_> {
    fn spec(&self) -> Result<ModelSpec, ModelsError> {
        let name = self.stored.name.clone();
        let weights: Vec<&Layer> = self.stored.layers(media_type::MODEL).collect();
        let model_digest =
            digest_of(&weights).ok_or_else(|| ModelsError::NoWeights { name: name.clone() })?;
        for file in &weights {
            if self.store.blob_size(&file.digest)?.is_none() {
                let reason = "is missing: pull the model again, or dsk verify --repair";
                return Err(self.broken("weights", &file.digest, reason));
            }
        }
        let config = &self.stored.manifest.config;
        let config_bytes = self.bytes("config", &config.digest, JSON_BYTES_MAX)?;
        Ok(ModelSpec {
            digest: self.stored.digest,
            model_digest,
            model_files: self.paths(media_type::MODEL),
            config: ModelConfig::from_json(&config_bytes).map_err(|error| {
                self.broken("config", &config.digest, &format!("cannot be used: {error}"))
            })?,
            template: self.one_text("template", media_type::TEMPLATE)?,
            system: self.one_text("system", media_type::SYSTEM)?,
            parameters: self.one_json("params", media_type::PARAMS)?.unwrap_or_default(),
            messages: self.messages()?,
            licenses: self.licenses()?,
            adapters: self.paths(media_type::ADAPTER),
            projectors: self.paths(media_type::PROJECTOR),
            modified: self.stored.modified,
            size: self.stored.size(),
            model_bytes: weights.iter().map(|file| file.size).fold(0, u64::saturating_add),
            lease: None,
            name,
        })
    }

    fn paths(&self, media_type: &str) -> Vec<PathBuf> {
        self.stored.layers(media_type).map(|layer| self.store.blob_path(&layer.digest)).collect()
    }

    /// The last layer of a type wins, as the last instruction of a Modelfile does.
    fn last(&self, media_type: &str) -> Option<&Layer> {
        self.stored.layers(media_type).last()
    }

    fn one_text(
        &self,
        what: &'static str,
        media_type: &str,
    ) -> Result<Option<String>, ModelsError> {
        self.last(media_type).map(|layer| self.text(what, &layer.digest)).transpose()
    }

    fn one_json<T: DeserializeOwned>(
        &self,
        what: &'static str,
        media_type: &str,
    ) -> Result<Option<T>, ModelsError> {
        let layer = self.last(media_type);
        layer.map(|layer| self.parse(what, &layer.digest, JSON_BYTES_MAX)).transpose()
    }

    fn messages(&self) -> Result<Vec<Message>, ModelsError> {
        let stored: Option<Vec<StoredMessage>> = self.one_json("messages", media_type::MESSAGES)?;
        let messages = stored.unwrap_or_default().into_iter();
        Ok(messages
            .map(|message| Message {
                role: message.role,
                content: message.content,
                ..Message::default()
            })
            .collect())
    }

    fn licenses(&self) -> Result<Vec<String>, ModelsError> {
        let layers = self.stored.layers(media_type::LICENSE).take(LICENSES_MAX);
        layers.map(|layer| self.text("license", &layer.digest)).collect()
    }

    fn text(&self, what: &'static str, digest: &Digest) -> Result<String, ModelsError> {
        let bytes = self.bytes(what, digest, TEXT_BYTES_MAX)?;
        String::from_utf8(bytes).map_err(|_| self.broken(what, digest, "is not UTF-8"))
    }

    fn parse<T: DeserializeOwned>(
        &self,
        what: &'static str,
        digest: &Digest,
        bytes_max: u64,
    ) -> Result<T, ModelsError> {
        let bytes = self.bytes(what, digest, bytes_max)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| self.broken(what, digest, &format!("is malformed: {error}")))
    }

    fn bytes(
        &self,
        what: &'static str,
        digest: &Digest,
        bytes_max: u64,
    ) -> Result<Vec<u8>, ModelsError> {
        let size = self.store.blob_size(digest)?;
        match size {
            Some(size) if size > bytes_max => {
                let reason = format!("has {size} bytes, more than the {bytes_max} allowed");
                Err(self.broken(what, digest, &reason))
            }
            Some(_) => self
                .store
                .read_blob(digest, bytes_max)
                .map_err(|error| self.broken(what, digest, &format!("cannot be read: {error}"))),
            None => Err(self.broken(what, digest, "is missing: pull the model again")),
        }
    }

    fn broken(&self, layer: &'static str, digest: &Digest, reason: &str) -> ModelsError {
        ModelsError::Layer {
            name: Box::new(self.stored.name.clone()),
            layer,
            digest: *digest,
            reason: reason.to_owned(),
        }
    }
}

/// What weights are known by that are in these files.
fn digest_of(files: &[&Layer]) -> Option<Digest> {
    match files {
        [] => None,
        [file] => Some(file.digest),
        files => {
            let all: String = files.iter().map(|file| format!("{}\n", file.digest)).collect();
            Some(Digest::of(all.as_bytes()))
        }
    }
}

/// A turn as the messages layer stores it.
#[derive(Debug, Deserialize)]
struct StoredMessage {
    role: String,
    #[serde(default)]
    content: String,
}
