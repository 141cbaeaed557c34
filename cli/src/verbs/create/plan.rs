//! What a Modelfile asks for: the request to the daemon, and the files to send first.

use std::path::{Path, PathBuf};

use dsk_daemon_api::ollama::{CreateRequest, License, Message};
use dsk_modelfiles::{Instruction, InstructionKind, Modelfile, parameters};
use dsk_registry::Shard;
use serde_json::{Map, Value};

use crate::exit::Exit;
use crate::failure::Failure;

/// A file that the daemon needs, and the name by which the request calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) path: PathBuf,
}

/// A request without the digests of its files.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) request: CreateRequest,
    models: Vec<Source>,
    adapters: Vec<Source>,
}

impl Plan {
    /// Reads a Modelfile whose relative paths start at `folder`.
    pub(super) fn new(modelfile: &Modelfile, folder: &Path) -> Result<Plan, Failure> {
        let mut plan = Plan::default();
        for instruction in &modelfile.instructions {
            plan.add(instruction, folder)?;
        }
        if plan.request.from.is_empty() && plan.models.is_empty() {
            let failure = Failure::usage("the Modelfile has no FROM");
            return Err(failure.hint("begin it with: FROM model-name, or FROM ./model.gguf"));
        }
        Ok(plan)
    }

    /// The files to send, and whether each is an adapter.
    pub(super) fn sources(&self) -> Vec<(Source, bool)> {
        let models = self.models.iter().map(|source| (source.clone(), false));
        models.chain(self.adapters.iter().map(|source| (source.clone(), true))).collect()
    }

    fn add(&mut self, instruction: &Instruction, folder: &Path) -> Result<(), Failure> {
        let request = &mut self.request;
        match &instruction.kind {
            InstructionKind::From(value) => return self.from(value, folder, instruction.line),
            InstructionKind::Adapter(value) => {
                let source = source(value, folder)?;
                return insert(&mut self.adapters, source);
            }
            InstructionKind::Parameter { name, value } => {
                set_parameter(&mut request.parameters, name, value.as_str()).map_err(|error| {
                    Failure::usage(format!("line {}: {error}", instruction.line))
                })?;
            }
            InstructionKind::Template(text) => request.template.clone_from(text),
            InstructionKind::System(text) => request.system.clone_from(text),
            InstructionKind::License(text) => add_license(&mut request.license, text),
            InstructionKind::Message { role, content } => {
                request.messages.push(Message::new(role, content));
            }
            InstructionKind::Renderer(name) => request.renderer.clone_from(name),
            InstructionKind::Parser(name) => request.parser.clone_from(name),
            InstructionKind::Requires(version) => request.requires.clone_from(version),
            InstructionKind::Draft(_) => {
                let message = format!("line {}: DRAFT is not supported yet", instruction.line);
                return Err(Failure::usage(message));
            }
        }
        Ok(())
    }

    fn from(&mut self, value: &str, folder: &Path, line: u32) -> Result<(), Failure> {
        let path = resolve(value, folder);
        if path.is_file() || is_path(value) {
            // One of several files stands for all of them.
            let named = source(value, folder)?;
            let paths = Shard::paths(&named.path);
            if paths.len() == 1 {
                return insert(&mut self.models, named);
            }
            for path in paths {
                let source = source(&path.to_string_lossy(), folder)?;
                if !self.models.contains(&source) {
                    insert(&mut self.models, source)?;
                }
            }
            return Ok(());
        }
        if !self.request.from.is_empty() {
            let message = format!("line {line}: a second FROM names another model, {value}");
            return Err(Failure::usage(message).hint("only files may have several FROM lines"));
        }
        value.clone_into(&mut self.request.from);
        Ok(())
    }
}

/// Whether a FROM can only be meant as a path; anything else is a file if there is one of that
/// name, and a model's name otherwise.
fn is_path(value: &str) -> bool {
    let begins = ["/", "./", "../", "~/"].iter().any(|prefix| value.starts_with(prefix));
    begins || value == "." || value == ".." || value.to_lowercase().ends_with(".gguf")
}

fn resolve(value: &str, folder: &Path) -> PathBuf {
    match (value.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => folder.join(value),
    }
}

fn source(value: &str, folder: &Path) -> Result<Source, Failure> {
    let path = resolve(value, folder);
    if path.is_dir() {
        let failure = Failure::usage(format!("{} is a folder", path.display()));
        return Err(failure.hint("folders are not supported yet: name one GGUF file"));
    }
    if !path.is_file() {
        let message = format!("{} does not exist, or is no regular file", path.display());
        return Err(Failure::new(Exit::NotFound, message)
            .hint("relative paths start at the Modelfile's folder"));
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(Source { name: name.unwrap_or_else(|| value.to_owned()), path })
}

fn insert(sources: &mut Vec<Source>, source: Source) -> Result<(), Failure> {
    if sources.iter().any(|other| other.name == source.name) {
        return Err(Failure::usage(format!("two files are both called {}", source.name)));
    }
    sources.push(source);
    Ok(())
}

/// Sets a parameter by its text; one that may be given several times adds up.
fn set_parameter(
    map: &mut Map<String, Value>,
    name: &str,
    text: &str,
) -> Result<(), parameters::ParameterError> {
    let value = parameters::parse_text(name, text)?;
    match (map.get_mut(name), value) {
        (Some(Value::Array(list)), Value::Array(more)) => list.extend(more),
        (_, value) => drop(map.insert(name.to_owned(), value)),
    }
    Ok(())
}

fn add_license(license: &mut Option<License>, text: &str) {
    let mut texts = license.take().map(License::texts).unwrap_or_default();
    texts.push(text.to_owned());
    *license = Some(License::Many(texts));
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    /// A folder with two files and a folder in it.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.gguf"), "GGUF").unwrap();
        std::fs::write(folder.path().join("lora"), "GGUF").unwrap();
        std::fs::create_dir(folder.path().join("weights")).unwrap();
        folder
    }

    fn plan(text: &str) -> Result<Plan, Failure> {
        let parsed = dsk_modelfiles::parse(text);
        assert_eq!(parsed.diagnostics, []);
        Plan::new(&parsed.modelfile, folder().path())
    }

    fn refusal(text: &str) -> (Exit, String) {
        let failure = plan(text).unwrap_err();
        let message = failure.message.rsplit('/').next().unwrap_or_default().to_owned();
        (failure.exit, message)
    }

    #[test]
    fn every_field_reaches_the_request() {
        let plan = plan(
            "FROM smollm2:135m\nPARAMETER temperature 0.5\nPARAMETER stop a\nPARAMETER stop b\n\
             SYSTEM Be terse.\nTEMPLATE {{ .Prompt }}\nLICENSE one\nLICENSE two\n\
             MESSAGE user hi\nMESSAGE assistant hello\n",
        )
        .unwrap();
        let text = serde_json::to_string_pretty(&plan.request).unwrap();
        expect![[r#"
            {
              "model": "",
              "from": "smollm2:135m",
              "template": "{{ .Prompt }}",
              "license": [
                "one",
                "two"
              ],
              "system": "Be terse.",
              "parameters": {
                "temperature": 0.5,
                "stop": [
                  "a",
                  "b"
                ]
              },
              "messages": [
                {
                  "role": "user",
                  "content": "hi"
                },
                {
                  "role": "assistant",
                  "content": "hello"
                }
              ]
            }"#]]
        .assert_eq(&text);
    }

    #[test]
    fn files_are_sent_and_names_are_not() {
        let plan = plan("FROM ./model.gguf\nADAPTER lora\n").unwrap();
        let names: Vec<_> =
            plan.sources().into_iter().map(|(source, adapter)| (source.name, adapter)).collect();
        assert_eq!(names, [("model.gguf".to_owned(), false), ("lora".to_owned(), true)]);
        assert_eq!(plan.request.from, "");
    }

    #[test]
    fn a_folder_that_happens_to_be_called_like_the_model_is_not_meant() {
        assert_eq!(plan("FROM weights\n").unwrap().request.from, "weights");
    }

    #[test]
    fn refusals() {
        let cases = [
            ("FROM ./weights\n", Exit::Usage, "weights is a folder"),
            (
                "FROM ./absent.gguf\n",
                Exit::NotFound,
                "absent.gguf does not exist, or is no regular file",
            ),
            ("FROM a\nFROM b\n", Exit::Usage, "line 2: a second FROM names another model, b"),
            (
                "FROM model.gguf\nFROM ./model.gguf\n",
                Exit::Usage,
                "two files are both called model.gguf",
            ),
            ("FROM a\nDRAFT b\n", Exit::Usage, "line 2: DRAFT is not supported yet"),
        ];
        for (text, exit, message) in cases {
            assert_eq!(refusal(text), (exit, message.to_owned()), "{text}");
        }
    }
}
