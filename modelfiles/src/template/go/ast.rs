//! The tree of a Go template, and what can be asked of the tree itself.

use std::collections::BTreeMap;

/// A whole template: its body, and the bodies it defines by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    pub(super) body: Vec<Node>,
    pub(super) defined: BTreeMap<String, Vec<Node>>,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    Action(Pipeline),
    If(Branch),
    With(Branch),
    Range(Branch),
    Template { name: String, argument: Option<Pipeline> },
    Break,
    Continue,
}

/// A body that depends on a value, and the body for when there is none.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub(super) pipeline: Pipeline,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// Commands, each getting the value of the one before as its last argument.
#[derive(Debug, Clone, Default)]
pub(super) struct Pipeline {
    /// Variables that get the value: one, or two in a `range`.
    pub(super) variables: Vec<String>,
    /// They are new (`:=`), rather than set anew (`=`).
    pub(super) declares: bool,
    pub(super) commands: Vec<Command>,
}

/// A value, or a function and its arguments.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) operands: Vec<Operand>,
}

/// A value and the fields read from it.
#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub(super) base: Base,
    pub(super) fields: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Base {
    Dot,
    Nil,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Variable(String),
    Function(String),
    Pipeline(Box<Pipeline>),
}

impl Tree {
    /// Whether any field of this name is read.
    pub(super) fn mentions(&self, field: &str) -> bool {
        std::iter::once(&self.body)
            .chain(self.defined.values())
            .any(|body| body.iter().any(|node| node.mentions(field)))
    }
}

impl Node {
    fn mentions(&self, field: &str) -> bool {
        match self {
            Node::Text(_) | Node::Break | Node::Continue => false,
            Node::Action(pipeline) => pipeline.mentions(field),
            Node::Template { argument, .. } => {
                argument.as_ref().is_some_and(|pipeline| pipeline.mentions(field))
            }
            Node::If(branch) | Node::With(branch) | Node::Range(branch) => {
                branch.pipeline.mentions(field)
                    || branch.body.iter().chain(&branch.otherwise).any(|node| node.mentions(field))
            }
        }
    }
}

impl Pipeline {
    fn mentions(&self, field: &str) -> bool {
        let operands = self.commands.iter().flat_map(|command| &command.operands);
        operands.into_iter().any(|operand| {
            operand.fields.iter().any(|name| name == field)
                || matches!(&operand.base, Base::Pipeline(inner) if inner.mentions(field))
        })
    }
}

/// The nodes up to and with the first that reads `field`; true when there is one. What follows an
/// answer in the text is not part of the prompt that asks for it.
pub(super) fn cut_after(nodes: &[Node], field: &str) -> (Vec<Node>, bool) {
    let mut kept = Vec::new();
    for node in nodes {
        let (node, found) = match node {
            Node::If(branch) => cut_branch(branch, field, Node::If),
            Node::With(branch) => cut_branch(branch, field, Node::With),
            Node::Range(branch) => cut_branch(branch, field, Node::Range),
            node => (node.clone(), node.mentions(field)),
        };
        kept.push(node);
        if found {
            return (kept, true);
        }
    }
    (kept, false)
}

fn cut_branch(branch: &Branch, field: &str, make: fn(Branch) -> Node) -> (Node, bool) {
    let pipeline = branch.pipeline.clone();
    if pipeline.mentions(field) {
        return (make(Branch { pipeline, body: Vec::new(), otherwise: Vec::new() }), true);
    }
    let (body, found) = cut_after(&branch.body, field);
    let (otherwise, found) =
        if found { (Vec::new(), true) } else { cut_after(&branch.otherwise, field) };
    (make(Branch { pipeline, body, otherwise }), found)
}
