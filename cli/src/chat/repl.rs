//! The interactive chat: reads lines, does what the session says, and survives what goes wrong.

use std::path::{Path, PathBuf};

use dsk_daemon_api::Client;
use dsk_daemon_api::ollama::{ChatRequest, CreateRequest, ShowRequest};
use jiff::Timestamp;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};

use super::answer::{self, View};
use super::commands::Facet;
use super::session::{Session, Step};
use crate::failure;
use crate::terminal::Terminal;
use crate::verbs;

/// Lines of history that are kept.
const HISTORY_LINES_MAX: usize = 2000;
const PROMPT: &str = ">>> ";
const PROMPT_MORE: &str = "... ";

/// A chat with a person at a terminal.
#[derive(Debug)]
pub(crate) struct Repl<'a> {
    pub(crate) client: &'a Client,
    pub(crate) session: Session,
    /// What every request of this chat has in common.
    pub(crate) base: ChatRequest,
    pub(crate) hide_thinking: bool,
    pub(crate) terminal: &'a mut Terminal,
}

impl Repl<'_> {
    /// Chats until the user leaves.
    pub(crate) async fn chat(mut self) -> anyhow::Result<()> {
        answer::load(self.client, &self.request(), self.terminal).await?;
        let mut editor = editor()?;
        let history = history_file();
        if let Some(file) = &history {
            // No history yet, or one that cannot be read: the chat works without.
            let _ = editor.load_history(file);
        }
        self.terminal.note("/? for help, Ctrl + d to leave.");
        while let Some(step) = self.read(&mut editor)? {
            if step == Step::Exit {
                break;
            }
            self.step(step).await?;
        }
        if let Some(file) = history.filter(|_| self.session.history) {
            save_history(&mut editor, &file, self.terminal);
        }
        Ok(())
    }

    /// Reads one line; `None` when there are no more.
    fn read(&mut self, editor: &mut Editor<(), FileHistory>) -> anyhow::Result<Option<Step>> {
        let prompt = if self.session.in_message() { PROMPT_MORE } else { PROMPT };
        match editor.readline(prompt) {
            Ok(line) => {
                if self.session.history && !line.trim().is_empty() {
                    editor.add_history_entry(line.as_str())?;
                }
                Ok(Some(self.session.line(&line)))
            }
            Err(ReadlineError::Interrupted) if self.session.in_message() => {
                self.session.abandon_message();
                Ok(Some(Step::Next))
            }
            Err(ReadlineError::Interrupted) => {
                Ok(Some(Step::Say("Use Ctrl + d or /bye to leave.".to_owned())))
            }
            Err(ReadlineError::Eof) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Does a step. What fails is said, and the chat goes on; only a closed output ends it.
    async fn step(&mut self, step: Step) -> anyhow::Result<()> {
        let done = match step {
            Step::Next | Step::Exit => Ok(()),
            Step::Say(text) => self.terminal.line(&text).map_err(Into::into),
            Step::Ask => self.ask().await,
            Step::Show(facet) => self.show(facet).await,
            Step::Save(name) => self.save(name).await,
            Step::Load(name) => self.load(name).await,
            Step::List => self.list().await,
        };
        match done {
            Err(error) if error.is::<crate::terminal::OutputClosed>() => Err(error),
            Err(error) => {
                failure::report(self.terminal, &error);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn ask(&mut self) -> anyhow::Result<()> {
        let request = self.request();
        let wrap =
            (self.session.wordwrap && self.terminal.out_is_tty()).then(|| self.terminal.columns());
        let view = View { hide_thinking: self.hide_thinking, wrap, json: false };
        match answer::ask(self.client, &request, view, self.terminal).await {
            Ok(answer) => {
                self.session.answered(answer.content, answer.thinking);
                self.terminal.line("")?;
                if let Some(metrics) = answer.metrics.filter(|_| self.session.verbose) {
                    self.terminal.note(&format!("{}\n", answer::timings(&metrics)));
                }
                Ok(())
            }
            Err(error) => {
                self.session.answered(String::new(), String::new());
                Err(error)
            }
        }
    }

    fn request(&self) -> ChatRequest {
        ChatRequest {
            model: self.session.model.clone(),
            messages: self.session.conversation().iter().map(answer::message).collect(),
            options: self.session.options.clone(),
            think: self.session.think,
            ..self.base.clone()
        }
    }

    async fn show(&mut self, facet: Facet) -> anyhow::Result<()> {
        let request = ShowRequest { model: self.session.model.clone(), ..ShowRequest::default() };
        let shown = self.client.show(&request).await?;
        let text = verbs::show::render(&shown, facet, false);
        match text {
            Some(text) => self.terminal.data(&text)?,
            None => self.terminal.line(&format!("The model has no {facet:?}.").to_lowercase())?,
        }
        if facet == Facet::Parameters && !self.session.options.is_empty() {
            self.terminal.line("\nParameters set in this session:")?;
            for (name, value) in &self.session.options {
                self.terminal.line(&format!("{name:<30} {value}"))?;
            }
        }
        Ok(())
    }

    async fn list(&mut self) -> anyhow::Result<()> {
        let models = self.client.tags().await?.models;
        Ok(self.terminal.data(&verbs::list::render(&models, Timestamp::now()))?)
    }

    async fn save(&mut self, name: String) -> anyhow::Result<()> {
        let request = CreateRequest {
            model: name.clone(),
            from: self.session.model.clone(),
            system: self.session.system().unwrap_or_default().to_owned(),
            parameters: self.session.options.clone(),
            messages: self.session.turns().iter().map(answer::message).collect(),
            ..CreateRequest::default()
        };
        self.client.create(&request).await?.last().await?;
        Ok(self.terminal.line(&format!("Created new model '{name}'"))?)
    }

    /// Switches to another model, once it is known to load.
    async fn load(&mut self, name: String) -> anyhow::Result<()> {
        self.terminal.line(&format!("Loading model '{name}'"))?;
        let request = ChatRequest { model: name.clone(), ..self.base.clone() };
        answer::load(self.client, &request, self.terminal).await?;
        self.session.switch(name);
        Ok(())
    }
}

fn editor() -> anyhow::Result<Editor<(), FileHistory>> {
    let config = Config::builder()
        .max_history_size(HISTORY_LINES_MAX)?
        .history_ignore_dups(true)?
        .history_ignore_space(true)
        // A pasted text with line breaks is one message, not several.
        .bracketed_paste(true)
        .build();
    Ok(Editor::with_config(config)?)
}

fn history_file() -> Option<PathBuf> {
    crate::folders::state(&crate::folders::process_env).map(|folder| folder.join("history"))
}

/// Keeps the history. Without it the next chat is only less comfortable: a warning will do.
fn save_history(editor: &mut Editor<(), FileHistory>, file: &Path, terminal: &mut Terminal) {
    let folder = file.parent().map_or(Ok(()), std::fs::create_dir_all);
    let saved = folder.map_err(ReadlineError::from).and_then(|()| editor.save_history(file));
    if let Err(error) = saved {
        terminal.note(&format!("warning: cannot keep the history in {}: {error}", file.display()));
    }
}
