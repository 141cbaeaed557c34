//! Candidates for the planner, of what a source offers: by as few headers as decide the matter.

use std::collections::BTreeSet;

use dsk_daemon_engine::gguf::{Gguf, GgufError};
use dsk_modelfiles::library::Variant;
use dsk_registry::{ClientError, Header, SourceVariant};

use super::{Source, VariantError, size};
use crate::fit::{self, Ask, Candidate};
use crate::hardware::Machine;

/// The most that is read before a pull of the headers of a variant, in all its files. Those of large
/// vocabularies take 5 to 10 MB.
const HEADER_BYTES_MAX: u64 = 32 << 20;
/// Files of one variant whose headers are read.
const HEADERS_MAX: usize = 64;
/// Variants whose headers are tried before the library's figures are taken.
const FIRST_TRIES: usize = 3;

/// Why a variant cannot be planned for by its header.
enum Unread {
    Registry(ClientError),
    Unfit(String),
}

impl Source<'_> {
    /// A candidate for each variant. The one that the planner settles on is exact where its header can be
    /// read; the others follow from it by their size.
    pub(super) async fn candidates(
        &self,
        offered: &[SourceVariant],
        machine: &Machine,
        ask: &Ask,
    ) -> Result<Vec<Candidate>, VariantError> {
        let mut candidates = self.first(offered).await?;
        let mut unread: BTreeSet<usize> =
            (0..offered.len()).filter(|&at| !candidates[at].exact).collect();
        loop {
            let label = match fit::fit(&candidates, machine, ask) {
                Ok(fit) => fit.variant,
                Err(misfit) => misfit.variant,
            };
            let at = candidates.iter().position(|one| one.label == label);
            let Some(at) = at.filter(|at| unread.remove(at)) else { return Ok(candidates) };
            match self.read(&offered[at]).await {
                Ok(candidate) => candidates[at] = candidate,
                Err(Unread::Registry(error)) => return Err(error.into()),
                Err(Unread::Unfit(reason)) => {
                    tracing::warn!(name = %self.name, label, reason, "no header to plan by");
                }
            }
        }
    }

    /// Candidates by the header of the smallest that has a good one, else by the library's figures.
    async fn first(&self, offered: &[SourceVariant]) -> Result<Vec<Candidate>, VariantError> {
        let mut fault = None;
        for variant in offered.iter().take(FIRST_TRIES) {
            match self.read(variant).await {
                Ok(known) => return Ok(offered.iter().map(|one| scaled(&known, one)).collect()),
                Err(Unread::Registry(error)) => return Err(error.into()),
                Err(Unread::Unfit(reason)) => fault = fault.or(Some(reason)),
            }
        }
        let Some(size) = size(self.name) else {
            let (name, reason) = (Box::new(self.name.clone()), fault.unwrap_or_default());
            return Err(VariantError::Unplannable { name, reason });
        };
        let listed = |one: &SourceVariant| {
            let variant = Variant { quant: one.quant.clone(), bytes: one.weights_bytes() };
            Candidate::from_catalog(size, &variant)
        };
        Ok(offered.iter().map(listed).collect())
    }

    async fn read(&self, variant: &SourceVariant) -> Result<Candidate, Unread> {
        let options = self.options(Some(variant.reference.clone()));
        if variant.weights.len() > HEADERS_MAX {
            return Err(Unread::Unfit(format!("it is in {} files", variant.weights.len())));
        }
        let (mut headers, mut left) = (Vec::new(), HEADER_BYTES_MAX);
        for file in &variant.weights {
            let header = self.client.header(self.name, &options, file, left, is_whole);
            let header = match header.await {
                Err(ClientError::Protocol { reason, .. }) => return Err(Unread::Unfit(reason)),
                header => alone(header.map_err(Unread::Registry)?)?,
            };
            left = left.saturating_sub(header.len() as u64);
            headers.push(header);
        }
        Candidate::from_headers(&variant.quant, headers, variant.weights_bytes())
            .map_err(|error| Unread::Unfit(error.to_string()))
    }
}

/// A header without what follows it in its file, so that only what counts is kept.
fn alone(header: Header) -> Result<Vec<u8>, Unread> {
    let Header { mut bytes, complete } = header;
    if !complete {
        let reason = format!("its header does not end within {} bytes", bytes.len());
        return Err(Unread::Unfit(reason));
    }
    let gguf = Gguf::parse_header(bytes.clone());
    let gguf = gguf.map_err(|error| Unread::Unfit(error.to_string()))?;
    bytes.truncate(usize::try_from(gguf.data_offset()).unwrap_or(usize::MAX));
    bytes.shrink_to_fit();
    Ok(bytes)
}

/// Whether the bytes hold all of a header, or will never make one.
fn is_whole(bytes: &[u8]) -> bool {
    let verdict = Gguf::parse_header(bytes.to_vec());
    !matches!(verdict, Err(GgufError::Malformed { .. }))
}

/// A variant of the same shape, whose weights differ as the sizes of the files do.
fn scaled(known: &Candidate, variant: &SourceVariant) -> Candidate {
    let (part, whole) = (variant.weights_bytes(), known.file_bytes.max(1));
    if variant.quant == known.label {
        return known.clone();
    }
    let scale = |bytes: u64| {
        let scaled = u128::from(bytes) * u128::from(part) / u128::from(whole);
        u64::try_from(scaled).unwrap_or(u64::MAX)
    };
    let mut demand = known.demand.clone();
    demand.layers.iter_mut().for_each(|layer| *layer = scale(*layer));
    demand.experts = scale(demand.experts);
    demand.embedding = scale(demand.embedding);
    demand.head = scale(demand.head);
    let label = variant.quant.clone();
    Candidate { label, file_bytes: part, demand, exact: false, measured: None }
}
