//! What fits: the rows of `dsk fit`.

use std::sync::Arc;

use dsk_daemon_api::fit::{FitResponse, FitRow, FitShare, FitSpeeds, FitVerdict};
use dsk_daemon_engine::gguf::Gguf;
use dsk_modelfiles::library::{self, Family, Size};
use dsk_registry::{Client, Name, Store, quantization};
use serde::Serialize;

use super::{Source, VariantError, canonical, family, smaller};
use crate::fit::{self, Ask, Candidate, Device, Fit, Misfit, Share, Verdict};
use crate::hardware::Machine;
use crate::index::Seen;
use crate::models::{ModelSpec, ModelsError};

/// What is asked: models, a machine, and the context that is wanted.
pub(crate) struct Table<'a> {
    pub(crate) store: &'a Store,
    pub(crate) registry: &'a Client,
    pub(crate) insecure: bool,
    pub(crate) machine: Arc<Machine>,
    pub(crate) ask: Ask,
    /// What ran on the machine.
    pub(crate) seen: Seen,
}

/// A model's variants.
struct Model {
    name: String,
    candidates: Vec<Candidate>,
    /// Those that are in the store.
    local: Vec<String>,
}

impl Table<'_> {
    /// The default size of every family, and every model of the store.
    pub(crate) async fn everything(&self) -> Result<FitResponse, VariantError> {
        let mut rows = Vec::new();
        for family in library::families() {
            if let Some(size) = family.size("") {
                let model = self.listed(family, size).await;
                rows.extend(self.rows(model).into_iter().filter(|row| row.chosen));
            }
        }
        let store = self.store.clone();
        let stored = tokio::task::spawn_blocking(move || store.list()).await;
        let stored = stored.map_err(|_| VariantError::Interrupted)?;
        for stored in stored.unwrap_or_default() {
            // A model that cannot be read or run says so where it is asked for by name.
            if let Some(Ok(candidate)) = self.local(&stored.name).await {
                let (name, local) = (stored.name.to_string(), vec![candidate.label.clone()]);
                rows.extend(self.rows(Model { name, candidates: vec![candidate], local }));
            }
        }
        Ok(FitResponse { one_model: false, rows, smaller: None })
    }

    /// All sizes of a family.
    pub(crate) async fn family(&self, family: &Family) -> Result<FitResponse, VariantError> {
        let mut rows = Vec::new();
        for size in &family.sizes {
            rows.extend(self.rows(self.listed(family, size).await));
        }
        Ok(FitResponse { one_model: false, rows, smaller: None })
    }

    /// One model: of the store, else of the library, else at its registry.
    pub(crate) async fn model(&self, name: &Name) -> Result<FitResponse, VariantError> {
        let model = match self.local(name).await {
            Some(Ok(candidate)) => {
                let local = vec![candidate.label.clone()];
                Model { name: name.to_string(), candidates: vec![candidate], local }
            }
            Some(Err(reason)) => {
                let name = Box::new(name.clone());
                return Err(VariantError::Unplannable { name, reason });
            }
            None => {
                match family(name).and_then(|family| Some((family, family.size(name.tag())?))) {
                    Some((family, size)) => self.listed(family, size).await,
                    None => self.remote(name).await?,
                }
            }
        };
        let rows = self.rows(model);
        let fits = rows.iter().any(|row| row.verdict != FitVerdict::DoesNotFit);
        let smaller = if fits { None } else { smaller(name, &self.machine, &self.ask) };
        Ok(FitResponse { one_model: true, rows, smaller })
    }

    /// A size of the library; the variant that is in the store by its own header.
    async fn listed(&self, family: &Family, size: &Size) -> Model {
        let name = format!("{}:{}", family.name, size.tag);
        let listed = size.variants.iter();
        let mut candidates: Vec<_> =
            listed.map(|variant| Candidate::from_catalog(size, variant)).collect();
        let mut local = Vec::new();
        if let Ok(stored) = Name::parse(&name)
            && let Some(Ok(candidate)) = self.local(&stored).await
        {
            local.push(candidate.label.clone());
            candidates.retain(|one| one.label != candidate.label);
            candidates.push(candidate);
            candidates.sort_by_key(|one| one.file_bytes);
        }
        Model { name, candidates, local }
    }

    /// What a registry has of a name.
    async fn remote(&self, name: &Name) -> Result<Model, VariantError> {
        let source = Source { client: self.registry, name, insecure: self.insecure };
        let mut offered = match quantization(name.tag()) {
            Some(_) => Vec::new(),
            None => source.offered().await?,
        };
        if offered.is_empty() {
            offered.push(source.literal(None).await?);
        }
        if let Some(quant) = &self.ask.quant {
            source.check_offered(&offered, quant)?;
        }
        let candidates = source.candidates(&offered, &self.machine, &self.ask).await?;
        Ok(Model { name: name.to_string(), candidates, local: Vec::new() })
    }

    /// A model of the store, or why it cannot be planned for; `None` where it is not there.
    async fn local(&self, name: &Name) -> Option<Result<Candidate, String>> {
        let spec = match ModelSpec::resolve_async(self.store, name).await {
            Err(ModelsError::NotFound { .. }) => return None,
            Err(error) => return Some(Err(error.to_string())),
            Ok(spec) => spec,
        };
        let measured = self.seen.models.get(&spec.model_digest).copied();
        let read = move || {
            let label = canonical(&spec.config.file_type);
            let gguf = Gguf::open_headers(&spec.model_files).map_err(|error| error.to_string())?;
            let candidate = Candidate::from_gguf(&label, &gguf, spec.model_bytes);
            let candidate = candidate.map_err(|error| error.to_string())?;
            Ok(Candidate { measured, ..candidate })
        };
        tokio::task::spawn_blocking(read).await.ok()
    }

    /// A row for each variant that was asked for; the one that would be chosen is marked, or where none
    /// fits the one that comes closest.
    fn rows(&self, model: Model) -> Vec<FitRow> {
        let Model { name, mut candidates, local } = model;
        if let Some(quant) = &self.ask.quant {
            candidates.retain(|one| one.label.eq_ignore_ascii_case(quant));
        }
        if candidates.is_empty() {
            return Vec::new();
        }
        let chosen = match fit::fit(&candidates, &self.machine, &self.ask) {
            Ok(fit) => fit,
            Err(misfit) => return self.misfits(&name, &candidates, &local, &misfit),
        };
        let rows = candidates.iter().map(|candidate| {
            let is_chosen = candidate.label == chosen.variant;
            let fit = match is_chosen {
                true => Ok(chosen.clone()),
                false => fit::fit(std::slice::from_ref(candidate), &self.machine, &self.ask),
            };
            marked(row_of(&name, fit), candidate, &local, is_chosen)
        });
        rows.collect()
    }

    fn misfits(
        &self,
        name: &str,
        candidates: &[Candidate],
        local: &[String],
        closest: &Misfit,
    ) -> Vec<FitRow> {
        let rows = candidates.iter().map(|candidate| {
            let fit = fit::fit(std::slice::from_ref(candidate), &self.machine, &self.ask);
            marked(row_of(name, fit), candidate, local, candidate.label == closest.variant)
        });
        rows.collect()
    }
}

fn marked(row: FitRow, candidate: &Candidate, local: &[String], chosen: bool) -> FitRow {
    FitRow {
        quant: candidate.label.clone(),
        file_bytes: candidate.file_bytes,
        exact: candidate.exact,
        local: local.contains(&candidate.label),
        chosen,
        ..row
    }
}

/// A plan, or why there is none, as a client reads it.
pub(crate) fn row_of(model: &str, fit: Result<Fit, Misfit>) -> FitRow {
    let model = model.to_owned();
    match fit {
        Ok(fit) => FitRow {
            model,
            memory_bytes: fit.total_bytes(),
            verdict: verdict(fit.verdict),
            kv: word(&fit.kv),
            speeds: Some(FitSpeeds {
                load_seconds: fit.speeds.load_seconds,
                prefill_tps: fit.speeds.prefill_tps,
                decode_tps: fit.speeds.decode_tps,
                basis: word(&fit.speeds.basis),
            }),
            devices: fit.devices.iter().map(share).collect(),
            quant: fit.variant,
            file_bytes: fit.file_bytes,
            context: fit.context,
            reasons: fit.reasons,
            chosen: true,
            exact: true,
            ..FitRow::default()
        },
        Err(misfit) => FitRow {
            model,
            reasons: vec![misfit.to_string()],
            quant: misfit.variant,
            context: misfit.context,
            memory_bytes: misfit.needed,
            shortfall_bytes: misfit.shortfall,
            verdict: FitVerdict::DoesNotFit,
            ..FitRow::default()
        },
    }
}

fn verdict(verdict: Verdict) -> FitVerdict {
    match verdict {
        Verdict::FullSpeed => FitVerdict::FullSpeed,
        Verdict::Partial => FitVerdict::Partial,
        Verdict::RamOnly => FitVerdict::RamOnly,
    }
}

fn share(share: &Share) -> FitShare {
    FitShare {
        device: match share.device {
            Device::Cpu => "cpu".to_owned(),
            Device::Gpu(index) => format!("gpu{index}"),
        },
        layers: share.layers,
        weights: share.weights,
        kv: share.kv,
        activations: share.activations,
        runtime: share.runtime,
    }
}

/// The name that a value has on the wire.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
