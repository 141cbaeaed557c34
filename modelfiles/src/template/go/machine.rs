//! Runs the tree of a Go template over data, counting steps and bytes.

use super::ast::{Base, Branch, Command, Node, Operand, Pipeline, Tree};
use super::functions;
use super::value::Value;
use crate::template::TemplateError;
use crate::template::limits::{
    DEPTH_MAX, OUTPUT_BYTES_MAX, STEPS_MAX, WORK_BYTES_MAX, WORK_PER_INPUT_BYTE,
};

/// Variables that may be in scope at once.
const VARIABLES_MAX: usize = 1000;

/// Runs bodies of a tree and gathers what they write; the limits are for all of them together.
pub(super) struct Machine<'a> {
    tree: &'a Tree,
    out: String,
    steps_left: u64,
    work_left: usize,
    depth: usize,
    /// The innermost last.
    variables: Vec<(&'a str, Value)>,
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Done,
    Break,
    Continue,
}

impl<'a> Machine<'a> {
    pub(super) fn new(tree: &'a Tree, input_bytes: usize) -> Machine<'a> {
        Machine {
            tree,
            out: String::new(),
            steps_left: STEPS_MAX,
            work_left: WORK_BYTES_MAX + input_bytes.saturating_mul(WORK_PER_INPUT_BYTE),
            depth: 0,
            variables: Vec::new(),
        }
    }

    /// Runs a body of the tree over data.
    pub(super) fn run(&mut self, body: &'a [Node], data: Value) -> Result<(), TemplateError> {
        self.variables = vec![("$", data.clone())];
        self.body(body, &data)?;
        Ok(())
    }

    pub(super) fn finish(self) -> String {
        self.out
    }

    fn step(&mut self) -> Result<(), TemplateError> {
        self.steps_left = self
            .steps_left
            .checked_sub(1)
            .ok_or_else(|| TemplateError::limit(format!("{STEPS_MAX} steps")))?;
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), TemplateError> {
        self.work_left = self
            .work_left
            .checked_sub(bytes)
            .ok_or_else(|| TemplateError::limit(format!("{WORK_BYTES_MAX} bytes of work")))?;
        Ok(())
    }

    fn write(&mut self, text: &str) -> Result<(), TemplateError> {
        if self.out.len() + text.len() > OUTPUT_BYTES_MAX {
            return Err(TemplateError::limit(format!("{OUTPUT_BYTES_MAX} bytes of output")));
        }
        self.out.push_str(text);
        Ok(())
    }

    /// Runs nodes in a scope of their own.
    fn body(&mut self, nodes: &'a [Node], dot: &Value) -> Result<Flow, TemplateError> {
        let scope = self.variables.len();
        let mut flow = Flow::Done;
        for node in nodes {
            flow = self.node(node, dot)?;
            if flow != Flow::Done {
                break;
            }
        }
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn node(&mut self, node: &'a Node, dot: &Value) -> Result<Flow, TemplateError> {
        self.step()?;
        match node {
            Node::Text(text) => self.write(text)?,
            Node::Action(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    let text = value.print();
                    self.write(&text)?;
                }
            }
            Node::If(branch) => return self.choose(branch, dot, false),
            Node::With(branch) => return self.choose(branch, dot, true),
            Node::Range(branch) => return self.range(branch, dot),
            Node::Template { name, argument } => self.template(name, argument.as_ref(), dot)?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Done)
    }

    /// `if`, and `with`, which makes the value the dot of its body.
    fn choose(
        &mut self,
        branch: &'a Branch,
        dot: &Value,
        with: bool,
    ) -> Result<Flow, TemplateError> {
        let scope = self.variables.len();
        let value = self.pipeline(&branch.pipeline, dot)?;
        let flow = match (value.is_true(), with) {
            (true, true) => self.body(&branch.body, &value),
            (true, false) => self.body(&branch.body, dot),
            (false, _) => self.body(&branch.otherwise, dot),
        };
        self.variables.truncate(scope);
        flow
    }

    fn range(&mut self, branch: &'a Branch, dot: &Value) -> Result<Flow, TemplateError> {
        let scope = self.variables.len();
        let value = self.evaluate(&branch.pipeline, dot)?;
        let count = match &value {
            Value::Integer(count) => usize::try_from(*count).unwrap_or(0),
            Value::Text(_) | Value::Bool(_) | Value::Float(_) => {
                return Err(TemplateError::failed("`range` over a value that has no elements"));
            }
            value => value.len().unwrap_or(0),
        };
        let flow = match count {
            0 => self.body(&branch.otherwise, dot),
            count => self.elements(branch, &value, count),
        };
        self.variables.truncate(scope);
        flow
    }

    fn elements(
        &mut self,
        branch: &'a Branch,
        value: &Value,
        count: usize,
    ) -> Result<Flow, TemplateError> {
        let scope = self.variables.len();
        for at in 0..count {
            self.step()?;
            let (key, element) = element(value, at);
            match branch.pipeline.variables.as_slice() {
                [one] => self.set(one, element.clone(), branch.pipeline.declares)?,
                [first, second] => {
                    self.set(first, key, branch.pipeline.declares)?;
                    self.set(second, element.clone(), branch.pipeline.declares)?;
                }
                _ => {}
            }
            let flow = self.body(&branch.body, &element)?;
            self.variables.truncate(scope);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::Done)
    }

    fn set(&mut self, name: &'a str, value: Value, declares: bool) -> Result<(), TemplateError> {
        if declares {
            if self.variables.len() >= VARIABLES_MAX {
                return Err(TemplateError::limit(format!("{VARIABLES_MAX} variables")));
            }
            self.variables.push((name, value));
            return Ok(());
        }
        let known = self.variables.iter_mut().rev().find(|(known, _)| *known == name);
        let undefined = || TemplateError::failed(format!("variable `{name}` is not defined"));
        known.ok_or_else(undefined)?.1 = value;
        Ok(())
    }

    fn template(
        &mut self,
        name: &str,
        argument: Option<&'a Pipeline>,
        dot: &Value,
    ) -> Result<(), TemplateError> {
        if self.depth >= DEPTH_MAX {
            return Err(TemplateError::limit(format!("{DEPTH_MAX} nested templates")));
        }
        let tree = self.tree;
        let body = tree
            .defined
            .get(name)
            .ok_or_else(|| TemplateError::failed(format!("template `{name}` is not defined")))?;
        let data = match argument {
            Some(pipeline) => self.pipeline(pipeline, dot)?,
            None => Value::Nil,
        };
        // A called template sees its own data only.
        let outer = std::mem::replace(&mut self.variables, vec![("$", data.clone())]);
        self.depth += 1;
        self.body(body, &data)?;
        self.depth -= 1;
        self.variables = outer;
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &'a Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let value = self.evaluate(pipeline, dot)?;
        for name in &pipeline.variables {
            self.set(name, value.clone(), pipeline.declares)?;
        }
        Ok(value)
    }

    /// The value of a pipeline, before its variables get it.
    fn evaluate(&mut self, pipeline: &'a Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, value, dot)?);
        }
        Ok(value.unwrap_or_default())
    }

    fn command(
        &mut self,
        command: &'a Command,
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        self.step()?;
        let [first, rest @ ..] = command.operands.as_slice() else { return Ok(Value::Nil) };
        let Base::Function(name) = &first.base else {
            if !rest.is_empty() || piped.is_some() {
                return Err(TemplateError::failed(
                    "a value that is no function is given arguments",
                ));
            }
            return self.operand(first, dot);
        };
        let value = match name.as_str() {
            "and" => self.short_circuit(rest, piped, dot, false)?,
            "or" => self.short_circuit(rest, piped, dot, true)?,
            name => {
                let mut arguments = Vec::with_capacity(rest.len() + 1);
                for operand in rest {
                    arguments.push(self.operand(operand, dot)?);
                }
                arguments.extend(piped);
                self.call(name, &arguments)?
            }
        };
        Ok(first.fields.iter().fold(value, |value, field| value.field(field)))
    }

    /// Calls a function and pays for the text it read and made.
    fn call(&mut self, name: &str, arguments: &[Value]) -> Result<Value, TemplateError> {
        for argument in arguments {
            if let Value::Text(text) = argument {
                self.charge(text.len())?;
            }
        }
        let value = functions::call(name, arguments)?;
        if let Value::Text(text) = &value {
            self.charge(text.len())?;
        }
        Ok(value)
    }

    /// `and` gives the first value that is false, `or` the first that is true, else the last.
    fn short_circuit(
        &mut self,
        operands: &'a [Operand],
        piped: Option<Value>,
        dot: &Value,
        wanted: bool,
    ) -> Result<Value, TemplateError> {
        let mut value = Value::Nil;
        for operand in operands {
            value = self.operand(operand, dot)?;
            if value.is_true() == wanted {
                return Ok(value);
            }
        }
        Ok(piped.unwrap_or(value))
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Value) -> Result<Value, TemplateError> {
        self.step()?;
        let base = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Nil => Value::Nil,
            Base::Bool(truth) => Value::Bool(*truth),
            Base::Integer(number) => Value::Integer(*number),
            Base::Float(number) => Value::Float(*number),
            Base::Text(text) => {
                self.charge(text.len())?;
                Value::text(text)
            }
            Base::Variable(name) => self.variable(name)?,
            Base::Function(name) => self.call(name, &[])?,
            Base::Pipeline(pipeline) => self.pipeline(pipeline, dot)?,
        };
        Ok(operand.fields.iter().fold(base, |value, field| value.field(field)))
    }

    fn variable(&self, name: &str) -> Result<Value, TemplateError> {
        let known = self.variables.iter().rev().find(|(known, _)| *known == name);
        let undefined = || TemplateError::failed(format!("variable `{name}` is not defined"));
        known.map(|(_, value)| value.clone()).ok_or_else(undefined)
    }
}

/// The key and the value of an element; `at` is below the number of elements.
fn element(value: &Value, at: usize) -> (Value, Value) {
    let index = Value::Integer(i64::try_from(at).unwrap_or(i64::MAX));
    match value {
        Value::Map(entries) => {
            let entry = entries.get(at);
            let name = entry.map(|entry| Value::Text(entry.name.clone()));
            (name.unwrap_or_default(), entry.map(|entry| entry.value.clone()).unwrap_or_default())
        }
        Value::Integer(_) => (index.clone(), index),
        value => (index, value.items().get(at).cloned().unwrap_or_default()),
    }
}
