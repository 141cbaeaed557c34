//! What a GGUF file says about the model in it, checked before anything is computed.
//!
//! [`Summary::read`] gives the facts that a listing shows, for a file of any architecture.
//! [`Model::open`] goes further: it accepts only what an executor of this crate computes correctly,
//! and refuses everything else by name. A tensor or a setting that would silently be ignored is
//! an error, as the model would then answer, but wrongly.

mod header;
mod rotary;
mod settings;
mod summary;
mod tensors;
#[cfg(test)]
mod tests;

use std::panic::resume_unwind;
use std::path::Path;

pub use header::{Header, Rotary, Stretch};
pub use summary::Summary;

use crate::arch;
use crate::gguf::{Gguf, GgufError};
use crate::mmap;
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

/// What is computed: a file's hyper-parameters and tensors, checked against one another. Immutable.
#[derive(Debug)]
pub struct Network {
    header: Header,
    gguf: Gguf,
}

impl Network {
    /// Checks a file.
    pub fn from_gguf(gguf: Gguf) -> Result<Network, ModelError> {
        Ok(Network { header: Header::read(&gguf)?, gguf })
    }

    /// The hyper-parameters.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The file: tensors and every key.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }
}

/// An opened model: network, tokenizer and chat template. Immutable.
#[derive(Debug)]
pub struct Model {
    network: Network,
    summary: Summary,
    tokenizer: Tokenizer,
    template: Option<String>,
}

impl Model {
    /// Opens and checks the file at `path`.
    pub fn open(path: &Path) -> Result<Model, ModelError> {
        Ok(Model::open_while(&[path], |_| ())?.0)
    }

    /// As [`Model::open`] for the files of a model, mostly one, and does `work` with the network while another thread makes the tokenizer,
    /// which takes a good part of a second.
    pub fn open_while<T>(
        paths: &[impl AsRef<Path>],
        work: impl FnOnce(&Network) -> T,
    ) -> Result<(Model, T), ModelError> {
        Model::from_gguf_while(Gguf::open_all(paths)?, work)
    }

    /// Checks a file that is open already.
    pub fn from_gguf(gguf: Gguf) -> Result<Model, ModelError> {
        Ok(Model::from_gguf_while(gguf, |_| ())?.0)
    }

    fn from_gguf_while<T>(
        gguf: Gguf,
        work: impl FnOnce(&Network) -> T,
    ) -> Result<(Model, T), ModelError> {
        let network = Network::from_gguf(gguf)?;
        let gguf = &network.gguf;
        let summary = Summary::read(gguf)?;
        let template = gguf.get_str("tokenizer.chat_template")?.map(str::to_owned);
        // What is refused is refused before the work.
        Tokenizer::check(gguf)?;
        let (tokenizer, result) = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("tokenizer".to_owned());
            let tokenizer = thread.spawn_scoped(scope, || Tokenizer::from_gguf(gguf));
            let result = work(&network);
            let tokenizer = match tokenizer {
                Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
                Err(_no_thread) => Tokenizer::from_gguf(gguf),
            };
            (tokenizer, result)
        });
        let tokenizer = tokenizer?;
        network.gguf.release_all();
        mmap::trim_heap();
        Ok((Model { summary, tokenizer, template, network }, result))
    }

    /// Its network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The hyper-parameters.
    pub fn header(&self) -> &Header {
        self.network.header()
    }

    /// The facts that a listing shows.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The file: tensors and every key.
    pub fn gguf(&self) -> &Gguf {
        self.network.gguf()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The family's name, as in the file.
    pub fn architecture(&self) -> &'static str {
        self.header().architecture.name()
    }

    /// Tokens of context the model was trained for.
    pub fn context_length(&self) -> u32 {
        self.header().context_length
    }

    /// The source of the chat template that the file carries, in Jinja.
    pub fn chat_template(&self) -> Option<&str> {
        self.template.as_deref()
    }
}
