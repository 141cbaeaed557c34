//! Trust: signatures over models, by keys that the user has named.
//!
//! Two formats are read: cosign's signatures over the digest of a manifest, and OpenSSF model signing, a
//! sigstore bundle over the digests of a model's files. Both are verified offline, by public keys alone:
//! no certificate is believed, nobody is asked. Nothing a signature says counts before a key has proven
//! it, and everything is bounded before it is parsed.
//!
//! What a signature cannot tell is which of its maker's models a name should mean today: an older one is
//! signed as well. That is what pins are for.

mod bundle;
mod cosign;
mod key;
#[cfg(test)]
pub(crate) mod testkit;
#[cfg(test)]
mod tests;

pub(crate) use bundle::BUNDLE_BYTES_MAX;
pub use bundle::{Bundle, Claim, Statement};
pub(crate) use cosign::PAYLOAD_BYTES_MAX;
pub use cosign::SimpleSigning;
pub use key::{KeyError, PublicKey};

use crate::{Digest, Layer, Manifest, media_type};
use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Largest file of keys, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;
/// Most keys that are tried on a signature.
const KEYS_MAX: usize = 64;

/// What is asked of the signatures of a model that is pulled, the least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SignaturePolicy {
    /// Nothing: they are not looked for.
    #[default]
    Off,
    /// What is wrong with them is said, and the model is pulled.
    Warn,
    /// Without a good one the model is refused.
    Require,
}

impl FromStr for SignaturePolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<SignaturePolicy, String> {
        match text {
            "off" => Ok(SignaturePolicy::Off),
            "warn" => Ok(SignaturePolicy::Warn),
            "require" => Ok(SignaturePolicy::Require),
            _ => Err(format!("{text:?} is none of off, warn, require")),
        }
    }
}

/// What is configured about signatures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustConfig {
    /// What is asked of them.
    pub signatures: SignaturePolicy,
    /// Files of public keys in PEM form, any of which is enough.
    pub keys: Vec<PathBuf>,
}

/// What one registry has of its own; the rest is the [`TrustConfig`] of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryTrust {
    /// What is asked of its signatures.
    pub signatures: Option<SignaturePolicy>,
    /// The keys for its models, in place of all others.
    pub keys: Option<Vec<PathBuf>>,
}

/// A policy with its keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    pub(crate) policy: SignaturePolicy,
    keys: Vec<PublicKey>,
}

impl Trust {
    /// Reads the keys; the error says what is wrong with which file.
    pub(crate) fn load(config: &TrustConfig, own: &RegistryTrust) -> Result<Trust, String> {
        let policy = own.signatures.unwrap_or(config.signatures);
        if policy == SignaturePolicy::Off {
            return Ok(Trust::default());
        }
        let mut keys = Vec::new();
        for path in own.keys.as_ref().unwrap_or(&config.keys) {
            let read = read_keys(path);
            keys.extend(read.map_err(|reason| format!("{}: {reason}", path.display()))?);
        }
        match keys.len() {
            0 => Err("signatures are to be checked, but no key is trusted: name the files of \
                      public keys"
                .to_owned()),
            count if count > KEYS_MAX => Err(format!("{count} keys are more than {KEYS_MAX}")),
            _ => Ok(Trust { policy, keys }),
        }
    }

    /// The key whose signature over `message` this is.
    fn signer(&self, message: &[u8], signature: &[u8]) -> Option<&PublicKey> {
        self.keys.iter().find(|key| key.verifies(message, signature))
    }

    /// What the trusted keys are called.
    fn labels(&self) -> String {
        self.keys.iter().map(PublicKey::label).collect::<Vec<_>>().join(", ")
    }

    /// Checks one of cosign's signatures: `payload` is the layer's bytes, `signature` its annotation.
    pub(crate) fn check_cosign(
        &self,
        model: &Signed<'_>,
        payload: &[u8],
        signature: &str,
    ) -> Result<Proof, SignatureFault> {
        let signature = cosign::signature(signature).map_err(SignatureFault::Unreadable)?;
        let key = self.signer(payload, &signature).ok_or_else(|| self.wrong_key())?;
        let said = SimpleSigning::parse(payload).map_err(SignatureFault::Unreadable)?;
        model.is_named(&[said.manifest], key)
    }

    /// Checks a sigstore bundle.
    pub(crate) fn check_bundle(
        &self,
        model: &Signed<'_>,
        bytes: &[u8],
    ) -> Result<Proof, SignatureFault> {
        let bundle = Bundle::parse(bytes).map_err(SignatureFault::Unreadable)?;
        let message = bundle.signed_bytes();
        let key = bundle.signatures.iter().find_map(|one| self.signer(&message, one));
        let key = key.ok_or_else(|| self.wrong_key())?;
        let statement = Statement::parse(&bundle.payload).map_err(SignatureFault::Unreadable)?;
        match &statement.claim {
            Claim::Manifest(digests) => model.is_named(digests, key),
            Claim::Files(digests) => model.is_covered(digests, key),
        }
    }

    fn wrong_key(&self) -> SignatureFault {
        SignatureFault::WrongKey { trusted: self.labels() }
    }
}

fn read_keys(path: &Path) -> Result<Vec<PublicKey>, String> {
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > KEY_FILE_BYTES_MAX {
        return Err("more bytes than keys have".to_owned());
    }
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned());
    PublicKey::parse_pem(&text, &file.unwrap_or_default()).map_err(|error| error.to_string())
}

/// The model whose signature is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signed<'a> {
    pub(crate) digest: Digest,
    pub(crate) manifest: &'a Manifest,
}

impl Signed<'_> {
    /// A signature over the manifest's digest holds for all that the manifest names.
    fn is_named(&self, named: &[Digest], key: &PublicKey) -> Result<Proof, SignatureFault> {
        if named.contains(&self.digest) {
            return Ok(Proof { key: key.label(), covers: Covers::Manifest });
        }
        let signed = named.first().map_or_else(|| "nothing".to_owned(), Digest::to_string);
        Err(SignatureFault::OtherDigest { key: key.label(), signed, digest: self.digest })
    }

    /// One over files holds for the layers that are these files; all weights must be.
    fn is_covered(
        &self,
        files: &BTreeSet<Digest>,
        key: &PublicKey,
    ) -> Result<Proof, SignatureFault> {
        let key = key.label();
        let weights: Vec<&Layer> = self.manifest.layers.iter().filter(|l| is_weights(l)).collect();
        if weights.is_empty() {
            return Err(SignatureFault::NoWeights { key });
        }
        if let Some(layer) = weights.iter().find(|layer| !files.contains(&layer.digest)) {
            return Err(SignatureFault::Uncovered { key, digest: layer.digest });
        }
        let mut others: Vec<&str> = Vec::new();
        for layer in self.manifest.layers.iter().filter(|layer| !files.contains(&layer.digest)) {
            let kind = layer.kind().rsplit('.').next().unwrap_or_default();
            if !others.contains(&kind) {
                others.push(kind);
            }
        }
        let others = others.into_iter().map(crate::digest::excerpt).collect();
        Ok(Proof { key, covers: Covers::Files { others } })
    }
}

/// Layers that a runner computes with, in whatever format.
fn is_weights(layer: &Layer) -> bool {
    let kinds = [
        media_type::MODEL,
        media_type::PROJECTOR,
        media_type::ADAPTER,
        media_type::DRAFT,
        media_type::TENSOR,
    ];
    kinds.contains(&layer.kind()) || media_type::is_weight(&layer.media_type)
}

/// A good signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    key: String,
    covers: Covers,
}

/// What a good signature holds for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Covers {
    /// Everything.
    Manifest,
    /// The weights, but not these kinds of layers.
    Files { others: Vec<String> },
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.covers {
            Covers::Files { others } if !others.is_empty() => {
                let others = others.join(", ");
                write!(f, "signed by {}: its weights, but not its {others}", self.key)
            }
            _ => write!(f, "signed by {}", self.key),
        }
    }
}

/// Why a model counts as not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    /// There is no signature.
    #[error("it is not signed")]
    Unsigned,
    /// There is something that should be one.
    #[error("its signature cannot be used: {0}")]
    Unreadable(String),
    /// Somebody else signed it.
    #[error("it is signed, but not by a trusted key ({trusted})")]
    WrongKey {
        /// The keys that are trusted.
        trusted: String,
    },
    /// The signature is over files, of which the model has none.
    #[error("{key} signed files, and it has no weights that could be one of them")]
    NoWeights {
        /// The key.
        key: String,
    },
    /// The signature does not hold for the weights.
    #[error("the signature by {key} does not cover its weights {digest}")]
    Uncovered {
        /// The key.
        key: String,
        /// The layer.
        digest: Digest,
    },
    /// The signature is for another model.
    #[error("{key} signed {signed}, and its manifest is {digest}")]
    OtherDigest {
        /// The key.
        key: String,
        /// What it signed.
        signed: String,
        /// The manifest's digest.
        digest: Digest,
    },
}

impl SignatureFault {
    /// How much it tells: of several, the one with the most is shown.
    pub(crate) fn weight(&self) -> u8 {
        match self {
            SignatureFault::Unsigned => 0,
            SignatureFault::Unreadable(_) => 1,
            SignatureFault::WrongKey { .. } => 2,
            SignatureFault::NoWeights { .. } => 3,
            SignatureFault::Uncovered { .. } => 4,
            SignatureFault::OtherDigest { .. } => 5,
        }
    }
}
