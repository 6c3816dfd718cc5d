//! How the core's tables look in SQL, and how its rows become SQL values and back.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use ghostwire_store_core::backend::{KeyRange, Row};
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::schema::{
    Column, ColumnKind, KeyColumn, KeyKind, RowKey, RowReader, Schema, SchemaVersion, Table,
    Value as Field, encode_values,
};
use libsql::Value;
use sha2::{Digest, Sha256};
use smallvec::SmallVec;
use uuid::Uuid;

use crate::link::{Link, Storage, cell, integer, text};
use crate::meta::MetaLayout;
use crate::range::{End, beyond, condition};

/// The column that holds a row's check.
pub(crate) const CHECK: &str = "row_check";

/// One table of the core, in SQL.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) table: Table,
    schema: Schema,
    /// The version that bodies read from here carry.
    version: u32,
    keys: &'static [KeyColumn],
    columns: Vec<&'static Column>,
    /// Columns of a newer schema: covered by the row's check, otherwise left alone.
    unknown: Vec<(String, Storage)>,
    pub(crate) insert: String,
    pub(crate) delete: String,
    select: String,
    key_list: Vec<String>,
}

pub(crate) fn key_storage(kind: KeyKind) -> Storage {
    match kind {
        KeyKind::Integer => Storage::Integer,
        KeyKind::Id | KeyKind::OptionalId | KeyKind::Text => Storage::Text,
    }
}

pub(crate) fn column_storage(kind: ColumnKind) -> Storage {
    match kind {
        ColumnKind::Bool | ColumnKind::Integer | ColumnKind::Time => Storage::Integer,
        ColumnKind::Real => Storage::Real,
        ColumnKind::Text | ColumnKind::Json | ColumnKind::Id | ColumnKind::Key(_) => Storage::Text,
        ColumnKind::Bytes => Storage::Blob,
    }
}

/// 63 bits of SHA-256 over a table's number and the SQL values of a row, without the nulls at its
/// end, so that a column which a later schema adds leaves the checks of older rows as they are.
pub(crate) fn row_check<'v>(
    table: u8,
    values: impl IntoIterator<Item = &'v Value>,
    scratch: &mut Vec<u8>,
) -> i64 {
    scratch.clear();
    scratch.push(table);
    let mut end = scratch.len();
    for value in values {
        match value {
            Value::Null => scratch.push(0),
            Value::Integer(integer) => {
                scratch.push(1);
                scratch.extend_from_slice(&integer.to_be_bytes());
            }
            Value::Real(real) => {
                scratch.push(2);
                scratch.extend_from_slice(&real.to_bits().to_be_bytes());
            }
            Value::Text(text) => {
                scratch.push(3);
                scratch.extend_from_slice(&(text.len() as u64).to_be_bytes());
                scratch.extend_from_slice(text.as_bytes());
            }
            Value::Blob(bytes) => {
                scratch.push(4);
                scratch.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
                scratch.extend_from_slice(bytes);
            }
        }
        if *value != Value::Null {
            end = scratch.len();
        }
    }
    scratch.truncate(end);
    let hash = Sha256::digest(&scratch);
    let first = hash.iter().take(8).fold(0u64, |number, &byte| (number << 8) | u64::from(byte));
    (first >> 1).cast_signed()
}

/// The text of an identifier.
pub(crate) fn id_text(bytes: [u8; 16]) -> String {
    let mut buffer = Uuid::encode_buffer();
    Uuid::from_bytes(bytes).hyphenated().encode_lower(&mut buffer).to_owned()
}

/// The inverse of [`id_text`], which admits no other spelling: the order would be another.
pub(crate) fn parse_id(text: &str) -> Result<[u8; 16]> {
    let id = Uuid::try_parse(text).map_err(|_| misfit("an identifier"))?;
    let mut buffer = Uuid::encode_buffer();
    if id.hyphenated().encode_lower(&mut buffer) != text {
        return Err(misfit("an identifier"));
    }
    Ok(id.into_bytes())
}

fn misfit(expected: &'static str) -> Error {
    Error::corrupt("a column does not hold what its type admits").with("expected", expected)
}

fn id_value(bytes: &[u8]) -> Result<Value> {
    let bytes = bytes.try_into().map_err(|_| misfit("16 bytes"))?;
    Ok(Value::Text(id_text(bytes)))
}

fn key_value(kind: KeyKind, field: Field<'_>) -> Result<Value> {
    match (kind, field) {
        (KeyKind::Id | KeyKind::OptionalId, Field::Bytes(bytes)) => id_value(bytes),
        (KeyKind::OptionalId, Field::Null) => Ok(Value::Text(String::new())),
        (KeyKind::Integer, Field::Integer(integer)) if integer >= 0 => Ok(Value::Integer(integer)),
        (KeyKind::Text, Field::Text(text)) => Ok(Value::Text(text.to_owned())),
        _ => Err(misfit("a key")),
    }
}

fn column_value(column: &Column, field: Field<'_>) -> Result<Value> {
    let value = match (column.kind, field) {
        (_, Field::Null) if column.nullable => Value::Null,
        (ColumnKind::Bool, Field::Integer(bit @ (0 | 1))) => Value::Integer(bit),
        (ColumnKind::Integer | ColumnKind::Time, Field::Integer(integer)) => {
            Value::Integer(integer)
        }
        // SQLite stores NaN as null and drops the sign of zero.
        (ColumnKind::Real, Field::Real(real))
            if real.is_finite() && (real != 0.0 || real.is_sign_positive()) =>
        {
            Value::Real(real)
        }
        (ColumnKind::Text | ColumnKind::Json, Field::Text(text)) => Value::Text(text.to_owned()),
        (ColumnKind::Id, Field::Bytes(bytes)) => id_value(bytes)?,
        (ColumnKind::Key(prefix), Field::Bytes(bytes)) if bytes.len() == 32 => {
            let mut text = String::with_capacity(prefix.len() + 64);
            text.push_str(prefix);
            HEXLOWER.encode_append(bytes, &mut text);
            Value::Text(text)
        }
        (ColumnKind::Bytes, Field::Bytes(bytes)) => Value::Blob(bytes.to_vec()),
        _ => return Err(misfit(kind_name(column.kind)).with("column", column.name)),
    };
    Ok(value)
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

/// The bytes that a text column stands for, where it stands for bytes.
fn column_bytes(column: &Column, value: &Value) -> Result<Option<SmallVec<[u8; 32]>>> {
    let (kind, Value::Text(text)) = (column.kind, value) else { return Ok(None) };
    match kind {
        ColumnKind::Id => Ok(Some(SmallVec::from_slice(&parse_id(text)?))),
        ColumnKind::Key(prefix) => text
            .strip_prefix(prefix)
            .and_then(|digits| HEXLOWER.decode(digits.as_bytes()).ok())
            .filter(|bytes| bytes.len() == 32)
            .map(|bytes| Some(SmallVec::from_slice(&bytes)))
            .ok_or_else(|| misfit(kind_name(kind)).with("column", column.name)),
        _ => Ok(None),
    }
}

fn column_field<'v>(
    column: &Column,
    value: &'v Value,
    bytes: Option<&'v SmallVec<[u8; 32]>>,
) -> Result<Field<'v>> {
    match (value, bytes) {
        (_, Some(bytes)) => Ok(Field::Bytes(bytes)),
        (Value::Null, None) if column.nullable => Ok(Field::Null),
        (Value::Integer(integer), None)
            if column.kind != ColumnKind::Bool || matches!(integer, 0 | 1) =>
        {
            Ok(Field::Integer(*integer))
        }
        (Value::Real(real), None) => Ok(Field::Real(*real)),
        (Value::Text(text), None) => Ok(Field::Text(text)),
        (Value::Blob(bytes), None) => Ok(Field::Bytes(bytes)),
        _ => Err(misfit(kind_name(column.kind)).with("column", column.name)),
    }
}

fn key_from_values(columns: &[KeyColumn], values: &[Value]) -> Result<RowKey> {
    columns.iter().zip(values).try_fold(RowKey::new(), |key, (column, value)| {
        match (column.kind, value) {
            (KeyKind::OptionalId, Value::Text(text)) if text.is_empty() => {
                Ok(key.optional_id(None))
            }
            (KeyKind::Id | KeyKind::OptionalId, Value::Text(text)) => Ok(key.id(&parse_id(text)?)),
            (KeyKind::Integer, Value::Integer(integer)) if *integer >= 0 => {
                Ok(key.integer(*integer))
            }
            (KeyKind::Text, Value::Text(text)) if !text.contains('\0') => Ok(key.text(text)),
            _ => Err(misfit("a key").with("column", column.name)),
        }
    })
}

impl Shape {
    /// The table as of the schema `stored` in the file.
    pub(crate) fn new(table: Table, schema: Schema, unknown: Vec<(String, Storage)>) -> Self {
        let keys = schema.key(table);
        let columns: Vec<&'static Column> = schema.columns(table).collect();
        let key_list: Vec<String> = keys.iter().map(|key| format!("[{}]", key.name)).collect();
        let names: Vec<String> = key_list
            .iter()
            .cloned()
            .chain(columns.iter().map(|column| format!("[{}]", column.name)))
            .chain([CHECK.to_owned()])
            .collect();
        let marks: Vec<String> = (1..=names.len()).map(|number| format!("?{number}")).collect();
        let name = table.name();
        // Another constraint than that of the key, which somebody added, is an error and not a reason to
        // delete the row that is in the way. Columns of a newer schema become null.
        let changed = names.iter().skip(keys.len()).map(|name| format!("{name} = excluded.{name}"));
        let nulled = unknown.iter().map(|(name, _)| format!("[{name}] = NULL"));
        let changes: Vec<String> = changed.chain(nulled).collect();
        let insert = format!(
            "INSERT INTO [{name}] ({}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}",
            names.join(", "),
            marks.join(", "),
            key_list.join(", "),
            changes.join(", ")
        );
        let matches: Vec<String> = key_list
            .iter()
            .enumerate()
            .map(|(index, key)| format!("{key} = ?{}", index + 1))
            .collect();
        let delete = format!("DELETE FROM [{name}] WHERE {}", matches.join(" AND "));
        let selected: Vec<String> = keys
            .iter()
            .map(|key| key_storage(key.kind).select(key.name))
            .chain(columns.iter().map(|column| column_storage(column.kind).select(column.name)))
            .chain(unknown.iter().map(|(name, storage)| storage.select(name)))
            .chain([Storage::Integer.select(CHECK)])
            .collect();
        let select = format!("SELECT {} FROM [{name}]", selected.join(", "));
        let version = schema.version().version;
        Self { table, schema, version, keys, columns, unknown, insert, delete, select, key_list }
    }

    /// The query that tells whether there is a row.
    pub(crate) fn has_rows(&self) -> String {
        format!("SELECT EXISTS (SELECT 1 FROM [{}])", self.table.name())
    }

    /// The query that gives every row, in the order of the keys.
    pub(crate) fn select_all(&self) -> String {
        format!("{} ORDER BY {}", self.select, self.key_list.join(", "))
    }

    fn located(&self, error: Error, key: &RowKey) -> Error {
        error.with("table", self.table.name()).with("key", format_args!("{key:?}"))
    }

    /// The SQL values of a key.
    pub(crate) fn key_values(&self, key: &RowKey) -> Result<Vec<Value>> {
        let convert = |fields: SmallVec<[Field<'_>; 3]>| {
            let columns = self.keys.iter().zip(fields);
            columns.map(|(column, field)| key_value(column.kind, field)).collect()
        };
        key.values(self.keys).and_then(convert).map_err(|error| self.located(error, key))
    }

    /// The SQL values of a row, its check behind them.
    pub(crate) fn row_values(
        &self,
        key: &RowKey,
        body: &Bytes,
        scratch: &mut Vec<u8>,
    ) -> Result<Vec<Value>> {
        let mut values = self.key_values(key)?;
        let mut convert = || {
            let body = self.schema.fit(self.table, body)?;
            let mut reader = RowReader::new(&body)?;
            for column in &self.columns {
                let field = reader.next_value()?.unwrap_or(Field::Null);
                values.push(column_value(column, field)?);
            }
            match reader.next_value()? {
                None => Ok(()),
                Some(_) => Err(Error::corrupt("a row has more columns than its table")),
            }
        };
        convert().map_err(|error| self.located(error, key))?;
        let check = row_check(self.table.number(), &values, scratch);
        values.push(Value::Integer(check));
        Ok(values)
    }

    /// Reads a row of [`Shape::scan`] or [`Shape::select_all`].
    pub(crate) fn read(&self, row: &libsql::Row, scratch: &mut Vec<u8>) -> Result<Row> {
        let storages = self
            .keys
            .iter()
            .map(|key| key_storage(key.kind))
            .chain(self.columns.iter().map(|column| column_storage(column.kind)))
            .chain(self.unknown.iter().map(|(_, storage)| *storage));
        let mut values: SmallVec<[Value; 24]> = SmallVec::new();
        let named = |error: Error| error.with("table", self.table.name());
        for (index, storage) in storages.enumerate() {
            values.push(cell(row, index, storage).map_err(named)?);
        }
        let key = key_from_values(self.keys, &values).map_err(named)?;
        let stored = integer(row, values.len()).map_err(|error| self.located(error, &key))?;
        if stored != row_check(self.table.number(), &values, scratch) {
            let error = Error::corrupt(
                "a row is not as this program wrote it: it is damaged, or was edited by hand; \
                 restore it from a backup",
            );
            return Err(self.located(error, &key));
        }
        let body = self
            .body(values.get(self.keys.len()..).unwrap_or_default())
            .map_err(|error| self.located(error, &key))?;
        Ok(Row { key, body })
    }

    fn body(&self, values: &[Value]) -> Result<Bytes> {
        let columns = || self.columns.iter().zip(values);
        let bytes: SmallVec<[_; 24]> =
            columns().map(|(column, value)| column_bytes(column, value)).collect::<Result<_>>()?;
        let fields: SmallVec<[Field<'_>; 24]> = columns()
            .zip(&bytes)
            .map(|((column, value), bytes)| column_field(column, value, bytes.as_ref()))
            .collect::<Result<_>>()?;
        Ok(encode_values(self.version, fields))
    }

    /// The query for a page of rows; `None` if the range can hold none.
    pub(crate) fn scan(
        &self,
        range: &KeyRange,
        reverse: bool,
        limit: usize,
    ) -> Option<(String, Vec<Value>)> {
        let (condition, mut parameters) = condition(self.keys, &self.key_list, range)?;
        parameters.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
        let sql = format!(
            "{}{condition} ORDER BY {} LIMIT ?{}",
            self.select,
            self.order(reverse),
            parameters.len()
        );
        Some((sql, parameters))
    }

    /// The query for the row that is nearest to an end of a range and beyond it; `None` if the range
    /// has no such end.
    pub(crate) fn beside(&self, key: &RowKey, end: End) -> Option<(String, Vec<Value>)> {
        let (conditions, parameters) = beyond(self.keys, &self.key_list, key, end);
        let order = self.order(end == End::From);
        // One by one: SQLite goes on to the next only if there was no row.
        let nearest: Vec<String> = conditions
            .iter()
            .map(|condition| {
                let select = &self.select;
                format!("SELECT * FROM ({select} WHERE {condition} ORDER BY {order} LIMIT 1)")
            })
            .collect();
        let sql = format!("{} LIMIT 1", nearest.join(" UNION ALL "));
        (!nearest.is_empty()).then_some((sql, parameters))
    }

    fn order(&self, reverse: bool) -> String {
        let direction = if reverse { " DESC" } else { "" };
        let order: Vec<String> =
            self.key_list.iter().map(|key| format!("{key}{direction}")).collect();
        order.join(", ")
    }

    /// The statement that deletes the rows of a range; `None` if it can hold none.
    pub(crate) fn prune(&self, range: &KeyRange) -> Option<(String, Vec<Value>)> {
        let (condition, parameters) = condition(self.keys, &self.key_list, range)?;
        Some((format!("DELETE FROM [{}]{condition}", self.table.name()), parameters))
    }
}

/// Every table of a file.
#[derive(Debug)]
pub(crate) struct Shapes {
    tables: Vec<Shape>,
    pub(crate) stored: SchemaVersion,
    pub(crate) meta: &'static MetaLayout,
}

impl Shapes {
    /// What the tables of a file with schema `stored` look like to this build.
    pub(crate) fn read(link: &mut Link, stored: SchemaVersion) -> Result<Self> {
        let current = Schema::current();
        let is_newer = stored.version > current.version().version;
        let schema = if is_newer { current } else { Schema::at(stored.version)? };
        let tables = schema
            .tables()
            .map(|table| {
                let unknown =
                    if is_newer { unknown_columns(link, table, schema)? } else { Vec::new() };
                let shape = Shape::new(table, schema, unknown);
                let damaged = |error: Error| error.with("table", table.name());
                link.prepare(&shape.select_all()).map_err(damaged)?;
                Ok(shape)
            })
            .collect::<Result<_>>()?;
        Ok(Self { tables, stored, meta: MetaLayout::of(stored) })
    }

    /// Every table, in the order of their numbers.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Shape> {
        self.tables.iter()
    }

    /// One of them; `None` for one that a later schema brought, which has no rows here.
    pub(crate) fn of(&self, table: Table) -> Option<&Shape> {
        self.tables.iter().find(|shape| shape.table == table)
    }
}

/// The columns that a newer schema added, in the order in which it did.
fn unknown_columns(
    link: &mut Link,
    table: Table,
    schema: Schema,
) -> Result<Vec<(String, Storage)>> {
    let known: Vec<&str> = schema
        .key(table)
        .iter()
        .map(|key| key.name)
        .chain(schema.columns(table).map(|column| column.name))
        .chain([CHECK])
        .collect();
    let sql = format!(
        "SELECT CAST(name AS BLOB), CAST(type AS BLOB) FROM pragma_table_info('{}') ORDER BY cid",
        table.name()
    );
    let mut unknown = Vec::new();
    link.query(&sql, Vec::new(), |row| {
        let name = text(row, 0)?;
        if known.contains(&name.as_str()) {
            return Ok(());
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(misfit("a column's name").with("table", table.name()));
        }
        let storage = match text(row, 1)?.as_str() {
            "INTEGER" => Storage::Integer,
            "REAL" => Storage::Real,
            "TEXT" => Storage::Text,
            "BLOB" => Storage::Blob,
            _ => return Err(misfit("a column's type").with("table", table.name())),
        };
        unknown.push((name, storage));
        Ok(())
    })?;
    Ok(unknown)
}
