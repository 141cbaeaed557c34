//! The layers of a new model, put together and written.

use dsk_daemon_api::ApiError;
use dsk_daemon_api::ollama::Message;
use dsk_registry::{
    Descriptor, Digest, Layer, Manifest, ModelConfig, Name, Pin, Store, media_type,
};
use serde_json::{Map, Value, json};

use super::base::{Base, failed};
use super::invalid;
use crate::models::JSON_BYTES_MAX;

/// A model that has no name yet.
#[derive(Debug)]
pub(super) struct Assembly<'a> {
    store: &'a Store,
    layers: Vec<Layer>,
    config: ModelConfig,
    /// Keeps what was written until the manifest names it.
    pins: Vec<Pin>,
    statuses: Vec<String>,
}

impl<'a> Assembly<'a> {
    pub(super) fn new(store: &'a Store, base: Base) -> Assembly<'a> {
        let statuses = base.layers.iter().map(|layer| existing(&layer.digest)).collect();
        let (layers, config) = (base.layers, base.config);
        Assembly { store, layers, config, pins: vec![base.pin], statuses }
    }

    /// Puts a text in place of the base's of the same kind.
    pub(super) fn replace_text(
        &mut self,
        media_type: &str,
        text: Option<&str>,
    ) -> Result<(), ApiError> {
        match text {
            Some(text) => self.replace(media_type, text.as_bytes()),
            None => Ok(()),
        }
    }

    /// Adds licences beside the base's, which go on to apply.
    pub(super) fn add_licenses(&mut self, texts: &[String]) -> Result<(), ApiError> {
        for text in texts {
            let layer = self.write(media_type::LICENSE, text.as_bytes())?;
            if !self.layers.contains(&layer) {
                self.layers.push(layer);
            }
        }
        Ok(())
    }

    /// Lays parameters over the base's.
    pub(super) fn merge_parameters(&mut self, given: &Map<String, Value>) -> Result<(), ApiError> {
        if given.is_empty() {
            return Ok(());
        }
        let mut all = self.base_parameters()?;
        all.extend(given.clone());
        self.replace(media_type::PARAMS, Value::Object(all).to_string().as_bytes())
    }

    fn base_parameters(&self) -> Result<Map<String, Value>, ApiError> {
        let layer = self.layers.iter().rfind(|layer| layer.kind() == media_type::PARAMS);
        let Some(layer) = layer else { return Ok(Map::new()) };
        let bytes = self.store.read_blob(&layer.digest, JSON_BYTES_MAX);
        let bytes = bytes.map_err(|error| failed(&error))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| invalid(format!("the parameters of the base are malformed: {error}")))
    }

    /// Puts example turns in place of the base's.
    pub(super) fn replace_messages(&mut self, messages: &[Message]) -> Result<(), ApiError> {
        if messages.is_empty() {
            return Ok(());
        }
        let turns = messages.iter();
        let turns = turns.map(|turn| json!({"role": turn.role, "content": turn.content}));
        let turns = Value::Array(turns.collect()).to_string();
        self.replace(media_type::MESSAGES, turns.as_bytes())
    }

    /// Keeps the names of built-in renderers and parsers, which other programs understand.
    pub(super) fn name_built_ins(
        &mut self,
        renderer: Option<String>,
        parser: Option<String>,
        requires: Option<String>,
    ) {
        let config = &mut self.config;
        config.renderer = renderer.or(config.renderer.take());
        config.parser = parser.or(config.parser.take());
        config.requires = requires.or(config.requires.take());
    }

    /// Writes the configuration and then the manifest, which makes it a model.
    pub(super) fn finish(mut self, name: &Name) -> Result<Vec<String>, ApiError> {
        let ids = self.layers.iter().map(|layer| layer.digest.to_string()).collect::<Vec<_>>();
        // Other readers of the format expect the list of layers here as well.
        let rootfs = json!({"type": "layers", "diff_ids": ids});
        self.config.other.insert("rootfs".to_owned(), rootfs);
        let config = self.config.to_json();
        let layer = self.write(media_type::CONFIG, &config)?;
        let config =
            Descriptor { media_type: layer.media_type, digest: layer.digest, size: layer.size };
        let manifest = Manifest::new(config, self.layers).to_json();
        self.store.put_manifest(name, &manifest).map_err(|error| failed(&error))?;
        drop(self.pins);
        Ok(self.statuses)
    }

    fn replace(&mut self, media_type: &str, bytes: &[u8]) -> Result<(), ApiError> {
        let layer = self.write(media_type, bytes)?;
        self.layers.retain(|layer| layer.kind() != media_type);
        self.layers.push(layer);
        Ok(())
    }

    fn write(&mut self, media_type: &str, bytes: &[u8]) -> Result<Layer, ApiError> {
        let digest = Digest::of(bytes);
        self.pins.push(self.store.pin([digest]));
        self.statuses.push(match self.store.has(&digest) {
            true => existing(&digest),
            false => format!("creating new layer {digest}"),
        });
        self.store.put_blob(bytes).map_err(|error| failed(&error))?;
        Ok(Layer::new(media_type, digest, bytes.len() as u64))
    }
}

fn existing(digest: &Digest) -> String {
    format!("using existing layer {digest}")
}
