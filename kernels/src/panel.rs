//! Packed weights: rows by sixteens, their bytes in the order in which vectors want them.
//!
//! A panel is [`ROWS`] rows of a matrix. Its blocks follow one another along the columns, and a
//! panel's block holds the same bytes as the 16 blocks it was made from: units of 4, 2 or 1 bytes,
//! transposed. Where a block of the file has dword `u` at some place, the panel's block has 16
//! dwords, one of each row, so that one vector load gives four 8-bit (or eight 4-bit ...) weights
//! of 16 rows, for the same columns. Nothing is expanded: a packed matrix is as large as in the
//! file, but for the rows that fill up its last panel.
//!
//! ```text
//! file:   row 0: d m | q0 q1 q2 ...     panel:  d of 16 rows | m of 16 rows |
//!         row 1: d m | q0 q1 q2 ...             q0 of 16 rows | q1 of 16 rows | ...
//! ```
//!
//! Only the fifth bits of `Q5_0` and `Q5_1` also change their order within the dword of a row:
//! element `4 g + i` is bit `4 g + i` in the file and bit `8 i + g` in a panel, which makes each
//! vector of weights one bit of every byte.

use std::fmt;

use crate::arch::{Isa, Kernel, Simd};
use crate::dequantize::dequantize;
use crate::format::Format;

/// Rows of a panel.
pub const ROWS: usize = crate::arch::LANES;

/// Bytes of the largest block of one row.
const BLOCK_BYTES_MAX: usize = 210;

/// Bytes of a panel that are put together in the first-level cache, then written at once: memory is
/// slow to take four bytes here and four bytes there.
const RUN_BYTES: usize = 24 << 10;
/// Bytes that memory gives at once.
const LINE_BYTES: usize = 64;

/// A run of units of a block.
#[derive(Clone, Copy)]
struct Part {
    /// Where it starts in the block of the file.
    start: usize,
    unit: Unit,
    count: usize,
}

/// What is transposed as a whole.
#[derive(Clone, Copy, PartialEq)]
enum Unit {
    /// A half-precision scale, which must be a finite number.
    Scale,
    /// Two bytes of anything.
    Half,
    /// Two bytes of a `bf16`, which must be finite.
    Bfloat,
    Dword,
    /// Four bytes of an `f32`, which must be finite.
    Single,
    /// A dword of single bits, to be reordered.
    Bits,
    /// A power of two, which must not be the pattern that stands for no number.
    Exponent,
}

impl Unit {
    const fn bytes(self) -> usize {
        match self {
            Unit::Exponent => 1,
            Unit::Scale | Unit::Half | Unit::Bfloat => 2,
            Unit::Dword | Unit::Single | Unit::Bits => 4,
        }
    }
}

const fn part(start: usize, unit: Unit, count: usize) -> Part {
    Part { start, unit, count }
}

/// The parts of a block in the order of the panel; none for formats without a kernel.
///
/// The layouts of the blocks themselves are drawn in [`crate::dequantize`].
fn parts(format: Format) -> Option<&'static [Part]> {
    use Unit::{Bfloat, Bits, Dword, Exponent, Half, Scale, Single};
    Some(match format {
        Format::F32 => const { &[part(0, Single, 1)] },
        Format::F16 => const { &[part(0, Scale, 1)] },
        Format::BF16 => const { &[part(0, Bfloat, 1)] },
        Format::Q4_0 | Format::IQ4_NL => const { &[part(0, Scale, 1), part(2, Dword, 4)] },
        Format::Q4_1 => const { &[part(0, Scale, 2), part(4, Dword, 4)] },
        Format::Q5_0 => const { &[part(0, Scale, 1), part(2, Bits, 1), part(6, Dword, 4)] },
        Format::Q5_1 => const { &[part(0, Scale, 2), part(4, Bits, 1), part(8, Dword, 4)] },
        Format::Q8_0 => const { &[part(0, Scale, 1), part(2, Dword, 8)] },
        Format::MXFP4 => const { &[part(0, Exponent, 1), part(1, Dword, 4)] },
        Format::Q2_K => const { &[part(80, Scale, 2), part(0, Dword, 20)] },
        Format::Q3_K => const { &[part(108, Scale, 1), part(96, Dword, 3), part(0, Dword, 24)] },
        Format::Q4_K => const { &[part(0, Scale, 2), part(4, Dword, 35)] },
        Format::Q5_K => const { &[part(0, Scale, 2), part(4, Dword, 43)] },
        Format::Q6_K => const { &Q6_K },
        Format::IQ4_XS => const { &[part(0, Scale, 1), part(2, Half, 1), part(4, Dword, 33)] },
        _ => return None,
    })
}

/// First the scales, then each half's upper bits and lower ones: as they are read.
const Q6_K: [Part; 6] = {
    use Unit::{Dword, Scale};
    let (scales, high, low) = (192, 128, 0);
    [
        part(208, Scale, 1),
        part(scales, Dword, 4),
        part(high, Dword, 8),
        part(low, Dword, 16),
        part(high + 32, Dword, 8),
        part(low + 64, Dword, 16),
    ]
};

/// Whether matrices of this format can be packed and multiplied.
pub fn can_pack(format: Format) -> bool {
    parts(format).is_some()
}

/// Bytes of one panel; none for a format without kernels or a part of a block.
fn checked_panel_bytes(format: Format, columns: usize) -> Option<usize> {
    parts(format)?;
    let row = usize::try_from(format.bytes(columns as u64)?).ok()?;
    row.checked_mul(ROWS)
}

/// Bytes of a panel of `columns` columns.
///
/// # Panics
///
/// For a format that [`can_pack`] denies, and for columns that are not whole blocks.
pub fn panel_bytes(format: Format, columns: usize) -> usize {
    checked_panel_bytes(format, columns).expect("a format with kernels and whole blocks")
}

/// Bytes of a packed matrix: the bytes of the rows in the file, with the number of rows rounded up
/// to whole panels. None where the format has no kernels or the columns are not whole blocks.
pub fn packed_bytes(format: Format, rows: usize, columns: usize) -> Option<usize> {
    checked_panel_bytes(format, columns)?.checked_mul(rows.div_ceil(ROWS))
}

/// A scale, or a weight that is not quantized, is infinite or not a number: the file is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{format} block {block} of row {row} holds a scale that is not a finite number")]
pub struct BadScale {
    /// The format of the rows.
    pub format: Format,
    /// The row within the panel, 0 to 15.
    pub row: usize,
    /// The block within the row.
    pub block: usize,
}

/// Packs up to 16 rows, given as in the file, into one panel. Missing rows become zeros.
///
/// # Panics
///
/// Where `rows_bytes` are not 1 to 16 whole rows or `out` is not [`panel_bytes`] long.
pub fn pack_panel(
    format: Format,
    columns: usize,
    rows_bytes: &[u8],
    out: &mut [u8],
) -> Result<(), BadScale> {
    let parts = parts(format).expect("a format with kernels");
    let row_bytes = panel_bytes(format, columns) / ROWS;
    assert_eq!(out.len(), row_bytes * ROWS, "bytes of a panel");
    let rows = rows_bytes.len() / row_bytes.max(1);
    assert!((1..=ROWS).contains(&rows) || row_bytes == 0, "1 to 16 rows, not {rows}");
    assert_eq!(rows_bytes.len(), rows * row_bytes, "whole rows");
    Isa::best().run(PackPanel { format, parts, rows: rows_bytes, row_bytes, out })
}

/// The work on one panel. It is written for no instruction set but for the one that asks for memory.
struct PackPanel<'a> {
    format: Format,
    parts: &'a [Part],
    rows: &'a [u8],
    row_bytes: usize,
    out: &'a mut [u8],
}

impl Kernel for PackPanel<'_> {
    type Output = Result<(), BadScale>;

    #[inline(always)]
    fn run<V: Simd>(self, v: V) -> Result<(), BadScale> {
        let PackPanel { format, parts, rows, row_bytes, out } = self;
        let block_bytes = format.bytes_per_block();
        let together = (RUN_BYTES / (block_bytes * ROWS)).max(1);
        let mut run = [0; RUN_BYTES];
        for (at, out) in out.chunks_mut(together * block_bytes * ROWS).enumerate() {
            let run = &mut run[..out.len()];
            let (start, bytes) = (at * together * block_bytes, out.len() / ROWS);
            for (row, from) in rows.chunks_exact(row_bytes).enumerate() {
                // What follows in this row is wanted when the others are done.
                for line in (start + bytes..row_bytes.min(start + 2 * bytes)).step_by(LINE_BYTES) {
                    v.prefetch(from, line);
                }
                let bad = |block| BadScale { format, row, block: at * together + block };
                pack_run(parts, block_bytes, row, &from[start..][..bytes], run).map_err(bad)?;
            }
            out.copy_from_slice(run);
        }
        Ok(())
    }
}

/// Packs some blocks of one row; the block of a unit that is no number is the error.
fn pack_run(
    parts: &[Part],
    block_bytes: usize,
    row: usize,
    from: &[u8],
    to: &mut [u8],
) -> Result<(), usize> {
    // Blocks of one unit are as good as one block of many, and faster.
    if let [Part { start: 0, unit, count: 1 }] = *parts {
        let count = from.len() / unit.bytes();
        let units = Units { row, part: part(0, unit, count), at: 0, block_bytes: from.len() };
        return units.pack(from, to).map_err(|(_, at)| at);
    }
    let mut at = 0;
    for &part in parts {
        let units = Units { row, part, at, block_bytes };
        units.pack(from, to).map_err(|(block, _)| block)?;
        at += part.count * part.unit.bytes() * ROWS;
    }
    Ok(())
}

/// The units of one part in each block of a row.
struct Units {
    row: usize,
    part: Part,
    /// Where the part starts in a panel's block.
    at: usize,
    block_bytes: usize,
}

impl Units {
    /// Copies them to their places. The block and the number of one that is no number are the error.
    fn pack(&self, from: &[u8], to: &mut [u8]) -> Result<(), (usize, usize)> {
        match self.part.unit {
            Unit::Exponent => {
                self.copy(from, to, |byte: [u8; 1]| (byte[0] != u8::MAX).then_some(byte))
            }
            Unit::Half => self.copy(from, to, |half: [u8; 2]| Some(half)),
            Unit::Scale => {
                self.copy(from, to, |half: [u8; 2]| (half[1] & 0x7c != 0x7c).then_some(half))
            }
            Unit::Bfloat => self.copy(from, to, |half: [u8; 2]| {
                (u16::from_le_bytes(half) & 0x7f80 != 0x7f80).then_some(half)
            }),
            Unit::Dword => self.copy(from, to, |dword: [u8; 4]| Some(dword)),
            Unit::Single => self.copy(from, to, |dword: [u8; 4]| {
                f32::from_le_bytes(dword).is_finite().then_some(dword)
            }),
            Unit::Bits => self.copy(from, to, |dword: [u8; 4]| {
                Some(bits_to_planes(u32::from_le_bytes(dword)).to_le_bytes())
            }),
        }
    }

    /// Copies units of `N` bytes, through `check`, to every sixteenth place.
    #[inline(always)]
    fn copy<const N: usize>(
        &self,
        from: &[u8],
        to: &mut [u8],
        check: impl Fn([u8; N]) -> Option<[u8; N]>,
    ) -> Result<(), (usize, usize)> {
        let Units { row, part, at, block_bytes } = *self;
        let blocks = from.chunks_exact(block_bytes).zip(to.chunks_exact_mut(block_bytes * ROWS));
        for (block, (from, to)) in blocks.enumerate() {
            let from = from[part.start..][..part.count * N].as_chunks::<N>().0;
            let to = to[at..][..part.count * N * ROWS].as_chunks_mut::<N>().0;
            let to = to.as_chunks_mut::<ROWS>().0;
            for (unit, (from, to)) in from.iter().zip(to).enumerate() {
                to[row] = check(*from).ok_or((block, unit))?;
            }
        }
        Ok(())
    }
}

/// Bit `4 g + i` becomes bit `8 i + g`: as an 8 x 4 matrix of bits, its transpose.
fn bits_to_planes(bits: u32) -> u32 {
    let bytes = bits.to_le_bytes().into_iter().enumerate();
    bytes.fold(0, |planes, (at, byte)| planes | BYTE_PLANES[usize::from(byte)] << (2 * at))
}

/// The planes of a number whose other bytes are 0.
const BYTE_PLANES: [u32; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 * 8 {
        let (byte, bit) = (at / 8, at % 8);
        table[byte] |= (byte as u32 >> bit & 1) << (bit % 4 * 8 + bit / 4);
        at += 1;
    }
    table
};

/// The inverse of [`bits_to_planes`].
fn planes_to_bits(planes: u32) -> u32 {
    (0..32).fold(0, |bits, bit| bits | (planes >> (bit % 4 * 8 + bit / 4) & 1) << bit)
}

/// A packed matrix over borrowed bytes: `rows` x `columns`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    format: Format,
    rows: usize,
    columns: usize,
    bytes: &'a [u8],
}

impl<'a> Matrix<'a> {
    /// The matrix whose panels, one after another, are `bytes`.
    ///
    /// # Panics
    ///
    /// Where `bytes` are not [`packed_bytes`] long, or there is no such matrix.
    pub fn new(format: Format, rows: usize, columns: usize, bytes: &'a [u8]) -> Matrix<'a> {
        assert_eq!(packed_bytes(format, rows, columns), Some(bytes.len()), "bytes of a matrix");
        Matrix { format, rows, columns, bytes }
    }

    /// Rows, without those that fill up the last panel.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: the length of the vectors it is multiplied by.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How the weights are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Panels: a sixteenth of the rows, rounded up.
    pub fn panels(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    /// The bytes of one panel.
    pub(crate) fn panel(&self, panel: usize) -> &'a [u8] {
        let bytes = panel_bytes(self.format, self.columns);
        &self.bytes[panel * bytes..(panel + 1) * bytes]
    }

    /// Writes the numbers of one row, as [`dequantize`] gives them.
    ///
    /// # Panics
    ///
    /// Where there is no such row or `out` is not [`Matrix::columns`] long.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        assert_eq!(out.len(), self.columns, "columns of a row");
        let bytes = self.format.bytes_per_block();
        let blocks = self.panel(row / ROWS).chunks_exact(bytes * ROWS);
        let mut block = [0; BLOCK_BYTES_MAX];
        let block = &mut block[..bytes];
        for (packed, out) in blocks.zip(out.chunks_exact_mut(self.format.elements_per_block())) {
            unpack_block(self.format, packed, row % ROWS, block);
            dequantize(self.format, block, out).expect("formats with kernels can be dequantized");
        }
    }
}

impl fmt::Debug for Matrix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Matrix({} {} x {})", self.format, self.rows, self.columns)
    }
}

/// One row's block as in the file.
fn unpack_block(format: Format, packed: &[u8], row: usize, block: &mut [u8]) {
    let mut at = 0;
    for part in parts(format).expect("a format with kernels") {
        let bytes = part.unit.bytes();
        for unit in 0..part.count {
            let to = &mut block[part.start + unit * bytes..][..bytes];
            to.copy_from_slice(&packed[at + row * bytes..][..bytes]);
            if part.unit == Unit::Bits {
                let planes = u32::from_le_bytes([to[0], to[1], to[2], to[3]]);
                to.copy_from_slice(&planes_to_bits(planes).to_le_bytes());
            }
            at += ROWS * bytes;
        }
    }
}

#[cfg(test)]
mod tests;
