//! `POST /api/show`: everything about one model.

use std::sync::Arc;

use axum::extract::{Request, State};
use dsk_daemon_api::ollama::{Details, Message, ShowRequest, ShowResponse, Tensor};
use dsk_daemon_api::{ApiError, ErrorCode};
use dsk_daemon_engine::gguf::{self, Gguf};
use dsk_modelfiles::{Instruction, InstructionKind, Modelfile, ParameterText};
use serde_json::{Map, Value, json};

use super::list;
use crate::http::inference::Model;
use crate::http::reply::{self, Native};
use crate::http::{Http, body, failure};
use crate::models::ModelSpec;

/// Arrays up to this long are always shown, longer ones (a vocabulary) only when verbose.
const SHORT_ARRAY_MAX: usize = 5;

/// The handler.
pub(crate) async fn show(State(http): State<Arc<Http>>, request: Request) -> Native {
    let body: ShowRequest = body::json(request, body::SMALL_BYTES_MAX).await?;
    let model = http.model(body.target()).await?;
    let known = http.service.index.refresh(&http.service.store).await;
    let known = known.map_err(|error| failure::of_index(&error))?;
    let indexed = known.into_iter().find(|one| one.name == model.spec.name);
    let capabilities = indexed.as_ref().map(|one| list::served(&one.capabilities));
    let details = indexed.map(list::details).unwrap_or_default();
    let described = tokio::task::spawn_blocking(move || {
        describe(&model, details, capabilities.unwrap_or_default(), body.verbose)
    });
    let response = described.await.map_err(|error| failure::of_task(&error))??;
    Ok(reply::json(&response))
}

/// Reads the file's header beside what is known. Blocking.
fn describe(
    model: &Model,
    details: Details,
    capabilities: Vec<String>,
    verbose: bool,
) -> Result<ShowResponse, ApiError> {
    let spec = &*model.spec;
    let gguf = Gguf::open_all(&spec.model_files).map_err(|error| {
        let message = format!("the model file of {} cannot be read: {error}", spec.name);
        ApiError::new(ErrorCode::LoadFailed, message)
    })?;
    let own = gguf.get_str("tokenizer.chat_template").ok().flatten();
    let template = spec.template.as_deref().or(own).unwrap_or_default();
    Ok(ShowResponse {
        license: spec.licenses.join("\n"),
        modelfile: modelfile(spec, template),
        parameters: parameters(&spec.parameters),
        template: template.to_owned(),
        system: spec.system.clone().unwrap_or_default(),
        renderer: spec.config.renderer.clone().unwrap_or_default(),
        parser: spec.config.parser.clone().unwrap_or_default(),
        requires: spec.config.requires.clone().unwrap_or_default(),
        details,
        messages: spec.messages.iter().map(|one| Message::new(&one.role, &one.content)).collect(),
        model_info: model_info(&gguf, verbose),
        tensors: if verbose { tensors(&gguf) } else { Vec::new() },
        capabilities,
        modified_at: list::time(spec.modified),
    })
}

/// A Modelfile that makes the model again, from its own weights.
fn modelfile(spec: &ModelSpec, template: &str) -> String {
    // A model in several files is named: none of them alone is one.
    let from = match spec.model_files.as_slice() {
        [file] => file.display().to_string(),
        _ => spec.name.to_string(),
    };
    let mut kinds = vec![InstructionKind::From(from)];
    if !template.is_empty() {
        kinds.push(InstructionKind::Template(template.to_owned()));
    }
    kinds.extend(spec.system.clone().map(InstructionKind::System));
    kinds.extend(rows(&spec.parameters).map(|(name, value)| InstructionKind::Parameter {
        name: name.to_owned(),
        value: ParameterText(value),
    }));
    kinds.extend(spec.messages.iter().map(|message| InstructionKind::Message {
        role: message.role.clone(),
        content: message.content.clone(),
    }));
    let config = &spec.config;
    kinds.extend(config.renderer.clone().map(InstructionKind::Renderer));
    kinds.extend(config.parser.clone().map(InstructionKind::Parser));
    kinds.extend(config.requires.clone().map(InstructionKind::Requires));
    kinds.extend(spec.licenses.iter().cloned().map(InstructionKind::License));
    let instructions =
        kinds.into_iter().map(|kind| Instruction { line: 0, column: 0, kind }).collect();
    let head = format!("# Made by \"dsk show\" from {}; FROM may also name that model.", spec.name);
    format!("{head}\n{}", Modelfile { instructions })
}

/// Each value of each parameter; lists have one row an element.
fn rows(parameters: &Map<String, Value>) -> impl Iterator<Item = (&str, String)> {
    parameters.iter().flat_map(|(name, value)| {
        let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        values.into_iter().map(move |value| match value {
            Value::String(text) => (name.as_str(), text),
            other => (name.as_str(), other.to_string()),
        })
    })
}

/// Rows as Ollama prints them and clients parse them: the name, spaces, the value; text is quoted.
fn parameters(parameters: &Map<String, Value>) -> String {
    let rows = parameters.iter().flat_map(|(name, value)| {
        let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        values.into_iter().map(move |value| format!("{name:<30} {value}"))
    });
    rows.collect::<Vec<_>>().join("\n")
}

fn model_info(gguf: &Gguf, verbose: bool) -> Map<String, Value> {
    let mut info: Map<String, Value> =
        gguf.metadata().map(|(key, value)| (key.to_owned(), metadata(&value, verbose))).collect();
    info.remove("tokenizer.chat_template");
    if !info.contains_key("general.parameter_count") {
        let elements =
            gguf.tensors().iter().fold(0_u64, |sum, one| sum.saturating_add(one.elements));
        info.insert("general.parameter_count".to_owned(), elements.into());
    }
    info
}

fn metadata(value: &gguf::Value<'_>, verbose: bool) -> Value {
    match value {
        gguf::Value::String(text) => Value::from(*text),
        gguf::Value::Bool(value) => Value::from(*value),
        gguf::Value::F32(number) => json!(number),
        gguf::Value::F64(number) => json!(number),
        gguf::Value::Array(array) if verbose || array.len() <= SHORT_ARRAY_MAX => {
            array.iter().map(|element| metadata(&element, verbose)).collect()
        }
        gguf::Value::Array(_) => Value::Null,
        number => number.as_i64().map(Value::from).or(number.as_u64().map(Value::from)).into(),
    }
}

fn tensors(gguf: &Gguf) -> Vec<Tensor> {
    let tensors = gguf.tensors().iter().map(|tensor| Tensor {
        name: tensor.name.clone(),
        kind: tensor.format.to_string(),
        shape: tensor.shape.to_vec(),
    });
    tensors.collect()
}

#[cfg(test)]
mod tests;
