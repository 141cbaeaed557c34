//! Which tensors a model of each family has, and their shapes.

use dsk_kernels::format::Format;

use super::{Header, ModelError, Stretch};
use crate::arch::{Family, Presence};
use crate::gguf::{Gguf, TensorFormat, TensorInfo};

/// The formats that the executor has code for.
const FORMATS: [Format; 16] = [
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
    Format::IQ4_NL,
    Format::IQ4_XS,
    Format::MXFP4,
];

/// The formats of vectors: norms, biases, factors.
const VECTOR_FORMATS: [Format; 3] = [Format::F32, Format::F16, Format::BF16];

/// An extent of a tensor, by the hyper-parameter it follows from.
#[derive(Clone, Copy)]
enum Extent {
    Embedding,
    FeedForward,
    /// The gate and its partner, one after the other.
    GateAndUp,
    Vocabulary,
    /// All query heads together.
    Queries,
    /// All key heads together.
    Keys,
    /// All value heads together.
    Values,
    /// Queries, keys and values, one after the other.
    QueriesKeysValues,
    /// What attention gives, all heads together.
    Attended,
    /// One head's key.
    Key,
    /// Pairs of numbers that are rotated together.
    Rotated,
}

use Extent::{
    Attended, Embedding, FeedForward, GateAndUp, Key, Keys, Queries, QueriesKeysValues, Rotated,
    Values, Vocabulary,
};
use Presence::{Always, Never, Optional};

/// A tensor, once for each model or layer.
struct Expected {
    name: &'static str,
    extents: &'static [Extent],
    presence: Presence,
}

const fn expected(name: &'static str, extents: &'static [Extent], presence: Presence) -> Expected {
    Expected { name, extents, presence }
}

fn outer(header: &Header) -> Vec<Expected> {
    let when = |present| if present { Always } else { Never };
    let stretch = &header.rotary.stretch;
    let long = when(matches!(stretch, Stretch::LongOrShort { .. }));
    vec![
        expected("token_embd.weight", &[Embedding, Vocabulary], Always),
        expected("output_norm.weight", &[Embedding], Always),
        // Absent when the embedding is used in its place.
        expected("output.weight", &[Embedding, Vocabulary], when(!header.tied_output)),
        expected("rope_freqs.weight", &[Rotated], when(*stretch == Stretch::Tensor)),
        expected("rope_factors_long.weight", &[Rotated], long),
        expected("rope_factors_short.weight", &[Rotated], long),
    ]
}

fn layer(family: &Family) -> Vec<Expected> {
    let when = |present| if present { Always } else { Never };
    let (fused, apart) = (when(family.fused), when(!family.fused));
    let up: &[Extent] =
        if family.fused { &[Embedding, GateAndUp] } else { &[Embedding, FeedForward] };
    let (qkv, other) = (family.qkv_bias, family.other_bias);
    let (heads, posts) = (when(family.qk_norms), when(family.post_norms));
    vec![
        expected("attn_norm.weight", &[Embedding], Always),
        expected("attn_q.weight", &[Embedding, Queries], apart),
        expected("attn_k.weight", &[Embedding, Keys], apart),
        expected("attn_v.weight", &[Embedding, Values], apart),
        expected("attn_qkv.weight", &[Embedding, QueriesKeysValues], fused),
        expected("attn_q.bias", &[Queries], qkv),
        expected("attn_k.bias", &[Keys], qkv),
        expected("attn_v.bias", &[Values], qkv),
        expected("attn_q_norm.weight", &[Key], heads),
        expected("attn_k_norm.weight", &[Key], heads),
        expected("attn_output.weight", &[Attended, Embedding], Always),
        expected("attn_output.bias", &[Embedding], other),
        expected("post_attention_norm.weight", &[Embedding], posts),
        expected("ffn_norm.weight", &[Embedding], Always),
        expected("ffn_gate.weight", &[Embedding, FeedForward], apart),
        expected("ffn_up.weight", up, Always),
        expected("ffn_down.weight", &[FeedForward, Embedding], Always),
        expected("ffn_gate.bias", &[FeedForward], other),
        expected("ffn_up.bias", &[FeedForward], other),
        expected("ffn_down.bias", &[Embedding], other),
        expected("post_ffw_norm.weight", &[Embedding], posts),
    ]
}

/// Checks that every tensor of the family is there, in its shape and a usable format, and that there
/// is no other.
pub(crate) fn check(gguf: &Gguf, header: &Header) -> Result<(), ModelError> {
    let (outer, layer) = (outer(header), layer(header.architecture));
    for tensor in &outer {
        check_expected(gguf, tensor.name, tensor, header)?;
    }
    for block in 0..header.block_count {
        for tensor in &layer {
            check_expected(gguf, &format!("blk.{block}.{}", tensor.name), tensor, header)?;
        }
    }
    let known = |tensor: &TensorInfo| {
        let among = |list: &[Expected], name: &str| {
            list.iter().any(|expected| expected.presence != Never && expected.name == name)
        };
        match layer_and_name(&tensor.name) {
            Some((block, name)) => block < header.block_count && among(&layer, name),
            None => among(&outer, &tensor.name),
        }
    };
    match gguf.tensors().iter().find(|tensor| !known(tensor)) {
        Some(tensor) => Err(ModelError::UnknownTensor {
            name: tensor.name.clone(),
            architecture: header.architecture.name(),
        }),
        None => Ok(()),
    }
}

/// Splits `blk.7.attn_q.weight` into 7 and `attn_q.weight`.
fn layer_and_name(name: &str) -> Option<(u32, &str)> {
    let (block, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let number: u32 = block.parse().ok()?;
    // Not `blk.007`: nobody would look for that.
    (number.to_string() == block).then_some((number, rest))
}

fn check_expected(
    gguf: &Gguf,
    name: &str,
    expected: &Expected,
    header: &Header,
) -> Result<(), ModelError> {
    match (expected.presence, gguf.tensor(name)) {
        (Never, _) | (Optional, None) => Ok(()),
        (Always | Optional, Some(tensor)) => check_tensor(tensor, expected.extents, header),
        (Always, None) => gguf.need_tensor(name).map(|_| ()).map_err(ModelError::from),
    }
}

fn check_tensor(
    tensor: &TensorInfo,
    extents: &[Extent],
    header: &Header,
) -> Result<(), ModelError> {
    let formats: &[Format] = if extents.len() == 1 { &VECTOR_FORMATS } else { &FORMATS };
    let usable =
        |format| matches!(format, TensorFormat::Known(format) if formats.contains(&format));
    if !usable(tensor.format) {
        let supported: Vec<&str> = formats.iter().map(|format| format.name()).collect();
        return Err(ModelError::Format {
            name: tensor.name.clone(),
            format: tensor.format.to_string(),
            supported: supported.join(", "),
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
    let heads = |count: u32, length: u32| u64::from(count) * u64::from(length);
    match extent {
        Embedding => header.embedding_length.into(),
        FeedForward => header.feed_forward_length.into(),
        GateAndUp => 2 * u64::from(header.feed_forward_length),
        Vocabulary => header.vocab_size.into(),
        Queries => heads(header.head_count, header.key_length),
        Keys => heads(header.head_count_kv, header.key_length),
        Values => heads(header.head_count_kv, header.value_length),
        QueriesKeysValues => [Queries, Keys, Values].map(|part| length(part, header)).iter().sum(),
        Attended => heads(header.head_count, header.value_length),
        Key => header.key_length.into(),
        Rotated => u64::from(header.rotary.dimensions) / 2,
    }
}
