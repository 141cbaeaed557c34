//! What can be wrong with a GGUF file.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a GGUF file, or something in it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file cannot be opened or mapped.
    #[error("cannot open {path}: {source}", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The first bytes are something else.
    #[error("not a GGUF file: it starts with {found:?}, not with \"GGUF\"")]
    Magic {
        /// The bytes that are there, as text.
        found: String,
    },
    /// A version of the format that is not read.
    #[error("GGUF version {0} is not supported; versions 2 and 3 are")]
    Version(u32),
    /// The numbers are stored the other way around.
    #[error("the GGUF file is big-endian, which is not supported")]
    BigEndian,
    /// The file contradicts itself or its own length.
    #[error("malformed GGUF file at {place}: {problem}")]
    Malformed {
        /// Where in the file.
        place: Place,
        /// What is wrong there.
        problem: String,
    },
    /// A metadata key that is needed is not there.
    #[error("the GGUF file has no metadata key {key:?}")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A metadata value has another type than its key promises.
    #[error("metadata key {key:?} is {found}, expected {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// What was looked for.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A tensor whose format is not in the table of formats.
    #[error("tensor {name:?} has type {id}, which this version does not know")]
    UnknownFormat {
        /// The tensor.
        name: String,
        /// ggml's type id, as written in the file.
        id: u32,
    },
    /// A tensor's bytes are not in the file (only files opened for their header have such).
    #[error("the data of tensor {name:?} lies beyond the end of the file ({file_len} bytes)")]
    BeyondEnd {
        /// The tensor.
        name: String,
        /// The length of the file.
        file_len: u64,
    },
    /// Files that do not make one model.
    #[error("the GGUF files are not the parts of one model: {0}")]
    Parts(String),
    /// No tensor has this name.
    #[error("the GGUF file has no tensor {name:?}")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
}

impl GgufError {
    pub(crate) fn at(place: impl Into<Place>, problem: impl Into<String>) -> GgufError {
        GgufError::Malformed { place: place.into(), problem: problem.into() }
    }
}

/// Where in a file something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A byte offset from the start of the file.
    Byte(usize),
    /// A metadata key.
    Key(String),
    /// A tensor.
    Tensor(String),
}

impl From<usize> for Place {
    fn from(byte: usize) -> Place {
        Place::Byte(byte)
    }
}

impl fmt::Display for Place {
    // Names come from the file: they are escaped, so that none can speak to a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Byte(at) => write!(f, "byte {at}"),
            Place::Key(key) => write!(f, "metadata key {key:?}"),
            Place::Tensor(name) => write!(f, "tensor {name:?}"),
        }
    }
}
