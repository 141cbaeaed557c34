//! The media types that dsk reads and writes.

/// Docker's manifest v2 schema 2, the type of Ollama's manifests.
pub const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// OCI's image manifest, which has the same shape.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's index of manifests.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's list of manifests, which has the same shape.
pub const MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The configuration blob.
pub const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// The model file: GGUF.
pub const MODEL: &str = "application/vnd.ollama.image.model";
/// The vision part of a multimodal model.
pub const PROJECTOR: &str = "application/vnd.ollama.image.projector";
/// A LoRA adapter.
pub const ADAPTER: &str = "application/vnd.ollama.image.adapter";
/// A smaller model that drafts for speculative decoding.
pub const DRAFT: &str = "application/vnd.ollama.image.draft";
/// The prompt template.
pub const TEMPLATE: &str = "application/vnd.ollama.image.template";
/// The system prompt.
pub const SYSTEM: &str = "application/vnd.ollama.image.system";
/// Default options, a JSON object.
pub const PARAMS: &str = "application/vnd.ollama.image.params";
/// Messages that come before the conversation, a JSON array.
pub const MESSAGES: &str = "application/vnd.ollama.image.messages";
/// A licence; a model may have several.
pub const LICENSE: &str = "application/vnd.ollama.image.license";
/// One tensor in safetensors form.
pub const TENSOR: &str = "application/vnd.ollama.image.tensor";
/// A named JSON file that goes with such tensors.
pub const JSON: &str = "application/vnd.ollama.image.json";
/// The old name of a template.
pub const PROMPT: &str = "application/vnd.ollama.image.prompt";
