//! Leases: what is in use is not deleted, whoever asks for it.
//!
//! A transfer pins the blobs that its manifest will name, a loaded model those that its runner reads.
//! Pins are taken under the lock that every deletion holds, so a model that could be leased has all its
//! blobs until the lease is dropped.

use super::{Store, StoreError, StoredManifest, guard};
use crate::{Digest, Name};

/// Digests that are in use; dropping it gives them free. See [`Store::pin`] and [`Store::lease`].
#[derive(Debug)]
pub struct Pin {
    store: Store,
    digests: Vec<Digest>,
}

impl Store {
    /// Keeps `digests` from being deleted as unused while the pin lives: a pull holds one for the blobs
    /// that its manifest will name.
    pub fn pin(&self, digests: impl IntoIterator<Item = Digest>) -> Pin {
        let digests: Vec<Digest> = digests.into_iter().collect();
        let mut pins = guard(&self.0.pins);
        for digest in &digests {
            *pins.entry(*digest).or_default() += 1;
        }
        drop(pins);
        Pin { store: self.clone(), digests }
    }

    /// A model with a pin on all its blobs: whatever is removed or collected meanwhile, they stay as
    /// long as the pin. None when there is no such model.
    pub fn lease(&self, name: &Name) -> Result<Option<(StoredManifest, Pin)>, StoreError> {
        // Nothing is deleted between the look at the manifest and the pin.
        let _unchanging = guard(&self.0.manifests);
        let stored = self.manifest(name)?;
        Ok(stored.map(|stored| {
            let pin = self.pin(stored.manifest.blobs().into_iter().map(|blob| blob.digest));
            (stored, pin)
        }))
    }

    /// Whether a transfer or a loaded model of this process needs the blob.
    pub(super) fn in_use(&self, digest: &Digest) -> bool {
        guard(&self.0.pins).contains_key(digest) || guard(&self.0.writers).contains(digest)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = guard(&self.store.0.pins);
        for digest in &self.digests {
            match pins.get_mut(digest) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(pins.remove(digest)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{name, put_model, scratch};
    use std::{thread, time::Duration};

    #[test]
    fn fault_35_a_lease_waits_for_a_deletion_at_work() {
        let scratch = scratch();
        let store = &scratch.store;
        put_model(store, "m", b"weights");
        let deleting = guard(&store.0.manifests);
        thread::scope(|scope| {
            let lease = scope.spawn(|| store.lease(&name("m")).unwrap());
            thread::sleep(Duration::from_millis(50));
            assert!(!lease.is_finished() && guard(&store.0.pins).is_empty());
            drop(deleting);
            assert!(lease.join().unwrap().is_some());
        });
    }
}
