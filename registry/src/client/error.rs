//! What can go wrong in a transfer, by what a caller does about it.

use crate::{Digest, ManifestError, StoreError, trust::SignatureFault};
use std::{error::Error, fmt::Write, io, iter::successors, path::PathBuf};

/// A failed transfer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The registry (for a push: the store) has no such model.
    #[error("model {name} was not found; check its name and tag")]
    NotFound {
        /// The model.
        name: String,
    },
    /// No answer, or none that was worth waiting for.
    #[error("cannot reach {host}: {reason}")]
    Unreachable {
        /// The registry's host.
        host: String,
        /// The last failure.
        reason: String,
    },
    /// The registry wants credentials, which dsk does not have or which are not enough.
    #[error("{host} does not allow this: {remedy}")]
    Unauthorized {
        /// The registry's host.
        host: String,
        /// What was shown, and what to do.
        remedy: String,
    },
    /// A registry, or one that it leads to, is inside this network, and nobody has allowed that.
    #[error("{}", inward(.host, .target, .address))]
    PrivateAddress {
        /// The registry's host.
        host: String,
        /// The host that it leads to, which may be itself.
        target: String,
        /// The address of that.
        address: String,
    },
    /// Nothing is at the address of a file.
    #[error("{host} has no file {path}")]
    NoFile {
        /// The server's host.
        host: String,
        /// The path that was asked for.
        path: String,
    },
    /// An address that no file is fetched from.
    #[error("the address of the file cannot be used: {reason}")]
    Address {
        /// What is wrong with it.
        reason: String,
    },
    /// A setting of the configuration that cannot be used.
    #[error("{key}: {reason}")]
    Setting {
        /// The setting.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Plain HTTP to another machine.
    #[error("{host} would be spoken to over plain HTTP; allow it with --insecure")]
    Insecure {
        /// The host.
        host: String,
    },
    /// What arrived is not what was asked for.
    #[error(transparent)]
    Integrity(#[from] IntegrityError),
    /// The model is not signed as the policy of its registry demands.
    #[error(
        "{name} from {host} is refused, as signatures = \"require\" demands: {fault}; if you trust \
         whoever made it, add the maker's key to trusted_keys, or lower signatures for this registry"
    )]
    Untrusted {
        /// The registry's host.
        host: String,
        /// The model.
        name: String,
        /// The manifest's digest.
        digest: Digest,
        /// What is wrong.
        fault: Box<SignatureFault>,
    },
    /// The model is whole, and in a form that dsk does not take.
    #[error("{name} cannot be used: {error}")]
    Format {
        /// The model.
        name: String,
        /// What it is instead.
        error: ManifestError,
    },
    /// The disk is too full for the model.
    #[error("no space left in {}{}", path.display(), shortfall(*needed, *available))]
    NoSpace {
        /// The folder or file.
        path: PathBuf,
        /// The bytes still to come, when known beforehand.
        needed: Option<u64>,
        /// The bytes that are free.
        available: Option<u64>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
    /// The caller cancelled.
    #[error("cancelled; a later pull goes on from here")]
    Cancelled,
    /// The registry answered something that makes no sense.
    #[error("{host} gave a wrong answer: {reason}")]
    Protocol {
        /// The registry's host.
        host: String,
        /// What was wrong.
        reason: String,
    },
}

/// Bytes that are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum IntegrityError {
    /// A complete blob hashes to something else.
    #[error("{host} sent {expected} with bytes that hash to {got}, twice; they were thrown away")]
    Digest {
        /// The registry's host.
        host: String,
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of what came.
        got: Digest,
    },
    /// The registry sends more or fewer bytes than its manifest says.
    #[error("{digest} has {expected} bytes in the manifest, but {host} sends {got}")]
    Size {
        /// The registry's host.
        host: String,
        /// The blob.
        digest: Digest,
        /// The manifest's size.
        expected: u64,
        /// The registry's; when it did not say, the bytes seen until it was too much.
        got: u64,
    },
    /// The manifest cannot be used.
    #[error("the manifest of {name} cannot be used: {error}")]
    Manifest {
        /// The model.
        name: String,
        /// Why not.
        error: ManifestError,
    },
    /// The manifest's bytes are not the ones that the registry says they are.
    #[error("the manifest of {name} hashes to {got}, the registry says {expected}")]
    ManifestDigest {
        /// The model.
        name: String,
        /// What the registry says.
        expected: String,
        /// The digest of what came.
        got: Digest,
    },
}

impl From<StoreError> for ClientError {
    fn from(error: StoreError) -> ClientError {
        match error {
            StoreError::NoSpace { path } => {
                ClientError::NoSpace { path, needed: None, available: None }
            }
            other => ClientError::Store(other),
        }
    }
}

fn inward(host: &str, target: &str, address: &str) -> String {
    if host == target {
        return format!(
            "{host} is inside this network ({address}); if that is right, allow it with a table \
             [registries.\"{host}\"] in the configuration"
        );
    }
    format!(
        "{host} leads to {target}, which is inside this network ({address}); if that is right, add \
         it to private_hosts in the configuration"
    )
}

fn shortfall(needed: Option<u64>, available: Option<u64>) -> String {
    match (needed, available) {
        (Some(needed), Some(available)) => {
            format!(": {needed} bytes are needed, {available} are free")
        }
        _ => String::new(),
    }
}

/// What led to an error, from the nearest cause to the last. What an I/O error wraps is one of them.
pub(super) fn causes<'a>(error: &'a dyn Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(error.source(), |&cause| {
        match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => cause.source(),
        }
    })
}

/// An error with its causes in one line; reqwest keeps the telling part in the last of them.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
