//! Makes a model of what is in the store: another model's layers, or GGUF files that were uploaded,
//! with the template, system message, parameters and licences a Modelfile gives it.
//!
//! ```text
//! Recipe::parse   what was asked, checked without looking at the store
//! Recipe::make    base layers -> GGUF header checked -> text layers -> config -> manifest last
//! ```
//!
//! Everything that can be refused is refused before the manifest is written, so a create that fails
//! leaves no model behind; blobs it wrote are unreferenced and go with the next prune.

mod base;
mod layers;

use dsk_daemon_api::ollama::{CreateRequest, License, Message};
use dsk_daemon_api::{ApiError, ErrorCode};
use dsk_daemon_engine::gguf::PARTS_MAX;
use dsk_modelfiles::parameters;
use dsk_modelfiles::template::Template;
use dsk_registry::{Digest, Name, Store};
use serde_json::{Map, Value};

use crate::models::TEXT_BYTES_MAX;
use layers::Assembly;

/// What a create was asked for, checked as far as it can be without the store.
#[derive(Debug)]
pub(crate) struct Recipe {
    name: Name,
    source: Source,
    template: Option<String>,
    system: Option<String>,
    licenses: Vec<String>,
    parameters: Map<String, Value>,
    messages: Vec<Message>,
    renderer: Option<String>,
    parser: Option<String>,
    requires: Option<String>,
}

/// What the model is made from.
#[derive(Debug)]
enum Source {
    /// Another model.
    Model(Name),
    /// The GGUF files of a model, mostly one, by their digests.
    Files(Vec<Digest>),
}

impl Recipe {
    /// Checks a request.
    pub(crate) fn parse(name: Name, request: CreateRequest) -> Result<Recipe, ApiError> {
        refuse_unsupported(&request)?;
        let source = source(&request)?;
        Ok(Recipe {
            name,
            source,
            template: request_template(&request.template)?,
            system: text("system", &request.system)?,
            licenses: licenses(request.license)?,
            parameters: checked_parameters(&request.parameters)?,
            messages: checked_messages(request.messages)?,
            renderer: given(request.renderer),
            parser: given(request.parser),
            requires: given(request.requires),
        })
    }

    /// Makes the model; returns the statuses a client is shown. Blocking.
    pub(crate) fn make(&self, store: &Store) -> Result<Vec<String>, ApiError> {
        let mut statuses = Vec::new();
        let base = match &self.source {
            Source::Model(name) => base::of_model(store, name)?,
            Source::Files(digests) => {
                statuses.push("parsing GGUF".to_owned());
                base::of_files(store, digests)?
            }
        };
        let mut assembly = Assembly::new(store, base);
        assembly.replace_text(dsk_registry::media_type::TEMPLATE, self.template.as_deref())?;
        assembly.replace_text(dsk_registry::media_type::SYSTEM, self.system.as_deref())?;
        assembly.add_licenses(&self.licenses)?;
        assembly.merge_parameters(&self.parameters)?;
        assembly.replace_messages(&self.messages)?;
        let built_in = [&self.renderer, &self.parser, &self.requires];
        let [renderer, parser, requires] = built_in.map(Option::clone);
        assembly.name_built_ins(renderer, parser, requires);
        statuses.extend(assembly.finish(&self.name)?);
        statuses.extend(["writing manifest", "success"].map(str::to_owned));
        Ok(statuses)
    }
}

fn refuse_unsupported(request: &CreateRequest) -> Result<(), ApiError> {
    let refused = [
        (!request.adapters.is_empty(), "adapters"),
        (!request.quantize.is_empty() || !request.quantization.is_empty(), "quantize"),
    ];
    match refused.into_iter().find(|(asked, _)| *asked) {
        Some((_, field)) => {
            let message = format!("`{field}` is not supported yet");
            Err(ApiError::new(ErrorCode::Unsupported, message))
        }
        None => Ok(()),
    }
}

fn source(request: &CreateRequest) -> Result<Source, ApiError> {
    match (request.from.as_str(), request.files.len()) {
        ("", 0) => Err(invalid("neither `from` nor `files` was given")),
        ("", 1..=PARTS_MAX) => {
            let files = request.files.iter().map(|(path, digest)| file(path, digest));
            Ok(Source::Files(files.collect::<Result<_, _>>()?))
        }
        ("", _) => Err(invalid(format!("`files` holds more than {PARTS_MAX} files"))),
        (_, 1..) => Err(invalid("give either `from` or `files`, not both")),
        (from, 0) => Name::parse(from)
            .map(Source::Model)
            .map_err(|error| ApiError::new(ErrorCode::InvalidName, format!("from: {error}"))),
    }
}

/// The path only names the file for people, but one that climbs out of a folder is no name.
fn file(path: &str, digest: &str) -> Result<Digest, ApiError> {
    let climbs = path.split(['/', '\\']).any(|part| part == ".." || part.is_empty());
    if climbs {
        return Err(invalid(format!("files: {path:?} is not the relative path of a file")));
    }
    if !path.to_ascii_lowercase().ends_with(".gguf") {
        return Err(invalid(format!(
            "files: {path:?} is not a GGUF file; only .gguf is supported yet"
        )));
    }
    digest.parse().map_err(|error| {
        ApiError::new(ErrorCode::InvalidDigest, format!("files: {path:?}: {error}"))
    })
}

fn request_template(source: &str) -> Result<Option<String>, ApiError> {
    if let Some(source) = text("template", source)? {
        let parsed = Template::detect(&source);
        parsed.map_err(|error| invalid(format!("template: {error}")))?;
        return Ok(Some(source));
    }
    Ok(None)
}

fn text(field: &str, text: &str) -> Result<Option<String>, ApiError> {
    if text.len() as u64 > TEXT_BYTES_MAX {
        return Err(invalid(format!("`{field}` is longer than {TEXT_BYTES_MAX} bytes")));
    }
    Ok(given(text.to_owned()))
}

fn licenses(license: Option<License>) -> Result<Vec<String>, ApiError> {
    let texts = license.map(License::texts).unwrap_or_default();
    texts.iter().try_for_each(|one| text("license", one).map(drop))?;
    Ok(texts)
}

/// Unlike a request's options, parameters that nobody knows are refused: they would be kept.
fn checked_parameters(given: &Map<String, Value>) -> Result<Map<String, Value>, ApiError> {
    let checked = given.iter().map(|(name, value)| {
        let value = parameters::check_json(name, value);
        Ok((name.clone(), value.map_err(|error| invalid(error.to_string()))?))
    });
    checked.collect()
}

fn checked_messages(messages: Vec<Message>) -> Result<Vec<Message>, ApiError> {
    let odd = messages
        .iter()
        .find(|message| !matches!(message.role.as_str(), "system" | "user" | "assistant"));
    match odd {
        Some(message) => Err(invalid(format!(
            "messages: the role must be system, user or assistant, not {:?}",
            message.role
        ))),
        None => Ok(messages),
    }
}

fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, message)
}

#[cfg(test)]
mod tests;
