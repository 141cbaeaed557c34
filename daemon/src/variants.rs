//! Which variant of a model to pull: what its source offers, measured against a machine.
//!
//! A name whose tag states a quantization is taken literally, and so is one whose source has a single
//! thing to offer. Any other is planned for ([`crate::fit`]) by the headers of its variants, of which as
//! few are read as decide the matter.

use std::sync::Arc;

use dsk_daemon_api::fit::{Offered, PullChoice};
use dsk_modelfiles::library::{self, Family, Size};
use dsk_registry::{
    Client, ClientError, DEFAULT_NAMESPACE, Hints, Name, Reference, SourceVariant, TransferOptions,
    quantization,
};

use crate::fit::{self, Ask, Candidate, Fit, Misfit};
use crate::hardware::{Machine, Monitor};
use crate::index::{Index, Seen};

mod machine;
mod plan;
mod table;
#[cfg(test)]
mod tests;

pub use machine::{MachineError, machine_from};
pub(crate) use table::{Table, row_of};

/// A name at its registry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) client: &'a Client,
    pub(crate) name: &'a Name,
    pub(crate) insecure: bool,
}

/// What is wanted of a choice.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// This quantization, in any case.
    pub(crate) quant: Option<String>,
    /// What it is for.
    pub(crate) machine: Planned,
    /// The context, and how it is kept.
    pub(crate) ask: Ask,
}

impl Asked {
    /// For this machine, as models have run on it.
    pub(crate) async fn here(quant: Option<String>, here: &Monitor, index: &Index) -> Asked {
        let threads = here.machine().await.cpu.threads;
        let seen = index.seen(threads).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "planning without what was seen of other models");
            Seen::default()
        });
        let ask = Ask { calibration: seen.calibration, ..Ask::default() };
        Asked { quant, machine: Planned::Here(here.clone()), ask }
    }
}

/// The machine that is planned for.
#[derive(Debug, Clone)]
pub(crate) enum Planned {
    /// This one, as it is when it matters.
    Here(Monitor),
    /// One that the caller describes.
    Elsewhere(Arc<Machine>),
}

impl Planned {
    pub(crate) async fn machine(&self) -> Arc<Machine> {
        match self {
            Planned::Here(monitor) => monitor.machine().await,
            Planned::Elsewhere(machine) => Arc::clone(machine),
        }
    }
}

/// What to pull, and why. Empty where there was nothing to choose.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    /// What to pull of the repository; `None` is the name's own tag.
    pub(crate) from: Option<Reference>,
    /// Which and why, a line each.
    pub(crate) lines: Vec<String>,
    /// What there was to choose from, smallest first.
    pub(crate) offered: Vec<SourceVariant>,
    /// How it suits the machine.
    pub(crate) fit: Option<Fit>,
}

/// Why nothing was chosen.
#[derive(Debug, thiserror::Error)]
pub enum VariantError {
    /// The source failed.
    #[error(transparent)]
    Registry(#[from] ClientError),
    /// The name states one quantization, the request another.
    #[error("{name} is {stated}, and {wanted} was asked for; leave one of them away")]
    Contradiction {
        /// The name.
        name: Box<Name>,
        /// What its tag states.
        stated: String,
        /// What was asked for besides.
        wanted: String,
    },
    /// The source does not have the quantization that was asked for.
    #[error("{name} does not come in {wanted}; {}", offers(.offered))]
    Unoffered {
        /// The name.
        name: Box<Name>,
        /// What was asked for.
        wanted: String,
        /// What there is.
        offered: Vec<String>,
    },
    /// Nothing that the source offers fits the machine.
    #[error("{name} does not fit this machine: {misfit}{}", smaller_text(.smaller))]
    Misfit {
        /// The name.
        name: Box<Name>,
        /// By how much, and what would fit.
        misfit: Box<Misfit>,
        /// A smaller size of the family that would fit, by name.
        smaller: Option<String>,
    },
    /// No variant could be planned for.
    #[error(
        "no variant of {name} can be planned for ({reason}); a tag that names a quantization is \
         pulled unseen"
    )]
    Unplannable {
        /// The name.
        name: Box<Name>,
        /// What is wrong with the first of them.
        reason: String,
    },
    /// A blocking task was cut short.
    #[error("the task that looked at the machine was cut short")]
    Interrupted,
}

fn offers(offered: &[String]) -> String {
    match offered {
        [] => "its source offers one thing only".to_owned(),
        offered => format!("its source offers {}", offered.join(", ")),
    }
}

fn smaller_text(smaller: &Option<String>) -> String {
    smaller.as_ref().map_or_else(String::new, |name| format!("; {name} would fit"))
}

/// The family of the library that a name belongs to.
pub(crate) fn family(name: &Name) -> Option<&'static Family> {
    library::find(name.model()).filter(|_| name.namespace() == DEFAULT_NAMESPACE)
}

/// The size of it.
pub(crate) fn size(name: &Name) -> Option<&'static Size> {
    family(name)?.size(name.tag())
}

impl Source<'_> {
    fn options(&self, from: Option<Reference>) -> TransferOptions {
        TransferOptions { insecure: self.insecure, from, ..TransferOptions::default() }
    }

    /// What one reference leads to.
    pub(crate) async fn literal(
        &self,
        from: Option<Reference>,
    ) -> Result<SourceVariant, ClientError> {
        self.client.variant(self.name, &self.options(from)).await
    }

    /// What the source offers for the name.
    pub(crate) async fn offered(&self) -> Result<Vec<SourceVariant>, ClientError> {
        let tags = size(self.name).map(|size| {
            size.variants.iter().map(|variant| size.tag_of(variant)).collect::<Vec<_>>()
        });
        let latest = family(self.name).map(|family| family.default.clone());
        let hints = Hints { latest, tags: tags.unwrap_or_default() };
        self.client.variants(self.name, &self.options(None), &hints).await
    }

    /// Chooses what to pull.
    pub(crate) async fn choose(&self, asked: &Asked) -> Result<Choice, VariantError> {
        let wanted = asked.quant.as_deref().map(canonical);
        if let Some(stated) = quantization(self.name.tag()) {
            return self.stated(stated, wanted);
        }
        let offered = match self.offered().await {
            Err(ClientError::Protocol { reason, .. }) if wanted.is_none() => {
                let line = format!("what variants there are cannot be told: {reason}");
                return Ok(Choice { lines: vec![line], ..Choice::default() });
            }
            offered => offered?,
        };
        if let Some(wanted) = &wanted {
            self.check_offered(&offered, wanted)?;
        }
        if offered.is_empty() {
            return Ok(Choice::default());
        }
        let machine = asked.machine.machine().await;
        self.planned(offered, &machine, &Ask { quant: wanted, ..asked.ask.clone() }).await
    }

    fn stated(&self, stated: &str, wanted: Option<String>) -> Result<Choice, VariantError> {
        match wanted {
            Some(wanted) if wanted != stated => Err(VariantError::Contradiction {
                name: Box::new(self.name.clone()),
                stated: stated.to_owned(),
                wanted,
            }),
            _ => Ok(Choice::default()),
        }
    }

    pub(crate) fn check_offered(
        &self,
        offered: &[SourceVariant],
        wanted: &str,
    ) -> Result<(), VariantError> {
        if offered.iter().any(|variant| variant.quant == wanted) {
            return Ok(());
        }
        Err(VariantError::Unoffered {
            name: Box::new(self.name.clone()),
            wanted: wanted.to_owned(),
            offered: offered.iter().map(|variant| variant.quant.clone()).collect(),
        })
    }

    async fn planned(
        &self,
        offered: Vec<SourceVariant>,
        machine: &Machine,
        ask: &Ask,
    ) -> Result<Choice, VariantError> {
        let candidates = self.candidates(&offered, machine, ask).await?;
        let fit = fit::fit(&candidates, machine, ask).map_err(|misfit| VariantError::Misfit {
            name: Box::new(self.name.clone()),
            misfit: Box::new(misfit),
            smaller: smaller(self.name, machine, ask),
        })?;
        let chosen = offered.iter().find(|variant| variant.quant == fit.variant);
        let from = chosen.map(|variant| variant.reference.clone());
        let lines = lines(&fit, &offered);
        Ok(Choice { from, lines, offered, fit: Some(fit) })
    }
}

/// Which and why, a line each.
fn lines(fit: &Fit, offered: &[SourceVariant]) -> Vec<String> {
    let all: Vec<&str> = offered.iter().map(|variant| variant.quant.as_str()).collect();
    let memory = fit.total_bytes() as f64 / 1e9;
    let which = format!(
        "{} of {}: {memory:.2} GB with {} tokens of context",
        fit.variant,
        all.join(", "),
        fit.context
    );
    let why = fit.reasons.iter().take(2).map(String::as_str).collect::<Vec<_>>().join("; ");
    vec![which, why]
}

/// The quantization as llama.cpp writes it; what is none stays as it is.
pub(crate) fn canonical(quant: &str) -> String {
    quantization(quant).map_or_else(|| quant.to_owned(), str::to_owned)
}

/// The largest of the smaller sizes of the family that fits.
pub(crate) fn smaller(name: &Name, machine: &Machine, ask: &Ask) -> Option<String> {
    let (family, size) = (family(name)?, size(name)?);
    let ask = Ask { quant: None, ..ask.clone() };
    let smaller = family.sizes.iter().rev().filter(|other| other.parameters < size.parameters);
    let fits = |size: &&Size| {
        let variants = size.variants.iter();
        let candidates: Vec<_> =
            variants.map(|variant| Candidate::from_catalog(size, variant)).collect();
        fit::fit(&candidates, machine, &ask).is_ok()
    };
    let found = smaller.into_iter().find(fits)?;
    Some(name.with_tag(&found.tag).ok()?.to_string())
}

impl Choice {
    /// The choice as a client reads it; `variant` is what would be pulled.
    pub(crate) fn told(self, name: &Name, variant: &SourceVariant) -> PullChoice {
        let offered = |one: &SourceVariant| Offered { quant: one.quant.clone(), bytes: one.bytes };
        PullChoice {
            model: name.to_string(),
            reference: variant.reference.to_string(),
            quant: self.fit.as_ref().map(|fit| fit.variant.clone()),
            bytes: variant.bytes,
            offered: self.offered.iter().map(offered).collect(),
            fit: self.fit.map(|fit| row_of(&name.to_string(), Ok(fit))),
            lines: self.lines,
        }
    }
}
