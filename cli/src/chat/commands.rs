//! The chat's slash commands: text to values, and the help that lists them.

use dsk_daemon_api::ollama::Think;

/// One parsed slash command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Set(Setting),
    Show(Facet),
    Save(String),
    Load(String),
    Clear,
    List,
    Exit,
    Help(Option<String>),
}

/// What `/set` changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Setting {
    Parameter { name: String, value: String },
    System(String),
    History(bool),
    WordWrap(bool),
    Verbose(bool),
    Think(Think),
}

/// What `/show` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Facet {
    Info,
    License,
    Modelfile,
    Parameters,
    System,
    Template,
}

/// Parses a line that begins with `/`. The error is the message to show.
pub(crate) fn parse(line: &str) -> Result<Command, String> {
    let (word, rest) = split_word(line.trim());
    match word {
        "/set" => set(rest).map(Command::Set),
        "/show" => show(rest).map(Command::Show),
        "/save" => name(rest, "/save").map(Command::Save),
        "/load" => name(rest, "/load").map(Command::Load),
        "/clear" => Ok(Command::Clear),
        "/list" => Ok(Command::List),
        "/bye" | "/exit" => Ok(Command::Exit),
        "/?" | "/help" => Ok(Command::Help(
            Some(rest.trim_start_matches('/').to_owned()).filter(|topic| !topic.is_empty()),
        )),
        unknown => Err(format!("Unknown command '{unknown}'. Type /? for help")),
    }
}

fn set(rest: &str) -> Result<Setting, String> {
    let (what, value) = split_word(rest);
    match what {
        "parameter" => parameter(value),
        "system" if value.is_empty() => Err("Usage: /set system <message>".to_owned()),
        "system" => Ok(Setting::System(value.to_owned())),
        "history" => Ok(Setting::History(true)),
        "nohistory" => Ok(Setting::History(false)),
        "wordwrap" => Ok(Setting::WordWrap(true)),
        "nowordwrap" => Ok(Setting::WordWrap(false)),
        "verbose" => Ok(Setting::Verbose(true)),
        "quiet" => Ok(Setting::Verbose(false)),
        "think" => think(value),
        "nothink" => Ok(Setting::Think(Think::Switch(false))),
        "format" | "noformat" => {
            Err("Structured output (/set format) is not supported by this version".to_owned())
        }
        "" => Err(help(Some("set"))),
        unknown => Err(format!("Unknown setting '{unknown}'. Type /? set for the list")),
    }
}

fn parameter(rest: &str) -> Result<Setting, String> {
    let (name, value) = split_word(rest);
    if name.is_empty() || value.is_empty() {
        return Err("Usage: /set parameter <name> <value>".to_owned());
    }
    Ok(Setting::Parameter { name: name.to_owned(), value: value.to_owned() })
}

fn think(level: &str) -> Result<Setting, String> {
    let level = if level.is_empty() { "true" } else { level };
    crate::args::think(level).map(Setting::Think)
}

fn show(rest: &str) -> Result<Facet, String> {
    match rest {
        "info" => Ok(Facet::Info),
        "license" => Ok(Facet::License),
        "modelfile" => Ok(Facet::Modelfile),
        "parameters" => Ok(Facet::Parameters),
        "system" => Ok(Facet::System),
        "template" => Ok(Facet::Template),
        "" => Err(help(Some("show"))),
        unknown => Err(format!("Unknown facet '{unknown}'. Type /? show for the list")),
    }
}

fn name(rest: &str, command: &str) -> Result<String, String> {
    if rest.is_empty() || rest.contains(char::is_whitespace) {
        return Err(format!("Usage: {command} <model name>"));
    }
    Ok(rest.to_owned())
}

/// The first word, and what follows it without the space around it.
fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim()),
        None => (text, ""),
    }
}

const HELP: &str = "\
Available commands:
  /set            Set session variables
  /show           Show model information
  /load <model>   Load a model, or a session that was saved
  /save <model>   Save this session as a model
  /list           List the models
  /clear          Clear the session's messages
  /bye            Exit
  /?, /help       Help for a command
  /? shortcuts    Help for keyboard shortcuts

Use \"\"\" to begin and end a message of several lines.";

const HELP_SET: &str = "\
Available settings:
  /set parameter <name> <value>   Set a parameter
  /set system <message>           Set the system message
  /set history                    Keep a history of your lines
  /set nohistory                  Keep no history
  /set wordwrap                   Wrap long lines at words
  /set nowordwrap                 Leave long lines alone
  /set verbose                    Show timings after each answer
  /set quiet                      Show no timings
  /set think [low|medium|high]    Let the model think before it answers
  /set nothink                    Let it answer at once";

const HELP_SHOW: &str = "\
Available information:
  /show info         Details of the model
  /show license      Its licence
  /show modelfile    Its Modelfile
  /show parameters   Its parameters, and this session's
  /show system       The system message
  /show template     The prompt template";

const HELP_SHORTCUTS: &str = "\
Keyboard shortcuts:
  Ctrl + a   Move to the beginning of the line (Home)
  Ctrl + e   Move to the end of the line (End)
  Alt + b    Move back one word
  Alt + f    Move forward one word
  Ctrl + k   Delete what follows the cursor
  Ctrl + u   Delete what precedes the cursor
  Ctrl + w   Delete the word before the cursor
  Ctrl + r   Search the history
  Ctrl + l   Clear the screen
  Ctrl + c   Stop the answer
  Ctrl + d   Exit";

/// The help text for a topic.
pub(crate) fn help(topic: Option<&str>) -> String {
    match topic {
        Some("set") => HELP_SET,
        Some("show") => HELP_SHOW,
        Some("shortcuts") => HELP_SHORTCUTS,
        _ => HELP,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(line: &str, expected: Expect) {
        let text = match parse(line) {
            Ok(command) => format!("{command:?}"),
            Err(message) => format!("message: {}", message.lines().next().unwrap_or_default()),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn settings() {
        check(
            "/set parameter  temperature 0.2 ",
            expect![[r#"Set(Parameter { name: "temperature", value: "0.2" })"#]],
        );
        check("/set system You are  terse.", expect![[r#"Set(System("You are  terse."))"#]]);
        check("/set nohistory", expect!["Set(History(false))"]);
        check("/set think", expect!["Set(Think(Switch(true)))"]);
        check(
            "/set think=",
            expect!["message: Unknown setting 'think='. Type /? set for the list"],
        );
        check("/set think high", expect!["Set(Think(Level(High)))"]);
        check(
            "/set think hard",
            expect!["message: 'hard' is none of true, false, low, medium, high, max"],
        );
        check("/set", expect!["message: Available settings:"]);
        check("/set parameter seed", expect!["message: Usage: /set parameter <name> <value>"]);
        check(
            "/set format json",
            expect!["message: Structured output (/set format) is not supported by this version"],
        );
    }

    #[test]
    fn the_other_commands() {
        check("/show info", expect!["Show(Info)"]);
        check("/show", expect!["message: Available information:"]);
        check("/show all", expect!["message: Unknown facet 'all'. Type /? show for the list"]);
        check("/save mine:1", expect![[r#"Save("mine:1")"#]]);
        check("/save two words", expect!["message: Usage: /save <model name>"]);
        check("/load", expect!["message: Usage: /load <model name>"]);
        check("/exit", expect!["Exit"]);
        check("/help", expect!["Help(None)"]);
        check("/? /set", expect![[r#"Help(Some("set"))"#]]);
        check("/sett", expect!["message: Unknown command '/sett'. Type /? for help"]);
        check("/", expect!["message: Unknown command '/'. Type /? for help"]);
    }

    #[test]
    fn every_help_topic_has_its_own_text() {
        let topics = [None, Some("set"), Some("show"), Some("shortcuts")];
        let texts: std::collections::BTreeSet<String> = topics.map(help).into_iter().collect();
        assert_eq!(texts.len(), 4);
        assert!(texts.iter().all(|text| text.lines().all(|line| line.len() <= 80)));
    }
}
