//! The values of a row, and their bytes.
//!
//! A body is the schema version that wrote it, as a varint, and then each column as a tag byte and
//! its data. It says of itself what it holds, so a backend can store it whole or spread it over
//! columns, and a reader can step over columns that it does not know. One value has one encoding:
//! digests are computed over these bytes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{Error, Result};

/// A body may be at most this long: 8 MiB.
pub const MAX_BODY: usize = 8 * 1024 * 1024;
/// A row has at most this many columns.
pub const MAX_COLUMNS: usize = 64;

const NULL: u8 = 0;
const INTEGER: u8 = 1;
const REAL: u8 = 2;
const TEXT: u8 = 3;
const BYTES: u8 = 4;

/// One column's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Nothing, which is not the same as empty.
    Null,
    /// Integers, booleans, times.
    Integer(i64),
    /// Finite floats.
    Real(f64),
    /// Text without NUL.
    Text(&'a str),
    /// Identifiers and keys.
    Bytes(&'a [u8]),
}

/// Writes a row's body column by column.
#[derive(Debug)]
pub struct RowWriter<'a> {
    buffer: &'a mut BytesMut,
}

impl<'a> RowWriter<'a> {
    /// Begins a body written by `version` of the schema at the end of `buffer`.
    pub fn begin(buffer: &'a mut BytesMut, version: u32) -> Self {
        put_varint(buffer, u64::from(version));
        Self { buffer }
    }

    /// Appends one column.
    pub fn put(&mut self, value: Value<'_>) {
        match value {
            Value::Null => self.buffer.put_u8(NULL),
            Value::Integer(integer) => {
                self.buffer.put_u8(INTEGER);
                put_varint(self.buffer, zigzag(integer));
            }
            Value::Real(real) => {
                self.buffer.put_u8(REAL);
                self.buffer.put_u64(real.to_bits());
            }
            Value::Text(text) => {
                self.buffer.put_u8(TEXT);
                put_varint(self.buffer, text.len() as u64);
                self.buffer.put_slice(text.as_bytes());
            }
            Value::Bytes(bytes) => {
                self.buffer.put_u8(BYTES);
                put_varint(self.buffer, bytes.len() as u64);
                self.buffer.put_slice(bytes);
            }
        }
    }

    /// Appends one column: the text that these are together.
    pub fn put_text_of(&mut self, parts: &[&str]) {
        self.buffer.put_u8(TEXT);
        put_varint(self.buffer, parts.iter().map(|part| part.len() as u64).sum());
        parts.iter().for_each(|part| self.buffer.put_slice(part.as_bytes()));
    }
}

/// Encodes values as the body of a row.
#[must_use]
pub fn encode_values<'v>(version: u32, values: impl IntoIterator<Item = Value<'v>>) -> Bytes {
    let mut buffer = BytesMut::with_capacity(256);
    let mut writer = RowWriter::begin(&mut buffer, version);
    for value in values {
        writer.put(value);
    }
    buffer.freeze()
}

/// Reads a row's body column by column.
#[derive(Debug, Clone)]
pub struct RowReader<'a> {
    rest: &'a [u8],
    version: u32,
    columns: usize,
}

impl<'a> RowReader<'a> {
    /// Begins to read `body`.
    ///
    /// # Errors
    /// `Corrupt` if it has no version or is longer than [`MAX_BODY`].
    pub fn new(body: &'a [u8]) -> Result<Self> {
        if body.len() > MAX_BODY {
            return Err(Error::corrupt("a row is longer than 8 MiB").with("bytes", body.len()));
        }
        let mut rest = body;
        let version = u32::try_from(take_varint(&mut rest)?)
            .map_err(|_| Error::corrupt("a row's schema version is out of range"))?;
        Ok(Self { rest, version, columns: 0 })
    }

    /// The schema version that wrote the body.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The next column, or `None` after the last.
    ///
    /// # Errors
    /// `Corrupt` for an unknown tag, a length beyond the end, or invalid UTF-8.
    pub fn next_value(&mut self) -> Result<Option<Value<'a>>> {
        let Some((&tag, rest)) = self.rest.split_first() else { return Ok(None) };
        self.rest = rest;
        self.columns += 1;
        if self.columns > MAX_COLUMNS {
            return Err(Error::corrupt("a row has more than 64 columns"));
        }
        let value = match tag {
            NULL => Value::Null,
            INTEGER => Value::Integer(unzigzag(take_varint(&mut self.rest)?)),
            REAL => {
                let bits = take(&mut self.rest, 8)?;
                let bits = <[u8; 8]>::try_from(bits).map_err(|_| cut_short())?;
                Value::Real(f64::from_bits(u64::from_be_bytes(bits)))
            }
            TEXT => {
                let length = take_length(&mut self.rest)?;
                let text = std::str::from_utf8(take(&mut self.rest, length)?)
                    .map_err(|error| Error::corrupt("a row's text is not UTF-8").because(error))?;
                Value::Text(text)
            }
            BYTES => {
                let length = take_length(&mut self.rest)?;
                Value::Bytes(take(&mut self.rest, length)?)
            }
            other => {
                return Err(Error::corrupt("a row has a column of unknown type").with("tag", other));
            }
        };
        Ok(Some(value))
    }
}

/// What a body says, whatever schema version wrote it: its columns without the version, up to the
/// last that is not null. A column that a later version appended changes nothing while it is null.
///
/// # Errors
/// `Corrupt` if the body cannot be read.
pub fn content_of(body: &[u8]) -> Result<&[u8]> {
    let mut reader = RowReader::new(body)?;
    let columns = reader.rest;
    let mut length = 0;
    while let Some(value) = reader.next_value()? {
        if value != Value::Null {
            length = columns.len() - reader.rest.len();
        }
    }
    Ok(columns.get(..length).unwrap_or_default())
}

fn cut_short() -> Error {
    Error::corrupt("stored bytes end too early")
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Appends an unsigned LEB128 number.
pub fn put_varint(buffer: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        buffer.put_u8((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    buffer.put_u8(value as u8);
}

/// Takes an unsigned LEB128 number in its shortest form.
///
/// # Errors
/// `Corrupt` for any other form, or if there is none.
#[inline]
pub fn take_varint(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let Some((&byte, tail)) = rest.split_first() else { return Err(cut_short()) };
        *rest = tail;
        let bits = u64::from(byte & 0x7f);
        if (shift == 63 && bits > 1) || (shift > 0 && byte == 0) {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Error::corrupt("a stored number is malformed"))
}

/// Takes a length and checks it against what is left.
///
/// # Errors
/// `Corrupt` if that is less.
pub fn take_length(rest: &mut &[u8]) -> Result<usize> {
    let length = take_varint(rest)?;
    usize::try_from(length).ok().filter(|&length| length <= rest.len()).ok_or_else(cut_short)
}

/// Takes exactly `length` bytes.
///
/// # Errors
/// `Corrupt` if fewer are left.
#[inline]
pub fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length).ok_or_else(cut_short)?;
    *rest = tail;
    Ok(head)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(body: &[u8]) -> Result<Vec<Value<'_>>> {
        let mut reader = RowReader::new(body)?;
        let mut values = Vec::new();
        while let Some(value) = reader.next_value()? {
            values.push(value);
        }
        Ok(values)
    }

    #[test]
    fn null_is_not_empty() {
        let body = encode_values(1, [Value::Null, Value::Text(""), Value::Bytes(&[])]);
        assert_eq!(read_all(&body).unwrap(), [Value::Null, Value::Text(""), Value::Bytes(&[])]);
    }

    #[test]
    fn a_text_of_parts_is_that_text() {
        let (mut whole, mut parts) = (BytesMut::new(), BytesMut::new());
        RowWriter::begin(&mut whole, 1).put(Value::Text("user:ann"));
        RowWriter::begin(&mut parts, 1).put_text_of(&["user", ":", "ann", ""]);
        assert_eq!(parts, whole);
    }

    #[test]
    fn every_cut_of_a_text_row_is_refused_or_shorter() {
        let body = encode_values(1, [Value::Text("prefix"), Value::Integer(-77)]);
        for end in 0..body.len() {
            if let Ok(values) = read_all(&body[..end]) {
                assert!(values.len() < 2);
            }
        }
    }

    #[test]
    fn content_is_the_same_in_every_version() {
        let old = encode_values(1, [Value::Integer(0), Value::Null, Value::Text("")]);
        let new =
            encode_values(300, [Value::Integer(0), Value::Null, Value::Text(""), Value::Null]);
        assert_eq!(content_of(&old).unwrap(), content_of(&new).unwrap());
        let other = encode_values(1, [Value::Integer(0), Value::Null, Value::Null]);
        assert_ne!(content_of(&old).unwrap(), content_of(&other).unwrap());
    }

    #[test]
    fn a_number_has_one_encoding() {
        assert!(take_varint(&mut &[0x80, 0x00][..]).is_err());
        assert!(take_varint(&mut &[0xff; 11][..]).is_err());
    }

    proptest! {
        #[test]
        fn integers_and_texts_survive(integer: i64, text in "[^\0]{0,64}", real in -1e300f64..1e300) {
            let body = encode_values(3, [Value::Integer(integer), Value::Text(&text), Value::Real(real)]);
            prop_assert_eq!(RowReader::new(&body).unwrap().version(), 3);
            let values = read_all(&body).unwrap();
            prop_assert_eq!(values, vec![Value::Integer(integer), Value::Text(&text), Value::Real(real)]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_all(&bytes);
        }
    }
}
