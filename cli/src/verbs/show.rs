//! `dsk show`: what a model is. The chat's `/show` prints the same.

use clap::Args;
use dsk_daemon_api::ollama::{ShowRequest, ShowResponse};
use serde_json::Value;

use crate::args::Shared;
use crate::chat::commands::Facet;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::table;
use crate::terminal::Terminal;

/// Lines of a licence or a system message that the overview shows.
const EXCERPT_LINES: usize = 3;
/// Characters of a metadata value that the overview shows.
const VALUE_CHARACTERS: usize = 100;

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The model's name
    model: String,
    /// Only the licence
    #[arg(long, group = "facet")]
    license: bool,
    /// Only the Modelfile
    #[arg(long, group = "facet")]
    modelfile: bool,
    /// Only the parameters
    #[arg(long, group = "facet")]
    parameters: bool,
    /// Only the prompt template
    #[arg(long, group = "facet")]
    template: bool,
    /// Only the system message
    #[arg(long, group = "facet")]
    system: bool,
    /// The file's metadata and tensors as well
    #[arg(long, short)]
    verbose: bool,
    /// Print the daemon's answer as JSON
    #[arg(long, conflicts_with = "facet")]
    json: bool,
}

impl ShowArgs {
    fn facet(&self) -> Facet {
        match self {
            ShowArgs { license: true, .. } => Facet::License,
            ShowArgs { modelfile: true, .. } => Facet::Modelfile,
            ShowArgs { parameters: true, .. } => Facet::Parameters,
            ShowArgs { template: true, .. } => Facet::Template,
            ShowArgs { system: true, .. } => Facet::System,
            _ => Facet::Info,
        }
    }
}

pub(crate) async fn show(
    shared: &Shared,
    args: &ShowArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let client = Connection::open(shared)?.client;
    let request =
        ShowRequest { model: args.model.clone(), verbose: args.verbose, ..ShowRequest::default() };
    let shown = client.show(&request).await?;
    if args.json {
        terminal.json_pretty(&shown)?;
        return Ok(Exit::Success);
    }
    let text = render(&shown, args.facet(), args.verbose).ok_or_else(|| {
        let facet = format!("{:?}", args.facet()).to_lowercase();
        Failure::new(Exit::NotFound, format!("model '{}' has no {facet}", args.model))
    })?;
    terminal.data(&text)?;
    Ok(Exit::Success)
}

/// One facet of a model as text that ends its last line; `None` where the model has none.
pub(crate) fn render(shown: &ShowResponse, facet: Facet, verbose: bool) -> Option<String> {
    let text = match facet {
        Facet::Info => return Some(overview(shown, verbose)),
        Facet::License => &shown.license,
        Facet::Modelfile => &shown.modelfile,
        Facet::Parameters => &shown.parameters,
        Facet::System => &shown.system,
        Facet::Template => &shown.template,
    };
    (!text.is_empty()).then(|| format!("{}\n", text.trim_end_matches('\n')))
}

fn overview(shown: &ShowResponse, verbose: bool) -> String {
    let mut blocks = vec![table::block("Model", &facts(shown))];
    let single = |text: &str| (text.to_owned(), String::new());
    if !shown.capabilities.is_empty() {
        let rows: Vec<_> = shown.capabilities.iter().map(|name| single(name)).collect();
        blocks.push(table::block("Capabilities", &rows));
    }
    if !shown.parameters.is_empty() {
        blocks.push(table::block("Parameters", &parameters(&shown.parameters)));
    }
    for (title, text) in [("System", &shown.system), ("License", &shown.license)] {
        if !text.trim().is_empty() {
            let lines: Vec<_> = excerpt(text).iter().map(|line| single(line)).collect();
            blocks.push(table::block(title, &lines));
        }
    }
    if verbose {
        blocks.extend(inside(shown));
    }
    blocks.join("\n")
}

fn facts(shown: &ShowResponse) -> Vec<(String, String)> {
    let architecture =
        info_text(shown, "general.architecture").unwrap_or_else(|| shown.details.family.clone());
    let of_architecture = |name: &str| info_text(shown, &format!("{architecture}.{name}"));
    let rows = [
        ("architecture", Some(architecture.clone())),
        ("parameters", Some(shown.details.parameter_size.clone())),
        ("context length", of_architecture("context_length")),
        ("embedding length", of_architecture("embedding_length")),
        ("quantization", Some(shown.details.quantization_level.clone())),
        ("requires", Some(shown.requires.clone())),
    ];
    rows.into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value.filter(|v| !v.is_empty())?)))
        .collect()
}

fn info_text(shown: &ShowResponse, key: &str) -> Option<String> {
    shown.model_info.get(key).map(plain)
}

/// A metadata value without JSON's quotes.
fn plain(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(VALUE_CHARACTERS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// The daemon's parameter rows, `name   value`, as pairs.
fn parameters(text: &str) -> Vec<(String, String)> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| match line.split_once(char::is_whitespace) {
            Some((name, value)) => (name.to_owned(), value.trim().to_owned()),
            None => (line.to_owned(), String::new()),
        })
        .collect()
}

fn excerpt(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut shown: Vec<String> =
        lines.iter().take(EXCERPT_LINES).map(|line| (*line).to_owned()).collect();
    if lines.len() > EXCERPT_LINES {
        shown.push("...".to_owned());
    }
    shown
}

/// The blocks of `--verbose`: metadata and tensors of the model file.
fn inside(shown: &ShowResponse) -> Vec<String> {
    let metadata: Vec<_> =
        shown.model_info.iter().map(|(key, value)| (key.clone(), plain(value))).collect();
    let tensors: Vec<_> = shown
        .tensors
        .iter()
        .map(|tensor| (tensor.name.clone(), format!("{:<6} {:?}", tensor.kind, tensor.shape)))
        .collect();
    [("Metadata", metadata), ("Tensors", tensors)]
        .into_iter()
        .filter(|(_, rows)| !rows.is_empty())
        .map(|(title, rows)| table::block(title, &rows))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsk_daemon_api::ollama::{Details, Tensor};
    use expect_test::expect;
    use serde_json::json;

    fn example() -> ShowResponse {
        let info = json!({
            "general.architecture": "llama",
            "llama.context_length": 8192,
            "llama.embedding_length": 576,
            "tokenizer.ggml.tokens": null,
        });
        ShowResponse {
            license: "\n   Apache License\n  Version 2.0, January 2004\n\nx\ny\n".into(),
            modelfile: "FROM smollm2:135m\n".into(),
            parameters: "stop                           \"<|im_start|>\"\ntemperature    0.2"
                .into(),
            details: Details {
                family: "llama".into(),
                parameter_size: "134.52M".into(),
                quantization_level: "F16".into(),
                ..Details::default()
            },
            model_info: serde_json::from_value(info).unwrap(),
            tensors: vec![Tensor {
                name: "output_norm.weight".into(),
                kind: "F32".into(),
                shape: vec![576],
            }],
            capabilities: vec!["completion".into(), "tools".into()],
            ..ShowResponse::default()
        }
    }

    #[test]
    fn the_overview() {
        expect![[r#"
            $ dsk show -v
              Model
                architecture        llama
                parameters          134.52M
                context length      8192
                embedding length    576
                quantization        F16

              Capabilities
                completion
                tools

              Parameters
                stop           "<|im_start|>"
                temperature    0.2

              License
                Apache License
                Version 2.0, January 2004
                x
                ...

              Metadata
                general.architecture      llama
                llama.context_length      8192
                llama.embedding_length    576
                tokenizer.ggml.tokens     null

              Tensors
                output_norm.weight    F32    [576]
        "#]]
        .assert_eq(&format!("$ dsk show -v\n{}", overview(&example(), true)));
    }

    #[test]
    fn one_facet_or_nothing() {
        let shown = example();
        let modelfile = render(&shown, Facet::Modelfile, false);
        assert_eq!(modelfile.as_deref(), Some("FROM smollm2:135m\n"));
        assert_eq!(render(&shown, Facet::System, false), None);
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let text = plain(&Value::String("é".repeat(VALUE_CHARACTERS + 1)));
        assert_eq!(text, format!("{}...", "é".repeat(VALUE_CHARACTERS)));
    }
}
