//! The table of tensors: names, shapes, formats, and where their bytes lie.

use std::fmt;
use std::ops::{Deref, Range};

use dsk_kernels::format::Format;

use super::cursor::Cursor;
use super::error::{GgufError, Place};

/// Dimensions of a tensor, as ggml has them.
pub const DIMENSIONS_MAX: usize = 4;
/// The longest tensor name in bytes. ggml cuts names at 63.
pub const TENSOR_NAME_BYTES_MAX: usize = 256;
/// The fewest bytes an entry of the table has: name length, dimension count, type, offset.
pub(crate) const ENTRY_BYTES_MIN: usize = 8 + 4 + 4 + 8;

/// The extents of a tensor, fastest varying first: a matrix of `rows` rows is `[columns, rows]`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    extents: [u64; DIMENSIONS_MAX],
    len: usize,
}

impl Shape {
    /// The number of elements; none when it is 2^63 or more.
    fn elements(&self) -> Option<u64> {
        let product = self.iter().try_fold(1u64, |product, &extent| product.checked_mul(extent))?;
        i64::try_from(product).is_ok().then_some(product)
    }
}

impl Deref for Shape {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.extents[..self.len]
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// A tensor's format: one of the table, or a type id from a newer world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorFormat {
    /// A format whose block sizes are known.
    Known(Format),
    /// ggml's type id; the tensor's size is unknown and its bytes cannot be had.
    Unknown(u32),
}

impl TensorFormat {
    /// The format, when it is known.
    pub fn known(self) -> Option<Format> {
        match self {
            TensorFormat::Known(format) => Some(format),
            TensorFormat::Unknown(_) => None,
        }
    }
}

impl fmt::Display for TensorFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TensorFormat::Known(format) => format.fmt(f),
            TensorFormat::Unknown(id) => write!(f, "type {id}"),
        }
    }
}

/// One entry of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name, unique in the model.
    pub name: String,
    /// The extents, fastest varying first.
    pub shape: Shape,
    /// How the elements are stored.
    pub format: TensorFormat,
    /// Which file of the model it is in, from 0.
    pub part: u32,
    /// Where the bytes start, counted from the start of the file's data section.
    pub offset: u64,
    /// The product of the extents.
    pub elements: u64,
    /// How many bytes there are; none for an unknown format.
    pub bytes: Option<u64>,
}

impl TensorInfo {
    pub(crate) fn read(cursor: &mut Cursor<'_>) -> Result<TensorInfo, GgufError> {
        let name = cursor.text(TENSOR_NAME_BYTES_MAX, "a tensor's name")?.to_owned();
        let shape = read_shape(cursor, &name)?;
        let id = cursor.u32("a tensor's type")?;
        let format = Format::from_ggml(id).map_or(TensorFormat::Unknown(id), TensorFormat::Known);
        let offset = cursor.u64("a tensor's offset")?;
        let fail = |problem: String| GgufError::at(Place::Tensor(name.clone()), problem);
        let elements = shape
            .elements()
            .ok_or_else(|| fail(format!("the product of its dimensions {shape:?} is too large")))?;
        let bytes = match format {
            TensorFormat::Unknown(_) => None,
            TensorFormat::Known(format) => {
                Some(whole_rows(format, &shape, elements).map_err(fail)?)
            }
        };
        Ok(TensorInfo { name, shape, format, part: 0, offset, elements, bytes })
    }

    /// The tensor's bytes as a range of the file whose data starts at `data_offset`.
    pub(crate) fn range(&self, data_offset: u64) -> Option<Range<u64>> {
        let start = data_offset.checked_add(self.offset)?;
        Some(start..start.checked_add(self.bytes?)?)
    }
}

fn read_shape(cursor: &mut Cursor<'_>, name: &str) -> Result<Shape, GgufError> {
    let fail = |problem: String| GgufError::at(Place::Tensor(name.to_owned()), problem);
    let len = cursor.u32("a tensor's dimension count")? as usize;
    if len > DIMENSIONS_MAX {
        return Err(fail(format!("it has {len} dimensions, and {DIMENSIONS_MAX} are allowed")));
    }
    let mut extents = [1; DIMENSIONS_MAX];
    for extent in &mut extents[..len] {
        *extent = cursor.u64("a tensor's dimension")?;
        if *extent == 0 {
            return Err(fail("a dimension is zero".to_owned()));
        }
    }
    Ok(Shape { extents, len })
}

/// The bytes of a tensor whose rows are whole numbers of blocks.
fn whole_rows(format: Format, shape: &Shape, elements: u64) -> Result<u64, String> {
    let row = shape.first().copied().unwrap_or(1);
    let block = format.elements_per_block();
    if !row.is_multiple_of(block as u64) {
        return Err(format!("its rows have {row} elements, and blocks of {format} have {block}"));
    }
    format.bytes(elements).ok_or_else(|| format!("{elements} elements of {format} are too many"))
}

/// Checks what the table as a whole promises: offsets aligned, tensors apart from each other, and,
/// when the file's length is known to matter, data that ends inside the file.
pub(crate) fn check_layout(
    tensors: &[TensorInfo],
    alignment: u64,
    data_offset: u64,
    file_len: Option<u64>,
) -> Result<(), GgufError> {
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_by_key(|tensor| tensor.offset);
    let mut end = 0;
    let mut before = "";
    for tensor in order {
        let fail = |problem| GgufError::at(Place::Tensor(tensor.name.clone()), problem);
        if !tensor.offset.is_multiple_of(alignment) {
            return Err(fail(format!("offset {} is not a multiple of {alignment}", tensor.offset)));
        }
        if tensor.offset < end {
            return Err(fail(format!("its data overlaps that of tensor {before:?}")));
        }
        // A tensor of unknown size takes at least one byte, so two cannot share a place.
        end = tensor
            .offset
            .checked_add(tensor.bytes.unwrap_or(1))
            .ok_or_else(|| fail(format!("offset {} plus its size is too large", tensor.offset)))?;
        let in_file = data_offset.checked_add(end);
        if file_len.is_some_and(|len| in_file.is_none_or(|end| end > len)) {
            let (offset, len) = (tensor.offset, file_len.unwrap_or(0));
            let bytes = tensor.bytes.unwrap_or(1);
            return Err(fail(format!(
                "its {bytes} bytes at data offset {offset} end after the file's {len} bytes"
            )));
        }
        before = &tensor.name;
    }
    Ok(())
}
