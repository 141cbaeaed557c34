//! `dsk bench` needs no daemon: it finds a model's files in the store, and the engine measures it in this
//! process.

use std::path::PathBuf;

use dsk_registry::{Name, Store};

pub use dsk_daemon_engine::bench::*;
pub use dsk_daemon_engine::{Bytes, ExecutorKind, KvFormat};

use crate::config::Config;
use crate::models::{ModelSpec, ModelsError};

/// The weights' files of the model `name` in the store that the configuration names. Blocking.
pub fn weights(config: &Config, name: &Name) -> Result<Vec<PathBuf>, ModelsError> {
    let store = Store::open(&config.models)?;
    Ok(ModelSpec::resolve(&store, name)?.model_files)
}
