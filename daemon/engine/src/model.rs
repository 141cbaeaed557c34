//! What a GGUF file says about the model in it, checked before anything is computed.
//!
//! [`Summary::read`] gives the facts that a listing shows, for a file of any architecture.
//! [`Model::open`] goes further: it accepts only what an executor of this crate computes correctly,
//! and refuses everything else by name. A tensor or a setting that would silently be ignored is
//! an error, as the model would then answer, but wrongly.

mod header;
mod rotary;
mod summary;
mod tensors;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use header::{Header, Rotary, Stretch};
pub use summary::Summary;

use crate::arch;
use crate::gguf::{Gguf, GgufError};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Why a file cannot be run as a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file itself cannot be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// Its tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A family of models that no executor computes.
    #[error("architecture {found:?} is not supported; {} are", arch::names().join(", "))]
    Architecture {
        /// The name in the file.
        found: String,
    },
    /// The file holds something else than a whole model.
    #[error("the file is not a whole model: {0}")]
    NotAModel(String),
    /// A setting that changes the computation in a way no executor knows.
    #[error("the model uses {feature}, which is not supported ({detail})")]
    Feature {
        /// The feature, in words.
        feature: &'static str,
        /// The key or tensor that shows it.
        detail: String,
    },
    /// A hyper-parameter that makes no sense.
    #[error("metadata key {key:?}: {problem}")]
    HyperParameter {
        /// The key.
        key: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// A tensor in a format that no executor computes with.
    #[error("tensor {name:?} is stored as {format}; supported are {supported}")]
    Format {
        /// The tensor.
        name: String,
        /// Its format.
        format: String,
        /// The formats that can be used.
        supported: String,
    },
    /// A tensor whose shape does not follow from the hyper-parameters.
    #[error("tensor {name:?} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// The shape in the file.
        found: Vec<u64>,
        /// The shape that the hyper-parameters give.
        expected: Vec<u64>,
    },
    /// A tensor that the architecture does not have: ignoring it would change the answers.
    #[error("tensor {name:?} is not part of a model of architecture {architecture}")]
    UnknownTensor {
        /// The tensor.
        name: String,
        /// The architecture.
        architecture: &'static str,
    },
}

/// An opened model: header, tensors, tokenizer and chat template. Immutable.
#[derive(Debug)]
pub struct Model {
    header: Header,
    summary: Summary,
    gguf: Gguf,
    tokenizer: Tokenizer,
    template: Option<String>,
}

impl Model {
    /// Opens and checks the file at `path`.
    pub fn open(path: &Path) -> Result<Model, ModelError> {
        Model::from_gguf(Gguf::open(path)?)
    }

    /// Checks a file that is open already.
    pub fn from_gguf(gguf: Gguf) -> Result<Model, ModelError> {
        let header = Header::read(&gguf)?;
        let summary = Summary::read(&gguf)?;
        let tokenizer = Tokenizer::from_gguf(&gguf)?;
        let template = gguf.get_str("tokenizer.chat_template")?.map(str::to_owned);
        Ok(Model { header, summary, gguf, tokenizer, template })
    }

    /// The hyper-parameters.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The facts that a listing shows.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The file: tensors and every key.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The family's name, as in the file.
    pub fn architecture(&self) -> &'static str {
        self.header.architecture.name()
    }

    /// Tokens of context the model was trained for.
    pub fn context_length(&self) -> u32 {
        self.header.context_length
    }

    /// The source of the chat template that the file carries, in Jinja.
    pub fn chat_template(&self) -> Option<&str> {
        self.template.as_deref()
    }
}
