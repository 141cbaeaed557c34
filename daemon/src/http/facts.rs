//! What a model can do, remembered by its digest: no request should have to ask the index twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use dsk_daemon_api::ApiError;
use dsk_registry::Digest;

use super::failure;
use crate::Service;
use crate::models::ModelSpec;

/// How many models are remembered. More than anyone uses; a name is asked for again beyond it.
const REMEMBERED_MAX: usize = 256;

/// What a dialect must know of a model before it is loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Whether it thinks before it answers.
    pub(crate) thinking: bool,
    /// The longest context it was made for, where its file says.
    pub(crate) context_length: Option<u64>,
}

/// Facts by the digest of the manifest, which fixes everything about a model.
#[derive(Debug, Default)]
pub(crate) struct FactsCache(Mutex<HashMap<Digest, Arc<Facts>>>);

impl FactsCache {
    /// The facts of a model in the store.
    pub(crate) async fn of(
        &self,
        service: &Service,
        spec: &ModelSpec,
    ) -> Result<Arc<Facts>, ApiError> {
        if let Some(facts) = self.remembered(&spec.digest) {
            return Ok(facts);
        }
        let models = service.index.refresh(&service.store).await;
        let models = models.map_err(|error| failure::of_index(&error))?;
        let found = models.into_iter().find(|model| model.digest == spec.digest);
        // A model that was removed this instant: its load will tell.
        let Some(model) = found else { return Ok(Arc::default()) };
        let thinking = model.capabilities.iter().any(|one| one == "thinking");
        let context_length = model.context_length;
        Ok(self.remember(spec.digest, Facts { thinking, context_length }))
    }

    fn remembered(&self, digest: &Digest) -> Option<Arc<Facts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    fn remember(&self, digest: Digest, facts: Facts) -> Arc<Facts> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        let facts = Arc::new(facts);
        known.insert(digest, Arc::clone(&facts));
        facts
    }
}
