//! Jinja chat templates, rendered as Hugging Face's `apply_chat_template` renders them.
//!
//! The machine is minijinja's; what makes it safe for a stranger's template is ours. minijinja
//! counts instructions, but one instruction may double a text, so forty of them fill the memory.
//! [`program`] therefore routes every operator that makes or compares values through functions
//! that first pay for it from a [`meter::Meter`], and [`environment`] does so for filters and
//! methods.

use minijinja::machinery;
use minijinja::value::Value;
use minijinja::{AutoEscape, Error, ErrorKind};

use super::limits::{DEPTH_MAX, WORK_BYTES_MAX, WORK_PER_INPUT_BYTE};
use super::{Context, TemplateError};

mod environment;
mod input;
mod meter;
mod methods;
mod ordered;
mod program;
#[cfg(test)]
mod tests;
mod text;

use input::{Arguments, Input};
use meter::{LimitHit, Meter, Refusal};

/// The name errors give the template.
const NAME: &str = "chat template";

/// A parsed Jinja template.
#[derive(Debug, Clone)]
pub(super) struct Jinja {
    /// As given.
    source: String,
    /// As run: without the marks only training needs.
    stripped: String,
    steps_max: u64,
}

impl Jinja {
    pub(super) fn parse(source: &str) -> Result<Jinja, TemplateError> {
        let stripped = strip_generation_tags(source);
        program::check_tokens(&stripped)?;
        let program = program::Program::compile(&stripped).map_err(|error| syntax(&error))?;
        let steps_max = program.steps_max;
        Ok(Jinja { source: String::from(source), stripped, steps_max })
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn render(&self, context: &Context<'_>) -> Result<String, TemplateError> {
        let has_calls = context.messages.iter().any(|message| !message.tool_calls.is_empty());
        match self.render_with(context, Arguments::Object) {
            // Some templates append the arguments to a string, so they must be one.
            Err(TemplateError::Failed { .. }) if has_calls => {
                self.render_with(context, Arguments::Text)
            }
            result => result,
        }
    }

    fn render_with(
        &self,
        context: &Context<'_>,
        arguments: Arguments,
    ) -> Result<String, TemplateError> {
        let input = Input::new(context, arguments, self.expects_null_content());
        let meter = Meter::new(WORK_BYTES_MAX + WORK_PER_INPUT_BYTE * input.bytes);
        let mut environment = environment::build(&meter);
        environment.set_fuel(Some(self.steps_max));
        environment.set_recursion_limit(DEPTH_MAX);
        let program = program::Program::compile(&self.stripped).map_err(|error| syntax(&error))?;
        run(&environment, &program, input.root).map_err(|error| explain(&error, self.steps_max))
    }

    /// A template that asks whether a content is none means the content of a tool call.
    fn expects_null_content(&self) -> bool {
        self.source.contains("is none") || self.source.contains("is not none")
    }
}

fn run(
    environment: &minijinja::Environment<'_>,
    program: &program::Program<'_>,
    root: Value,
) -> Result<String, Error> {
    let mut prompt = String::new();
    let mut output = machinery::make_string_output(&mut prompt);
    let blocks = std::collections::BTreeMap::new();
    let instructions = &program.instructions;
    machinery::eval(environment, instructions, root, &blocks, &mut output, AutoEscape::None)?;
    drop(output);
    Ok(prompt)
}

/// Removes `{% generation %}` and `{% endgeneration %}`, which mark the text a model is trained on.
fn strip_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start + 2..].find("%}") else { break };
        let end = start + 2 + length + 2;
        let word = rest[start + 2..end - 2].trim_matches(['-', '+']).trim();
        if matches!(word, "generation" | "endgeneration") {
            out.push_str(&rest[..start]);
            // The tag's own white space control goes on, through an empty comment.
            out.push_str(&rest[start..end].replace("{%", "{#").replace("%}", "#}"));
        } else {
            out.push_str(&rest[..end]);
        }
        rest = &rest[end..];
    }
    out + rest
}

fn syntax(error: &Error) -> TemplateError {
    let line = error.line().and_then(|line| u32::try_from(line).ok()).unwrap_or(1);
    let message = error.detail().map_or_else(|| error.kind().to_string(), String::from);
    TemplateError::Syntax { line, message }
}

/// Finds what an error is about: a limit, the template's own refusal, or a plain failure.
fn explain(error: &Error, steps_max: u64) -> TemplateError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(limit) = current.downcast_ref::<LimitHit>() {
            return TemplateError::limit(limit.to_string());
        }
        if let Some(Refusal(message)) = current.downcast_ref::<Refusal>() {
            return TemplateError::Refused { message: message.clone() };
        }
        if let Some(error) = current.downcast_ref::<Error>() {
            if error.kind() == ErrorKind::OutOfFuel {
                return TemplateError::limit(format!("{steps_max} steps"));
            }
            if error.detail().is_some_and(|detail| detail.contains("recursion limit")) {
                return TemplateError::limit(format!("{DEPTH_MAX} nested calls"));
            }
        }
        cause = current.source();
    }
    let place = error.line().map(|line| format!("line {line}: ")).unwrap_or_default();
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    TemplateError::failed(format!("{place}{}{detail}", error.kind()))
}
