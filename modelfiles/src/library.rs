//! The models dsk knows by name: their Modelfiles and the variants they come in.
//!
//! `library/` at the root of the crate has a folder for each family: `library.toml` says what there
//! is, `Modelfile` how it is run. Both are part of the program.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::modelfile::{Instruction, InstructionKind, Modelfile};
use crate::parse::parse;

mod shape;
#[cfg(test)]
mod tests;

pub use shape::{Experts, Latent, Shape};

/// Each family's `library.toml` and `Modelfile`.
const FILES: [(&str, &str); 3] = [
    (
        include_str!("../library/deepseek-r1/library.toml"),
        include_str!("../library/deepseek-r1/Modelfile"),
    ),
    (
        include_str!("../library/qwen2.5-coder/library.toml"),
        include_str!("../library/qwen2.5-coder/Modelfile"),
    ),
    (include_str!("../library/smollm2/library.toml"), include_str!("../library/smollm2/Modelfile")),
];

static FAMILIES: LazyLock<Vec<Family>> = LazyLock::new(|| {
    FILES
        .iter()
        .map(|(catalog, modelfile)| {
            let mut family: Family =
                toml::from_str(catalog).expect("library.toml is part of the program and tested");
            family.modelfile = modelfile;
            family
        })
        .collect()
});

/// A family of models that differ in size.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// The name models of this family are pulled by.
    pub name: String,
    /// What it is for, in one line.
    pub description: String,
    /// The tag of the size that is meant when none is named.
    pub default: String,
    /// The sizes, smallest first.
    #[serde(rename = "size")]
    pub sizes: Vec<Size>,
    /// The text of its Modelfile; see [`Family::modelfile_of`] for that of one size.
    #[serde(skip)]
    pub modelfile: &'static str,
}

/// One size of a family.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Its tag, such as `7b`.
    pub tag: String,
    /// What the tags of its variants begin with at Ollama's registry, which keeps no list of them.
    pub tags: String,
    /// Weights in the model.
    pub parameters: u64,
    /// The model as its makers call it, and what it was made from.
    pub source: String,
    /// Its licence, and that of the model it was made from.
    pub license: String,
    /// The variants, smallest first.
    pub variants: Vec<Variant>,
    /// What its layers are like.
    pub shape: Shape,
}

/// One file of a model: its weights in one precision.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Listed")]
pub struct Variant {
    /// The precision, as in `Q4_K_M`.
    pub quant: String,
    /// Approximate size of the file, exact to about ten megabytes.
    pub bytes: u64,
}

/// A variant as `library.toml` lists it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    quant: String,
    gigabytes: f64,
}

impl From<Listed> for Variant {
    fn from(listed: Listed) -> Variant {
        Variant { quant: listed.quant, bytes: (listed.gigabytes * 1e9).round() as u64 }
    }
}

/// Every family, by name.
pub fn families() -> &'static [Family] {
    &FAMILIES
}

/// The family of this name; a tag after a colon is not looked at.
pub fn find(name: &str) -> Option<&'static Family> {
    let name = name.split(':').next().unwrap_or(name);
    families().iter().find(|family| family.name == name)
}

impl Family {
    /// The size of this tag; an empty tag or `latest` is the default one.
    pub fn size(&self, tag: &str) -> Option<&Size> {
        let tag = if matches!(tag, "" | "latest") { &self.default } else { tag };
        self.sizes.iter().find(|size| size.tag == tag)
    }

    /// The Modelfile of one size: the family's, from that model and with that licence.
    pub fn modelfile_of(&self, size: &Size) -> Modelfile {
        let mut modelfile = parse(self.modelfile).modelfile;
        for instruction in &mut modelfile.instructions {
            if let InstructionKind::From(model) = &mut instruction.kind {
                *model = format!("{}:{}", self.name, size.tag);
            }
        }
        let kind = InstructionKind::License(size.license.clone());
        modelfile.instructions.push(Instruction { line: 1, column: 1, kind });
        modelfile
    }
}

impl Size {
    /// The tag of a variant at Ollama's registry: `7b-qwen-distill-q4_K_M`.
    pub fn tag_of(&self, variant: &Variant) -> String {
        let quant = match variant.quant.strip_prefix('Q') {
            Some(rest) => format!("q{rest}"),
            None if variant.quant == "F16" => "fp16".to_owned(),
            None => variant.quant.to_lowercase(),
        };
        format!("{}-{quant}", self.tags)
    }

    /// The weights that one token is multiplied with: all of them, but for experts not asked and the
    /// table a token's vector is looked up in.
    pub fn active_parameters(&self) -> u64 {
        let looked_up = if self.shape.tied { 0 } else { self.shape.embedding_table() };
        match &self.shape.experts {
            Some(experts) => experts.active_parameters,
            None => self.parameters.saturating_sub(looked_up),
        }
    }

    /// The variant of this precision, in any case.
    pub fn variant(&self, quant: &str) -> Option<&Variant> {
        self.variants.iter().find(|variant| variant.quant.eq_ignore_ascii_case(quant))
    }
}
