//! Metadata values: thirteen types, read in place.

use std::fmt;

use super::cursor::Cursor;
use super::error::GgufError;

/// Arrays inside arrays inside arrays: deeper ones are refused.
pub const ARRAY_DEPTH_MAX: u32 = 4;
/// The longest string in bytes; a chat template or a tokenizer definition is far smaller.
pub const STRING_BYTES_MAX: usize = 64 << 20;

/// The type of a metadata value or of an array's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Unsigned 8-bit integer.
    U8,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 16-bit integer.
    U16,
    /// Signed 16-bit integer.
    I16,
    /// Unsigned 32-bit integer.
    U32,
    /// Signed 32-bit integer.
    I32,
    /// IEEE single.
    F32,
    /// One byte, 0 or not 0.
    Bool,
    /// UTF-8 text.
    String,
    /// A sequence of values of one type.
    Array,
    /// Unsigned 64-bit integer.
    U64,
    /// Signed 64-bit integer.
    I64,
    /// IEEE double.
    F64,
}

impl Kind {
    /// In the order of the ids in the file, from 0.
    const BY_ID: [Kind; 13] = [
        Kind::U8,
        Kind::I8,
        Kind::U16,
        Kind::I16,
        Kind::U32,
        Kind::I32,
        Kind::F32,
        Kind::Bool,
        Kind::String,
        Kind::Array,
        Kind::U64,
        Kind::I64,
        Kind::F64,
    ];

    fn read(cursor: &mut Cursor<'_>) -> Result<Kind, GgufError> {
        let start = cursor.position();
        let id = cursor.u32("a value's type")?;
        let known = Kind::BY_ID.get(id as usize).copied();
        known.ok_or_else(|| GgufError::at(start, format!("there is no value type {id}")))
    }

    /// Bytes of a value; for strings and arrays the fewest they can have.
    fn min_bytes(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 | Kind::String => 8,
            Kind::Array => 12,
        }
    }

    fn has_fixed_size(self) -> bool {
        !matches!(self, Kind::String | Kind::Array)
    }

    /// The name of the type, as the format's description writes it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::U8 => "u8",
            Kind::I8 => "i8",
            Kind::U16 => "u16",
            Kind::I16 => "i16",
            Kind::U32 => "u32",
            Kind::I32 => "i32",
            Kind::F32 => "f32",
            Kind::Bool => "bool",
            Kind::String => "string",
            Kind::Array => "array",
            Kind::U64 => "u64",
            Kind::I64 => "i64",
            Kind::F64 => "f64",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A metadata value; text and arrays point into the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Unsigned 8-bit integer.
    U8(u8),
    /// Signed 8-bit integer.
    I8(i8),
    /// Unsigned 16-bit integer.
    U16(u16),
    /// Signed 16-bit integer.
    I16(i16),
    /// Unsigned 32-bit integer.
    U32(u32),
    /// Signed 32-bit integer.
    I32(i32),
    /// IEEE single.
    F32(f32),
    /// True or false.
    Bool(bool),
    /// UTF-8 text.
    String(&'a str),
    /// A sequence of values of one type.
    Array(Array<'a>),
    /// Unsigned 64-bit integer.
    U64(u64),
    /// Signed 64-bit integer.
    I64(i64),
    /// IEEE double.
    F64(f64),
}

impl<'a> Value<'a> {
    /// Reads a type id and a value of that type, and everything inside it.
    pub(crate) fn read(cursor: &mut Cursor<'a>) -> Result<Value<'a>, GgufError> {
        let kind = Kind::read(cursor)?;
        Value::read_kind(kind, cursor, ARRAY_DEPTH_MAX)
    }

    /// Views a value whose bytes `read` walked before: an array's elements are not walked again.
    pub(crate) fn view(bytes: &'a [u8]) -> Option<Value<'a>> {
        let mut cursor = Cursor::new(bytes, 0);
        let kind = Kind::read(&mut cursor).ok()?;
        if kind != Kind::Array {
            return Value::read_kind(kind, &mut cursor, ARRAY_DEPTH_MAX).ok();
        }
        let element = Kind::read(&mut cursor).ok()?;
        let len = cursor.count(element.min_bytes(), "an array's length").ok()?;
        let bytes = &bytes[cursor.position()..];
        Some(Value::Array(Array { element, len, bytes, depth: ARRAY_DEPTH_MAX - 1 }))
    }

    fn read_kind(kind: Kind, from: &mut Cursor<'a>, depth: u32) -> Result<Value<'a>, GgufError> {
        let what = "a value";
        Ok(match kind {
            Kind::U8 => Value::U8(from.array::<1>(what)?[0]),
            Kind::I8 => Value::I8(i8::from_le_bytes(from.array(what)?)),
            Kind::U16 => Value::U16(u16::from_le_bytes(from.array(what)?)),
            Kind::I16 => Value::I16(i16::from_le_bytes(from.array(what)?)),
            Kind::U32 => Value::U32(from.u32(what)?),
            Kind::I32 => Value::I32(i32::from_le_bytes(from.array(what)?)),
            Kind::F32 => Value::F32(f32::from_le_bytes(from.array(what)?)),
            Kind::Bool => Value::Bool(from.array::<1>(what)?[0] != 0),
            Kind::String => Value::String(from.text(STRING_BYTES_MAX, "a string")?),
            Kind::Array => Value::Array(Array::read(from, depth)?),
            Kind::U64 => Value::U64(from.u64(what)?),
            Kind::I64 => Value::I64(i64::from_le_bytes(from.array(what)?)),
            Kind::F64 => Value::F64(f64::from_le_bytes(from.array(what)?)),
        })
    }

    /// The type of the value.
    pub fn kind(&self) -> Kind {
        match self {
            Value::U8(_) => Kind::U8,
            Value::I8(_) => Kind::I8,
            Value::U16(_) => Kind::U16,
            Value::I16(_) => Kind::I16,
            Value::U32(_) => Kind::U32,
            Value::I32(_) => Kind::I32,
            Value::F32(_) => Kind::F32,
            Value::Bool(_) => Kind::Bool,
            Value::String(_) => Kind::String,
            Value::Array(_) => Kind::Array,
            Value::U64(_) => Kind::U64,
            Value::I64(_) => Kind::I64,
            Value::F64(_) => Kind::F64,
        }
    }

    /// The text of a string value.
    pub fn as_str(&self) -> Option<&'a str> {
        match *self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Any integer that is not negative, whatever its width.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U8(n) => Some(n.into()),
            Value::U16(n) => Some(n.into()),
            Value::U32(n) => Some(n.into()),
            Value::U64(n) => Some(n),
            _ => self.as_i64().and_then(|n| n.try_into().ok()),
        }
    }

    /// Any integer of up to 63 bits.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Value::U8(n) => Some(n.into()),
            Value::I8(n) => Some(n.into()),
            Value::U16(n) => Some(n.into()),
            Value::I16(n) => Some(n.into()),
            Value::U32(n) => Some(n.into()),
            Value::I32(n) => Some(n.into()),
            Value::U64(n) => n.try_into().ok(),
            Value::I64(n) => Some(n),
            _ => None,
        }
    }

    /// A floating-point number of either width.
    pub fn as_f32(&self) -> Option<f32> {
        match *self {
            Value::F32(n) => Some(n),
            Value::F64(n) => Some(n as f32),
            _ => None,
        }
    }

    /// A truth value.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// An array.
    pub fn as_array(&self) -> Option<Array<'a>> {
        match *self {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }
}

/// A sequence of values of one type, read from the file as it is walked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    element: Kind,
    len: usize,
    /// From the first element on; for a viewed array up to the end of the value.
    bytes: &'a [u8],
    /// How many levels of arrays may still come.
    depth: u32,
}

impl<'a> Array<'a> {
    /// Reads element type and length and walks every element, so that all of it is known to fit.
    fn read(cursor: &mut Cursor<'a>, depth: u32) -> Result<Array<'a>, GgufError> {
        let start = cursor.position();
        let Some(depth) = depth.checked_sub(1) else {
            let problem = format!("arrays are nested more than {ARRAY_DEPTH_MAX} deep");
            return Err(GgufError::at(start, problem));
        };
        let element = Kind::read(cursor)?;
        let len = cursor.count(element.min_bytes(), "an array's length")?;
        let from = cursor.clone();
        if element.has_fixed_size() {
            cursor.take(len * element.min_bytes(), "an array")?;
        } else {
            for _ in 0..len {
                Value::read_kind(element, cursor, depth)?;
            }
        }
        let bytes = from.clone().take(cursor.position() - from.position(), "an array")?;
        Ok(Array { element, len, bytes, depth })
    }

    /// The type of every element.
    pub fn element_kind(&self) -> Kind {
        self.element
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in order.
    pub fn iter(&self) -> Elements<'a> {
        let cursor = Cursor::new(self.bytes, 0);
        Elements { cursor, element: self.element, left: self.len, depth: self.depth }
    }

    /// The elements of an array of strings; none for another element type.
    pub fn strings(&self) -> Option<impl Iterator<Item = &'a str> + use<'a>> {
        let elements = (self.element == Kind::String).then(|| self.iter())?;
        Some(elements.filter_map(|value| value.as_str()))
    }
}

/// Walks the elements of an [`Array`].
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    cursor: Cursor<'a>,
    element: Kind,
    left: usize,
    depth: u32,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    // The array was walked when the file was opened; an error here means that the file changed
    // since then, and ends the walk.
    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        Value::read_kind(self.element, &mut self.cursor, self.depth).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}
