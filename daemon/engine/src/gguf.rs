//! A bounded, zero-copy reader of GGUF files.
//!
//! ```text
//! "GGUF" | version u32 | tensor count u64 | metadata count u64
//! metadata:  key string | type u32 | value                      (times metadata count)
//! tensors:   name string | n u32 | n extents u64 | type u32 | offset u64   (times tensor count)
//! padding to `general.alignment`
//! data:      each tensor's bytes at its offset from here, aligned
//! ```
//!
//! A string is a u64 length and UTF-8; an array is an element type, a u64 length and the elements.
//! Everything is little endian.
//!
//! The file is not trusted. Every count, length, offset and product is checked against the bytes
//! that are there before it is used, so nothing is allocated that is not in proportion to the file
//! and nothing is read outside of it. A tensor of an unknown type does not hide the others: it is
//! listed, and only asking for its bytes is an error.
//!
//! This module does not know what a model is: see [`crate::model`].

mod cursor;
mod error;
mod parts;
mod tensor;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::ops::{Deref, Range};
use std::path::Path;

use cursor::Cursor;
pub use error::{GgufError, Place};
pub use parts::PARTS_MAX;
pub use tensor::{DIMENSIONS_MAX, Shape, TENSOR_NAME_BYTES_MAX, TensorFormat, TensorInfo};
pub use value::{ARRAY_DEPTH_MAX, Array, Elements, Kind, STRING_BYTES_MAX, Value};

use crate::mmap::Map;

/// The longest metadata key in bytes: the format's own limit.
pub const KEY_BYTES_MAX: usize = (1 << 16) - 1;
/// Metadata keys in one file; real ones have fewer than a hundred.
pub const METADATA_MAX: usize = 1 << 16;
/// Tensors in one file; a mixture of experts stored one by one has about 50,000.
pub const TENSORS_MAX: usize = 1 << 18;
/// The largest alignment of tensor data in bytes.
pub const ALIGNMENT_MAX: u64 = 1 << 16;
/// The smallest alignment in bytes: blocks and plain numbers are read in place.
pub const ALIGNMENT_MIN: u64 = 8;

const MAGIC: [u8; 4] = *b"GGUF";
const ALIGNMENT_DEFAULT: u64 = 32;
/// The fewest bytes of a metadata entry: key length, type, a one-byte value.
const METADATA_BYTES_MIN: usize = 8 + 4 + 1;

/// An opened file whose header was checked.
pub struct Gguf {
    bytes: Bytes,
    version: u32,
    metadata: Vec<Entry>,
    /// Indices into `metadata`, by key.
    by_key: Vec<u32>,
    tensors: Vec<TensorInfo>,
    /// Indices into `tensors`, by name.
    by_name: Vec<u32>,
    data_offset: u64,
    /// The other files of a model that has several.
    rest: Vec<parts::Part>,
}

enum Bytes {
    Mapped(Map),
    Owned(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

/// Where a metadata key's text and its value (type id included) lie in the file.
struct Entry {
    key: Range<usize>,
    value: Range<usize>,
}

/// Whether the tensors' data must be in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    HeaderOnly,
}

impl Gguf {
    /// Maps and checks the file at `path`.
    pub fn open(path: &Path) -> Result<Gguf, GgufError> {
        Gguf::read(map(path)?, Extent::Whole)
    }

    /// Like [`Gguf::open`] for a file whose end may be missing, such as one that is being pulled:
    /// the header must be whole, tensors may lie beyond the end.
    pub fn open_header(path: &Path) -> Result<Gguf, GgufError> {
        Gguf::read(map(path)?, Extent::HeaderOnly)
    }

    /// Checks a file that is in memory.
    pub fn parse(bytes: Vec<u8>) -> Result<Gguf, GgufError> {
        Gguf::read(Bytes::Owned(bytes), Extent::Whole)
    }

    /// Like [`Gguf::parse`] for the first part of a file; see [`Gguf::open_header`].
    pub fn parse_header(bytes: Vec<u8>) -> Result<Gguf, GgufError> {
        Gguf::read(Bytes::Owned(bytes), Extent::HeaderOnly)
    }

    fn read(bytes: Bytes, extent: Extent) -> Result<Gguf, GgufError> {
        let mut cursor = Cursor::new(&bytes, 0);
        let version = read_version(&mut cursor)?;
        let tensor_count =
            read_count(&mut cursor, tensor::ENTRY_BYTES_MIN, TENSORS_MAX, "tensors")?;
        let metadata_count = read_count(&mut cursor, METADATA_BYTES_MIN, METADATA_MAX, "keys")?;
        let metadata = read_metadata(&mut cursor, metadata_count)?;
        let by_key = sorted_index(metadata.len(), |index| key_at(&bytes, &metadata[index]));
        check_unique(&by_key, |index| key_at(&bytes, &metadata[index]), Place::Key)?;
        let tensors = (0..tensor_count)
            .map(|_| TensorInfo::read(&mut cursor))
            .collect::<Result<Vec<_>, _>>()?;
        let by_name = sorted_index(tensors.len(), |index| &tensors[index].name);
        check_unique(&by_name, |index| &tensors[index].name, Place::Tensor)?;
        let header_len = cursor.position() as u64;
        let (data_offset, rest) = (header_len, Vec::new());
        let mut gguf =
            Gguf { bytes, version, metadata, by_key, tensors, by_name, data_offset, rest };
        let alignment = gguf.alignment()?;
        gguf.data_offset = header_len.next_multiple_of(alignment);
        let file_len = (extent == Extent::Whole).then_some(gguf.file_len());
        tensor::check_layout(&gguf.tensors, alignment, gguf.data_offset, file_len)?;
        Ok(gguf)
    }

    fn alignment(&self) -> Result<u64, GgufError> {
        let key = "general.alignment";
        let Some(alignment) = self.get_u64(key)? else { return Ok(ALIGNMENT_DEFAULT) };
        let allowed = ALIGNMENT_MIN..=ALIGNMENT_MAX;
        if alignment.is_power_of_two() && allowed.contains(&alignment) {
            return Ok(alignment);
        }
        let problem =
            format!("{alignment} is not a power of two from {ALIGNMENT_MIN} to {ALIGNMENT_MAX}");
        Err(GgufError::at(Place::Key(key.to_owned()), problem))
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The length of the file in bytes; of all files of a model that has several.
    pub fn file_len(&self) -> u64 {
        let rest = self.rest.iter().map(|part| part.bytes.len() as u64);
        self.bytes.len() as u64 + rest.sum::<u64>()
    }

    /// Where tensor data starts, in bytes from the start of the (first) file.
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// Every key and value, in the order of the file.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = (&str, Value<'_>)> {
        self.metadata.iter().map(|entry| {
            let value = self.view(entry).unwrap_or(Value::Bool(false));
            (key_at(&self.bytes, entry), value)
        })
    }

    // None only when the file changed after it was checked.
    fn view(&self, entry: &Entry) -> Option<Value<'_>> {
        Value::view(self.bytes.get(entry.value.clone())?)
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.view(self.entry(key)?)
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        let find = |&index: &u32| key_at(&self.bytes, &self.metadata[index as usize]).cmp(key);
        let found = self.by_key.binary_search_by(find).ok()?;
        Some(&self.metadata[self.by_key[found] as usize])
    }

    /// A value as the file has it, type id included.
    fn raw(&self, key: &str) -> Option<&[u8]> {
        self.bytes.get(self.entry(key)?.value.clone())
    }

    fn raw_metadata(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.metadata.iter().map(|entry| {
            let value = self.bytes.get(entry.value.clone()).unwrap_or_default();
            (key_at(&self.bytes, entry), value)
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || {
            let found = describe(&value);
            GgufError::WrongType { key: key.to_owned(), expected, found }
        };
        convert(&value).map(Some).ok_or_else(wrong)
    }

    /// The text under `key`; none when the key is absent, an error when it is no string.
    pub fn get_str(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a string", |value| value.as_str())
    }

    /// The number under `key`, from an integer of any width that fits.
    pub fn get_u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.typed(key, "an integer from 0 to 2^32-1", |value| value.as_u64()?.try_into().ok())
    }

    /// The number under `key`, from an integer of any width that is not negative.
    pub fn get_u64(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "an integer that is not negative", Value::as_u64)
    }

    /// The floating-point number under `key`.
    pub fn get_f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.typed(key, "a floating-point number", Value::as_f32)
    }

    /// The truth value under `key`.
    pub fn get_bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a bool", Value::as_bool)
    }

    /// The array under `key`.
    pub fn get_array(&self, key: &str) -> Result<Option<Array<'_>>, GgufError> {
        self.typed(key, "an array", Value::as_array)
    }

    /// The array of strings under `key`.
    pub fn get_strings(&self, key: &str) -> Result<Option<impl Iterator<Item = &str>>, GgufError> {
        self.typed(key, "an array of strings", |value| value.as_array()?.strings())
    }

    /// Like [`Gguf::get_str`] for a key that must be there.
    pub fn need_str(&self, key: &str) -> Result<&str, GgufError> {
        self.get_str(key)?.ok_or_else(|| missing(key))
    }

    /// Like [`Gguf::get_u32`] for a key that must be there.
    pub fn need_u32(&self, key: &str) -> Result<u32, GgufError> {
        self.get_u32(key)?.ok_or_else(|| missing(key))
    }

    /// Like [`Gguf::get_f32`] for a key that must be there.
    pub fn need_f32(&self, key: &str) -> Result<f32, GgufError> {
        self.get_f32(key)?.ok_or_else(|| missing(key))
    }

    /// Every tensor, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let find = |&index: &u32| self.tensors[index as usize].name.as_str().cmp(name);
        let found = self.by_name.binary_search_by(find).ok()?;
        Some(&self.tensors[self.by_name[found] as usize])
    }

    /// Like [`Gguf::tensor`] for a tensor that must be there.
    pub fn need_tensor(&self, name: &str) -> Result<&TensorInfo, GgufError> {
        self.tensor(name).ok_or_else(|| GgufError::MissingTensor { name: name.to_owned() })
    }

    /// The bytes of one of this file's tensors. In a mapped file they start at a multiple of
    /// [`ALIGNMENT_MIN`] bytes in memory.
    pub fn tensor_bytes(&self, tensor: &TensorInfo) -> Result<&[u8], GgufError> {
        if let TensorFormat::Unknown(id) = tensor.format {
            return Err(GgufError::UnknownFormat { name: tensor.name.clone(), id });
        }
        let place = self.place(tensor);
        let bytes = place.as_ref().and_then(|(bytes, range)| bytes.get(range.clone()));
        bytes.ok_or_else(|| GgufError::BeyondEnd {
            name: tensor.name.clone(),
            file_len: place.map_or(0, |(bytes, _)| bytes.len() as u64),
        })
    }

    /// Gives the memory behind a tensor's bytes back after they were copied elsewhere; they are
    /// read from the file again when asked for again.
    pub fn release(&self, tensor: &TensorInfo) {
        if let Some((Bytes::Mapped(map), range)) = self.place(tensor) {
            map.release(range);
        }
    }

    /// Like [`Gguf::release`], for a part of the tensor's bytes.
    pub fn release_rows(&self, tensor: &TensorInfo, part: Range<usize>) {
        if let Some((Bytes::Mapped(map), range)) = self.place(tensor) {
            map.release(range.start + part.start..range.end.min(range.start + part.end));
        }
    }

    /// Gives all pages of the file back to the kernel; they are read again when touched.
    pub fn release_all(&self) {
        for bytes in std::iter::once(&self.bytes).chain(self.rest.iter().map(|part| &part.bytes)) {
            if let Bytes::Mapped(map) = bytes {
                map.release(0..map.len());
            }
        }
    }

    /// The file that holds a tensor, and where in it.
    fn place(&self, tensor: &TensorInfo) -> Option<(&Bytes, Range<usize>)> {
        let (bytes, data_offset) = match tensor.part.checked_sub(1) {
            None => (&self.bytes, self.data_offset),
            Some(index) => {
                let part = self.rest.get(index as usize)?;
                (&part.bytes, part.data_offset)
            }
        };
        let range = tensor.range(data_offset)?;
        Some((bytes, range.start.try_into().ok()?..range.end.try_into().ok()?))
    }
}

impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gguf")
            .field("version", &self.version)
            .field("file_len", &self.file_len())
            .field("keys", &self.metadata.len())
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

fn map(path: &Path) -> Result<Bytes, GgufError> {
    let map = Map::open(path);
    map.map(Bytes::Mapped).map_err(|source| GgufError::Open { path: path.to_owned(), source })
}

fn missing(key: &str) -> GgufError {
    GgufError::MissingKey { key: key.to_owned() }
}

/// A value in an error message: its type, and small ones themselves.
fn describe(value: &Value<'_>) -> String {
    match value {
        Value::String(_) => "a string".to_owned(),
        Value::Array(array) => format!("an array of {} {}", array.len(), array.element_kind()),
        Value::Bool(value) => format!("the bool {value}"),
        Value::F32(_) | Value::F64(_) => "a floating-point number".to_owned(),
        _ => match (value.as_i64(), value.as_u64()) {
            (Some(number), _) => format!("the integer {number}"),
            (_, Some(number)) => format!("the integer {number}"),
            _ => value.kind().name().to_owned(),
        },
    }
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, GgufError> {
    let magic: [u8; 4] = cursor.array("the magic number")?;
    if magic != MAGIC {
        return Err(GgufError::Magic { found: String::from_utf8_lossy(&magic).into_owned() });
    }
    match cursor.u32("the version")? {
        version @ 2..=3 => Ok(version),
        version if matches!(version.swap_bytes(), 1..=3) => Err(GgufError::BigEndian),
        version => Err(GgufError::Version(version)),
    }
}

fn read_count(
    cursor: &mut Cursor<'_>,
    min_bytes: usize,
    max: usize,
    what: &str,
) -> Result<usize, GgufError> {
    let start = cursor.position();
    let count = cursor.count(min_bytes, &format!("the number of {what}"))?;
    if count > max {
        let problem = format!("there are {count} {what}, and {max} are allowed");
        return Err(GgufError::at(start, problem));
    }
    Ok(count)
}

fn read_metadata(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<Entry>, GgufError> {
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let start = cursor.position();
        let key = cursor.text(KEY_BYTES_MAX, "a metadata key")?;
        if key.is_empty() {
            return Err(GgufError::at(start, "a metadata key is empty"));
        }
        let value_start = cursor.position();
        Value::read(cursor).map_err(|error| name_key(error, key))?;
        let key = value_start - key.len()..value_start;
        entries.push(Entry { key, value: value_start..cursor.position() });
    }
    Ok(entries)
}

/// Adds the key to an error inside its value.
fn name_key(error: GgufError, key: &str) -> GgufError {
    match error {
        GgufError::Malformed { place: Place::Byte(at), problem } => {
            GgufError::at(Place::Key(key.to_owned()), format!("{problem} (byte {at})"))
        }
        other => other,
    }
}

// Text that was checked when the file was opened; empty if the file has changed since.
fn key_at<'a>(bytes: &'a [u8], entry: &Entry) -> &'a str {
    let bytes = bytes.get(entry.key.clone()).unwrap_or_default();
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn sorted_index<'a>(len: usize, name: impl Fn(usize) -> &'a str) -> Vec<u32> {
    let mut index: Vec<u32> = (0..len as u32).collect();
    index.sort_by(|&a, &b| name(a as usize).cmp(name(b as usize)));
    index
}

fn check_unique<'a>(
    sorted: &[u32],
    name: impl Fn(usize) -> &'a str,
    place: impl Fn(String) -> Place,
) -> Result<(), GgufError> {
    let twice = sorted.windows(2).find(|pair| name(pair[0] as usize) == name(pair[1] as usize));
    match twice {
        Some(pair) => {
            let name = name(pair[0] as usize).to_owned();
            Err(GgufError::at(place(name), "it is there twice"))
        }
        None => Ok(()),
    }
}
