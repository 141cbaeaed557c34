//! The facts about a model that a listing shows. Any readable file has them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::gguf::{Gguf, GgufError, TensorFormat};

/// What a file says of its model, without judging whether it can be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The family, such as `llama`.
    pub architecture: String,
    /// The model's own name.
    pub name: Option<String>,
    /// The name without size and version.
    pub basename: Option<String>,
    /// Elements of all tensors, or the number in the file when it has one.
    pub parameter_count: u64,
    /// The count for people: `134.52M`, `7.6B`.
    pub size_label: String,
    /// How the weights are stored: `Q4_K_M`.
    pub file_type: String,
    /// The longest context the model was trained for. Here and below, 0: the file does not say.
    pub context_length: u32,
    /// Numbers per token inside the model.
    pub embedding_length: u32,
    /// How many layers there are.
    pub block_count: u32,
    /// Attention heads of a layer.
    pub head_count: u32,
    /// Heads of keys and values; those of queries when the file does not say.
    pub head_count_kv: u32,
    /// Tokens in the vocabulary.
    pub vocab_size: u64,
    /// The chat template that the file carries.
    pub chat_template: Option<String>,
}

impl Summary {
    /// Reads the facts.
    pub fn read(gguf: &Gguf) -> Result<Summary, GgufError> {
        let architecture = gguf.need_str("general.architecture")?.to_owned();
        // Some families have a list in place of a number; a listing can do without.
        let number = |key: &str| match gguf.get(&format!("{architecture}.{key}")) {
            Some(value) => value.as_u64().and_then(|number| u32::try_from(number).ok()),
            None => None,
        };
        let head_count = number("attention.head_count").unwrap_or(0);
        let text = |key: &str| Ok::<_, GgufError>(gguf.get_str(key)?.map(str::to_owned));
        let parameter_count = parameter_count(gguf)?;
        Ok(Summary {
            name: text("general.name")?,
            basename: text("general.basename")?,
            parameter_count,
            size_label: size_label(parameter_count),
            file_type: file_type(gguf)?,
            context_length: number("context_length").unwrap_or(0),
            embedding_length: number("embedding_length").unwrap_or(0),
            block_count: number("block_count").unwrap_or(0),
            head_count,
            head_count_kv: number("attention.head_count_kv").unwrap_or(head_count),
            vocab_size: gguf.get_array("tokenizer.ggml.tokens")?.map_or(0, |a| a.len() as u64),
            chat_template: text("tokenizer.chat_template")?,
            architecture,
        })
    }
}

fn parameter_count(gguf: &Gguf) -> Result<u64, GgufError> {
    let sum = || gguf.tensors().iter().fold(0u64, |sum, t| sum.saturating_add(t.elements));
    Ok(gguf.get_u64("general.parameter_count")?.unwrap_or_else(sum))
}

/// A count with two decimals in millions, one in billions; none when it is round.
fn size_label(count: u64) -> String {
    let (unit, name, decimals) = match count {
        1_000_000_000_000.. => (1e12, "T", 1),
        1_000_000_000.. => (1e9, "B", 1),
        1_000_000.. => (1e6, "M", 2),
        1_000.. => (1e3, "K", 0),
        _ => return count.to_string(),
    };
    let number = count as f64 / unit;
    let decimals = if number.fract() == 0.0 { 0 } else { decimals };
    format!("{number:.decimals$}{name}")
}

/// Names of `general.file_type`, as llama.cpp numbers them.
const FILE_TYPES: [(u32, &str); 32] = [
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (10, "Q2_K"),
    (11, "Q3_K_S"),
    (12, "Q3_K_M"),
    (13, "Q3_K_L"),
    (14, "Q4_K_S"),
    (15, "Q4_K_M"),
    (16, "Q5_K_S"),
    (17, "Q5_K_M"),
    (18, "Q6_K"),
    (19, "IQ2_XXS"),
    (20, "IQ2_XS"),
    (21, "Q2_K_S"),
    (22, "IQ3_XS"),
    (23, "IQ3_XXS"),
    (24, "IQ1_S"),
    (25, "IQ4_NL"),
    (26, "IQ3_S"),
    (27, "IQ3_M"),
    (28, "IQ2_S"),
    (29, "IQ2_M"),
    (30, "IQ4_XS"),
    (31, "IQ1_M"),
    (32, "BF16"),
    (36, "TQ1_0"),
    (37, "TQ2_0"),
];

/// The mix that the file names, else the format that holds most of the elements.
fn file_type(gguf: &Gguf) -> Result<String, GgufError> {
    let id = gguf.get_u32("general.file_type")?;
    let named = FILE_TYPES.iter().find(|(number, _)| Some(*number) == id);
    Ok(named.map_or_else(|| dominant_format(gguf), |(_, name)| (*name).to_owned()))
}

fn dominant_format(gguf: &Gguf) -> String {
    let mut elements: BTreeMap<String, u64> = BTreeMap::new();
    for tensor in gguf.tensors() {
        let sum = elements.entry(format_name(tensor.format)).or_default();
        *sum = sum.saturating_add(tensor.elements);
    }
    let most = elements.into_iter().max_by_key(|(_, elements)| *elements);
    most.map_or_else(|| "unknown".to_owned(), |(format, _)| format)
}

fn format_name(format: TensorFormat) -> String {
    format.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_like_model_names() {
        let table = [
            (0, "0"),
            (999, "999"),
            (42_000, "42K"),
            (134_515_008, "134.52M"),
            (494_032_768, "494.03M"),
            (2_000_000, "2M"),
            (7_615_616_512, "7.6B"),
            (8_000_000_000, "8B"),
            (671_026_419_200, "671.0B"),
            (1_500_000_000_000, "1.5T"),
        ];
        for (count, label) in table {
            assert_eq!(size_label(count), label);
        }
    }
}
