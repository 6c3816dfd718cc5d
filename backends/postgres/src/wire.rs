//! Values as PostgreSQL has them on the wire, in its binary format: what a column holds, arrays of that,
//! and parameters of statements.
//!
//! Everything goes this way, in both directions, so that nothing is ever rounded, parsed or written anew:
//! a document comes back byte for byte, a float bit for bit.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::schema::{ColumnKind, KeyKind, Value as Field};
use smallvec::SmallVec;
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgRow, PgTypeInfo, PgValueFormat};
use sqlx::{Arguments, Postgres, Row as _, Type, ValueRef};

/// PostgreSQL counts from 2000-01-01 UTC; microseconds since 1970.
const EPOCH: i64 = 946_684_800_000_000;
/// From here on a time is infinite, or none.
const END_OF_TIME: i64 = 9_223_371_331_200_000_000;
const BEGIN_OF_TIME: i64 = -211_813_488_000_000_000;

/// A column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    Boolean,
    Integer,
    Double,
    Text,
    Json,
    Id,
    Time,
    Bytes,
}

impl Storage {
    const ALL: [Self; 8] = [
        Self::Boolean,
        Self::Integer,
        Self::Double,
        Self::Text,
        Self::Json,
        Self::Id,
        Self::Time,
        Self::Bytes,
    ];

    /// That of a column.
    pub(crate) fn of(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Bool => Self::Boolean,
            ColumnKind::Integer => Self::Integer,
            ColumnKind::Real => Self::Double,
            ColumnKind::Time => Self::Time,
            ColumnKind::Text | ColumnKind::Key(_) => Self::Text,
            ColumnKind::Json => Self::Json,
            ColumnKind::Id => Self::Id,
            ColumnKind::Bytes => Self::Bytes,
        }
    }

    /// That of a column of a key.
    pub(crate) fn of_key(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Id | KeyKind::OptionalId => Self::Id,
            KeyKind::Integer => Self::Integer,
            KeyKind::Text => Self::Text,
        }
    }

    /// As `pg_catalog.format_type` names it.
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Integer => "bigint",
            Self::Double => "double precision",
            Self::Text => "text",
            Self::Json => "json",
            Self::Id => "uuid",
            Self::Time => "timestamp with time zone",
            Self::Bytes => "bytea",
        }
    }

    /// What a column is defined as. Texts are compared by their bytes.
    pub(crate) fn definition(self) -> &'static str {
        match self {
            Self::Text => "text COLLATE pg_catalog.\"C\"",
            _ => self.sql(),
        }
    }

    /// The type of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|storage| storage.sql() == name)
    }

    fn oid(self) -> u32 {
        match self {
            Self::Boolean => 16,
            Self::Bytes => 17,
            Self::Integer => 20,
            Self::Text => 25,
            Self::Json => 114,
            Self::Double => 701,
            Self::Time => 1184,
            Self::Id => 2950,
        }
    }

    fn array_oid(self) -> u32 {
        match self {
            Self::Boolean => 1000,
            Self::Bytes => 1001,
            Self::Integer => 1016,
            Self::Text => 1009,
            Self::Json => 199,
            Self::Double => 1022,
            Self::Time => 1185,
            Self::Id => 2951,
        }
    }
}

/// A parameter of a statement. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Param {
    oid: u32,
    wire: Option<Arc<[u8]>>,
}

impl Param {
    fn new(storage: Storage, wire: &[u8]) -> Self {
        Self { oid: storage.oid(), wire: Some(wire.into()) }
    }

    pub(crate) fn null(storage: Storage) -> Self {
        Self { oid: storage.oid(), wire: None }
    }

    pub(crate) fn integer(value: i64) -> Self {
        Self::new(Storage::Integer, &value.to_be_bytes())
    }

    /// Serials, positions and epochs are at most `i64::MAX`.
    pub(crate) fn count(value: u64) -> Self {
        Self::integer(i64::try_from(value).unwrap_or(i64::MAX))
    }

    pub(crate) fn boolean(value: bool) -> Self {
        Self::new(Storage::Boolean, &[value.into()])
    }

    pub(crate) fn id(value: &[u8; 16]) -> Self {
        Self::new(Storage::Id, value)
    }

    pub(crate) fn bytes(value: &[u8]) -> Self {
        Self::new(Storage::Bytes, value)
    }

    pub(crate) fn text(value: &str) -> Self {
        Self::new(Storage::Text, value.as_bytes())
    }

    /// A time in microseconds since 1970, which is one of the store's.
    pub(crate) fn time(micros: i64) -> Self {
        Self::new(Storage::Time, &micros.saturating_sub(EPOCH).to_be_bytes())
    }

    /// The bytes; `None` for null.
    pub(crate) fn wire(&self) -> Option<&[u8]> {
        self.wire.as_deref()
    }

    pub(crate) fn len(&self) -> usize {
        self.wire.as_ref().map_or(0, |wire| wire.len())
    }
}

impl Type<Postgres> for Param {
    /// Never used: each says what it is.
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }

    fn compatible(_: &PgTypeInfo) -> bool {
        true
    }
}

impl Encode<'_, Postgres> for Param {
    fn encode_by_ref(
        &self,
        buffer: &mut PgArgumentBuffer,
    ) -> std::result::Result<IsNull, BoxDynError> {
        let Some(wire) = &self.wire else { return Ok(IsNull::Yes) };
        buffer.extend_from_slice(wire);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.oid)))
    }

    fn size_hint(&self) -> usize {
        self.len()
    }
}

/// The arguments of a statement.
pub(crate) fn arguments(params: &[Param]) -> std::result::Result<PgArguments, sqlx::Error> {
    let mut arguments = PgArguments::default();
    arguments.reserve(params.len(), params.iter().map(|param| param.len() + 4).sum());
    for param in params {
        arguments.add(param).map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// The values of one column of many rows: an array of one dimension.
#[derive(Debug)]
pub(crate) struct Array {
    storage: Storage,
    count: i32,
    has_null: bool,
    wire: Vec<u8>,
}

/// Dimensions, whether there are nulls, the type, how many, where they begin: four bytes each.
const ARRAY_HEADER: usize = 20;

impl Array {
    pub(crate) fn new(storage: Storage) -> Self {
        Self { storage, count: 0, has_null: false, wire: vec![0; ARRAY_HEADER] }
    }

    /// How the statement refers to the type.
    pub(crate) fn sql(storage: Storage) -> String {
        format!("{}[]", storage.sql())
    }

    /// Appends a value, which `write` appends to the bytes; `false` says that it is null.
    fn push_with(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<bool>,
    ) -> Result<Option<&[u8]>> {
        let at = self.wire.len();
        self.wire.extend_from_slice(&(-1_i32).to_be_bytes());
        self.count += 1;
        if !write(&mut self.wire)? {
            self.has_null = true;
            return Ok(None);
        }
        let from = at + 4;
        let length = i32::try_from(self.wire.len() - from)
            .map_err(|_| Error::invalid("a value is too large for the database"))?;
        if let Some(place) = self.wire.get_mut(at..from) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        Ok(self.wire.get(from..))
    }

    /// Appends a column's value, and gives what it is on the wire.
    pub(crate) fn push(&mut self, kind: ColumnKind, field: Field<'_>) -> Result<Option<&[u8]>> {
        self.push_with(|wire| put(kind, field, wire))
    }

    /// Appends bytes that are the value.
    pub(crate) fn push_raw(&mut self, value: &[u8]) -> Result<()> {
        let write = |wire: &mut Vec<u8>| {
            wire.extend_from_slice(value);
            Ok(true)
        };
        self.push_with(write).map(drop)
    }

    /// The parameter. An array without values has no dimension, and is never sent.
    pub(crate) fn finish(mut self) -> Param {
        let header: [i32; 5] = [
            1,
            self.has_null.into(),
            i32::try_from(self.storage.oid()).unwrap_or(0),
            self.count,
            1,
        ];
        for (place, number) in self.wire.chunks_exact_mut(4).zip(header) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        Param { oid: self.storage.array_oid(), wire: Some(self.wire.into()) }
    }
}

fn misfit(expected: &'static str) -> Error {
    Error::corrupt("a column does not hold what its type admits").with("expected", expected)
}

fn kind_name(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Bool => "0 or 1",
        ColumnKind::Integer => "an integer",
        ColumnKind::Real => "a finite float",
        ColumnKind::Time => "a time in microseconds",
        ColumnKind::Text => "text",
        ColumnKind::Json => "JSON",
        ColumnKind::Id => "an identifier",
        ColumnKind::Key(_) => "a key of 32 bytes",
        ColumnKind::Bytes => "bytes",
    }
}

/// Appends a value; `false` says that it is null.
fn put(kind: ColumnKind, field: Field<'_>, wire: &mut Vec<u8>) -> Result<bool> {
    match (kind, field) {
        (_, Field::Null) => return Ok(false),
        (ColumnKind::Bool, Field::Integer(bit @ (0 | 1))) => wire.push(u8::from(bit == 1)),
        (ColumnKind::Integer, Field::Integer(integer)) => {
            wire.extend_from_slice(&integer.to_be_bytes());
        }
        (ColumnKind::Time, Field::Integer(micros)) => {
            let shifted = micros.checked_sub(EPOCH);
            let shifted = shifted
                .filter(|time| (BEGIN_OF_TIME..END_OF_TIME).contains(time))
                .ok_or_else(|| misfit(kind_name(kind)))?;
            wire.extend_from_slice(&shifted.to_be_bytes());
        }
        (ColumnKind::Real, Field::Real(real)) if real.is_finite() => {
            wire.extend_from_slice(&real.to_bits().to_be_bytes());
        }
        (ColumnKind::Text | ColumnKind::Json, Field::Text(text)) if !text.contains('\0') => {
            wire.extend_from_slice(text.as_bytes());
        }
        (ColumnKind::Id, Field::Bytes(bytes)) if bytes.len() == 16 => wire.extend_from_slice(bytes),
        (ColumnKind::Key(prefix), Field::Bytes(bytes)) if bytes.len() == 32 => {
            wire.extend_from_slice(prefix.as_bytes());
            wire.extend_from_slice(HEXLOWER.encode(bytes).as_bytes());
        }
        (ColumnKind::Bytes, Field::Bytes(bytes)) => wire.extend_from_slice(bytes),
        _ => return Err(misfit(kind_name(kind))),
    }
    Ok(true)
}

/// A column's value as it was read.
#[derive(Debug)]
pub(crate) enum Stored<'w> {
    Field(Field<'w>),
    /// The bytes that a text stands for.
    Key(SmallVec<[u8; 32]>),
}

impl Stored<'_> {
    pub(crate) fn field(&self) -> Field<'_> {
        match self {
            Self::Field(field) => *field,
            Self::Key(bytes) => Field::Bytes(bytes),
        }
    }
}

/// Reads a column's value.
pub(crate) fn stored(kind: ColumnKind, wire: Option<&[u8]>) -> Result<Stored<'_>> {
    let Some(wire) = wire else { return Ok(Stored::Field(Field::Null)) };
    let text = || std::str::from_utf8(wire).map_err(|_| misfit("UTF-8"));
    Ok(Stored::Field(match kind {
        ColumnKind::Bool => Field::Integer(i64::from(boolean(wire)?)),
        ColumnKind::Integer => Field::Integer(integer(wire)?),
        ColumnKind::Real => Field::Real(f64::from_bits(integer(wire)?.cast_unsigned())),
        ColumnKind::Time => Field::Integer(micros(wire)?),
        ColumnKind::Text | ColumnKind::Json => Field::Text(text()?),
        ColumnKind::Id => Field::Bytes(wire),
        ColumnKind::Bytes => Field::Bytes(wire),
        ColumnKind::Key(prefix) => {
            let digits = wire.strip_prefix(prefix.as_bytes());
            let bytes = digits.and_then(|digits| HEXLOWER.decode(digits).ok());
            let bytes = bytes.filter(|bytes| bytes.len() == 32);
            let bytes = bytes.ok_or_else(|| misfit(kind_name(kind)))?;
            return Ok(Stored::Key(SmallVec::from_vec(bytes)));
        }
    }))
}

fn boolean(wire: &[u8]) -> Result<bool> {
    match wire {
        [0] => Ok(false),
        [1] => Ok(true),
        _ => Err(misfit("a boolean")),
    }
}

fn integer(wire: &[u8]) -> Result<i64> {
    wire.try_into().map(i64::from_be_bytes).map_err(|_| misfit("an integer"))
}

fn micros(wire: &[u8]) -> Result<i64> {
    let time = integer(wire)?;
    let finite = (BEGIN_OF_TIME..END_OF_TIME).contains(&time).then_some(time);
    finite.and_then(|time| time.checked_add(EPOCH)).ok_or_else(|| misfit("a finite time"))
}

/// The bytes of a column of a row; `None` for null.
pub(crate) fn cell(row: &PgRow, index: usize) -> Result<Option<&[u8]>> {
    let unread = |_| Error::corrupt("a row has not the columns that were asked for");
    let value = row.try_get_raw(index).map_err(unread)?;
    if value.is_null() {
        return Ok(None);
    }
    // Texts come from simple statements, of which nothing is read.
    if value.format() != PgValueFormat::Binary {
        return Err(Error::corrupt("a value came in another format than was asked for"));
    }
    value.as_bytes().map(Some).map_err(|_| Error::corrupt("a value cannot be read"))
}

fn present(row: &PgRow, index: usize) -> Result<&[u8]> {
    cell(row, index)?.ok_or_else(|| misfit("no null"))
}

pub(crate) fn integer_at(row: &PgRow, index: usize) -> Result<i64> {
    integer(present(row, index)?)
}

pub(crate) fn count_at(row: &PgRow, index: usize) -> Result<u64> {
    u64::try_from(integer_at(row, index)?).map_err(|_| misfit("a count"))
}

pub(crate) fn boolean_at(row: &PgRow, index: usize) -> Result<bool> {
    boolean(present(row, index)?)
}

pub(crate) fn time_at(row: &PgRow, index: usize) -> Result<i64> {
    micros(present(row, index)?)
}

pub(crate) fn text_at(row: &PgRow, index: usize) -> Result<&str> {
    std::str::from_utf8(present(row, index)?).map_err(|_| misfit("UTF-8"))
}

pub(crate) fn fixed_at<const N: usize>(row: &PgRow, index: usize) -> Result<[u8; N]> {
    present(row, index)?.try_into().map_err(|_| misfit("bytes of another number"))
}

pub(crate) fn bytes_at(row: &PgRow, index: usize) -> Result<&[u8]> {
    present(row, index)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round(kind: ColumnKind, field: Field<'_>) -> Result<()> {
        let mut wire = Vec::new();
        let is_there = put(kind, field, &mut wire)?;
        let back = stored(kind, is_there.then_some(&wire))?;
        // Bit by bit, where a zero has a sign.
        assert_eq!(format!("{:?}", back.field()), format!("{field:?}"));
        Ok(())
    }

    proptest! {
        #[test]
        fn every_value_comes_back(
            integer: i64, micros in 0..i64::MAX, text in "[^\0]{0,20}", real: f64,
            id: [u8; 16], key: [u8; 32], bytes in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            round(ColumnKind::Integer, Field::Integer(integer))?;
            round(ColumnKind::Time, Field::Integer(micros))?;
            round(ColumnKind::Text, Field::Text(&text))?;
            round(ColumnKind::Json, Field::Text(&text))?;
            round(ColumnKind::Id, Field::Bytes(&id))?;
            round(ColumnKind::Key("nodekey:"), Field::Bytes(&key))?;
            round(ColumnKind::Bytes, Field::Bytes(&bytes))?;
            prop_assert_eq!(round(ColumnKind::Real, Field::Real(real)).is_ok(), real.is_finite());
        }

        #[test]
        fn bytes_that_are_no_value_are_refused_without_a_panic(wire in prop::collection::vec(any::<u8>(), 0..12)) {
            for kind in [
                ColumnKind::Bool, ColumnKind::Integer, ColumnKind::Real, ColumnKind::Time, ColumnKind::Text,
                ColumnKind::Json, ColumnKind::Id, ColumnKind::Key("a:"), ColumnKind::Bytes,
            ] {
                let _ = stored(kind, Some(&wire));
            }
        }
    }

    #[test]
    fn what_a_column_cannot_hold_is_refused() {
        for (kind, field) in [
            (ColumnKind::Bool, Field::Integer(2)),
            (ColumnKind::Time, Field::Integer(i64::MIN)),
            (ColumnKind::Time, Field::Integer(i64::MIN + EPOCH)),
            (ColumnKind::Real, Field::Real(f64::NAN)),
            (ColumnKind::Real, Field::Real(f64::INFINITY)),
            (ColumnKind::Text, Field::Text("a\0b")),
            (ColumnKind::Id, Field::Bytes(&[1; 15])),
            (ColumnKind::Key("a:"), Field::Bytes(&[1; 31])),
            (ColumnKind::Text, Field::Integer(1)),
        ] {
            assert!(put(kind, field, &mut Vec::new()).is_err(), "{kind:?} {field:?}");
        }
        // The two infinite times.
        for time in [i64::MAX, i64::MIN] {
            assert!(stored(ColumnKind::Time, Some(&time.to_be_bytes())).is_err());
        }
    }

    #[test]
    fn an_array_says_what_is_in_it() {
        let mut array = Array::new(Storage::Integer);
        array.push(ColumnKind::Integer, Field::Integer(7)).unwrap();
        array.push(ColumnKind::Integer, Field::Null).unwrap();
        let param = array.finish();
        assert_eq!(param.oid, 1016);
        let expected: Vec<u8> =
            [1_i32, 1, 20, 2, 1, 8, 0, 7, -1].iter().flat_map(|n| n.to_be_bytes()).collect();
        assert_eq!(param.wire(), Some(expected.as_slice()));
    }
}
