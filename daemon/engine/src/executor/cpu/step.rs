//! One step: the operations of the plan, each cut into chunks.
//!
//! A chunk reads what earlier operations wrote and writes a part of a buffer that is its own; the
//! buffers check both.

use std::ops::Range;
use std::sync::{MutexGuard, PoisonError};

use dsk_kernels::attention::{self, Attend, SPAN_TOKENS, attend_span};
use dsk_kernels::kv::{self, BLOCK_TOKENS};
use dsk_kernels::panel::ROWS;
use dsk_kernels::pool::Chunk;
use dsk_kernels::rope::Angles;
use dsk_kernels::shared::Shared;
use dsk_kernels::{elementwise, gate, matmul, norm};

use super::buffers::InputSet;
use super::{CpuExecutor, Scratch};
use crate::arch::Gate;
use crate::executor::{Batch, ExecutorError, Logits, SequenceId};
use crate::plan::{LOGIT_ROWS, MatrixId, Op, PanelChunk, attend};

/// Tokens of a chunk of the operations that go token by token.
const TOKENS_PER_CHUNK: usize = 8;
/// Tokens that a matrix is multiplied with before its next panels: they stay in the fast cache.
const TOKEN_BLOCK: usize = 96;
/// Pieces of attention for each worker, below which contexts are cut.
const TASKS_PER_THREAD: usize = 4;
/// Queries of a chunk of attention.
const QUERIES_PER_CHUNK: usize = 32;

/// Cuts a batch into batches of at most `tokens` tokens.
pub(super) fn parts(batch: &Batch, tokens: usize) -> Vec<Batch> {
    let mut parts = vec![Batch::default()];
    for slice in &batch.sequences {
        let mut rows = slice.rows.clone();
        while !rows.is_empty() {
            let room = tokens - parts.last().map_or(0, |part| part.tokens.len());
            let Some(part) = parts.last_mut().filter(|_| room > 0) else {
                parts.push(Batch::default());
                continue;
            };
            let taken = rows.start..rows.end.min(rows.start + room);
            let base = part.tokens.len();
            let position = batch.positions[taken.start] as usize;
            part.push(slice.sequence, position, &batch.tokens[taken.clone()], false);
            let asked = batch.logits.iter().filter(|row| taken.contains(row));
            part.logits.extend(asked.map(|row| row - taken.start + base));
            rows.start = taken.end;
        }
    }
    parts
}

/// Rows of one sequence whose keys and values go to one block.
#[derive(Debug, PartialEq, Eq)]
struct StoreGroup {
    rows: Range<usize>,
    block: usize,
    /// The place of the first row in the block.
    slot: usize,
}

/// Queries that are answered together, for one head of keys and values.
#[derive(Debug)]
struct AttendTask {
    sequence: SequenceId,
    rows: Range<usize>,
    /// Of the first row.
    position: usize,
    head: usize,
}

/// The part of a task that lies in one span of the context.
#[derive(Debug)]
struct SpanPart {
    task: usize,
    span: usize,
    /// The row of its partial result.
    slot: usize,
}

/// What the chunks of a step share.
struct Step<'a> {
    executor: &'a CpuExecutor,
    batch: &'a Batch,
    /// Rotations of each row, for each rope.
    angles: Vec<Vec<Angles>>,
    groups: Vec<StoreGroup>,
    tasks: Vec<AttendTask>,
    /// The tasks, cut by spans; empty where there are enough tasks for all workers.
    parts: Vec<SpanPart>,
}

impl CpuExecutor {
    /// Runs a batch of at most as many tokens as the buffers have rows.
    pub(super) fn run(&self, batch: &Batch, logits: &mut Logits) -> Result<(), ExecutorError> {
        let step = Step::new(self, batch);
        let counts: Vec<u32> = (0..self.plan.ops.len()).map(|op| step.chunks(op) as u32).collect();
        let ops = self.plan.ops.len() - 2;
        self.pool.run(&counts[..ops], &|chunk| step.work(self.plan.ops[chunk.phase], chunk));
        for rows in batch.logits.chunks(LOGIT_ROWS) {
            self.head(&step, rows, &counts[ops..], logits)?;
        }
        Ok(())
    }

    /// The logits of some rows.
    fn head(
        &self,
        step: &Step<'_>,
        rows: &[usize],
        counts: &[u32],
        logits: &mut Logits,
    ) -> Result<(), ExecutorError> {
        let first = self.plan.ops.len() - counts.len();
        self.pool.run(counts, &|chunk| match self.plan.ops[first + chunk.phase] {
            Op::Gather => step.gather(rows),
            _ => step.logits(rows.len(), chunk),
        });
        let buffer = self.buffers.logits.read();
        let width = self.plan.widths.vocabulary;
        buffer.chunks_exact(width).take(rows.len()).try_for_each(|row| logits.push(row))
    }
}

impl<'a> Step<'a> {
    fn new(executor: &'a CpuExecutor, batch: &'a Batch) -> Step<'a> {
        let angles_at = |position: &u32| {
            let angles = executor.ropes.iter().map(|rope| {
                let mut angles = Angles::default();
                rope.angles(*position, &mut angles);
                angles
            });
            angles.collect()
        };
        let mut step = Step {
            executor,
            batch,
            angles: batch.positions.iter().map(angles_at).collect(),
            groups: Vec::new(),
            tasks: Vec::new(),
            parts: Vec::new(),
        };
        for slice in &batch.sequences {
            step.plan_sequence(slice.sequence, slice.rows.clone());
        }
        // The longest first, so that none of them is left for the end.
        step.tasks.sort_by_key(|task| std::cmp::Reverse(task.rows.len() * (task.position + 1)));
        step.split();
        step
    }

    /// Cuts long contexts into spans where one token each of few sequences would leave workers idle.
    fn split(&mut self) {
        let enough = TASKS_PER_THREAD * self.executor.plan.limits.threads;
        let single = self.rows() == self.batch.sequences.len();
        if !single || self.tasks.len() >= enough {
            return;
        }
        for (task, AttendTask { position, .. }) in self.tasks.iter().enumerate() {
            for span in 0..(position + 1).div_ceil(SPAN_TOKENS) {
                let slot = self.parts.len();
                self.parts.push(SpanPart { task, span, slot });
            }
        }
        if self.parts.len() == self.tasks.len() {
            self.parts.clear();
        }
    }

    fn plan_sequence(&mut self, sequence: SequenceId, rows: Range<usize>) {
        let position = self.batch.positions[rows.start] as usize;
        let blocks = self.executor.sequences.blocks(sequence);
        let mut row = rows.start;
        while row < rows.end {
            let at = position + row - rows.start;
            let slot = at % BLOCK_TOKENS;
            let end = rows.end.min(row + BLOCK_TOKENS - slot);
            let block = blocks[at / BLOCK_TOKENS] as usize;
            self.groups.push(StoreGroup { rows: row..end, block, slot });
            row = end;
        }
        for start in rows.clone().step_by(QUERIES_PER_CHUNK) {
            let part = start..rows.end.min(start + QUERIES_PER_CHUNK);
            let position = position + start - rows.start;
            let task = |head| AttendTask { sequence, rows: part.clone(), position, head };
            self.tasks.extend((0..self.executor.heads.kv).map(task));
        }
    }

    fn rows(&self) -> usize {
        self.batch.tokens.len()
    }

    /// Chunks of the operation at `index`.
    fn chunks(&self, index: usize) -> usize {
        let executor = self.executor;
        match executor.plan.ops[index] {
            Op::Store(_) => self.groups.len() * executor.heads.kv,
            Op::Attend(_) if !self.parts.is_empty() => self.parts.len(),
            Op::Attend(_) => self.tasks.len(),
            Op::Gather => 1,
            Op::Project(_) | Op::AttentionOutput(_) | Op::GateUp(_) | Op::Down(_) | Op::Logits => {
                executor.pieces[index].len()
            }
            _ => self.rows().div_ceil(TOKENS_PER_CHUNK),
        }
    }

    fn work(&self, op: Op, chunk: Chunk) {
        let vectors = |layer: usize| &self.executor.weights.layers[layer];
        let piece = || &self.executor.pieces[chunk.phase][chunk.index as usize];
        match op {
            Op::Embed => self.embed(self.token_rows(chunk)),
            Op::AttentionNorm(layer) => {
                self.normalize(self.token_rows(chunk), &vectors(layer).attention_norm, chunk);
            }
            Op::Project(layer) => self.project(layer, piece(), chunk),
            Op::Store(layer) => self.store(layer, chunk),
            Op::Attend(layer) => self.attend(layer, chunk),
            Op::Collect(layer) => self.collect(layer, self.token_rows(chunk), chunk),
            Op::AttentionOutput(layer) => {
                let input = &self.executor.buffers.attended_input;
                self.add(piece(), input, &vectors(layer).output_bias, chunk);
            }
            Op::FeedForwardNorm(layer) => {
                self.normalize(self.token_rows(chunk), &vectors(layer).feed_forward_norm, chunk);
            }
            Op::GateUp(layer) => self.gate_up(layer, piece(), chunk),
            Op::Down(layer) => {
                let input = &self.executor.buffers.gated_input;
                self.add(piece(), input, &vectors(layer).down_bias, chunk);
            }
            Op::AddNormalized { layer, attention } => {
                self.add_normalized(layer, attention, self.token_rows(chunk), chunk);
            }
            Op::Gather | Op::Logits => unreachable!("they run on their own"),
        }
    }

    /// The rows of a chunk of an operation that goes token by token.
    fn token_rows(&self, chunk: Chunk) -> Range<usize> {
        let start = chunk.index as usize * TOKENS_PER_CHUNK;
        start..self.rows().min(start + TOKENS_PER_CHUNK)
    }

    fn scratch(&self, chunk: Chunk) -> MutexGuard<'a, Scratch> {
        // Whatever a panic left there is overwritten before it is read.
        self.executor.scratch[chunk.worker].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn embed(&self, rows: Range<usize>) {
        let executor = self.executor;
        let table = executor.weights.matrix(&executor.plan, executor.plan.embedding);
        let width = executor.plan.widths.embedding;
        let mut stream = executor.buffers.stream.write(rows.clone(), 0..width);
        for row in rows {
            let out = stream.row_mut(row);
            table.row(self.batch.tokens[row] as usize, out);
            if executor.header.architecture.scaled_embedding {
                elementwise::scale(executor.isa, out, (width as f32).sqrt());
            }
        }
    }

    /// Norms rows of the residual stream into the inputs of the next matrices.
    fn normalize(&self, rows: Range<usize>, weight: &[f32], chunk: Chunk) {
        let mut scratch = self.scratch(chunk);
        for row in rows {
            self.normalize_row(row, row, weight, &mut scratch.row);
        }
    }

    fn normalize_row(&self, from: usize, to: usize, weight: &[f32], normed: &mut Vec<f32>) {
        let (isa, buffers) = (self.executor.isa, &self.executor.buffers);
        let width = weight.len();
        normed.resize(width, 0.0);
        let stream = buffers.stream.read_block(from..from + 1, 0..width);
        norm::rms_norm(isa, stream.row(from), weight, self.executor.header.rms_epsilon, normed);
        buffers.stream_input.write(isa, to..to + 1, 0..width, normed);
    }

    /// Multiplies a piece of a matrix with all rows of its input and hands each tile of results on:
    /// (rows, columns, results, distance of two rows of results).
    fn multiply(
        &self,
        piece: &PanelChunk,
        input: &InputSet,
        rows: usize,
        scratch: &mut Scratch,
        mut done: impl FnMut(Range<usize>, Range<usize>, &[f32], usize),
    ) {
        let executor = self.executor;
        let plan = executor.plan.matrix(piece.matrix);
        let input = input.read(plan.kind());
        let columns = piece.panels.start * ROWS..plan.rows.min(piece.panels.end * ROWS);
        let stride = piece.panels.len() * ROWS;
        for start in (0..rows).step_by(TOKEN_BLOCK) {
            let rows = start..rows.min(start + TOKEN_BLOCK);
            let Scratch { matmul, tiles: [tile, _], .. } = &mut *scratch;
            tile.resize(rows.len() * stride, 0.0);
            let weights = executor.weights.matrix(&executor.plan, piece.matrix);
            let panels = piece.panels.clone();
            matmul::multiply(
                executor.isa,
                &weights,
                panels,
                &input.rows(rows.clone()),
                matmul,
                tile,
            );
            done(rows, columns.clone(), tile, stride);
        }
    }

    fn project(&self, layer: usize, piece: &PanelChunk, chunk: Chunk) {
        let executor = self.executor;
        let (base, bias) = self.projected_place(layer, piece.matrix);
        let (input, out) = (&executor.buffers.stream_input, &executor.buffers.projected);
        let mut scratch = self.scratch(chunk);
        self.multiply(piece, input, self.rows(), &mut scratch, |rows, columns, tile, stride| {
            let place = base + columns.start..base + columns.end;
            let mut out = out.write(rows.clone(), place.clone());
            for (row, results) in rows.zip(tile.chunks_exact(stride)) {
                let out = out.row_mut(row);
                out.copy_from_slice(&results[..place.len()]);
                add_bias(executor, out, bias, &columns);
            }
        });
    }

    /// Where the results of a matrix of the projection go, and their bias.
    fn projected_place(&self, layer: usize, matrix: MatrixId) -> (usize, &[f32]) {
        let (plan, vectors) = (&self.executor.plan, &self.executor.weights.layers[layer]);
        let widths = &plan.widths;
        match plan.layers[layer] {
            layer if layer.query == matrix => (0, &vectors.query_bias),
            layer if layer.key == matrix => (widths.queries, &vectors.key_bias),
            _ => (widths.queries + widths.keys, &vectors.value_bias),
        }
    }

    /// Norms and rotates the queries and the key of one head, and caches key and value.
    fn store(&self, layer: usize, chunk: Chunk) {
        let executor = self.executor;
        let index = chunk.index as usize;
        let (group, head) = (&self.groups[index / executor.heads.kv], index % executor.heads.kv);
        let heads = executor.heads;
        let widths = &executor.plan.widths;
        let projected = &executor.buffers.projected;
        let part = |base: usize, width: usize| base + head * width..base + (head + 1) * width;
        let queries = part(0, heads.group * heads.key);
        let mut queries = projected.write(group.rows.clone(), queries);
        let keys = part(widths.queries, heads.key);
        let mut keys = projected.write(group.rows.clone(), keys);
        let values = part(widths.queries + widths.keys, heads.value);
        let values = projected.read_block(group.rows.clone(), values);
        let bytes = executor.plan.tile_bytes;
        let tile = group.block * bytes..(group.block + 1) * bytes;
        let mut tile = executor.cache[layer].write(head..head + 1, tile);
        let vectors = &executor.weights.layers[layer];
        for (index, row) in group.rows.clone().enumerate() {
            let angles = &self.angles[row];
            for query in queries.row_mut(row).chunks_exact_mut(heads.key) {
                self.turn(layer, query, vectors.query_norm.as_deref(), angles);
            }
            let key = keys.row_mut(row);
            self.turn(layer, key, vectors.key_norm.as_deref(), angles);
            let (slot, kv_type) = (group.slot + index, executor.plan.limits.kv);
            kv::write(executor.isa, kv_type, tile.row_mut(head), slot, key, values.row(row));
        }
    }

    /// Norms a head, where the family does, and rotates it.
    fn turn(&self, layer: usize, head: &mut [f32], weight: Option<&[f32]>, angles: &[Angles]) {
        let executor = self.executor;
        if let Some(weight) = weight {
            norm::rms_norm_in_place(executor.isa, head, weight, executor.header.rms_epsilon);
        }
        let rope = executor.rope_of(layer);
        executor.ropes[rope].rotate(executor.isa, &angles[rope], head);
    }

    fn attend(&self, layer: usize, chunk: Chunk) {
        let executor = self.executor;
        let part = self.parts.get(chunk.index as usize);
        let task = &self.tasks[part.map_or(chunk.index as usize, |part| part.task)];
        let shape = executor.shape(layer);
        let columns = executor.cache[layer].columns();
        let cache = executor.cache[layer].read_block(task.head..task.head + 1, 0..columns);
        let bytes = executor.plan.tile_bytes;
        let (plane, blocks) = (cache.row(task.head), executor.sequences.blocks(task.sequence));
        let tile = |block: usize| &plane[blocks[block] as usize * bytes..][..bytes];
        let mut scratch = self.scratch(chunk);
        let Scratch { attention, tiles: [queries, out], .. } = &mut *scratch;
        queries.clear();
        let from = task.columns(shape.group * shape.key_length);
        let projected = executor.buffers.projected.read_block(task.rows.clone(), from);
        task.rows.clone().for_each(|row| queries.extend_from_slice(projected.row(row)));
        let (isa, position) = (executor.isa, task.position);
        if let Some(&SpanPart { span, slot, .. }) = part {
            if shape.spans(position..position + 1).contains(&span) {
                let width = executor.plan.partial_columns;
                let mut partial = executor.buffers.partials.write(slot..slot + 1, 0..width);
                let partial = partial.row_mut(slot);
                attend_span(isa, &shape, &tile, queries, position, span, attention, partial);
            }
            return;
        }
        let width = shape.group * shape.value_length;
        out.resize(task.rows.len() * width, 0.0);
        attention::attend(isa, &shape, &tile, queries, position, attention, out);
        let mut attended = executor.buffers.attended.write(task.rows.clone(), task.columns(width));
        for (row, out) in task.rows.clone().zip(out.chunks_exact(width)) {
            attended.row_mut(row).copy_from_slice(out);
        }
    }

    fn collect(&self, layer: usize, rows: Range<usize>, chunk: Chunk) {
        let executor = self.executor;
        self.merge(layer, rows.clone(), chunk);
        let width = executor.plan.widths.attended;
        let attended = executor.buffers.attended.read_block(rows.clone(), 0..width);
        for row in rows {
            let input = &executor.buffers.attended_input;
            input.write(executor.isa, row..row + 1, 0..width, attended.row(row));
        }
    }

    /// Puts the spans of rows together, where they were cut.
    fn merge(&self, layer: usize, rows: Range<usize>, chunk: Chunk) {
        let executor = self.executor;
        let shape = executor.shape(layer);
        let width = shape.group * shape.value_length;
        for group in self.parts.chunk_by(|a, b| a.task == b.task) {
            let task = &self.tasks[group[0].task];
            if !rows.contains(&task.rows.start) {
                continue;
            }
            let slots = group[0].slot..group[0].slot + group.len();
            let columns = executor.plan.partial_columns;
            let partials = executor.buffers.partials.read_block(slots.clone(), 0..columns);
            let seen = shape.spans(task.position..task.position + 1);
            let seen = seen.map(|span| partials.row(slots.start + span));
            let columns = task.columns(width);
            let mut attended = executor.buffers.attended.write(task.rows.clone(), columns);
            let scratch = &mut self.scratch(chunk).attention;
            attention::merge(
                executor.isa,
                &shape,
                seen,
                scratch,
                attended.row_mut(task.rows.start),
            );
        }
    }

    /// Multiplies a piece of a matrix and adds what it gives to the residual stream, or keeps it for
    /// [`Op::AddNormalized`].
    fn add(&self, piece: &PanelChunk, input: &InputSet, bias: &[f32], chunk: Chunk) {
        let executor = self.executor;
        let post_norms = executor.header.architecture.post_norms;
        let buffers = &executor.buffers;
        let out: &Shared<f32> = if post_norms { &buffers.addend } else { &buffers.stream };
        let mut scratch = self.scratch(chunk);
        self.multiply(piece, input, self.rows(), &mut scratch, |rows, columns, tile, stride| {
            let mut out = out.write(rows.clone(), columns.clone());
            for (row, results) in rows.zip(tile.chunks_exact(stride)) {
                let (out, results) = (out.row_mut(row), &results[..columns.len()]);
                match post_norms {
                    true => out.copy_from_slice(results),
                    false => elementwise::add_assign(executor.isa, out, results),
                }
                add_bias(executor, out, bias, &columns);
            }
        });
    }

    fn add_normalized(&self, layer: usize, attention: bool, rows: Range<usize>, chunk: Chunk) {
        let executor = self.executor;
        let vectors = &executor.weights.layers[layer];
        let weight = match attention {
            true => vectors.post_attention_norm.as_deref(),
            false => vectors.post_feed_forward_norm.as_deref(),
        };
        let weight = weight.expect("the table of tensors was checked for it");
        let width = weight.len();
        let addend = executor.buffers.addend.read_block(rows.clone(), 0..width);
        let mut stream = executor.buffers.stream.write(rows.clone(), 0..width);
        let mut scratch = self.scratch(chunk);
        scratch.row.resize(width, 0.0);
        for row in rows {
            let epsilon = executor.header.rms_epsilon;
            norm::rms_norm(executor.isa, addend.row(row), weight, epsilon, &mut scratch.row);
            elementwise::add_assign(executor.isa, stream.row_mut(row), &scratch.row);
        }
    }

    /// Gate and partner of some columns, multiplied, and rounded for the next matrix.
    fn gate_up(&self, layer: usize, piece: &PanelChunk, chunk: Chunk) {
        let executor = self.executor;
        let vectors = &executor.weights.layers[layer];
        let buffers = &executor.buffers;
        let mut scratch = self.scratch(chunk);
        let scratch = &mut *scratch;
        let up =
            PanelChunk { matrix: executor.plan.layers[layer].up, panels: piece.panels.clone() };
        for start in (0..self.rows()).step_by(TOKEN_BLOCK) {
            let rows = start..self.rows().min(start + TOKEN_BLOCK);
            let columns = self.tile(piece, rows.clone(), &vectors.gate_bias, 0, scratch);
            self.tile(&up, rows.clone(), &vectors.up_bias, 1, scratch);
            let [gate, up] = &mut scratch.tiles;
            let stride = piece.panels.len() * ROWS;
            scratch.row.clear();
            for (gate, up) in gate.chunks_exact(stride).zip(up.chunks_exact(stride)) {
                let at = scratch.row.len();
                scratch.row.resize(at + columns.len(), 0.0);
                let (gate, up) = (&gate[..columns.len()], &up[..columns.len()]);
                let out = &mut scratch.row[at..];
                match executor.header.architecture.gate {
                    Gate::Silu => gate::silu_mul(executor.isa, gate, up, out),
                    Gate::Gelu => gate::gelu_mul(executor.isa, gate, up, out),
                }
            }
            buffers.gated_input.write(executor.isa, rows, columns, &scratch.row);
        }
    }

    /// Multiplies a piece with some rows of the stream's input, into a tile; gives its columns.
    fn tile(
        &self,
        piece: &PanelChunk,
        rows: Range<usize>,
        bias: &[f32],
        tile: usize,
        scratch: &mut Scratch,
    ) -> Range<usize> {
        let executor = self.executor;
        let plan = executor.plan.matrix(piece.matrix);
        let input = executor.buffers.stream_input.read(plan.kind());
        let weights = executor.weights.matrix(&executor.plan, piece.matrix);
        let stride = piece.panels.len() * ROWS;
        let columns = piece.panels.start * ROWS..plan.rows.min(piece.panels.end * ROWS);
        let Scratch { matmul, tiles, .. } = scratch;
        let tile = &mut tiles[tile];
        tile.resize(rows.len() * stride, 0.0);
        let panels = piece.panels.clone();
        matmul::multiply(executor.isa, &weights, panels, &input.rows(rows), matmul, tile);
        for results in tile.chunks_exact_mut(stride) {
            add_bias(executor, &mut results[..columns.len()], bias, &columns);
        }
        columns
    }

    /// The last norm of the rows that want logits.
    fn gather(&self, rows: &[usize]) {
        let mut normed = Vec::new();
        for (index, &row) in rows.iter().enumerate() {
            self.normalize_row(row, index, &self.executor.weights.output_norm, &mut normed);
        }
    }

    fn logits(&self, rows: usize, chunk: Chunk) {
        let executor = self.executor;
        let piece = executor.pieces.last().expect("the plan ends with the head");
        let piece = &piece[chunk.index as usize];
        let (input, out) = (&executor.buffers.stream_input, &executor.buffers.logits);
        let mut scratch = self.scratch(chunk);
        self.multiply(piece, input, rows, &mut scratch, |rows, columns, tile, stride| {
            let mut out = out.write(rows.clone(), columns.clone());
            for (row, results) in rows.zip(tile.chunks_exact(stride)) {
                let out = out.row_mut(row);
                out.copy_from_slice(&results[..columns.len()]);
                if let Some(cap) = executor.header.logit_cap {
                    elementwise::soft_cap(executor.isa, out, cap);
                }
            }
        });
    }
}

impl CpuExecutor {
    /// Which of the ropes a layer uses.
    fn rope_of(&self, layer: usize) -> usize {
        usize::from(self.ropes.len() > 1 && self.plan.layers[layer].window.is_some())
    }

    fn shape(&self, layer: usize) -> Attend {
        attend(&self.header, self.plan.limits.kv, self.plan.layers[layer].window)
    }
}

impl AttendTask {
    /// The part of a row that belongs to the task's heads, each `width` numbers together.
    fn columns(&self, width: usize) -> Range<usize> {
        self.head * width..(self.head + 1) * width
    }
}

/// Adds the bias of some columns; none where the model has none.
fn add_bias(executor: &CpuExecutor, out: &mut [f32], bias: &[f32], columns: &Range<usize>) {
    if !bias.is_empty() {
        elementwise::add_assign(executor.isa, out, &bias[columns.clone()]);
    }
}
