//! The media types that dsk reads and writes.
//!
//! A model's layers have Ollama's types, Docker's or those of CNCF's ModelPack. Manifests are stored as
//! they came; [`super::Layer::kind`] says which of Ollama's types a layer amounts to.

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
/// The configuration in CNCF's ModelPack.
pub const MODELPACK_CONFIG: &str = "application/vnd.cncf.model.config.v1+json";
/// The type of the artifact that a ModelPack is.
pub const MODELPACK: &str = "application/vnd.cncf.model.manifest.v1+json";
/// Weights of a ModelPack as they are; the annotation [`FILE_PATH`] names the file.
pub const MODELPACK_WEIGHT: &str = "application/vnd.cncf.model.weight.v1.raw";
/// A file of settings of a ModelPack as it is.
pub const MODELPACK_SETTINGS: &str = "application/vnd.cncf.model.weight.config.v1.raw";
/// A document of a ModelPack as it is.
pub const MODELPACK_DOC: &str = "application/vnd.cncf.model.doc.v1.raw";
/// The annotation of a ModelPack's layer for the name of the file in it.
pub const FILE_PATH: &str = "org.cncf.model.filepath";
/// OCI's annotation for the same.
pub const TITLE: &str = "org.opencontainers.image.title";

/// What all types of a ModelPack begin with.
const MODELPACK_PREFIX: &str = "application/vnd.cncf.model.";
/// What the types of Docker's models begin with.
const DOCKER_PREFIX: &str = "application/vnd.docker.ai.";
/// What the types of Docker's configurations begin with; a version follows.
pub(super) const DOCKER_CONFIG_PREFIX: &str = "application/vnd.docker.ai.model.config";
/// What Ollama's types of layers begin with.
pub(super) const OLLAMA_PREFIX: &str = "application/vnd.ollama.image.";

/// The files of a ModelPack that mean something to dsk, by their names: those that Hugging Face's
/// repositories use for the same.
pub(crate) const FILES: [(&str, &str); 6] = [
    (TEMPLATE, "template"),
    (SYSTEM, "system"),
    (PARAMS, "params"),
    (MESSAGES, "messages"),
    (TEMPLATE, "chat_template.jinja"),
    (LICENSE, "LICENSE"),
];

/// Which of Ollama's types a layer of type `media_type` amounts to, whose file is called `file`; the type
/// itself where it is none of another format's.
pub(super) fn kind<'a>(media_type: &'a str, file: Option<&str>) -> &'a str {
    if let Some(part) = media_type.strip_prefix(DOCKER_PREFIX) {
        return match part {
            "gguf.v3" => MODEL,
            "gguf.v3.mmproj" | "mmproj" => PROJECTOR,
            "gguf.v3.lora" => ADAPTER,
            "license" => LICENSE,
            "chat.template.jinja" => TEMPLATE,
            _ => media_type,
        };
    }
    let file = file.unwrap_or_default().rsplit('/').next().unwrap_or_default();
    match media_type.strip_prefix(MODELPACK_PREFIX) {
        Some("weight.v1.raw" | "weight.v1.gguf") if is_gguf(media_type, file) => match file {
            file if file.contains("mmproj") => PROJECTOR,
            file if file.starts_with("adapter") => ADAPTER,
            _ => MODEL,
        },
        Some("weight.config.v1.raw" | "doc.v1.raw") => of_file(file).unwrap_or(media_type),
        _ => media_type,
    }
}

/// Docker's type for a layer of a kind; None for what its models have no place for. Templates must be in
/// Jinja.
pub(super) fn docker(kind: &str) -> Option<String> {
    let part = match kind {
        MODEL => "gguf.v3",
        PROJECTOR => "mmproj",
        ADAPTER => "gguf.v3.lora",
        LICENSE => "license",
        TEMPLATE => "chat.template.jinja",
        _ => return None,
    };
    Some(format!("{DOCKER_PREFIX}{part}"))
}

/// A file without a name is taken for what dsk can run; the reader of its header will tell.
fn is_gguf(media_type: &str, file: &str) -> bool {
    media_type.ends_with(".gguf") || file.is_empty() || file.to_ascii_lowercase().ends_with(".gguf")
}

fn of_file(file: &str) -> Option<&'static str> {
    let known = FILES.iter().find(|(_, name)| *name == file).map(|(kind, _)| *kind);
    known.or_else(|| file.starts_with("LICENSE").then_some(LICENSE))
}

/// Whether layers of the type hold weights, in whatever format.
pub(crate) fn is_weight(media_type: &str) -> bool {
    let weight = |part: &str| part.starts_with("weight.v1");
    media_type == MODEL
        || media_type.strip_prefix(MODELPACK_PREFIX).is_some_and(weight)
        || media_type.strip_prefix(DOCKER_PREFIX).is_some_and(|part| part.contains("safetensors"))
        || kind(media_type, None) == MODEL
}

/// Whether a layer's bytes are an archive or compressed: dsk unpacks neither.
pub(super) fn is_packed(media_type: &str) -> bool {
    let name = media_type.to_ascii_lowercase();
    let packed = ["tar", "gzip", "gz", "zstd", "zst", "zip", "bz2", "xz"];
    let mut parts = name.split(['.', '+', '/']);
    parts.next_back().is_some_and(|part| packed.contains(&part))
        || parts.next_back().is_some_and(|part| part == "tar")
}
