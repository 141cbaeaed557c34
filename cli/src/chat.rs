//! The interactive chat: a pure [`session`] that turns lines into steps, the [`repl`] that reads
//! the lines, and the [`answer`] printer that both the chat and a one-shot `dsk run` use.

pub(crate) mod answer;
pub(crate) mod commands;
pub(crate) mod repl;
pub(crate) mod session;
pub(crate) mod wrap;
