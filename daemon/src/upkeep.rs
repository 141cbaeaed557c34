//! The store's upkeep: what nobody needs is deleted when the daemon starts and once a day, and what was
//! in use when its model was removed, soon after it is let go of.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use dsk_registry::{GcOptions, Store};

use crate::service::Service;

/// Between two collections.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How often blobs of removed models that are still in use are looked at again.
const RELEASE_EVERY: Duration = Duration::from_secs(1);
/// How often at most; the next collection takes what is left.
const RELEASES_MAX: u32 = 60;

/// Collects now and every day, until the service is gone.
pub(crate) async fn daily(service: Weak<Service>) {
    loop {
        let Some(service) = service.upgrade() else { return };
        let store = service.store.clone();
        drop(service);
        let _done = tokio::task::spawn_blocking(move || collect(&store)).await;
        tokio::time::sleep(DAY).await;
    }
}

fn collect(store: &Store) {
    if !store.is_writable() {
        return;
    }
    match store.gc(&GcOptions::default()) {
        Ok(found) if found.items.is_empty() => {}
        Ok(found) => {
            let (items, bytes) = (found.items.len(), found.bytes());
            tracing::info!(items, bytes, "deleted what no model needs");
        }
        Err(error) => tracing::warn!(%error, "nothing was collected"),
    }
}

/// Deletes, in the background, the blobs of a removed model once its last user lets go of them.
pub(crate) fn release_later(service: &Arc<Service>) {
    let store = service.store.clone();
    tokio::spawn(async move {
        for _ in 0..RELEASES_MAX {
            let work = store.clone();
            let done = tokio::task::spawn_blocking(move || work.remove_condemned()).await;
            match done {
                Ok(Ok((_, still_used))) if still_used > 0 => {}
                Ok(Err(error)) => return tracing::warn!(%error, "blobs of a removed model stay"),
                _ => return,
            }
            tokio::time::sleep(RELEASE_EVERY).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::Daemon;
    use std::time::SystemTime;

    #[tokio::test]
    async fn a_daemon_collects_when_it_starts() {
        let daemon = Daemon::with_model().await;
        let store = &daemon.service.store;
        let digest = store.put_blob(b"orphan").unwrap();
        let file = std::fs::File::options().write(true).open(store.blob_path(&digest)).unwrap();
        file.set_modified(SystemTime::now() - 2 * DAY).unwrap();
        let upkeep = tokio::spawn(daily(Arc::downgrade(&daemon.service)));
        for _ in 0..500 {
            if !store.has(&digest) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!store.has(&digest));
        assert_eq!(store.list().unwrap().len(), 1);
        upkeep.abort();
    }

    #[tokio::test]
    async fn a_removed_models_files_go_when_they_are_let_go_of() {
        let daemon = Daemon::with_model().await;
        let store = &daemon.service.store;
        let name = dsk_registry::Name::parse("m").unwrap();
        let (stored, lease) = store.lease(&name).unwrap().unwrap();
        let digest = stored.manifest.layers[0].digest;
        let (status, text) = daemon.send("DELETE", "/api/delete", r#"{"model":"m"}"#).await;
        assert_eq!(status, 200, "{text}");
        assert!(store.has(&digest));
        drop(lease);
        for _ in 0..500 {
            if !store.has(&digest) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!store.has(&digest));
    }
}
