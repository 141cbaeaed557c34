//! Changes of the models folder from outside: another program that shares it, or a person.

use std::{path::Path, sync::Arc, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::service::Service;

/// Files change in bursts; the index is refreshed once they have been quiet for this long.
const QUIET: Duration = Duration::from_millis(500);

/// Refreshes the index now, and whenever a manifest changes, until the service is gone.
///
/// A folder that cannot be watched is no error: every listing looks at the files anyway.
pub(crate) async fn watch(service: std::sync::Weak<Service>) {
    let Some(folder) = refresh(&service).await else { return };
    let (changed, mut changes) = mpsc::channel(1);
    let _watcher = match start(&folder, changed) {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, folder = %folder.display(), "cannot watch the models folder");
            return;
        }
    };
    while changes.recv().await.is_some() {
        tokio::time::sleep(QUIET).await;
        let _ = changes.try_recv();
        if refresh(&service).await.is_none() {
            return;
        }
    }
}

fn start(folder: &Path, changed: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    std::fs::create_dir_all(folder)?;
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // One waiting signal stands for any number of changes. Our own reads are not changes.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = changed.try_send(());
        }
    })?;
    watcher.watch(folder, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// Refreshes the index; returns the folder of manifests while the service lives.
async fn refresh(service: &std::sync::Weak<Service>) -> Option<std::path::PathBuf> {
    let service: Arc<Service> = service.upgrade()?;
    if let Err(error) = service.index.refresh(&service.store).await {
        tracing::warn!(%error, "the model index was not refreshed");
    }
    Some(service.store.root().join("manifests"))
}
