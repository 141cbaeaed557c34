//! The store, off the threads that serve requests: its calls block.

use dsk_daemon_api::ApiError;
use dsk_registry::{Name, Store, StoreError, StoredManifest};

use super::failure;
use crate::models;

/// Runs `work` on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ApiError> {
    let store = store.clone();
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    done.map_err(|error| failure::of_task(&error))?.map_err(|error| failure::of_store(&error))
}

/// The model of this name, in whatever case the name is written.
pub(crate) async fn find(store: &Store, name: Name) -> Result<Option<StoredManifest>, ApiError> {
    blocking(store, move |store| models::find(store, &name)).await
}
