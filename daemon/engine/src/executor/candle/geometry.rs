//! What candle takes of a model's context and memory.

use dsk_kernels::format::Format;

use super::Precision;
use crate::demand;
use crate::executor::Bytes;
use crate::gguf::TensorInfo;
use crate::model::{Header, Network};

/// Positions in the rope tables of candle's llama; qwen2's are as long as they are asked to be.
const LLAMA_POSITIONS: u32 = candle_transformers::models::quantized_llama::MAX_SEQ_LEN as u32;
/// Bytes of an f32.
const F32: u64 = 4;

/// The longest context that both the model and candle can do, in tokens.
pub(super) fn context_max(header: &Header) -> u32 {
    match header.architecture.name() {
        "llama" => header.context_length.min(LLAMA_POSITIONS),
        _ => header.context_length,
    }
}

/// What candle keeps and, at most, uses for a step of `step` tokens in a full context.
pub(super) fn bytes(network: &Network, precision: Precision, context: usize, step: usize) -> Bytes {
    let header = network.header();
    let (context, step) = (context as u64, step as u64);
    let (heads, kv_heads) = (u64::from(header.head_count), u64::from(header.head_count_kv));
    let head = u64::from(header.key_length);
    let kv = 2 * u64::from(header.block_count) * kv_heads * head * F32 * context;
    let rope = context * head * F32;
    let masks = context * context / 2 * (super::PIECES.len() as u64 - 1);
    // Scores, masked scores and their softmax; K and V of one layer for every head.
    let scores = 3 * heads * step * context * F32;
    let repeated = 2 * heads * head * context * F32;
    let inner = 4 * step * u64::from(header.feed_forward_length) * F32;
    let logits = u64::from(header.vocab_size) * F32;
    let tensors = network.gguf().tensors().iter();
    Bytes {
        weights: tensors.map(|info| tensor_bytes(info, header.tied_output, precision)).sum(),
        kv,
        other: rope + masks + scores + repeated + inner + logits,
        runtime: demand::runtime_bytes(network.gguf()),
    }
}

fn tensor_bytes(info: &TensorInfo, tied: bool, precision: Precision) -> u64 {
    let matrix_bytes = |info: &TensorInfo| match precision {
        Precision::Packed => packed_bytes(info),
        Precision::Unpacked => info.elements * F32,
    };
    match info.name.as_str() {
        // Rows are looked up in a copy in f32; the blocks stay only where they are the output
        // matrix as well.
        "token_embd.weight" => info.elements * F32 + if tied { matrix_bytes(info) } else { 0 },
        _ => matrix_bytes(info),
    }
}

/// Bytes of a matrix in candle: its blocks and, in some formats, a copy in tiles, which is made when
/// it is used first. Formats without blocks become f32.
fn packed_bytes(info: &TensorInfo) -> u64 {
    let blocks = info.bytes.unwrap_or(0);
    let columns = info.shape.first().copied().unwrap_or(0);
    let rows = info.shape.get(1).copied().unwrap_or(0);
    let tiled = cfg!(target_arch = "x86_64") && rows.is_multiple_of(16) && columns % 256 == 0;
    match info.format.known() {
        Some(Format::F32 | Format::F16 | Format::BF16) => info.elements * F32,
        // Bits a weight in the tiles: 6 and 10.
        Some(Format::Q4_K) if tiled => blocks + info.elements / 8 * 6,
        Some(Format::Q6_K) if tiled => blocks + info.elements / 8 * 10,
        Some(Format::Q8_0) if tiled => blocks * 2,
        _ => blocks,
    }
}
