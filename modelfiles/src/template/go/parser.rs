//! Tokens of a Go template to its tree.

use super::ast::{Base, Branch, Command, Node, Operand, Pipeline, Tree};
use super::functions;
use super::lexer::{Piece, Spaced, Token, error, split};
use crate::template::TemplateError;
use crate::template::limits::DEPTH_MAX;

pub(super) fn parse(source: &str) -> Result<Tree, TemplateError> {
    let mut parser =
        Parser { pieces: split(source)?.into_iter(), tree: Tree::default(), depth: 0, loops: 0 };
    let (body, end) = parser.body()?;
    if let Some(end) = end {
        return Err(error(end.line, format!("`{}` without a block", end.word)));
    }
    parser.tree.body = body;
    Ok(parser.tree)
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    tree: Tree,
    depth: usize,
    /// How many `range`s are open, for `break` and `continue`.
    loops: usize,
}

/// The `end` or `else` that closes a body.
struct End {
    word: String,
    rest: Vec<Spaced>,
    line: u32,
}

impl Parser {
    fn body(&mut self) -> Result<(Vec<Node>, Option<End>), TemplateError> {
        if self.depth > DEPTH_MAX {
            return Err(TemplateError::limit(format!("{DEPTH_MAX} nested blocks")));
        }
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (mut tokens, line) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens, line) => (tokens, line),
            };
            let Some(word) = keyword(&tokens) else {
                nodes.push(Node::Action(pipeline(&tokens, line)?));
                continue;
            };
            tokens.remove(0);
            match word.as_str() {
                "end" | "else" => return Ok((nodes, Some(End { word, rest: tokens, line }))),
                _ => nodes.extend(self.statement(&word, tokens, line)?),
            }
        }
        Ok((nodes, None))
    }

    fn statement(
        &mut self,
        word: &str,
        tokens: Vec<Spaced>,
        line: u32,
    ) -> Result<Option<Node>, TemplateError> {
        Ok(Some(match word {
            "if" => Node::If(self.branch(&tokens, line, word)?),
            "with" => Node::With(self.branch(&tokens, line, word)?),
            "range" => {
                self.loops += 1;
                let branch = self.branch(&tokens, line, word)?;
                self.loops -= 1;
                Node::Range(branch)
            }
            "break" | "continue" if self.loops == 0 => {
                return Err(error(line, format!("`{word}` outside of a range")));
            }
            "break" => Node::Break,
            "continue" => Node::Continue,
            "template" => template_call(&tokens, line)?,
            "define" => {
                let (name, _) = named(&tokens, line)?;
                self.define(name, line)?;
                return Ok(None);
            }
            _ => {
                let call = template_call(&tokens, line)?;
                self.define(named(&tokens, line)?.0, line)?;
                call
            }
        }))
    }

    /// A body closed by `end`, kept under a name.
    fn define(&mut self, name: String, line: u32) -> Result<(), TemplateError> {
        self.depth += 1;
        let loops = std::mem::take(&mut self.loops);
        let (body, end) = self.body()?;
        self.loops = loops;
        self.depth -= 1;
        match end {
            Some(end) if end.word == "end" => {
                self.tree.defined.insert(name, body);
                Ok(())
            }
            _ => Err(error(line, format!("the definition of `{name}` has no end"))),
        }
    }

    fn branch(
        &mut self,
        tokens: &[Spaced],
        line: u32,
        word: &str,
    ) -> Result<Branch, TemplateError> {
        self.depth += 1;
        let pipeline = pipeline(tokens, line)?;
        let (body, end) = self.body()?;
        let unclosed = || error(line, format!("`{word}` has no end"));
        let end = end.ok_or_else(unclosed)?;
        let otherwise = match (end.word.as_str(), keyword(&end.rest)) {
            ("end", _) => Vec::new(),
            // `else if` and `else with` are a branch within the other, closed by the same end.
            (_, Some(inner)) if inner == "if" || inner == "with" => {
                let branch = self.branch(&end.rest[1..], end.line, &inner)?;
                vec![if inner == "if" { Node::If(branch) } else { Node::With(branch) }]
            }
            _ => {
                let (body, end) = self.body()?;
                if end.is_none_or(|end| end.word != "end") {
                    return Err(unclosed());
                }
                body
            }
        };
        self.depth -= 1;
        Ok(Branch { pipeline, body, otherwise })
    }
}

/// The keyword an action begins with.
fn keyword(tokens: &[Spaced]) -> Option<String> {
    const KEYWORDS: [&str; 10] =
        ["if", "else", "end", "range", "with", "define", "block", "template", "break", "continue"];
    match &tokens.first()?.token {
        Token::Word(word) if KEYWORDS.contains(&word.as_str()) => Some(word.clone()),
        _ => None,
    }
}

/// A name in quotes, and what follows it.
fn named(tokens: &[Spaced], line: u32) -> Result<(String, &[Spaced]), TemplateError> {
    match tokens {
        [Spaced { token: Token::Text(name), .. }, rest @ ..] => Ok((name.clone(), rest)),
        _ => Err(error(line, "a template's name in quotes is missing")),
    }
}

fn template_call(tokens: &[Spaced], line: u32) -> Result<Node, TemplateError> {
    let (name, rest) = named(tokens, line)?;
    let argument = if rest.is_empty() { None } else { Some(pipeline(rest, line)?) };
    Ok(Node::Template { name, argument })
}

fn pipeline(tokens: &[Spaced], line: u32) -> Result<Pipeline, TemplateError> {
    let mut reader = Reader { tokens, at: 0, line, depth: 0 };
    let pipeline = reader.pipeline()?;
    match reader.next() {
        None => Ok(pipeline),
        Some(token) => Err(error(line, format!("unexpected {}", spell(token)))),
    }
}

fn spell(token: &Token) -> String {
    match token {
        Token::Close => String::from("`)`"),
        Token::Word(word) => format!("`{word}`"),
        Token::Declare => String::from("`:=`"),
        Token::Assign => String::from("`=`"),
        Token::Comma => String::from("`,`"),
        token => format!("{token:?}"),
    }
}

struct Reader<'a> {
    tokens: &'a [Spaced],
    at: usize,
    line: u32,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a Spaced> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<&'a Token> {
        let token = &self.peek()?.token;
        self.at += 1;
        Some(token)
    }

    fn pipeline(&mut self) -> Result<Pipeline, TemplateError> {
        let mut pipeline = self.declaration();
        loop {
            pipeline.commands.push(self.command()?);
            match self.peek().map(|spaced| &spaced.token) {
                Some(Token::Pipe) => self.at += 1,
                _ => return Ok(pipeline),
            }
        }
    }

    /// `$a :=`, `$a, $b :=` or `$a =`; nothing is read when none of these is there.
    fn declaration(&mut self) -> Pipeline {
        let token = |offset: usize| self.tokens.get(self.at + offset).map(|spaced| &spaced.token);
        let (variables, sign) = match (token(0), token(1), token(2), token(3)) {
            (Some(Token::Variable(a)), Some(Token::Comma), Some(Token::Variable(b)), sign) => {
                (vec![a.clone(), b.clone()], sign)
            }
            (Some(Token::Variable(a)), sign, _, _) => (vec![a.clone()], sign),
            _ => return Pipeline::default(),
        };
        let declares = match sign {
            Some(Token::Declare) => true,
            Some(Token::Assign) => false,
            _ => return Pipeline::default(),
        };
        self.at += variables.len() * 2;
        Pipeline { variables, declares, commands: Vec::new() }
    }

    fn command(&mut self) -> Result<Command, TemplateError> {
        let mut operands = Vec::new();
        while let Some(spaced) = self.peek() {
            if matches!(spaced.token, Token::Pipe | Token::Close) {
                break;
            }
            if !operands.is_empty() && !spaced.spaced {
                return Err(error(
                    self.line,
                    format!("a blank is missing before {}", spell(&spaced.token)),
                ));
            }
            operands.push(self.operand()?);
        }
        if operands.is_empty() {
            return Err(error(self.line, "a value is missing"));
        }
        Ok(Command { operands })
    }

    fn operand(&mut self) -> Result<Operand, TemplateError> {
        let line = self.line;
        let missing = || error(line, "a value is missing");
        let mut fields = Vec::new();
        let base = match self.next().ok_or_else(missing)? {
            Token::Dot => Base::Dot,
            Token::Field(name) => {
                fields.push(name.clone());
                Base::Dot
            }
            Token::Variable(name) => Base::Variable(name.clone()),
            Token::Text(text) => Base::Text(text.clone()),
            Token::Integer(number) => Base::Integer(*number),
            Token::Float(number) => Base::Float(*number),
            Token::Word(word) => match word.as_str() {
                "nil" => Base::Nil,
                "true" => Base::Bool(true),
                "false" => Base::Bool(false),
                word if functions::exists(word) => Base::Function(word.into()),
                word => return Err(error(self.line, format!("function `{word}` is not defined"))),
            },
            Token::Open => Base::Pipeline(Box::new(self.parenthesis()?)),
            token => return Err(error(self.line, format!("unexpected {}", spell(token)))),
        };
        while let Some(Spaced { token: Token::Field(name), spaced: false }) = self.peek() {
            fields.push(name.clone());
            self.at += 1;
        }
        Ok(Operand { base, fields })
    }

    fn parenthesis(&mut self) -> Result<Pipeline, TemplateError> {
        if self.depth >= DEPTH_MAX {
            return Err(TemplateError::limit(format!("{DEPTH_MAX} nested parentheses")));
        }
        self.depth += 1;
        let pipeline = self.pipeline()?;
        self.depth -= 1;
        match self.next() {
            Some(Token::Close) => Ok(pipeline),
            _ => Err(error(self.line, "`(` is never closed")),
        }
    }
}
