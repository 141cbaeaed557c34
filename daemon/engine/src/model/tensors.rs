//! Which tensors a model of each family has, and their shapes.

use dsk_kernels::format::Format;

use super::{Architecture, Header, ModelError};
use crate::gguf::{Gguf, TensorFormat, TensorInfo};

/// The formats that the executor has code for.
const FORMATS: [Format; 13] = [
    Format::F32,
    Format::F16,
    Format::BF16,
    Format::Q4_0,
    Format::Q4_1,
    Format::Q5_0,
    Format::Q5_1,
    Format::Q8_0,
    Format::Q2_K,
    Format::Q3_K,
    Format::Q4_K,
    Format::Q5_K,
    Format::Q6_K,
];

/// An extent of a tensor, by the hyper-parameter it follows from.
#[derive(Clone, Copy)]
enum Extent {
    Embedding,
    FeedForward,
    Vocabulary,
    /// All query heads together.
    Queries,
    /// All key or value heads together.
    Keys,
}

use Extent::{Embedding, FeedForward, Keys, Queries, Vocabulary};

/// A tensor that must be there once for each model or layer.
type Expected = (&'static str, &'static [Extent]);

const OUTER: [Expected; 2] =
    [("token_embd.weight", &[Embedding, Vocabulary]), ("output_norm.weight", &[Embedding])];

/// Absent when the embedding is used in its place.
const OUTPUT: Expected = ("output.weight", &[Embedding, Vocabulary]);

const LAYER: [Expected; 9] = [
    ("attn_norm.weight", &[Embedding]),
    ("attn_q.weight", &[Embedding, Queries]),
    ("attn_k.weight", &[Embedding, Keys]),
    ("attn_v.weight", &[Embedding, Keys]),
    ("attn_output.weight", &[Queries, Embedding]),
    ("ffn_norm.weight", &[Embedding]),
    ("ffn_gate.weight", &[Embedding, FeedForward]),
    ("ffn_up.weight", &[Embedding, FeedForward]),
    ("ffn_down.weight", &[FeedForward, Embedding]),
];

const QWEN2_LAYER: [Expected; 3] =
    [("attn_q.bias", &[Queries]), ("attn_k.bias", &[Keys]), ("attn_v.bias", &[Keys])];

/// Checks that every tensor of the family is there, in its shape and a usable format, and that there
/// is no other.
pub(crate) fn check(gguf: &Gguf, header: &Header) -> Result<(), ModelError> {
    let layer: Vec<Expected> = match header.architecture {
        Architecture::Llama => LAYER.to_vec(),
        Architecture::Qwen2 => LAYER.into_iter().chain(QWEN2_LAYER).collect(),
    };
    let outer = OUTER.iter().chain((!header.tied_output).then_some(&OUTPUT));
    for (name, extents) in outer.clone() {
        check_tensor(gguf.need_tensor(name)?, extents, header)?;
    }
    for block in 0..header.block_count {
        for (name, extents) in &layer {
            check_tensor(gguf.need_tensor(&format!("blk.{block}.{name}"))?, extents, header)?;
        }
    }
    let known = |tensor: &TensorInfo| {
        let in_layer = |name: &str| layer.iter().any(|(expected, _)| *expected == name);
        match layer_and_name(&tensor.name) {
            Some((block, name)) => block < header.block_count && in_layer(name),
            None => outer.clone().any(|(expected, _)| *expected == tensor.name),
        }
    };
    match gguf.tensors().iter().find(|tensor| !known(tensor)) {
        Some(tensor) => Err(ModelError::UnknownTensor {
            name: tensor.name.clone(),
            architecture: header.architecture,
        }),
        None => Ok(()),
    }
}

/// Splits `blk.7.attn_q.weight` into 7 and `attn_q.weight`.
fn layer_and_name(name: &str) -> Option<(u32, &str)> {
    let (block, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((block.parse().ok()?, rest))
}

fn check_tensor(
    tensor: &TensorInfo,
    extents: &[Extent],
    header: &Header,
) -> Result<(), ModelError> {
    let usable =
        |format| matches!(format, TensorFormat::Known(format) if FORMATS.contains(&format));
    if !usable(tensor.format) {
        return Err(ModelError::Format {
            name: tensor.name.clone(),
            format: tensor.format.to_string(),
            supported: FORMATS.map(Format::name).join(", "),
        });
    }
    let expected: Vec<u64> = extents.iter().map(|&extent| length(extent, header)).collect();
    if *tensor.shape == *expected {
        return Ok(());
    }
    let found = tensor.shape.to_vec();
    Err(ModelError::Shape { name: tensor.name.clone(), found, expected })
}

fn length(extent: Extent, header: &Header) -> u64 {
    match extent {
        Embedding => header.embedding_length.into(),
        FeedForward => header.feed_forward_length.into(),
        Vocabulary => header.vocab_size.into(),
        Queries => u64::from(header.head_count) * u64::from(header.head_length),
        Keys => u64::from(header.head_count_kv) * u64::from(header.head_length),
    }
}
