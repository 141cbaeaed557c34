//! Names, digests, manifests, the content store, the registry clients and the embedded registry.
//!
//! What lies outside is parsed into a type before it is used: a [`Name`] and a [`Digest`] are the only
//! things that can make a path, a [`Manifest`] is bounded before it is believed, and a blob gets its
//! final name only after its bytes hashed to it.
//!
//! Entry types: [`Store`] (files, blocking), [`Client`] (pull and push over HTTP, async) and
//! [`server::router`] (OCI Distribution v2 over a store). [`trust`] verifies signatures.
//!
//! What it does not do: it reads no model file, knows nothing of runners or of the daemon's API, keeps
//! no credentials, and never deletes a blob that a readable manifest names.

mod client;
mod digest;
mod extents;
mod failpoints;
#[cfg(test)]
mod fixture;
mod manifest;
mod name;
pub mod oci_layout;
mod pieces;
mod pump;
mod quantization;
mod repack;
pub mod server;
mod shard;
mod store;
pub mod trust;

pub use client::{
    Client, ClientConfig, ClientError, Fetched, Header, Hints, IntegrityError, Keyring, Limits,
    Progress, Proxy, Reference, RegistryConfig, SourceVariant, TransferOptions, WebFile,
    canonical_host,
};
pub use digest::{Digest, DigestError, Hasher};
pub use failpoints::{FAILPOINTS, arm_failpoints};
pub use manifest::{
    Descriptor, Layer, Manifest, ManifestError, ManifestFormat, ModelConfig, QUANTIZATION,
    media_type,
};
pub use name::{DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, Name, NameError};
pub use quantization::quantization;
pub use shard::Shard;
pub use store::{
    BadBlob, Checking, Collected, Garbage, GarbageKind, GcOptions, ImportMode, Ingest, ModelUsage,
    PartialBlob, Pin, Stamp, Store, StoreError, StoreLock, StoredManifest, Unfinished, Usage,
    Verification,
};
use store::{Partial, marks::Marker};
