//! The work of a step and the memory of a model, laid out before anything is allocated.
//!
//! A [`Plan`] follows from a checked header, the table of tensors and the [`Limits`], and from nothing
//! else: it says where every matrix lies in the arena of weights, how large each buffer is, and the
//! list of fused operations that a step runs. The executor allocates exactly what it says, so
//! [`Plan::bytes`] is what a loaded model takes.

use dsk_kernels::activation::Kind;
use dsk_kernels::attention::{self, Attend};
use dsk_kernels::format::Format;
use dsk_kernels::kv::{self, KvType};
use dsk_kernels::panel;

use crate::demand::{self, Demand};
use crate::engine::{KvFormat, WeightForm};
use crate::executor::Bytes;
use crate::gguf::Gguf;
use crate::model::{Header, ModelError};

mod chunks;

pub(crate) use chunks::{PanelChunk, chunks_of};

/// Rows of logits that are computed at once; more are computed in turns.
pub(crate) const LOGIT_ROWS: usize = 16;
/// Tokens of one step, at most: longer batches run as several. Buffers are as long as this.
const STEP_TOKENS: usize = 256;
/// Where matrices start in the arena, in bytes: a cache line.
const ALIGNMENT: usize = 64;

/// What the plan is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens that one sequence can hold.
    pub context: usize,
    /// Sequences at once.
    pub sequences: usize,
    /// Tokens of one step, at most.
    pub step_tokens: usize,
    /// Workers.
    pub threads: usize,
    /// How keys and values are kept.
    pub kv: KvType,
    /// How weights are kept.
    pub weights: WeightForm,
}

impl Limits {
    /// For a load with weights as they are stored.
    pub fn new(context: u32, sequences: usize, threads: usize, kv: KvFormat) -> Limits {
        let context = context as usize;
        Limits {
            context,
            sequences,
            step_tokens: STEP_TOKENS.min(context.saturating_mul(sequences)),
            threads,
            kv: kv.kernel_type(),
            weights: WeightForm::Stored,
        }
    }
}

/// Names a matrix of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MatrixId(pub(crate) usize);

/// A matrix: rows of a tensor of the file, and where they are packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MatrixPlan {
    /// The tensor.
    pub(crate) tensor: String,
    /// Its first row that belongs to the matrix: some tensors hold several.
    pub(crate) first_row: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) format: Format,
    /// Where it starts in the arena.
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
}

impl MatrixPlan {
    /// The form that its input must have.
    pub(crate) fn kind(&self) -> Kind {
        Kind::of(self.format)
    }

    /// Panels of packed rows.
    pub(crate) fn panels(&self) -> usize {
        self.rows.div_ceil(panel::ROWS)
    }

    /// Bytes of one of its panels.
    pub(crate) fn panel_bytes(&self) -> usize {
        panel::panel_bytes(self.format, self.columns)
    }
}

/// The matrices of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerPlan {
    pub(crate) query: MatrixId,
    pub(crate) key: MatrixId,
    pub(crate) value: MatrixId,
    pub(crate) output: MatrixId,
    pub(crate) gate: MatrixId,
    pub(crate) up: MatrixId,
    pub(crate) down: MatrixId,
    /// Tokens that a token of this layer sees; all where absent.
    pub(crate) window: Option<u32>,
}

/// Numbers of a token at one place of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Widths {
    pub(crate) embedding: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) values: usize,
    /// What attention gives.
    pub(crate) attended: usize,
    pub(crate) feed_forward: usize,
    pub(crate) vocabulary: usize,
}

impl Widths {
    fn of(header: &Header) -> Widths {
        let heads = header.head_count as usize;
        let kv_heads = header.head_count_kv as usize;
        let (key, value) = (header.key_length as usize, header.value_length as usize);
        Widths {
            embedding: header.embedding_length as usize,
            queries: heads * key,
            keys: kv_heads * key,
            values: kv_heads * value,
            attended: heads * value,
            feed_forward: header.feed_forward_length as usize,
            vocabulary: header.vocab_size as usize,
        }
    }

    /// Queries, keys and values, one after the other.
    pub(crate) fn projected(&self) -> usize {
        self.queries + self.keys + self.values
    }
}

/// One fused operation. Each is a phase of a step: it starts when the one before it is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Rows of the embedding to the residual stream.
    Embed,
    /// The residual stream, normalized and quantized: the input of attention.
    AttentionNorm(usize),
    /// Queries, keys and values, with their biases.
    Project(usize),
    /// Norms of heads, rotation, and keys and values into the cache.
    Store(usize),
    /// Attention of each query to the cache.
    Attend(usize),
    /// What attention gave, merged and quantized.
    Collect(usize),
    /// The output matrix of attention, added to the residual stream.
    AttentionOutput(usize),
    /// The residual stream, normalized and quantized: the input of the feed-forward part.
    FeedForwardNorm(usize),
    /// Gate and partner, multiplied and quantized.
    GateUp(usize),
    /// The last matrix of the feed-forward part, added to the residual stream.
    Down(usize),
    /// After [`Op::AttentionOutput`] or [`Op::Down`] in families that normalize what is added.
    AddNormalized { layer: usize, attention: bool },
    /// The rows that want logits, normalized and quantized.
    Gather,
    /// The output matrix of the model.
    Logits,
}

/// The forms in which the input of some matrices is kept: one for each kind that they need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inputs {
    pub(crate) columns: usize,
    pub(crate) kinds: Vec<Kind>,
}

impl Inputs {
    fn add(&mut self, kind: Kind) {
        if !self.kinds.contains(&kind) {
            self.kinds.push(kind);
        }
    }

    /// Panels of results that fill whole blocks of every form.
    pub(crate) fn unit_panels(&self) -> usize {
        let block = |&kind: &Kind| match kind {
            Kind::Blocks256 => 256,
            Kind::Blocks32 => 32,
            Kind::F32 => 1,
        };
        self.kinds.iter().map(block).max().unwrap_or(1usize).div_ceil(panel::ROWS)
    }

    /// Bytes of one row in all its forms.
    fn row_bytes(&self) -> usize {
        self.kinds.iter().map(|&kind| input_row_bytes(kind, self.columns)).sum()
    }
}

fn input_row_bytes(kind: Kind, columns: usize) -> usize {
    kind.values(columns)
        + size_of::<f32>() * kind.scales(columns)
        + size_of::<i16>() * kind.sums(columns)
        + size_of::<f32>() * kind.floats(columns)
}

/// What a loaded model takes, and what a step does.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub(crate) limits: Limits,
    pub(crate) widths: Widths,
    pub(crate) matrices: Vec<MatrixPlan>,
    pub(crate) embedding: MatrixId,
    pub(crate) head: MatrixId,
    pub(crate) layers: Vec<LayerPlan>,
    pub(crate) ops: Vec<Op>,
    /// Inputs as wide as the residual stream, as what attention gives, as the feed-forward part.
    pub(crate) stream: Inputs,
    pub(crate) attended: Inputs,
    pub(crate) gated: Inputs,
    /// Length of the arena of weights.
    pub(crate) arena_bytes: usize,
    demand: Demand,
    /// Keys and values of one head in one block of tokens.
    pub(crate) tile_bytes: usize,
    /// Numbers of a partial result of attention, for one query.
    pub(crate) partial_columns: usize,
    kv_heads: usize,
}

impl Plan {
    /// Lays out a model whose header was checked against the table of tensors.
    pub fn new(gguf: &Gguf, header: &Header, limits: Limits) -> Result<Plan, ModelError> {
        let (matrices, arena_bytes) = (Vec::new(), 0);
        Builder { gguf, header, weights: limits.weights, matrices, arena_bytes }.plan(limits)
    }

    pub(crate) fn matrix(&self, id: MatrixId) -> &MatrixPlan {
        &self.matrices[id.0]
    }

    /// Blocks of tokens that one sequence can hold.
    pub(crate) fn blocks_per_sequence(&self) -> usize {
        self.limits.context.div_ceil(kv::BLOCK_TOKENS)
    }

    /// Blocks of tokens in all.
    pub(crate) fn blocks(&self) -> usize {
        self.limits.sequences * self.blocks_per_sequence()
    }

    /// What a model takes that is loaded by this plan.
    pub fn bytes(&self) -> Bytes {
        self.demand.bytes(&self.limits)
    }

    /// What it takes as a function of the limits.
    pub fn demand(&self) -> &Demand {
        &self.demand
    }

    /// Partial results of attention: for every sequence, head and span of a full context.
    pub(crate) fn partial_rows(&self) -> usize {
        let spans = self.limits.context.div_ceil(attention::SPAN_TOKENS);
        self.limits.sequences * self.kv_heads * spans
    }
}

struct Builder<'a> {
    gguf: &'a Gguf,
    header: &'a Header,
    weights: WeightForm,
    matrices: Vec<MatrixPlan>,
    arena_bytes: usize,
}

impl Builder<'_> {
    fn plan(mut self, limits: Limits) -> Result<Plan, ModelError> {
        let widths = Widths::of(self.header);
        let (embedding_width, vocabulary) = (widths.embedding, widths.vocabulary);
        let layers = (0..self.header.block_count)
            .map(|block| self.layer(block, &widths))
            .collect::<Result<Vec<_>, _>>()?;
        let embedding = self.whole("token_embd.weight", vocabulary, embedding_width)?;
        let head = match self.header.tied_output {
            true => embedding,
            false => self.whole("output.weight", vocabulary, embedding_width)?,
        };
        let family = self.header.architecture;
        let mut plan = Plan {
            ops: ops(layers.len(), family.post_norms),
            stream: Inputs { columns: widths.embedding, kinds: Vec::new() },
            attended: Inputs { columns: widths.attended, kinds: Vec::new() },
            gated: Inputs { columns: widths.feed_forward, kinds: Vec::new() },
            demand: Demand::default(),
            tile_bytes: kv::tile_bytes(
                limits.kv,
                self.header.key_length as usize,
                self.header.value_length as usize,
            ),
            partial_columns: attend(self.header, limits.kv, None).partial_len(1),
            kv_heads: self.header.head_count_kv as usize,
            arena_bytes: self.arena_bytes,
            matrices: std::mem::take(&mut self.matrices),
            limits,
            widths,
            embedding,
            head,
            layers,
        };
        plan.collect_inputs();
        plan.demand = self.demand(&plan);
        Ok(plan)
    }

    /// What the plan takes, as a function of its limits.
    fn demand(&self, plan: &Plan) -> Demand {
        let bytes = |id: MatrixId| plan.matrix(id).bytes.next_multiple_of(ALIGNMENT) as u64;
        let tied = self.header.tied_output;
        Demand {
            architecture: self.header.architecture.name().to_owned(),
            layers: plan.layers.iter().map(|one| one.matrices().map(bytes).iter().sum()).collect(),
            experts: 0,
            active: 1.0,
            embedding: bytes(plan.embedding),
            head: if tied { 0 } else { bytes(plan.head) },
            vectors: self.vector_bytes() as u64,
            context_max: self.header.context_length,
            kv_heads: u64::from(self.header.head_count_kv),
            key_length: u64::from(self.header.key_length),
            value_length: u64::from(self.header.value_length),
            row: plan.row_bytes(self.header.architecture.post_norms) as u64,
            partial: plan.partial_columns as u64,
            vocabulary: plan.widths.vocabulary as u64,
            tokenizer: demand::tokenizer_bytes(self.gguf),
            parameters: plan.matrices.iter().map(|one| (one.rows * one.columns) as u64).sum(),
        }
    }

    fn layer(&mut self, block: u32, widths: &Widths) -> Result<LayerPlan, ModelError> {
        let name = |name: &str| format!("blk.{block}.{name}.weight");
        let fused = self.header.architecture.fused;
        let pick = |apart: &str, together: &str| name(if fused { together } else { apart });
        let start = |rows: usize| if fused { rows } else { 0 };
        let (w, f) = (widths, widths.feed_forward);
        let stream = w.embedding;
        Ok(LayerPlan {
            query: self.matrix(&pick("attn_q", "attn_qkv"), 0, w.queries, stream)?,
            key: self.matrix(&pick("attn_k", "attn_qkv"), start(w.queries), w.keys, stream)?,
            value: self.matrix(
                &pick("attn_v", "attn_qkv"),
                start(w.queries + w.keys),
                w.values,
                stream,
            )?,
            output: self.whole(&name("attn_output"), stream, w.attended)?,
            gate: self.matrix(&pick("ffn_gate", "ffn_up"), 0, f, stream)?,
            up: self.matrix(&name("ffn_up"), start(f), f, stream)?,
            down: self.whole(&name("ffn_down"), stream, f)?,
            window: self.header.window.filter(|_| self.header.is_windowed(block)),
        })
    }

    fn whole(&mut self, tensor: &str, rows: usize, columns: usize) -> Result<MatrixId, ModelError> {
        self.matrix(tensor, 0, rows, columns)
    }

    fn matrix(
        &mut self,
        tensor: &str,
        first_row: usize,
        rows: usize,
        columns: usize,
    ) -> Result<MatrixId, ModelError> {
        let format = self.gguf.need_tensor(tensor)?.format;
        let kept = |stored: Format| match self.weights {
            WeightForm::Stored => stored,
            WeightForm::F32 => Format::F32,
        };
        let size = format
            .known()
            .map(kept)
            .and_then(|format| Some((format, panel::packed_bytes(format, rows, columns)?)));
        let (format, bytes) = size.ok_or_else(|| ModelError::Format {
            name: tensor.to_owned(),
            format: format.to_string(),
            supported: "a smaller matrix of another format".to_owned(),
        })?;
        let offset = self.arena_bytes;
        self.arena_bytes += bytes.next_multiple_of(ALIGNMENT);
        let tensor = tensor.to_owned();
        let plan = MatrixPlan { tensor, first_row, rows, columns, format, offset, bytes };
        self.matrices.push(plan);
        Ok(MatrixId(self.matrices.len() - 1))
    }

    /// Bytes of the tensors that are no matrices, as f32.
    fn vector_bytes(&self) -> usize {
        let vectors = self.gguf.tensors().iter().filter(|tensor| tensor.shape.len() == 1);
        vectors.map(|tensor| size_of::<f32>() * tensor.elements as usize).sum()
    }
}

impl LayerPlan {
    fn matrices(&self) -> [MatrixId; 7] {
        [self.query, self.key, self.value, self.output, self.gate, self.up, self.down]
    }
}

impl Plan {
    /// Buffers of one token of a step.
    fn row_bytes(&self, post_norms: bool) -> usize {
        let widths = &self.widths;
        let streams = if post_norms { 2 } else { 1 };
        let floats = streams * widths.embedding + widths.projected() + widths.attended;
        let inputs = [&self.stream, &self.attended, &self.gated].map(Inputs::row_bytes);
        size_of::<f32>() * floats + inputs.iter().sum::<usize>()
    }

    /// Which kinds of input each place needs.
    fn collect_inputs(&mut self) {
        let kind = |matrices: &[MatrixPlan], id: MatrixId| matrices[id.0].kind();
        self.stream.add(kind(&self.matrices, self.head));
        for layer in &self.layers {
            for id in [layer.query, layer.key, layer.value, layer.gate, layer.up] {
                self.stream.add(kind(&self.matrices, id));
            }
            self.attended.add(kind(&self.matrices, layer.output));
            self.gated.add(kind(&self.matrices, layer.down));
        }
    }
}

/// How queries attend in a layer with that window.
pub(crate) fn attend(header: &Header, kv_type: KvType, window: Option<u32>) -> Attend {
    Attend {
        kv_type,
        key_length: header.key_length as usize,
        value_length: header.value_length as usize,
        group: (header.head_count / header.head_count_kv) as usize,
        scale: header.score_scale,
        softcap: header.score_cap,
        window,
    }
}

fn ops(layers: usize, post_norms: bool) -> Vec<Op> {
    let mut ops = vec![Op::Embed];
    for layer in 0..layers {
        let add = |attention| post_norms.then_some(Op::AddNormalized { layer, attention });
        ops.extend([
            Op::AttentionNorm(layer),
            Op::Project(layer),
            Op::Store(layer),
            Op::Attend(layer),
            Op::Collect(layer),
            Op::AttentionOutput(layer),
        ]);
        ops.extend(add(true));
        ops.extend([Op::FeedForwardNorm(layer), Op::GateUp(layer), Op::Down(layer)]);
        ops.extend(add(false));
    }
    ops.extend([Op::Gather, Op::Logits]);
    ops
}
