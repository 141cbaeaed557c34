//! Packs a model's matrices into one arena, on every core, while the file streams in.
//!
//! A piece of a tensor is read, packed and forgotten: its pages go back to the kernel at once, so that
//! a loaded model takes the memory of its weights once.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dsk_kernels::dequantize::dequantize;
use dsk_kernels::format::Format;
use dsk_kernels::panel::{self, Matrix};

use crate::executor::ExecutorError;
use crate::gguf::{Gguf, TensorInfo};
use crate::mmap::Arena;
use crate::plan::{MatrixId, MatrixPlan, Plan};

/// Bytes of a tensor that are packed before the next one that waits is taken.
const PIECE_BYTES: usize = 1 << 20;
/// How often progress is told.
const TOLD_EVERY: Duration = Duration::from_millis(50);

/// The vectors of a layer. A bias is empty where the model has none.
#[derive(Debug)]
pub(super) struct LayerVectors {
    pub(super) attention_norm: Vec<f32>,
    pub(super) feed_forward_norm: Vec<f32>,
    /// Of each head's query and key.
    pub(super) query_norm: Option<Vec<f32>>,
    pub(super) key_norm: Option<Vec<f32>>,
    /// Of what attention and the feed-forward part give.
    pub(super) post_attention_norm: Option<Vec<f32>>,
    pub(super) post_feed_forward_norm: Option<Vec<f32>>,
    pub(super) query_bias: Vec<f32>,
    pub(super) key_bias: Vec<f32>,
    pub(super) value_bias: Vec<f32>,
    pub(super) output_bias: Vec<f32>,
    pub(super) gate_bias: Vec<f32>,
    pub(super) up_bias: Vec<f32>,
    pub(super) down_bias: Vec<f32>,
}

/// Everything a model has learned, in memory.
#[derive(Debug)]
pub(super) struct Weights {
    arena: Arena,
    pub(super) layers: Vec<LayerVectors>,
    pub(super) output_norm: Vec<f32>,
}

impl Weights {
    /// Loads by the plan. `progress` hears fractions from 0 to 1, on this thread.
    pub(super) fn load(
        gguf: &Gguf,
        plan: &Plan,
        progress: &mut dyn FnMut(f32),
    ) -> Result<Weights, ExecutorError> {
        let layers = (0..plan.layers.len()).map(|layer| layer_vectors(gguf, layer));
        let layers = layers.collect::<Result<_, _>>()?;
        let output_norm = vector(gguf, "output_norm.weight")?;
        let arena = Arena::new(plan.arena_bytes).map_err(|error| {
            ExecutorError::Memory(format!("{} bytes for the weights: {error}", plan.arena_bytes))
        })?;
        let mut weights = Weights { arena, layers, output_norm };
        pack_all(gguf, plan, &mut weights.arena, progress)?;
        Ok(weights)
    }

    /// A packed matrix.
    pub(super) fn matrix(&self, plan: &Plan, id: MatrixId) -> Matrix<'_> {
        let matrix = plan.matrix(id);
        let bytes = &self.arena[matrix.offset..matrix.offset + matrix.bytes];
        Matrix::new(matrix.format, matrix.rows, matrix.columns, bytes)
    }
}

fn layer_vectors(gguf: &Gguf, layer: usize) -> Result<LayerVectors, ExecutorError> {
    let name = |name: &str| format!("blk.{layer}.{name}");
    let need = |tensor: &str| vector(gguf, &name(tensor));
    let optional = |tensor: &str| gguf.tensor(&name(tensor)).map(|_| need(tensor)).transpose();
    let bias = |tensor: &str| Ok::<_, ExecutorError>(optional(tensor)?.unwrap_or_default());
    Ok(LayerVectors {
        attention_norm: need("attn_norm.weight")?,
        feed_forward_norm: need("ffn_norm.weight")?,
        query_norm: optional("attn_q_norm.weight")?,
        key_norm: optional("attn_k_norm.weight")?,
        post_attention_norm: optional("post_attention_norm.weight")?,
        post_feed_forward_norm: optional("post_ffw_norm.weight")?,
        query_bias: bias("attn_q.bias")?,
        key_bias: bias("attn_k.bias")?,
        value_bias: bias("attn_v.bias")?,
        output_bias: bias("attn_output.bias")?,
        gate_bias: bias("ffn_gate.bias")?,
        up_bias: bias("ffn_up.bias")?,
        down_bias: bias("ffn_down.bias")?,
    })
}

/// A tensor of one dimension as finite f32.
pub(super) fn vector(gguf: &Gguf, name: &str) -> Result<Vec<f32>, ExecutorError> {
    let tensor = tensor(gguf, name)?;
    let bytes = tensor_bytes(gguf, tensor)?;
    let mut values = vec![0.0; tensor.elements as usize];
    let format = tensor.format.known().ok_or_else(|| broken(name, "it has an unknown format"))?;
    dequantize(format, bytes, &mut values).map_err(|error| broken(name, &error.to_string()))?;
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(at) => {
            Err(broken(name, &format!("element {at} is {}, not a finite number", values[at])))
        }
    }
}

fn tensor<'a>(gguf: &'a Gguf, name: &str) -> Result<&'a TensorInfo, ExecutorError> {
    gguf.need_tensor(name).map_err(|error| ExecutorError::Weights(error.to_string()))
}

fn tensor_bytes<'a>(gguf: &'a Gguf, tensor: &TensorInfo) -> Result<&'a [u8], ExecutorError> {
    gguf.tensor_bytes(tensor).map_err(|error| ExecutorError::Weights(error.to_string()))
}

fn broken(tensor: &str, problem: &str) -> ExecutorError {
    ExecutorError::Weights(format!("tensor {tensor:?}: {problem}"))
}

/// Some panels of a matrix and where they go.
struct Piece<'a> {
    matrix: &'a MatrixPlan,
    panels: Range<usize>,
    out: &'a mut [u8],
}

fn pack_all(
    gguf: &Gguf,
    plan: &Plan,
    arena: &mut [u8],
    progress: &mut dyn FnMut(f32),
) -> Result<(), ExecutorError> {
    let pieces = Mutex::new(pieces(plan, arena).into_iter());
    let failed = Mutex::new(None);
    let packed = AtomicUsize::new(0);
    let next = || pieces.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next();
    let work = |told: &mut dyn FnMut(usize)| {
        while let Some(piece) = next() {
            let bytes = piece.out.len();
            if let Err(error) = pack(gguf, piece) {
                *failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error);
                // Nobody takes another piece.
                while next().is_some() {}
                return;
            }
            told(packed.fetch_add(bytes, Ordering::Relaxed) + bytes);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..plan.limits.threads {
            // Where there is no thread to be had, the others do its work.
            let packer = std::thread::Builder::new().name("packer".to_owned());
            let _ = packer.spawn_scoped(scope, || work(&mut |_| ()));
        }
        let mut last = std::time::Instant::now();
        work(&mut |done| {
            if last.elapsed() >= TOLD_EVERY {
                last = std::time::Instant::now();
                progress(done as f32 / plan.arena_bytes.max(1) as f32);
            }
        });
    });
    match failed.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Cuts the arena into pieces, in the order of the file's layers.
fn pieces<'a>(plan: &'a Plan, mut arena: &'a mut [u8]) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    for matrix in &plan.matrices {
        arena = &mut arena[matrix.offset - at..];
        let step = (PIECE_BYTES / matrix.panel_bytes().max(1)).max(1);
        for start in (0..matrix.panels()).step_by(step) {
            let panels = start..(start + step).min(matrix.panels());
            let (out, rest) = arena.split_at_mut(panels.len() * matrix.panel_bytes());
            arena = rest;
            pieces.push(Piece { matrix, panels, out });
        }
        at = matrix.offset + matrix.bytes;
    }
    pieces
}

fn pack(gguf: &Gguf, piece: Piece<'_>) -> Result<(), ExecutorError> {
    let Piece { matrix, panels, out } = piece;
    let info = tensor(gguf, &matrix.tensor)?;
    let stored = info.format.known().ok_or_else(|| broken(&matrix.tensor, "an unknown format"))?;
    let row_bytes = stored.bytes(matrix.columns as u64).unwrap_or(0) as usize;
    let first = matrix.first_row;
    let rows =
        first + panels.start * panel::ROWS..first + (panels.end * panel::ROWS).min(matrix.rows);
    let source = &tensor_bytes(gguf, info)?[rows.start * row_bytes..rows.end * row_bytes];
    let sources = source.chunks(panel::ROWS * row_bytes);
    for (index, (rows, out)) in sources.zip(out.chunks_mut(matrix.panel_bytes())).enumerate() {
        pack_panel(stored, matrix, rows, out).map_err(|bad| {
            let panel = (panels.start + index) * panel::ROWS;
            broken(&matrix.tensor, &format!("in the rows from {}: {bad}", first + panel))
        })?;
    }
    gguf.release_rows(info, rows.start * row_bytes..rows.end * row_bytes);
    Ok(())
}

/// Packs up to 16 rows, in the form that the plan wants.
fn pack_panel(
    stored: Format,
    matrix: &MatrixPlan,
    rows: &[u8],
    out: &mut [u8],
) -> Result<(), String> {
    let columns = matrix.columns;
    if stored == matrix.format {
        return panel::pack_panel(stored, columns, rows, out).map_err(|bad| bad.to_string());
    }
    let elements = rows.len() / stored.bytes_per_block() * stored.elements_per_block();
    let mut values = vec![0.0; elements];
    dequantize(stored, rows, &mut values).map_err(|error| error.to_string())?;
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    panel::pack_panel(matrix.format, columns, &bytes, out).map_err(|bad| bad.to_string())
}
