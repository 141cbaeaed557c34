//! Go templates, as Ollama's registry carries them: an evaluator of the part they use.
//!
//! Ollama gives meaning to the tree itself: a template without `.Messages` is run once for each
//! exchange, and its last run ends where the answer would begin. That, and limits a hostile
//! template cannot pass, is why the evaluator is our own.

use super::{Context, TemplateError};

mod ast;
mod data;
mod functions;
mod lexer;
mod machine;
mod parser;
#[cfg(test)]
mod tests;
mod value;

use ast::{Base, Command, Node, Operand, Pipeline, Tree};
use machine::Machine;
use value::Value;

/// A parsed Go template.
#[derive(Debug, Clone)]
pub(super) struct Go {
    source: String,
    tree: Tree,
    /// The body up to where the answer stands.
    asking: Vec<Node>,
    has_messages: bool,
}

impl Go {
    pub(super) fn parse(source: &str) -> Result<Go, TemplateError> {
        let mut tree = parser::parse(source)?;
        let has_messages = tree.mentions("Messages");
        if !has_messages && !tree.mentions("Response") {
            tree.body.push(response());
        }
        let (asking, _) = ast::cut_after(&tree.body, "Response");
        Ok(Go { source: String::from(source), tree, asking, has_messages })
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template reads a field of this name anywhere.
    pub(super) fn mentions(&self, field: &str) -> bool {
        self.tree.mentions(field)
    }

    pub(super) fn render(&self, context: &Context<'_>) -> Result<String, TemplateError> {
        let mut machine = Machine::new(&self.tree, input_bytes(context));
        if context.suffix.is_some_and(|suffix| !suffix.is_empty()) {
            let data = data::exchange(context, "", last_user(context), "");
            machine.run(&self.asking, data)?;
        } else if self.has_messages {
            machine.run(&self.tree.body, data::conversation(context))?;
        } else {
            self.run_exchanges(&mut machine, context)?;
        }
        Ok(machine.finish())
    }

    /// Runs the template for each exchange, and once more for the one that waits for its answer.
    fn run_exchanges<'a>(
        &'a self,
        machine: &mut Machine<'a>,
        context: &Context<'_>,
    ) -> Result<(), TemplateError> {
        let mut open = Exchange::default();
        for message in &data::collate(context.messages) {
            let complete = match message.role.as_str() {
                "system" => !open.prompt.is_empty() || !open.response.is_empty(),
                "user" => !open.response.is_empty(),
                _ => false,
            };
            if complete {
                machine.run(&self.tree.body, open.data(context))?;
                open = Exchange::default();
            }
            match message.role.as_str() {
                "system" => open.system.clone_from(&message.content),
                "assistant" => open.response.clone_from(&message.content),
                _ => open.prompt.clone_from(&message.content),
            }
        }
        machine.run(&self.asking, open.data(context))
    }
}

/// One turn of each side.
#[derive(Debug, Default)]
struct Exchange {
    system: String,
    prompt: String,
    response: String,
}

impl Exchange {
    fn data(&self, context: &Context<'_>) -> Value {
        data::exchange(context, &self.system, &self.prompt, &self.response)
    }
}

/// `{{ .Response }}`
fn response() -> Node {
    let operand = Operand { base: Base::Dot, fields: vec![String::from("Response")] };
    let command = Command { operands: vec![operand] };
    Node::Action(Pipeline { commands: vec![command], ..Pipeline::default() })
}

fn last_user<'a>(context: &Context<'a>) -> &'a str {
    let user = context.messages.iter().rev().find(|message| message.role == "user");
    user.map_or("", |message| message.content.as_str())
}

fn input_bytes(context: &Context<'_>) -> usize {
    context.messages.iter().map(|message| message.content.len()).sum()
}
