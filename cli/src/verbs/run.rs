//! `dsk run`: chats with a model, or has it answer one prompt.

use std::io::Read as _;

use clap::Args;
use dsk_daemon_api::ollama::{ChatRequest, ShowRequest, Think};
use dsk_daemon_api::{Client, ErrorCode};
use dsk_modelfiles::parameters;
use serde_json::{Map, Value};

use super::pull;
use crate::args::{self, Shared};
use crate::chat::answer::{self, View};
use crate::chat::repl::Repl;
use crate::chat::session::{Role, Session, Turn};
use crate::connection::Connection;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::start;
use crate::terminal::Terminal;

/// The most that is read from a pipe, in bytes; more would not fit any model's context.
const STDIN_BYTES_MAX: u64 = 16 * 1024 * 1024;

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The model's name; it is pulled when it is not here
    model: String,
    /// The prompt; without one, a chat begins. What is piped in goes before it
    prompt: Vec<String>,
    /// How long the model stays in memory afterwards: 5m, 1h30m, 0, -1 for ever
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    keepalive: Option<String>,
    /// Show timings after each answer
    #[arg(long)]
    verbose: bool,
    /// Whether, and how hard, the model thinks first: true, false, low, medium, high, max
    #[arg(
        long,
        value_name = "LEVEL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = args::think,
    )]
    think: Option<Think>,
    /// Do not show what the model thinks
    #[arg(long)]
    hidethinking: bool,
    /// How adventurous the answer is; 0 always takes the likeliest token
    #[arg(long, value_name = "NUMBER")]
    temperature: Option<f64>,
    /// Any parameter of the model, as in a Modelfile; may be given several times
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = parameter)]
    parameters: Vec<(String, Value)>,
    /// Structured output (refused: not supported by this version)
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Allow a registry without TLS when the model is pulled
    #[arg(long)]
    insecure: bool,
    /// Do not wrap long lines at words
    #[arg(long)]
    nowordwrap: bool,
    /// Print the daemon's lines as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(
    shared: &Shared,
    args: RunArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    if args.format.is_some() {
        return Err(Failure::usage("--format: structured output is not supported by this version")
            .hint("ask for JSON in the prompt")
            .into());
    }
    let prompt = prompt(&args, terminal)?;
    let connection = Connection::open(shared)?;
    start::ensure_daemon(&connection, terminal).await?;
    ensure_model(&connection.client, &args, terminal).await?;
    match prompt {
        Some(prompt) => once(&connection.client, &args, prompt, terminal).await,
        None => {
            chat(&connection.client, &args, terminal).await?;
            Ok(Exit::Success)
        }
    }
}

/// The one prompt to answer, or `None` for a chat.
fn prompt(args: &RunArgs, terminal: &Terminal) -> anyhow::Result<Option<String>> {
    let typed = args.prompt.join(" ");
    if terminal.input_is_tty() {
        return Ok((!typed.is_empty()).then_some(typed));
    }
    let mut piped = String::new();
    std::io::stdin()
        .lock()
        .take(STDIN_BYTES_MAX + 1)
        .read_to_string(&mut piped)
        .map_err(|error| Failure::usage(format!("the piped input is not a text: {error}")))?;
    if piped.len() as u64 > STDIN_BYTES_MAX {
        let message = format!("the piped input is longer than {STDIN_BYTES_MAX} bytes");
        return Err(Failure::usage(message).into());
    }
    Ok(Some(join(&piped, &typed)))
}

/// What is piped in goes before what is typed.
fn join(piped: &str, typed: &str) -> String {
    match (piped.trim(), typed) {
        ("", typed) => typed.to_owned(),
        (piped, "") => piped.to_owned(),
        (piped, typed) => format!("{piped}\n\n{typed}"),
    }
}

/// Pulls the model unless it is here.
async fn ensure_model(
    client: &Client,
    args: &RunArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<()> {
    let request = ShowRequest { model: args.model.clone(), ..ShowRequest::default() };
    match client.show(&request).await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(ErrorCode::ModelNotFound) => {
            pull::pull_missing(client, &args.model, args.insecure, terminal).await
        }
        Err(error) => Err(error.into()),
    }
}

/// Parses `NAME=VALUE` into the parameter's type.
fn parameter(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let name = name.trim().to_lowercase();
    let value = parameters::parse_text(&name, value).map_err(|error| error.to_string())?;
    Ok((name, value))
}

/// The parameters of the command line; lists (`stop`) add up.
fn options(args: &RunArgs) -> Map<String, Value> {
    let mut options = Map::new();
    if let Some(temperature) = args.temperature {
        options.insert("temperature".to_owned(), temperature.into());
    }
    for (name, value) in &args.parameters {
        match (options.get_mut(name), value) {
            (Some(Value::Array(list)), Value::Array(more)) => list.extend(more.iter().cloned()),
            (_, value) => drop(options.insert(name.clone(), value.clone())),
        }
    }
    options
}

fn request(args: &RunArgs) -> ChatRequest {
    ChatRequest {
        model: args.model.clone(),
        options: options(args),
        keep_alive: args.keepalive.as_deref().map(keep_alive),
        think: args.think,
        ..ChatRequest::default()
    }
}

/// Seconds as a number, anything else as the daemon's duration text.
fn keep_alive(text: &str) -> Value {
    text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from)
}

async fn once(
    client: &Client,
    args: &RunArgs,
    prompt: String,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    // An empty prompt loads the model, as in the API.
    let messages = match prompt.is_empty() {
        true => Vec::new(),
        false => vec![answer::message(&Turn::new(Role::User, prompt))],
    };
    let wrap = (!args.nowordwrap && terminal.out_is_tty()).then(|| terminal.columns());
    let view = View { hide_thinking: args.hidethinking, wrap, json: args.json };
    let request = ChatRequest { messages, ..request(args) };
    let answer = answer::ask(client, &request, view, terminal).await?;
    if let Some(metrics) = answer.metrics.filter(|_| args.verbose) {
        terminal.note(&format!("\n{}", answer::timings(&metrics)));
    }
    Ok(if answer.interrupted { Exit::Interrupted } else { Exit::Success })
}

async fn chat(client: &Client, args: &RunArgs, terminal: &mut Terminal) -> anyhow::Result<()> {
    if args.json {
        let failure = Failure::usage("--json needs a prompt: a chat is for a person");
        return Err(failure.hint("dsk run MODEL PROMPT --json").into());
    }
    let mut session = Session::new(&args.model);
    session.verbose = args.verbose;
    session.wordwrap = !args.nowordwrap;
    session.think = args.think;
    session.options = options(args);
    let base = request(args);
    let hide_thinking = args.hidethinking;
    Repl { client, session, base, hide_thinking, terminal }.chat().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn piped_text_goes_first() {
        let cases = [
            ("", "hi", "hi"),
            ("text\n", "", "text"),
            ("text\n", "sum it up", "text\n\nsum it up"),
            ("\n", "", ""),
        ];
        for (piped, typed, expected) in cases {
            assert_eq!(join(piped, typed), expected);
        }
    }

    #[test]
    fn parameters_are_typed_and_lists_add_up() {
        use clap::Parser as _;
        let line =
            "dsk run m --temperature 0 --parameter stop=a --parameter stop=b --parameter seed=7";
        let cli = args::Cli::try_parse_from(line.split(' ')).unwrap();
        let args::Verb::Run(args) = cli.verb else { panic!("not run") };
        let text = serde_json::to_string(&options(&args)).unwrap();
        assert_eq!(text, r#"{"temperature":0.0,"stop":["a","b"],"seed":7}"#);
        assert!(parameter("temperature=warm").is_err() && parameter("seed").is_err());
    }

    #[test]
    fn keep_alive_is_a_number_of_seconds_or_a_text() {
        let cases = [("300", Value::from(300)), ("-1", Value::from(-1)), ("5m", "5m".into())];
        for (text, expected) in cases {
            assert_eq!(keep_alive(text), expected);
        }
    }
}
