//! dsk's own endpoints about the store: what lies in it, bringing files in, verifying and cleaning it.

use serde::{Deserialize, Serialize};

use crate::ollama::ProgressLine;

/// The body of `POST /api/dsk/gc`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GcRequest {
    /// Only says what would go.
    pub dry_run: bool,
    /// How old unreferenced blobs and temporary files must be, in seconds; `None` is an hour.
    pub min_age_seconds: Option<u64>,
}

/// The answer to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcResponse {
    /// Whether nothing was deleted.
    pub dry_run: bool,
    /// What was deleted, or would be.
    pub items: Vec<GcItem>,
    /// The bytes of all of them.
    pub bytes: u64,
}

/// One thing that was collected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcItem {
    /// `blob`, `partial`, `temporary`, `link` or `pull`.
    pub kind: String,
    /// A digest, a model's name or a file's name.
    pub what: String,
    /// The bytes that this frees.
    pub bytes: u64,
}

/// The answer of `GET /api/dsk/df`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DfResponse {
    /// The store's folder.
    pub path: String,
    /// Whether the daemon may write to it.
    pub writable: bool,
    /// By model.
    pub models: Vec<DfModel>,
    /// How many blobs there are.
    pub blobs: u64,
    /// Their bytes, each blob once.
    pub blob_bytes: u64,
    /// Of those, what several models share.
    pub shared_bytes: u64,
    /// Of those, what no model names.
    pub unreferenced_bytes: u64,
    /// Unfinished downloads and temporary files.
    pub partial_bytes: u64,
    /// Damaged blobs that were put aside.
    pub quarantine_bytes: u64,
    /// Files elsewhere that models are linked to.
    pub linked_bytes: u64,
    /// What the file system has left.
    pub free_bytes: u64,
}

/// The bytes of one model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DfModel {
    /// Its shortest name.
    pub name: String,
    /// The bytes of all its blobs.
    pub bytes: u64,
    /// Of those, what deleting it frees.
    pub own_bytes: u64,
    /// Of those, what lies in a file elsewhere.
    pub linked_bytes: u64,
    /// Whether a blob is missing.
    pub damaged: bool,
}

/// The answer of `GET /api/dsk/partials`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PartialsResponse {
    /// Pulls that have not ended.
    pub pulls: Vec<PartialPull>,
}

/// A pull that has not ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PartialPull {
    /// The model's shortest name.
    pub name: String,
    /// The bytes of all its blobs.
    pub bytes: u64,
    /// Of those, what is here.
    pub bytes_here: u64,
    /// When a byte of it last came, RFC 3339.
    pub touched_at: String,
    /// Whether it is under way.
    pub running: bool,
    /// Whether somebody paused it, as far as this daemon knows.
    pub paused: bool,
}

/// The body of `POST /api/dsk/pause`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PauseRequest {
    /// The model's name.
    pub model: String,
}

/// The answer to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PauseResponse {
    /// The model's shortest name.
    pub model: String,
}

/// The body of `DELETE /api/dsk/partials`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RemovePartialRequest {
    /// The model's name.
    pub model: String,
}

/// The answer to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedResponse {
    /// The bytes that were freed.
    pub bytes: u64,
}

/// The body of `POST /api/dsk/verify`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerifyRequest {
    /// Their names; none is the whole store.
    pub models: Vec<String>,
    /// Fetches from their registries what is missing then.
    pub repair: bool,
    /// Lets plain HTTP registries be asked.
    pub insecure: bool,
}

/// One line of the answer to it; the last one has the report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyLine {
    /// What is read or fetched.
    #[serde(flatten)]
    pub progress: ProgressLine,
    /// What was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<VerifyReport>,
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerifyReport {
    /// How many blobs were read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that are not whole.
    pub bad: Vec<BadBlob>,
    /// Models that were damaged and are whole again.
    pub repaired: Vec<String>,
    /// Models that could not be repaired, and why.
    pub failed: Vec<FailedRepair>,
}

impl VerifyReport {
    /// Whether everything that was looked at is whole now.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.bad.iter().flat_map(|bad| &bad.models).all(|model| self.repaired.contains(model))
            && self.bad.iter().all(|bad| !bad.models.is_empty() || bad.moved_to.is_some())
    }
}

/// A blob that is not whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BadBlob {
    /// What it should be.
    pub digest: String,
    /// What is wrong with it.
    pub reason: String,
    /// Where it was put.
    pub moved_to: Option<String>,
    /// The models that need it.
    pub models: Vec<String>,
}

/// A model that could not be repaired.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRepair {
    /// Its name.
    pub model: String,
    /// Why.
    pub error: String,
}

/// The body of `POST /api/dsk/link` and `/api/dsk/import`: a file on the daemon's machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BringRequest {
    /// The new model's name.
    pub model: String,
    /// The GGUF file, absolute.
    pub path: String,
    /// Of an import: a second name for the file instead of a copy.
    pub hard_link: bool,
}

/// The body of `POST /api/dsk/files`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FilesRequest {
    /// The model's name.
    pub model: String,
}

/// The answer to it: what a model is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesResponse {
    /// The model's shortest name.
    pub name: String,
    /// Its manifest, byte for byte.
    pub manifest: String,
    /// Its layers, in order.
    pub files: Vec<ModelFile>,
}

/// One layer of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFile {
    /// What it is, in the words of the manifest's format.
    pub media_type: String,
    /// Which of Ollama's types it amounts to, whatever the format; empty from a daemon that does not say.
    #[serde(default)]
    pub kind: String,
    /// Which of the model's several files it is, from 1, where its name says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<u32>,
    /// Its digest.
    pub digest: String,
    /// Its size in bytes.
    pub bytes: u64,
}
