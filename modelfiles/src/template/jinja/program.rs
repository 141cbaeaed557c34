//! A template compiled for minijinja's machine, with every costly instruction made to pay.

use minijinja::machinery::{self, CodeGenerator, Instruction, Instructions, Token};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Error, ErrorKind};

use super::NAME;
use crate::template::TemplateError;
use crate::template::limits::{STEPS_MAX, TAG_TOKENS_MAX};

/// Bytes that plain text between tags may come to when every step prints the longest of it. That
/// instruction asks nobody, so it is the number of steps that must bound it.
const RAW_BYTES_MAX: u64 = 64 << 20;
/// Steps of a template with chained comparisons (`a < b < c`), which cannot be made to pay.
const CHAINED_STEPS_MAX: u64 = 20_000;

/// Names of the functions that stand for operators. No template can spell them.
pub(super) const ADD: &str = "+";
pub(super) const CONCAT: &str = "~";
pub(super) const MULTIPLY: &str = "*";
pub(super) const POWER: &str = "**";
pub(super) const EQUAL: &str = "==";
pub(super) const UNEQUAL: &str = "!=";
pub(super) const CONTAINS: &str = "in";
pub(super) const SLICE: &str = "[:]";
pub(super) const LIST: &str = "[]";
pub(super) const MAP: &str = "{}";

/// Instructions ready to run.
#[derive(Debug)]
pub(super) struct Program<'a> {
    pub(super) instructions: Instructions<'a>,
    pub(super) steps_max: u64,
}

/// White space as Hugging Face sets it: the line feed after a tag and blanks before it are dropped.
fn whitespace() -> Result<SyntaxConfig, Error> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()
}

impl<'a> Program<'a> {
    pub(super) fn compile(source: &'a str) -> Result<Program<'a>, Error> {
        let tree = machinery::parse(source, NAME, whitespace()?)?;
        let mut generator = CodeGenerator::new(NAME, source);
        generator.compile_stmt(&tree);
        let (mut instructions, blocks) = generator.finish();
        if !blocks.is_empty() {
            return Err(unsupported("block"));
        }
        let mut steps_max = STEPS_MAX;
        let mut at = 0;
        while let Some(instruction) = instructions.get_mut(at) {
            steps_max = steps_max.min(steps_allowed(instruction));
            if let Some(metered) = metered(instruction)? {
                *instruction = metered;
            }
            at += 1;
        }
        Ok(Program { instructions, steps_max })
    }
}

fn unsupported(what: &str) -> Error {
    let message = format!("`{what}` cannot be used in a chat template");
    Error::new(ErrorKind::SyntaxError, message)
}

/// How many steps a program with this instruction may take.
fn steps_allowed(instruction: &Instruction<'_>) -> u64 {
    match instruction {
        Instruction::EmitRaw(text) => RAW_BYTES_MAX / (text.len() as u64).max(1),
        Instruction::CompareAndPreserve(_) => CHAINED_STEPS_MAX,
        _ => STEPS_MAX,
    }
}

/// The call that takes an instruction's place; both take and leave the same values.
fn metered<'a>(instruction: &Instruction<'a>) -> Result<Option<Instruction<'a>>, Error> {
    let (name, arguments) = match instruction {
        Instruction::Add => (ADD, 2),
        Instruction::StringConcat => (CONCAT, 2),
        Instruction::Mul => (MULTIPLY, 2),
        Instruction::Pow => (POWER, 2),
        Instruction::Eq => (EQUAL, 2),
        Instruction::Ne => (UNEQUAL, 2),
        Instruction::In => (CONTAINS, 2),
        Instruction::Slice => (SLICE, 4),
        Instruction::BuildList(Some(count)) => (LIST, *count),
        Instruction::BuildMap(pairs) => (MAP, pairs.saturating_mul(2)),
        Instruction::Include(_) => return Err(unsupported("include")),
        Instruction::LoadBlocks => return Err(unsupported("extends")),
        Instruction::CallBlock(_) | Instruction::FastSuper => return Err(unsupported("block")),
        _ => return Ok(None),
    };
    let arguments = u16::try_from(arguments)
        .map_err(|_| Error::new(ErrorKind::SyntaxError, "a list or map has too many elements"))?;
    Ok(Some(Instruction::CallFunction(name, Some(arguments))))
}

/// Bytes that products of constants, which minijinja computes as it compiles, may come to.
const CONSTANT_BYTES_MAX: usize = 1 << 20;

/// Refuses tags so long that walking their expression could exhaust the stack, and products of
/// constants (`'a' * 10 ** 8`) so large that compiling them could exhaust the memory.
pub(super) fn check_tokens(source: &str) -> Result<(), TemplateError> {
    let syntax = whitespace().map_err(|error| super::syntax(&error))?;
    let mut tag = Tag::default();
    let mut constants = 0_usize;
    for token in machinery::tokenize(source, false, syntax) {
        match token.map_err(|error| super::syntax(&error))?.0 {
            Token::TemplateData(_) | Token::VariableStart | Token::BlockStart => {
                constants = constants.saturating_add(tag.product_bytes());
                tag = Tag::default();
            }
            token => tag.add(&token),
        }
        if tag.tokens > TAG_TOKENS_MAX {
            return Err(TemplateError::limit(format!("{TAG_TOKENS_MAX} words in one tag")));
        }
    }
    if constants.saturating_add(tag.product_bytes()) > CONSTANT_BYTES_MAX {
        return Err(TemplateError::limit(format!("{CONSTANT_BYTES_MAX} bytes of constants")));
    }
    Ok(())
}

/// What one tag holds.
#[derive(Debug, Default)]
struct Tag {
    tokens: usize,
    text_bytes: usize,
    /// The product of its whole numbers, each one larger, so that it bounds their sums as well.
    product: Option<usize>,
    multiplies: bool,
    raises: bool,
}

impl Tag {
    fn add(&mut self, token: &Token<'_>) {
        self.tokens += 1;
        match token {
            Token::Str(text) => self.text_bytes += text.len(),
            Token::String(text) => self.text_bytes += text.len(),
            Token::Int(number) => self.multiply(usize::try_from(*number).unwrap_or(usize::MAX)),
            Token::Int128(_) => self.multiply(usize::MAX),
            Token::Mul => self.multiplies = true,
            Token::Pow => self.raises = true,
            _ => {}
        }
    }

    fn multiply(&mut self, number: usize) {
        let product = self.product.unwrap_or(1);
        self.product = Some(product.saturating_mul(number.saturating_add(1)));
    }

    /// An upper bound of what its largest constant product takes.
    fn product_bytes(&self) -> usize {
        match (self.multiplies, self.raises) {
            (false, _) => 0,
            (true, true) => usize::MAX,
            (true, false) => {
                self.product.unwrap_or(0).saturating_mul(self.text_bytes + self.tokens)
            }
        }
    }
}
