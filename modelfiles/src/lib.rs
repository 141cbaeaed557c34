//! Modelfile text to AST and diagnostics, chat templates, and the library of known models.
//!
//! Everything here is text in, data or text out: this crate opens no file, knows no registry and
//! runs no model. Modelfiles and templates come from strangers, so every parser is bounded, and a
//! template is rendered under limits of steps, depth and bytes.
//!
//! Entry types: [`parse`] gives a [`Parsed`] (a [`Modelfile`] and its [`Diagnostic`]s);
//! [`template::Template`] renders a conversation; [`library::find`] knows the models by name;
//! [`parameters::find`] knows the options.

pub use diagnostic::Diagnostic;
pub use modelfile::{Instruction, InstructionKind, Modelfile, ParameterText, representable};
pub use parse::{Parsed, parse, parse_bytes};

mod diagnostic;
mod encoding;
pub mod library;
mod modelfile;
pub mod parameters;
mod parse;
pub mod template;
