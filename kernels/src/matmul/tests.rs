//! One suite for every format and every instruction set that the processor has.

use half::{bf16, f16};

use super::*;
use crate::activation::quantize_row;
use crate::arch::{Kernel, Simd};
use crate::dequantize::dequantize;
use crate::panel::{pack_panel, packed_bytes, panel_bytes};

/// Every format that has kernels.
pub(crate) const FORMATS: [Format; 16] = [
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

/// Numbers that look random; xorshift64*.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// Within -1 and 1.
    pub(crate) fn float(&mut self) -> f32 {
        self.next() as i32 as f32 / 2.0f32.powi(31)
    }
}

/// Where a block has its half-precision scales.
pub(crate) fn scales_at(format: Format) -> &'static [usize] {
    match format {
        Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => &[0, 2],
        Format::Q2_K => &[80, 82],
        Format::Q3_K => &[108],
        Format::Q6_K => &[208],
        Format::F32 | Format::BF16 | Format::MXFP4 => &[],
        _ => &[0],
    }
}

/// Rows of a file: any bits, but scales of about 1 / 64.
pub(crate) fn file_rows(format: Format, rows: usize, columns: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let bytes = format.bytes((rows * columns) as u64).expect("whole blocks") as usize;
    let mut out: Vec<u8> = (0..bytes).map(|_| random.next() as u8).collect();
    for block in out.chunks_exact_mut(format.bytes_per_block()) {
        for &at in scales_at(format) {
            let scale = f16::from_f32(random.float() / 64.0);
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        match format {
            Format::F32 => block.copy_from_slice(&random.float().to_le_bytes()),
            Format::BF16 => block.copy_from_slice(&random.float().to_le_bytes()[2..]),
            Format::MXFP4 => block[0] = 110 + block[0] % 16,
            _ => {}
        }
    }
    out
}

/// All rows as panels.
pub(crate) fn pack(format: Format, rows: usize, columns: usize, file: &[u8]) -> Vec<u8> {
    let mut packed = vec![0xa5; packed_bytes(format, rows, columns).expect("a matrix")];
    let row_bytes = file.len() / rows;
    let panels = packed.chunks_exact_mut(panel_bytes(format, columns));
    for (panel, rows) in panels.zip(file.chunks(ROWS * row_bytes)) {
        pack_panel(format, columns, rows, panel).expect("finite scales");
    }
    packed
}

/// Activations of some tokens, quantized or not.
struct Input {
    kind: Kind,
    columns: usize,
    values: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i16>,
    floats: Vec<f32>,
}

impl Input {
    fn new(kind: Kind, columns: usize, x: &[f32]) -> Input {
        let tokens = x.len() / columns;
        let mut input = Input {
            kind,
            columns,
            values: vec![0; tokens * kind.values(columns)],
            scales: vec![0.0; tokens * kind.scales(columns)],
            sums: vec![0; tokens * kind.sums(columns)],
            floats: if kind == Kind::F32 { x.to_vec() } else { Vec::new() },
        };
        if kind != Kind::F32 {
            for (token, x) in x.chunks_exact(columns).enumerate() {
                quantize_row(
                    Isa::Scalar,
                    kind,
                    x,
                    &mut input.values[token * kind.values(columns)..][..kind.values(columns)],
                    &mut input.scales[token * kind.scales(columns)..][..kind.scales(columns)],
                    &mut input.sums[token * kind.sums(columns)..][..kind.sums(columns)],
                );
            }
        }
        input
    }

    /// The tokens of a range.
    fn rows(&self, tokens: Range<usize>) -> Rows<'_> {
        let part = |row: usize| tokens.start * row..tokens.end * row;
        let Input { kind, columns, .. } = *self;
        Rows {
            kind,
            columns,
            values: &self.values[part(kind.values(columns))],
            scales: &self.scales[part(kind.scales(columns))],
            sums: &self.sums[part(kind.sums(columns))],
            floats: &self.floats[part(kind.floats(columns))],
        }
    }

    /// What element `at` stands for.
    fn element(&self, at: usize) -> f64 {
        match self.kind {
            Kind::F32 => f64::from(self.floats[at]),
            Kind::Blocks32 => f64::from(self.values[at]) * f64::from(self.scales[at / 32 * 2]),
            Kind::Blocks256 => f64::from(self.values[at]) * f64::from(self.scales[at / 256]),
        }
    }
}

fn random_input(format: Format, columns: usize, tokens: usize) -> Input {
    let mut random = Random(columns as u64 + 77);
    let x: Vec<f32> = (0..tokens * columns).map(|_| random.float().powi(3) * 4.0).collect();
    Input::new(Kind::of(format), columns, &x)
}

fn available() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

fn product(isa: Isa, matrix: &Matrix<'_>, panels: Range<usize>, input: &Rows<'_>) -> Vec<f32> {
    let mut out = vec![f32::NAN; input.tokens() * panels.len() * ROWS];
    multiply(isa, matrix, panels, input, &mut Scratch::new(), &mut out);
    out
}

/// Columns that make a whole and a partial chunk, and more than one group.
fn columns(format: Format) -> usize {
    match Kind::of(format) {
        Kind::F32 => 77,
        Kind::Blocks32 => 832,
        Kind::Blocks256 => 768,
    }
}

/// Whether weights in BF16 are multiplied by activations rounded to BF16.
struct RoundsToBfloats;

impl Kernel for RoundsToBfloats {
    type Output = bool;

    #[inline(always)]
    fn run<V: Simd>(self, _: V) -> bool {
        V::BFLOATS
    }
}

/// Compares with sums in double precision, of weights and activations as they are stored, or as the
/// kernel is to round them.
fn compare(format: Format, rows: usize, file: &[u8], input: &Input, tokens: usize) {
    let columns = input.columns;
    let packed = pack(format, rows, columns, file);
    let matrix = Matrix::new(format, rows, columns, &packed);
    let mut weights = vec![0.0; rows * columns];
    dequantize(format, file, &mut weights).expect("whole rows");
    for isa in available() {
        let out = product(isa, &matrix, 0..matrix.panels(), &input.rows(0..tokens));
        let rounds = format == Format::BF16 && isa.run(RoundsToBfloats);
        for (token, out) in out.chunks_exact(matrix.panels() * ROWS).enumerate() {
            for (row, out) in out.iter().enumerate() {
                let (mut sum, mut size) = (0.0, 0.0);
                if row < rows {
                    for column in 0..columns {
                        let element = input.element(token * columns + column);
                        let element =
                            if rounds { bf16::from_f64(element).to_f64() } else { element };
                        let term = f64::from(weights[row * columns + column]) * element;
                        sum += term;
                        size += term.abs();
                    }
                }
                let error = (f64::from(*out) - sum).abs();
                assert!(error <= 1e-5 * size, "{isa} {format} {token} {row}: {out} not {sum}");
            }
        }
    }
}

#[test]
fn products_are_those_of_the_stored_numbers() {
    for format in FORMATS {
        for tokens in [1, 2, 3, 7, 14] {
            let columns = columns(format);
            let input = random_input(format, columns, tokens);
            compare(format, 37, &file_rows(format, 37, columns, 5), &input, tokens);
        }
    }
}

/// The largest numbers of every kind at once: nothing overflows.
#[test]
fn extremes_do_not_overflow() {
    for format in FORMATS.into_iter().filter(|format| format.is_quantized()) {
        let columns = 512;
        for (fill, sign) in [(0x00, 1.0), (0xff, 1.0), (0xff, -1.0), (0x80, -1.0), (0x7f, 1.0)] {
            let mut file = vec![fill; format.bytes(16 * columns as u64).expect("blocks") as usize];
            for block in file.chunks_exact_mut(format.bytes_per_block()) {
                for &at in scales_at(format) {
                    block[at..at + 2].copy_from_slice(&f16::ONE.to_le_bytes());
                }
                if format == Format::MXFP4 {
                    block[0] = 127;
                }
            }
            let x = vec![sign * 127.0; 5 * columns];
            let input = Input::new(Kind::of(format), columns, &x);
            compare(format, 16, &file, &input, 1);
            compare(format, 16, &file, &input, 5);
        }
    }
}

/// Powers of two from the least to the largest whose weights a float holds, with activations that bring them back.
#[test]
fn every_scale_of_mxfp4_is_exact() {
    let columns = 64;
    let mut file = file_rows(Format::MXFP4, 16, columns, 8);
    for exponent in [0, 1, 2, 40, 109, 126, 200, 252] {
        for block in file.chunks_exact_mut(Format::MXFP4.bytes_per_block()) {
            block[0] = exponent;
        }
        let size = 2.0_f32.powi((127 - i32::from(exponent)).clamp(-90, 120));
        let mut random = Random(u64::from(exponent) + 1);
        let x: Vec<f32> = (0..5 * columns).map(|_| random.float() * size).collect();
        let input = Input::new(Kind::Blocks32, columns, &x);
        compare(Format::MXFP4, 16, &file, &input, 1);
        compare(Format::MXFP4, 16, &file, &input, 5);
    }
}

/// With scales of 1 the integers themselves come out, the same with every instruction set.
#[test]
fn integers_are_exact() {
    for format in FORMATS.into_iter().filter(|format| format.is_quantized()) {
        let columns = format.elements_per_block();
        let mut file = file_rows(format, 16, columns, 11);
        for block in file.chunks_exact_mut(format.bytes_per_block()) {
            for &at in scales_at(format) {
                block[at..at + 2].copy_from_slice(&f16::ONE.to_le_bytes());
            }
            if format == Format::MXFP4 {
                block[0] = 128;
            }
        }
        let mut random = Random(3);
        let mut x: Vec<f32> = (0..columns).map(|_| (random.float() * 127.0).round()).collect();
        x[0] = 127.0;
        let input = Input::new(Kind::of(format), columns, &x);
        let packed = pack(format, 16, columns, &file);
        let matrix = Matrix::new(format, 16, columns, &packed);
        let mut weights = vec![0.0; 16 * columns];
        dequantize(format, &file, &mut weights).expect("whole rows");
        for isa in available() {
            let out = product(isa, &matrix, 0..1, &input.rows(0..1));
            for (row, weights) in weights.chunks_exact(columns).enumerate() {
                let sum: i64 = weights.iter().zip(&x).map(|(w, x)| *w as i64 * *x as i64).sum();
                // Integers of more than 24 bits are rounded; minimums are rounded apart.
                let near =
                    (sum as f32 - out[row]).abs() <= if sum.abs() < 1 << 22 { 0.0 } else { 4.0 };
                assert!(near, "{isa} {format} {row}: {} not {sum}", out[row]);
            }
        }
    }
}

/// A token's outputs do not depend on its company, nor on how the panels are divided.
#[test]
fn outputs_do_not_depend_on_the_batch() {
    const TOKENS: usize = 64;
    for format in FORMATS {
        let (columns, rows) = (columns(format), 75);
        let file = file_rows(format, rows, columns, 21);
        let packed = pack(format, rows, columns, &file);
        let matrix = Matrix::new(format, rows, columns, &packed);
        let input = random_input(format, columns, TOKENS);
        for isa in available() {
            let width = matrix.panels() * ROWS;
            let all = product(isa, &matrix, 0..matrix.panels(), &input.rows(0..TOKENS));
            for (batch, step) in [(1, 7), (2, 9), (3, 11), (5, 13), (8, 17), (17, 23)] {
                for start in (0..=TOKENS - batch).step_by(step) {
                    let tokens = start..start + batch;
                    let out = product(isa, &matrix, 0..matrix.panels(), &input.rows(tokens));
                    let expected = &all[start * width..(start + batch) * width];
                    assert_bits(isa, format, &out, expected);
                }
            }
            for split in 1..matrix.panels() {
                for panels in [0..split, split..matrix.panels()] {
                    let out = product(isa, &matrix, panels.clone(), &input.rows(0..4));
                    for (token, out) in out.chunks_exact(panels.len() * ROWS).enumerate() {
                        let start = token * width + panels.start * ROWS;
                        assert_bits(isa, format, out, &all[start..start + out.len()]);
                    }
                }
            }
        }
    }
}

fn assert_bits(isa: Isa, format: Format, left: &[f32], right: &[f32]) {
    let same = left.iter().zip(right).all(|(left, right)| left.to_bits() == right.to_bits());
    assert!(same && left.len() == right.len(), "{isa} {format}");
}

/// More tokens than go together, by each of the four kernels.
#[test]
fn many_tokens_are_the_same_as_few() {
    let (columns, tokens) = (256, TOKENS_MAX + 5);
    for format in [Format::Q4_K, Format::Q5_0, Format::F16, Format::BF16] {
        let file = file_rows(format, 16, columns, 2);
        let packed = pack(format, 16, columns, &file);
        let matrix = Matrix::new(format, 16, columns, &packed);
        let input = random_input(format, columns, tokens);
        for isa in available() {
            let all = product(isa, &matrix, 0..1, &input.rows(0..tokens));
            for token in [0, TOKENS_MAX - 1, TOKENS_MAX, tokens - 1] {
                let alone = product(isa, &matrix, 0..1, &input.rows(token..token + 1));
                assert_bits(isa, format, &all[token * ROWS..][..ROWS], &alone);
            }
        }
    }
}

#[test]
#[should_panic(expected = "columns of the activations")]
fn shapes_must_fit() {
    let packed = pack(Format::Q8_0, 1, 32, &file_rows(Format::Q8_0, 1, 32, 1));
    let matrix = Matrix::new(Format::Q8_0, 1, 32, &packed);
    let input = random_input(Format::Q8_0, 64, 1);
    product(Isa::Scalar, &matrix, 0..1, &input.rows(0..1));
}
