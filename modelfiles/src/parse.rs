//! The Modelfile parser: one pass over lines, never failing, collecting diagnostics.
//!
//! A fault costs its own instruction only; the rest of the file is still read, so one run shows
//! every fault.

use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::encoding;
use crate::modelfile::{Instruction, InstructionKind, Modelfile, ParameterText};
use crate::parameters;
use crate::template::Template;

mod cursor;
#[cfg(test)]
mod tests;

use cursor::{Cursor, Value};

/// Bytes of text that are read at all.
const TEXT_BYTES_MAX: usize = 16 << 20;
/// Instructions in one file.
const INSTRUCTIONS_MAX: usize = 10_000;
/// Diagnostics that are kept; after these the file is not worth reading on.
const DIAGNOSTICS_MAX: usize = 100;

/// Every instruction's word.
const WORDS: [&str; 11] = [
    "FROM",
    "PARAMETER",
    "TEMPLATE",
    "SYSTEM",
    "ADAPTER",
    "LICENSE",
    "MESSAGE",
    "DRAFT",
    "RENDERER",
    "PARSER",
    "REQUIRES",
];
/// Who may speak in a `MESSAGE`.
const ROLES: [&str; 3] = ["system", "user", "assistant"];

/// What a text came to: as much of a Modelfile as could be read, and everything wrong with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The instructions that were understood.
    pub modelfile: Modelfile,
    /// The faults, in the order of the text. Empty when the Modelfile can be used.
    pub diagnostics: Vec<Diagnostic>,
}

/// Parses the bytes of a Modelfile: UTF-8, or UTF-16 with a byte order mark.
pub fn parse_bytes(bytes: &[u8]) -> Parsed {
    if bytes.len() > 2 * TEXT_BYTES_MAX {
        return refused(too_large(bytes.len()));
    }
    match encoding::decode(bytes) {
        Ok(text) => parse(&text),
        Err(reason) => refused(reason),
    }
}

/// Parses the text of a Modelfile.
pub fn parse(text: &str) -> Parsed {
    if text.len() > TEXT_BYTES_MAX {
        return refused(too_large(text.len()));
    }
    // Line ends become line feeds, so that a file written on Windows makes the same prompts.
    let text = line_feeds(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut parser = Parser { cursor: Cursor::new(&text), parsed: Parsed::empty() };
    parser.run();
    parser.parsed
}

/// The text with every line ended by a line feed alone.
fn line_feeds(text: &str) -> String {
    match text.rsplit_once('\n') {
        Some((lines, last)) if lines.contains('\r') => {
            let mut out = String::with_capacity(text.len());
            for line in lines.split('\n') {
                out.push_str(line.trim_end_matches('\r'));
                out.push('\n');
            }
            out + last
        }
        _ => String::from(text),
    }
}

impl Parsed {
    fn empty() -> Parsed {
        Parsed { modelfile: Modelfile::default(), diagnostics: Vec::new() }
    }
}

fn refused(message: String) -> Parsed {
    let diagnostic = Diagnostic { line: 1, column: 1, message, hint: None };
    Parsed { diagnostics: vec![diagnostic], ..Parsed::empty() }
}

fn too_large(bytes: usize) -> String {
    format!("a Modelfile of {bytes} bytes is larger than the limit of {TEXT_BYTES_MAX}")
}

/// A place in the text: line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    line: u32,
    column: u32,
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    parsed: Parsed,
}

impl<'a> Parser<'a> {
    fn run(&mut self) {
        while self.cursor.next_instruction() {
            if self.parsed.diagnostics.len() >= DIAGNOSTICS_MAX {
                let place = self.cursor.place();
                return self.report(
                    place,
                    String::from("too many faults; the rest is not read"),
                    None,
                );
            }
            if self.parsed.modelfile.instructions.len() >= INSTRUCTIONS_MAX {
                let message = format!("more than {INSTRUCTIONS_MAX} instructions");
                return self.report(self.cursor.place(), message, None);
            }
            self.instruction();
        }
        if self.parsed.modelfile.from().next().is_none() && !self.parsed.is_about_from() {
            let place = Place { line: 1, column: 1 };
            let hint = "begin with FROM and a model's name or a GGUF file";
            self.report(place, String::from("no FROM instruction"), Some(hint.into()));
        }
    }

    fn report(&mut self, place: Place, message: String, hint: Option<String>) {
        let Place { line, column } = place;
        self.parsed.diagnostics.push(Diagnostic { line, column, message, hint });
    }

    fn instruction(&mut self) {
        let place = self.cursor.place();
        let word = self.cursor.word();
        let Some(known) = WORDS.iter().find(|known| known.eq_ignore_ascii_case(word)) else {
            return self.unknown_instruction(place, word);
        };
        let kind = match *known {
            "PARAMETER" => self.parameter(),
            "MESSAGE" => self.message(),
            known => self.simple(known),
        };
        if let Some(kind) = kind {
            let Place { line, column } = place;
            self.parsed.modelfile.instructions.push(Instruction { line, column, kind });
        }
    }

    /// Reports the word and steps over its value, quotes and all, so that it causes no more noise.
    fn unknown_instruction(&mut self, place: Place, word: &str) {
        let hint = did_you_mean(word, WORDS.into_iter())
            .map(|near| format!("did you mean {near}?"))
            .unwrap_or_else(|| format!("instructions are {}", WORDS.join(", ")));
        self.report(place, format!("unknown instruction `{}`", shown(word)), Some(hint));
        self.cursor.value();
    }

    /// An instruction that is a word and a value.
    fn simple(&mut self, word: &'static str) -> Option<InstructionKind> {
        let (place, text) = self.value(word)?;
        match word {
            "TEMPLATE" => self.check_template(place, &text),
            "REQUIRES" => self.check_version(place, &text),
            "FROM" | "ADAPTER" | "DRAFT" if text.trim().is_empty() => {
                self.report(place, format!("{word} needs a value"), None);
                return None;
            }
            _ => {}
        }
        Some(match word {
            "FROM" => InstructionKind::From(text),
            "TEMPLATE" => InstructionKind::Template(text),
            "SYSTEM" => InstructionKind::System(text),
            "ADAPTER" => InstructionKind::Adapter(text),
            "LICENSE" => InstructionKind::License(text),
            "DRAFT" => InstructionKind::Draft(text),
            "RENDERER" => InstructionKind::Renderer(text),
            "PARSER" => InstructionKind::Parser(text),
            _ => InstructionKind::Requires(text),
        })
    }

    /// The value on the rest of the line (or lines), reporting its absence.
    fn value(&mut self, word: &str) -> Option<(Place, String)> {
        self.cursor.skip_blanks();
        let place = self.cursor.place();
        match self.cursor.value() {
            Value::Text(text) => Some((place, text)),
            Value::Missing => {
                self.report(place, format!("{word} needs a value"), None);
                None
            }
            Value::Unterminated(quote) => {
                let hint = format!("end the text with {quote} at the end of a line");
                self.report(place, format!("{word}: the quoted text never ends"), Some(hint));
                None
            }
        }
    }

    fn parameter(&mut self) -> Option<InstructionKind> {
        self.cursor.skip_blanks();
        let place = self.cursor.place();
        let name = self.cursor.word().to_ascii_lowercase();
        if name.is_empty() {
            self.report(place, String::from("PARAMETER needs a name and a value"), None);
            return None;
        }
        let (value_place, text) = self.value(&format!("PARAMETER {}", shown(&name)))?;
        if parameters::find(&name).is_none() {
            let hint = did_you_mean(&name, parameters::all().iter().map(|known| known.name))
                .map(|near| format!("did you mean {near}?"));
            self.report(place, format!("unknown parameter `{}`", shown(&name)), hint);
            return None;
        }
        if let Err(error) = parameters::parse_text(&name, &text) {
            self.report(value_place, error.to_string(), None);
            return None;
        }
        Some(InstructionKind::Parameter { name, value: ParameterText(text) })
    }

    fn message(&mut self) -> Option<InstructionKind> {
        self.cursor.skip_blanks();
        let place = self.cursor.place();
        let role = self.cursor.word().to_ascii_lowercase();
        let value = self.value("MESSAGE");
        if !ROLES.contains(&role.as_str()) {
            let hint = did_you_mean(&role, ROLES.into_iter()).map_or_else(
                || format!("roles are {}", ROLES.join(", ")),
                |r| format!("did you mean {r}?"),
            );
            self.report(place, format!("unknown role `{}` in MESSAGE", shown(&role)), Some(hint));
            return None;
        }
        Some(InstructionKind::Message { role, content: value?.1 })
    }

    fn check_template(&mut self, place: Place, text: &str) {
        if let Err(error) = Template::detect(text) {
            self.report(place, format!("TEMPLATE: {error}"), None);
        }
    }

    fn check_version(&mut self, place: Place, text: &str) {
        let parts: Vec<&str> = text.strip_prefix('v').unwrap_or(text).split('.').collect();
        let number = |part: &&str| part.parse::<u32>().is_ok();
        if parts.len() != 3 || !parts.iter().all(number) {
            let hint = Some(String::from("write it as 1.2.3"));
            self.report(place, format!("REQUIRES: `{}` is no version", shown(text)), hint);
        }
    }
}

impl Parsed {
    /// Whether a fault already tells of a `FROM`, so that its absence needs no second one.
    fn is_about_from(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| {
            diagnostic.message.starts_with("FROM")
                || diagnostic.hint.as_deref() == Some("did you mean FROM?")
        })
    }
}

/// A word of the text, short enough for a message.
fn shown(word: &str) -> String {
    /// Characters of a foreign word that a message repeats.
    const SHOWN_CHARS_MAX: usize = 60;
    match word.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &word[..end]),
        None => String::from(word),
    }
}
