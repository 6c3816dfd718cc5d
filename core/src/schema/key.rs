//! Row keys: typed columns whose bytes sort like their values.

use smallvec::SmallVec;

use super::table::KeyColumn;
use super::value::Value;
use crate::error::{Error, Result};

/// A key is at most this long, in bytes.
pub const MAX_KEY: usize = 512;

/// A row's key. Comparing the bytes compares the typed columns in order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RowKey(SmallVec<[u8; 24]>);

impl std::fmt::Debug for RowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RowKey(")?;
        for byte in &self.0 {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

/// The type of a key column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// 16 bytes.
    Id,
    /// 16 bytes, all zero for none.
    OptionalId,
    /// A number of 0 to `i64::MAX`: 8 bytes, big-endian.
    Integer,
    /// Text without NUL, and a NUL after it.
    Text,
}

impl RowKey {
    /// An empty key, to be filled column by column.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The key of these bytes.
    ///
    /// # Errors
    /// `Corrupt` if there are more than [`MAX_KEY`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_KEY {
            return Err(
                Error::corrupt("a row's key is longer than 512 bytes").with("bytes", bytes.len())
            );
        }
        Ok(Self(SmallVec::from_slice(bytes)))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Appends an identifier.
    #[must_use]
    pub fn id(mut self, id: &[u8; 16]) -> Self {
        self.0.extend_from_slice(id);
        self
    }

    /// Appends an identifier or none.
    #[must_use]
    pub fn optional_id(self, id: Option<&[u8; 16]>) -> Self {
        self.id(id.unwrap_or(&[0; 16]))
    }

    /// Appends a number; negative ones, which no type of ours produces, count as 0.
    #[must_use]
    pub fn integer(mut self, value: i64) -> Self {
        self.0.extend_from_slice(&value.max(0).to_be_bytes());
        self
    }

    /// Appends text, which has no NUL.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        self
    }

    /// The smallest key that is larger than every key which begins with these columns; `None` if
    /// there is none.
    #[must_use]
    pub fn after_prefix(mut self) -> Option<Self> {
        while let Some(last) = self.0.pop() {
            if last < u8::MAX {
                self.0.push(last + 1);
                return Some(self);
            }
        }
        None
    }

    /// The smallest key that is larger than this one.
    #[must_use]
    pub fn successor(mut self) -> Self {
        self.0.push(0);
        self
    }

    /// Splits the key into the values of its columns.
    ///
    /// # Errors
    /// `Corrupt` if the bytes do not have that shape.
    pub fn values<'k>(&'k self, columns: &[KeyColumn]) -> Result<SmallVec<[Value<'k>; 3]>> {
        let mut rest: &[u8] = &self.0;
        let mut values = SmallVec::new();
        for column in columns {
            values.push(match column.kind {
                KeyKind::Id => Value::Bytes(take(&mut rest, 16)?),
                KeyKind::OptionalId => {
                    let id = take(&mut rest, 16)?;
                    if id == [0; 16] { Value::Null } else { Value::Bytes(id) }
                }
                KeyKind::Integer => {
                    let bytes =
                        <[u8; 8]>::try_from(take(&mut rest, 8)?).map_err(|_| misshapen())?;
                    Value::Integer(i64::from_be_bytes(bytes))
                }
                KeyKind::Text => {
                    let end = rest.iter().position(|&byte| byte == 0).ok_or_else(misshapen)?;
                    let text = take(&mut rest, end)?;
                    take(&mut rest, 1)?;
                    Value::Text(std::str::from_utf8(text).map_err(|_| misshapen())?)
                }
            });
        }
        if rest.is_empty() { Ok(values) } else { Err(misshapen()) }
    }

    /// Joins the values of a key's columns; the inverse of [`RowKey::values`].
    ///
    /// # Errors
    /// `Corrupt` if a value does not fit its column.
    pub fn from_values<'v>(
        columns: &[KeyColumn],
        values: impl IntoIterator<Item = Value<'v>>,
    ) -> Result<Self> {
        let mut key = Self::new();
        let mut values = values.into_iter();
        for column in columns {
            let value = values.next().ok_or_else(misshapen)?;
            key = match (column.kind, value) {
                (KeyKind::Id | KeyKind::OptionalId, Value::Bytes(bytes)) => {
                    key.id(bytes.try_into().map_err(|_| misshapen())?)
                }
                (KeyKind::OptionalId, Value::Null) => key.optional_id(None),
                (KeyKind::Integer, Value::Integer(integer)) if integer >= 0 => key.integer(integer),
                (KeyKind::Text, Value::Text(text)) if !text.contains('\0') => key.text(text),
                _ => return Err(misshapen().with("column", column.name)),
            };
        }
        Ok(key)
    }
}

fn take<'k>(rest: &mut &'k [u8], length: usize) -> Result<&'k [u8]> {
    let (head, tail) = rest.split_at_checked(length).ok_or_else(misshapen)?;
    *rest = tail;
    Ok(head)
}

fn misshapen() -> Error {
    Error::corrupt("a row's key does not have its table's shape")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COLUMNS: [KeyColumn; 3] = [
        KeyColumn { name: "node", kind: KeyKind::OptionalId },
        KeyColumn { name: "metric", kind: KeyKind::Text },
        KeyColumn { name: "at", kind: KeyKind::Integer },
    ];

    proptest! {
        #[test]
        fn bytes_sort_like_the_columns(
            a in (any::<[u8; 16]>(), "[^\0]{0,5}", 0..i64::MAX),
            b in (any::<[u8; 16]>(), "[^\0]{0,5}", 0..i64::MAX),
        ) {
            let key = |x: &([u8; 16], String, i64)| RowKey::new().id(&x.0).text(&x.1).integer(x.2);
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
        }

        #[test]
        fn values_survive(id in prop::option::of(any::<[u8; 16]>()), text in "[^\0]{0,9}", at in 0..i64::MAX) {
            let key = RowKey::new().optional_id(id.as_ref()).text(&text).integer(at);
            let values = key.values(&COLUMNS).unwrap();
            prop_assert_eq!(&RowKey::from_values(&COLUMNS, values).unwrap(), &key);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = RowKey::from_bytes(&bytes).unwrap().values(&COLUMNS);
        }
    }

    #[test]
    fn after_prefix_is_a_tight_upper_bound() {
        let prefix = RowKey::new().id(&[7; 16]);
        let bound = prefix.clone().after_prefix().unwrap();
        assert!(prefix.clone().id(&[255; 16]) < bound);
        assert!(RowKey::from_bytes(&[0xff, 0xff]).unwrap().after_prefix().is_none());
    }
}
