//! A chat's state and what each line typed does to it. No terminal, no network: the caller does
//! what the returned [`Step`] says.

use dsk_daemon_api::ollama::Think;
use serde_json::{Map, Value};

use super::commands::{self, Command, Facet, Setting};

/// Longest message a person may type or paste, in bytes.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The fence around a message of several lines.
const FENCE: &str = "\"\"\"";

/// Who said a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    System,
    User,
    Assistant,
}

impl Role {
    /// Its name on the wire.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// One message of the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) role: Role,
    pub(crate) content: String,
    pub(crate) thinking: Option<String>,
}

impl Turn {
    pub(crate) fn new(role: Role, content: impl Into<String>) -> Turn {
        Turn { role, content: content.into(), thinking: None }
    }
}

/// What the caller has to do after a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing but read the next line.
    Next,
    /// Print this and read the next line.
    Say(String),
    /// Send the conversation and print the answer.
    Ask,
    Show(Facet),
    Save(String),
    Load(String),
    List,
    Exit,
}

/// The conversation and its settings.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) model: String,
    pub(crate) options: Map<String, Value>,
    pub(crate) think: Option<Think>,
    pub(crate) verbose: bool,
    pub(crate) wordwrap: bool,
    pub(crate) history: bool,
    system: Option<String>,
    turns: Vec<Turn>,
    fence: Option<Fence>,
}

/// A message of several lines that has not ended yet.
#[derive(Debug, Clone)]
struct Fence {
    purpose: Purpose,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Message,
    System,
}

impl Session {
    pub(crate) fn new(model: impl Into<String>) -> Session {
        Session {
            model: model.into(),
            options: Map::new(),
            think: None,
            verbose: false,
            wordwrap: true,
            history: true,
            system: None,
            turns: Vec::new(),
            fence: None,
        }
    }

    /// The system message of this session, where one was set.
    pub(crate) fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// What was said, without the system message.
    pub(crate) fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// The conversation as it is sent: the system message, then the turns.
    pub(crate) fn conversation(&self) -> Vec<Turn> {
        let system = self.system.as_ref().map(|text| Turn::new(Role::System, text.clone()));
        system.into_iter().chain(self.turns.iter().cloned()).collect()
    }

    /// Whether the next line continues a message.
    pub(crate) fn in_message(&self) -> bool {
        self.fence.is_some()
    }

    /// Forgets a message that was begun (Ctrl-C while typing it).
    pub(crate) fn abandon_message(&mut self) {
        self.fence = None;
    }

    /// Takes one line as typed and says what to do.
    pub(crate) fn line(&mut self, line: &str) -> Step {
        if let Some(fence) = self.fence.take() {
            return self.continue_message(fence, line);
        }
        let trimmed = line.trim();
        if trimmed.is_empty() {
            return Step::Next;
        }
        if let Some(rest) = trimmed.strip_prefix(FENCE) {
            return self.open(Purpose::Message, rest);
        }
        if trimmed.starts_with('/') && !looks_like_path(trimmed) {
            return match commands::parse(trimmed) {
                Ok(command) => self.command(command),
                Err(message) => Step::Say(message),
            };
        }
        self.finish(Purpose::Message, line.to_owned())
    }

    /// Records the model's answer. An answer that was stopped or failed before its first word
    /// takes the question back, so that the next request does not ask two things at once.
    pub(crate) fn answered(&mut self, content: String, thinking: String) {
        if content.is_empty() && thinking.is_empty() {
            self.turns.pop_if(|turn| turn.role == Role::User);
            return;
        }
        let thinking = Some(thinking).filter(|text| !text.is_empty());
        self.turns.push(Turn { role: Role::Assistant, content, thinking });
    }

    /// Switches to another model, with the messages that it brings.
    pub(crate) fn switch(&mut self, model: impl Into<String>) {
        self.model = model.into();
        self.turns.clear();
        self.system = None;
        self.options.clear();
    }

    fn open(&mut self, purpose: Purpose, rest: &str) -> Step {
        let fence = Fence { purpose, text: String::new() };
        match rest.strip_suffix(FENCE) {
            Some(whole) => self.finish(purpose, whole.to_owned()),
            None if rest.is_empty() => self.keep(fence),
            None => self.continue_message(fence, rest),
        }
    }

    fn continue_message(&mut self, mut fence: Fence, line: &str) -> Step {
        if fence.text.len() + line.len() > MESSAGE_BYTES_MAX {
            return Step::Say(format!("A message has at most {MESSAGE_BYTES_MAX} bytes"));
        }
        match line.trim_end().strip_suffix(FENCE) {
            Some(last) => {
                fence.text.push_str(last);
                self.finish(fence.purpose, fence.text)
            }
            None => {
                fence.text.push_str(line);
                fence.text.push('\n');
                self.keep(fence)
            }
        }
    }

    fn keep(&mut self, fence: Fence) -> Step {
        self.fence = Some(fence);
        Step::Next
    }

    fn finish(&mut self, purpose: Purpose, text: String) -> Step {
        let text = text.trim().to_owned();
        match purpose {
            _ if text.is_empty() => Step::Next,
            Purpose::Message => {
                self.turns.push(Turn::new(Role::User, text));
                Step::Ask
            }
            Purpose::System => {
                self.system = Some(text);
                Step::Say("Set system message.".to_owned())
            }
        }
    }

    fn command(&mut self, command: Command) -> Step {
        match command {
            Command::Set(setting) => self.set(setting),
            Command::Show(Facet::System) => Step::Say(self.system_text()),
            Command::Show(facet) => Step::Show(facet),
            Command::Save(name) => Step::Save(name),
            Command::Load(name) => Step::Load(name),
            Command::Clear => {
                self.turns.clear();
                self.system = None;
                Step::Say("Cleared session context.".to_owned())
            }
            Command::List => Step::List,
            Command::Exit => Step::Exit,
            Command::Help(topic) => Step::Say(commands::help(topic.as_deref())),
        }
    }

    fn system_text(&self) -> String {
        self.system.clone().unwrap_or_else(|| "No system message is set in this session.".into())
    }

    fn set(&mut self, setting: Setting) -> Step {
        let said = match setting {
            Setting::Parameter { name, value } => return self.set_parameter(&name, &value),
            Setting::System(text) => return self.set_system(&text),
            Setting::History(on) => {
                self.history = on;
                if on { "Keeping history." } else { "Keeping no history." }
            }
            Setting::WordWrap(on) => {
                self.wordwrap = on;
                if on { "Set 'wordwrap' mode." } else { "Set 'nowordwrap' mode." }
            }
            Setting::Verbose(on) => {
                self.verbose = on;
                if on { "Set 'verbose' mode." } else { "Set 'quiet' mode." }
            }
            Setting::Think(think) => {
                self.think = Some(think);
                if think.enabled() { "Set 'think' mode." } else { "Set 'nothink' mode." }
            }
        };
        Step::Say(said.to_owned())
    }

    fn set_system(&mut self, text: &str) -> Step {
        match text.strip_prefix(FENCE) {
            Some(rest) => self.open(Purpose::System, rest),
            None => self.finish(Purpose::System, text.to_owned()),
        }
    }

    fn set_parameter(&mut self, name: &str, text: &str) -> Step {
        let name = name.to_lowercase();
        let value = match dsk_modelfiles::parameters::parse_text(&name, text) {
            Ok(value) => value,
            Err(error) => return Step::Say(format!("Couldn't set parameter: {error}")),
        };
        let said = format!("Set parameter '{name}' to '{text}'");
        match (self.options.get_mut(&name), value) {
            // `stop` may be set several times; each adds one sequence.
            (Some(Value::Array(list)), Value::Array(more)) => list.extend(more),
            (_, value) => drop(self.options.insert(name, value)),
        }
        Step::Say(said)
    }
}

/// `/home/me/cat.png what is this?` is a message, not a command: its first word has a second slash.
fn looks_like_path(line: &str) -> bool {
    line.split_whitespace().next().is_some_and(|word| word[1..].contains('/'))
}

#[cfg(test)]
mod tests;
