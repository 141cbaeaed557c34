//! The AST of a Modelfile, and the text it is written as.
//!
//! ```text
//! FROM smollm2:135m                  bare: the rest of the line, spaces at its ends dropped
//! SYSTEM "Answer briefly. "          quoted: up to a `"` that ends a line
//! TEMPLATE """{{ .Prompt }}          quoted: up to a `"""` that ends a line
//! {{ .Response }}"""
//! ```
//!
//! Quotes know no escapes, so a text with a line that itself ends in `"""` cannot be written; see
//! [`representable`].

use std::fmt;

/// A Modelfile: its instructions in the order written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Modelfile {
    /// The instructions.
    pub instructions: Vec<Instruction>,
}

/// One instruction and where it began.
///
/// Two instructions are equal when they say the same, wherever they stand.
#[derive(Debug, Clone)]
pub struct Instruction {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// What it says.
    pub kind: InstructionKind,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq)]
pub enum InstructionKind {
    /// The model to start from: a name, a GGUF file or a folder.
    From(String),
    /// A default option of the model.
    Parameter {
        /// Its name, in lower case.
        name: String,
        /// Its value as written.
        value: ParameterText,
    },
    /// The prompt template.
    Template(String),
    /// The system message used when a conversation has none.
    System(String),
    /// An adapter to apply.
    Adapter(String),
    /// A licence text.
    License(String),
    /// A message every conversation begins with.
    Message {
        /// `system`, `user` or `assistant`.
        role: String,
        /// Its text.
        content: String,
    },
    /// A smaller model that drafts tokens.
    Draft(String),
    /// The name of a built-in prompt renderer.
    Renderer(String),
    /// The name of a built-in answer parser.
    Parser(String),
    /// The least version of the program that can run this model.
    Requires(String),
}

/// The text of a parameter's value, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterText(pub String);

impl ParameterText {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ParameterText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq for Instruction {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl Modelfile {
    /// The texts of the `FROM` instructions.
    pub fn from(&self) -> impl Iterator<Item = &str> {
        self.instructions.iter().filter_map(|instruction| match &instruction.kind {
            InstructionKind::From(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The last `TEMPLATE`, which is the one that counts.
    pub fn template(&self) -> Option<&str> {
        self.instructions.iter().rev().find_map(|instruction| match &instruction.kind {
            InstructionKind::Template(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The last `SYSTEM`, which is the one that counts.
    pub fn system(&self) -> Option<&str> {
        self.instructions.iter().rev().find_map(|instruction| match &instruction.kind {
            InstructionKind::System(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The parameters in the order written: name and text.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.instructions.iter().filter_map(|instruction| match &instruction.kind {
            InstructionKind::Parameter { name, value } => Some((name.as_str(), value.as_str())),
            _ => None,
        })
    }

    /// The licence texts.
    pub fn licenses(&self) -> impl Iterator<Item = &str> {
        self.instructions.iter().filter_map(|instruction| match &instruction.kind {
            InstructionKind::License(text) => Some(text.as_str()),
            _ => None,
        })
    }
}

impl fmt::Display for Modelfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.instructions.iter().try_for_each(|instruction| writeln!(f, "{}", instruction.kind))
    }
}

impl InstructionKind {
    /// The instruction's word, in capitals.
    pub fn word(&self) -> &'static str {
        match self {
            InstructionKind::From(_) => "FROM",
            InstructionKind::Parameter { .. } => "PARAMETER",
            InstructionKind::Template(_) => "TEMPLATE",
            InstructionKind::System(_) => "SYSTEM",
            InstructionKind::Adapter(_) => "ADAPTER",
            InstructionKind::License(_) => "LICENSE",
            InstructionKind::Message { .. } => "MESSAGE",
            InstructionKind::Draft(_) => "DRAFT",
            InstructionKind::Renderer(_) => "RENDERER",
            InstructionKind::Parser(_) => "PARSER",
            InstructionKind::Requires(_) => "REQUIRES",
        }
    }
}

impl fmt::Display for InstructionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.word())?;
        match self {
            InstructionKind::Parameter { name, value } => {
                write!(f, "{name} {}", Quoted(value.as_str()))
            }
            InstructionKind::Message { role, content } => write!(f, "{role} {}", Quoted(content)),
            InstructionKind::From(text)
            | InstructionKind::Template(text)
            | InstructionKind::System(text)
            | InstructionKind::Adapter(text)
            | InstructionKind::License(text)
            | InstructionKind::Draft(text)
            | InstructionKind::Renderer(text)
            | InstructionKind::Parser(text)
            | InstructionKind::Requires(text) => write!(f, "{}", Quoted(text)),
        }
    }
}

/// Whether a Modelfile can hold this text: no line but the last may end in `"""`, and its lines
/// must end in plain line feeds.
pub fn representable(text: &str) -> bool {
    let body = text.rsplit_once('\n').map_or("", |(body, _)| body);
    !text.contains("\r\n") && !body.split('\n').any(|line| line.trim_end().ends_with("\"\"\""))
}

/// Writes a value in the plainest form that reads back as the same text.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0;
        let one_line = !text.contains(['\n', '\r']);
        if one_line && !text.is_empty() && text.trim() == text && !text.starts_with('"') {
            f.write_str(text)
        } else if one_line && !text.starts_with('"') {
            write!(f, "\"{text}\"")
        } else {
            write!(f, "\"\"\"{text}\"\"\"")
        }
    }
}
