//! From a request to the tokens that the model continues.

use std::sync::Arc;

use dsk_modelfiles::template::{Context, Features, Template, TemplateError};

use crate::conversation::{Conversation, Message, Prompt, Request};
use crate::engine::{LoadError, TemplateOrigin};
use crate::event::{Failure, FailureKind};
use crate::model::Model;
use crate::thinking::{CLOSE, OPEN, Splitter};
use crate::tokenizer::{Special, Tokenizer};

/// A prompt ready to run.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) tokens: Vec<u32>,
    /// Tells thinking from answer in what comes.
    pub(crate) splitter: Splitter,
}

/// The template of a model, as far as there is one.
#[derive(Debug)]
enum ModelTemplate {
    Ready(Template),
    /// The file's own template does not compile; text without turns still works.
    Broken(String),
    None,
}

/// Compiles the template that somebody gives in place of a file's own. Of white space there is none.
pub(crate) fn compile(given: Option<&str>) -> Result<Option<Template>, LoadError> {
    let given = given.filter(|source| !source.trim().is_empty());
    let template = given.map(Template::detect).transpose();
    template.map_err(|error| LoadError::Template(error.to_string()))
}

/// Renders and tokenizes prompts for one model.
#[derive(Debug)]
pub(crate) struct Prompter {
    model: Arc<Model>,
    template: ModelTemplate,
    origin: TemplateOrigin,
}

impl Prompter {
    /// For `model`, with `given` in place of the template of its file.
    pub(crate) fn new(model: Arc<Model>, given: Option<Template>) -> Prompter {
        let (template, origin) = match (given, model.chat_template()) {
            (Some(template), _) => (ModelTemplate::Ready(template), TemplateOrigin::Given),
            (None, Some(source)) => (of_file(source), TemplateOrigin::File),
            (None, None) => {
                tracing::info!("template: none; the contents of the turns are joined");
                (ModelTemplate::None, TemplateOrigin::None)
            }
        };
        Prompter { model, template, origin }
    }

    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    pub(crate) fn origin(&self) -> TemplateOrigin {
        self.origin
    }

    /// What the model's template can do.
    pub(crate) fn features(&self) -> Features {
        match &self.template {
            ModelTemplate::Ready(template) => template.features(),
            ModelTemplate::Broken(_) | ModelTemplate::None => Features::default(),
        }
    }

    /// Whether the model knows tokens for a gap.
    pub(crate) fn can_fill(&self) -> bool {
        self.tokenizer().fim().is_some()
    }

    /// The tokens of `request`, fewer than `context_length`.
    pub(crate) fn prepare(
        &self,
        request: &Request,
        context_length: usize,
    ) -> Result<Prepared, Failure> {
        let prepared = match &request.prompt {
            Prompt::Chat(chat) => return self.chat(chat, request.truncate, context_length),
            Prompt::Raw(text) => {
                let tokens = self.with_bos(self.tokenizer().encode(text, Special::Parse));
                Prepared { tokens, splitter: Splitter::off() }
            }
            Prompt::Fill { prefix, suffix } => self.fill(prefix, suffix)?,
        };
        check_length(prepared.tokens.len(), context_length)?;
        Ok(prepared)
    }

    fn tokenizer(&self) -> &Tokenizer {
        self.model.tokenizer()
    }

    /// Adds the token that begins a text, unless the model wants none or it is there already.
    fn with_bos(&self, mut tokens: Vec<u32>) -> Vec<u32> {
        let tokenizer = self.tokenizer();
        if let (true, Some(bos)) = (tokenizer.add_bos(), tokenizer.bos())
            && tokens.first() != Some(&bos)
        {
            tokens.insert(0, bos);
        }
        tokens
    }

    fn fill(&self, prefix: &str, suffix: &str) -> Result<Prepared, Failure> {
        let tokenizer = self.tokenizer();
        let fim = tokenizer.fim().ok_or_else(|| {
            let text = "this model cannot fill a gap: it has no tokens for prefix and suffix";
            Failure::new(FailureKind::BadRequest, text)
        })?;
        let mut tokens = vec![fim.prefix];
        tokens.extend(tokenizer.encode(prefix, Special::AsText));
        tokens.push(fim.suffix);
        tokens.extend(tokenizer.encode(suffix, Special::AsText));
        tokens.push(fim.middle);
        Ok(Prepared { tokens: self.with_bos(tokens), splitter: Splitter::off() })
    }

    fn chat(
        &self,
        chat: &Conversation,
        truncate: bool,
        context_length: usize,
    ) -> Result<Prepared, Failure> {
        self.check_context(&chat.context)?;
        let own = chat.template.as_deref().filter(|source| !source.trim().is_empty());
        let own = own.map(Template::detect).transpose();
        let own = own.map_err(|error| template_failure(&error))?;
        let template = match (&own, &self.template) {
            (Some(own), _) => Some(own),
            (None, ModelTemplate::Ready(template)) => Some(template),
            (None, ModelTemplate::None) => None,
            (None, ModelTemplate::Broken(why)) => {
                return Err(Failure::new(FailureKind::Template, why));
            }
        };
        let renderer = Renderer { prompter: self, template, chat };
        let whole = renderer.render(&chat.messages)?;
        match check_length(whole.tokens.len(), context_length) {
            Ok(()) => Ok(whole),
            Err(failure) if !truncate => Err(failure),
            Err(failure) => renderer.shorten(context_length, failure),
        }
    }

    fn check_context(&self, context: &[u32]) -> Result<(), Failure> {
        let vocabulary = self.tokenizer().vocab_size();
        match context.iter().find(|&&token| token as usize >= vocabulary) {
            None => Ok(()),
            Some(token) => {
                let text = format!("\"context\" holds token {token}; the model has {vocabulary}");
                Err(Failure::new(FailureKind::BadRequest, text))
            }
        }
    }

    fn token_text(&self, token: Option<u32>) -> &str {
        token.map_or("", |token| self.tokenizer().token_text(token))
    }
}

/// Makes the turns of one conversation, or the latest of them, into tokens.
struct Renderer<'a> {
    prompter: &'a Prompter,
    template: Option<&'a Template>,
    chat: &'a Conversation,
}

impl Renderer<'_> {
    fn render(&self, messages: &[Message]) -> Result<Prepared, Failure> {
        let (text, splitter) = match self.template {
            Some(template) => self.with_template(template, messages)?,
            None => (join_contents(messages), self.without_thinking()?),
        };
        let tokenizer = self.prompter.tokenizer();
        let mut tokens = self.chat.context.clone();
        tokens.extend(tokenizer.encode(&text, Special::Parse));
        // A context begins with the BOS of the request that it came from.
        let tokens = self.prompter.with_bos(tokens);
        Ok(Prepared { tokens, splitter })
    }

    fn with_template(
        &self,
        template: &Template,
        messages: &[Message],
    ) -> Result<(String, Splitter), Failure> {
        let tokenizer = self.prompter.tokenizer();
        let context = Context {
            messages,
            tools: &self.chat.tools,
            add_generation_prompt: true,
            bos_token: self.prompter.token_text(tokenizer.bos()),
            eos_token: self.prompter.token_text(tokenizer.eos()),
            think: self.chat.think,
            suffix: None,
        };
        let text = template.render(&context).map_err(|error| template_failure(&error))?;
        if !template.features().thinking {
            return Ok((text, self.without_thinking()?));
        }
        if self.chat.think == Some(false) {
            return Ok((close_thinking(text), Splitter::off()));
        }
        let open = text.trim_end().ends_with(OPEN);
        Ok((text, Splitter::on(open)))
    }

    fn without_thinking(&self) -> Result<Splitter, Failure> {
        if self.chat.think == Some(true) {
            let text = "this model does not support thinking";
            return Err(Failure::new(FailureKind::BadRequest, text));
        }
        Ok(Splitter::off())
    }

    /// Drops as few of the oldest turns as it takes to fit; `failure` when none is enough.
    fn shorten(&self, context_length: usize, failure: Failure) -> Result<Prepared, Failure> {
        let starts = turn_starts(&self.chat.messages);
        let mut best = None;
        // Fewer turns are never longer, so the first start that fits is found by halving.
        let (mut low, mut high) = (0, starts.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let prepared = self.render(&keep_from(&self.chat.messages, starts[middle]))?;
            if prepared.tokens.len() < context_length {
                best = Some(prepared);
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        best.ok_or(failure)
    }
}

fn of_file(source: &str) -> ModelTemplate {
    match Template::detect(source) {
        Ok(template) => ModelTemplate::Ready(template),
        Err(error) => {
            tracing::warn!(%error, "the template in the model's file is broken");
            ModelTemplate::Broken(format!("the template in the model's file is broken: {error}"))
        }
    }
}

fn check_length(tokens: usize, context_length: usize) -> Result<(), Failure> {
    if tokens == 0 {
        return Err(Failure::new(FailureKind::BadRequest, "the prompt is empty"));
    }
    if tokens < context_length {
        return Ok(());
    }
    let text = format!(
        "the prompt has {tokens} tokens, the context {context_length} (one of them is kept for the \
         answer); shorten the prompt or load the model with a longer context"
    );
    Err(Failure::new(FailureKind::ContextLength, text))
}

fn template_failure(error: &TemplateError) -> Failure {
    let text = match error {
        TemplateError::Syntax { .. } => format!("the chat template is broken: {error}"),
        _ => error.to_string(),
    };
    Failure::new(FailureKind::Template, text)
}

/// Without a template there is no better form than the contents themselves.
fn join_contents(messages: &[Message]) -> String {
    let contents: Vec<&str> = messages.iter().map(|message| message.content.as_str()).collect();
    contents.join("\n\n")
}

/// Ends the thinking before it began, however far the template went.
fn close_thinking(text: String) -> String {
    let end = text.trim_end();
    if end.ends_with(CLOSE) {
        text
    } else if let Some(before) = end.strip_suffix(OPEN) {
        format!("{before}{OPEN}\n\n{CLOSE}\n\n")
    } else {
        format!("{text}{OPEN}\n\n{CLOSE}\n\n")
    }
}

/// Where a shorter conversation may begin: at a question, at last with the last message alone.
fn turn_starts(messages: &[Message]) -> Vec<usize> {
    let questions = messages.iter().enumerate().filter(|(_, message)| message.role == "user");
    let mut starts: Vec<usize> = questions.map(|(index, _)| index).collect();
    // The first turn is the whole conversation, which was too long.
    if starts.first().is_some_and(|&first| messages[..first].iter().all(is_system)) {
        starts.remove(0);
    }
    let last = messages.len().saturating_sub(1);
    if starts.last() != Some(&last) && !messages.is_empty() {
        starts.push(last);
    }
    starts
}

fn is_system(message: &Message) -> bool {
    message.role == "system"
}

/// The messages from `start` on, and every system message before.
fn keep_from(messages: &[Message], start: usize) -> Vec<Message> {
    let (before, kept) = messages.split_at(start);
    before.iter().filter(|message| is_system(message)).chain(kept).cloned().collect()
}

#[cfg(test)]
mod tests;
