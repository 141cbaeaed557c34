//! The buffers of a step, each allocated once, at the size that the plan gives.

use std::ops::Range;

use dsk_kernels::activation::{self, Kind, Rows};
use dsk_kernels::arch::Isa;
use dsk_kernels::shared::{Read, Shared};

use crate::plan::{Inputs, LOGIT_ROWS, Plan};

/// What lies between the operations of a step. One row a token.
#[derive(Debug)]
pub(super) struct Buffers {
    /// The residual stream.
    pub(super) stream: Shared<f32>,
    /// What is normalized before it is added to the stream, in families that do that.
    pub(super) addend: Shared<f32>,
    /// Queries, keys and values, one after the other.
    pub(super) projected: Shared<f32>,
    /// What attention gives.
    pub(super) attended: Shared<f32>,
    /// What it gives for one span of a context, where several workers share one.
    pub(super) partials: Shared<f32>,
    pub(super) logits: Shared<f32>,
    pub(super) stream_input: InputSet,
    pub(super) attended_input: InputSet,
    pub(super) gated_input: InputSet,
}

impl Buffers {
    pub(super) fn new(plan: &Plan, post_norms: bool) -> Buffers {
        let (rows, widths) = (plan.limits.step_tokens, &plan.widths);
        let addend = if post_norms { widths.embedding } else { 0 };
        Buffers {
            stream: Shared::new(rows, widths.embedding),
            addend: Shared::new(rows, addend),
            projected: Shared::new(rows, widths.projected()),
            attended: Shared::new(rows, widths.attended),
            partials: Shared::new(plan.partial_rows(), plan.partial_columns),
            logits: Shared::new(LOGIT_ROWS, widths.vocabulary),
            stream_input: InputSet::new(&plan.stream, rows),
            attended_input: InputSet::new(&plan.attended, rows),
            gated_input: InputSet::new(&plan.gated, rows),
        }
    }

    /// Writes to all of them.
    pub(super) fn touch(&self) {
        let floats = [&self.stream, &self.addend, &self.projected, &self.attended];
        floats.into_iter().chain([&self.partials, &self.logits]).for_each(touch);
        let inputs = [&self.stream_input, &self.attended_input, &self.gated_input];
        for input in inputs.into_iter().flat_map(|inputs| &inputs.0) {
            touch(&input.values);
            touch(&input.scales);
            touch(&input.sums);
            touch(&input.floats);
        }
    }
}

/// Writes to all of a buffer, so that its pages are there.
pub(super) fn touch<T: Copy + Default>(buffer: &Shared<T>) {
    let rows = buffer.rows();
    let mut all = buffer.write(0..rows, 0..buffer.columns());
    (0..rows).for_each(|row| all.row_mut(row).fill(T::default()));
}

/// The input of some matrices, in every form that one of them needs.
#[derive(Debug)]
pub(super) struct InputSet(Vec<Input>);

impl InputSet {
    fn new(inputs: &Inputs, rows: usize) -> InputSet {
        let input = |&kind: &Kind| Input::new(kind, rows, inputs.columns);
        InputSet(inputs.kinds.iter().map(input).collect())
    }

    /// The form `kind`, whole.
    pub(super) fn read(&self, kind: Kind) -> InputRead<'_> {
        let input = self.0.iter().find(|input| input.kind == kind);
        input.expect("the plan lists every kind that a matrix needs").read()
    }

    /// Quantizes `x` (`rows.len()` rows as long as `columns`) into that part of every form.
    pub(super) fn write(&self, isa: Isa, rows: Range<usize>, columns: Range<usize>, x: &[f32]) {
        for input in &self.0 {
            input.write(isa, rows.clone(), columns.clone(), x);
        }
    }
}

/// Rows in one form.
#[derive(Debug)]
struct Input {
    kind: Kind,
    columns: usize,
    values: Shared<i8>,
    scales: Shared<f32>,
    sums: Shared<i16>,
    floats: Shared<f32>,
}

impl Input {
    fn new(kind: Kind, rows: usize, columns: usize) -> Input {
        Input {
            kind,
            columns,
            values: Shared::new(rows, kind.values(columns)),
            scales: Shared::new(rows, kind.scales(columns)),
            sums: Shared::new(rows, kind.sums(columns)),
            floats: Shared::new(rows, kind.floats(columns)),
        }
    }

    /// `columns` are whole blocks of the form.
    fn write(&self, isa: Isa, rows: Range<usize>, columns: Range<usize>, x: &[f32]) {
        let width = columns.len();
        let part = |count: fn(Kind, usize) -> usize| {
            count(self.kind, columns.start)..count(self.kind, columns.end)
        };
        let mut values = self.values.write(rows.clone(), part(Kind::values));
        let mut scales = self.scales.write(rows.clone(), part(Kind::scales));
        let mut sums = self.sums.write(rows.clone(), part(Kind::sums));
        let mut floats = self.floats.write(rows.clone(), part(Kind::floats));
        for (row, x) in rows.zip(x.chunks_exact(width)) {
            if self.kind == Kind::F32 {
                floats.row_mut(row).copy_from_slice(x);
                continue;
            }
            let (values, scales) = (values.row_mut(row), scales.row_mut(row));
            activation::quantize_row(isa, self.kind, x, values, scales, sums.row_mut(row));
        }
    }

    fn read(&self) -> InputRead<'_> {
        InputRead {
            kind: self.kind,
            columns: self.columns,
            values: self.values.read(),
            scales: self.scales.read(),
            sums: self.sums.read(),
            floats: self.floats.read(),
        }
    }
}

/// Rows in one form, being read.
pub(super) struct InputRead<'a> {
    kind: Kind,
    columns: usize,
    values: Read<'a, i8>,
    scales: Read<'a, f32>,
    sums: Read<'a, i16>,
    floats: Read<'a, f32>,
}

impl InputRead<'_> {
    /// Some of the rows.
    pub(super) fn rows(&self, rows: Range<usize>) -> Rows<'_> {
        let part = |count: fn(Kind, usize) -> usize| {
            let width = count(self.kind, self.columns);
            rows.start * width..rows.end * width
        };
        Rows {
            kind: self.kind,
            columns: self.columns,
            values: &self.values[part(Kind::values)],
            scales: &self.scales[part(Kind::scales)],
            sums: &self.sums[part(Kind::sums)],
            floats: &self.floats[part(Kind::floats)],
        }
    }
}
