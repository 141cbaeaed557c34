//! How matrices are cut into pieces of work.

use std::ops::Range;

use super::{MatrixId, MatrixPlan};

/// Bytes of weights of a piece: some tens of microseconds of one core's memory bandwidth, so that
/// claiming it costs nothing and waiting for the last one little.
const CHUNK_BYTES: usize = 256 << 10;
/// Pieces for each worker, at least, where the matrices are large enough.
const CHUNKS_PER_THREAD: usize = 6;
/// Less than this is not worth to be a piece of its own, as long as every worker has one.
const CHUNK_BYTES_MIN: usize = 48 << 10;

/// Panels of one matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PanelChunk {
    pub(crate) matrix: MatrixId,
    pub(crate) panels: Range<usize>,
}

/// Cuts matrices into pieces of whole `unit`s of panels, alike in bytes.
pub(crate) fn chunks_of(
    matrices: &[(MatrixId, &MatrixPlan)],
    unit: usize,
    threads: usize,
) -> Vec<PanelChunk> {
    let all: usize = matrices.iter().map(|(_, matrix)| matrix.bytes).sum();
    // As many for each worker.
    let each = (all / threads / CHUNK_BYTES_MIN).clamp(1, CHUNKS_PER_THREAD);
    let target = all.div_ceil(threads * each).clamp(1, CHUNK_BYTES);
    let mut chunks = Vec::new();
    for &(id, matrix) in matrices {
        let step = (target / matrix.panel_bytes().max(1)).max(1).next_multiple_of(unit);
        let panels = matrix.panels();
        chunks.extend(
            (0..panels)
                .step_by(step)
                .map(|start| PanelChunk { matrix: id, panels: start..(start + step).min(panels) }),
        );
    }
    chunks
}
