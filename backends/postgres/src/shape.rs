//! How the core's tables look in SQL, and how its rows become values of columns and back.

use bytes::Bytes;
use ghostwire_store_core::backend::{KeyRange, Row};
use ghostwire_store_core::block::RowChange;
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::schema::{
    Column, KeyColumn, KeyKind, RowKey, RowReader, Schema, SchemaVersion, Table, Value as Field,
    encode_values,
};
use sha2::{Digest, Sha256};
use smallvec::SmallVec;
use sqlx::postgres::PgRow;

use crate::range::condition;
use crate::wire::{Array, Param, Storage, Stored, cell, integer_at, stored};

/// The column that holds a row's check.
pub(crate) const CHECK: &str = "row_check";

/// 63 bits of SHA-256 over a table's number and the values of a row as they are on the wire, without the
/// nulls at its end, so that a column which a later schema adds leaves the checks of older rows as they are.
pub(crate) fn row_check<'v>(table: u8, values: impl IntoIterator<Item = Option<&'v [u8]>>) -> i64 {
    let mut check = Check::new(table);
    values.into_iter().for_each(|value| check.add(value));
    check.finish()
}

/// A check in the making.
struct Check {
    hasher: Sha256,
    nulls: usize,
}

impl Check {
    fn new(table: u8) -> Self {
        Self { hasher: Sha256::new_with_prefix([table]), nulls: 0 }
    }

    fn add(&mut self, value: Option<&[u8]>) {
        let Some(value) = value else {
            self.nulls += 1;
            return;
        };
        for _ in 0..std::mem::take(&mut self.nulls) {
            self.hasher.update([0]);
        }
        self.hasher.update([1]);
        self.hasher.update((value.len() as u64).to_be_bytes());
        self.hasher.update(value);
    }

    fn finish(self) -> i64 {
        let hash = self.hasher.finalize();
        let first = hash.iter().take(8).fold(0u64, |number, &byte| (number << 8) | u64::from(byte));
        (first >> 1).cast_signed()
    }
}

/// One table of the core, in SQL.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) table: Table,
    schema: Schema,
    keys: &'static [KeyColumn],
    columns: Vec<&'static Column>,
    /// Columns of a newer schema: covered by the row's check, otherwise left alone.
    unknown: usize,
    /// The table with its schema.
    name: String,
    key_names: Vec<String>,
    select: String,
}

/// A statement without its parameters: `first` is the number of the first one.
type Numbered = Box<dyn Fn(usize) -> String + Send + Sync>;

/// What is written to one table.
pub(crate) struct Write {
    /// As a part of a larger statement, in which `cas` has a row if the commit holds.
    pub(crate) guarded: Numbered,
    /// As a statement of its own.
    pub(crate) alone: String,
    pub(crate) params: Vec<Param>,
}

impl std::fmt::Debug for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Write").field("alone", &self.alone).finish_non_exhaustive()
    }
}

impl Write {
    fn new(
        sql: impl Fn(&str, usize) -> String + Send + Sync + 'static,
        params: Vec<Param>,
    ) -> Self {
        let alone = sql("", 1);
        Self { guarded: Box::new(move |first| sql("cas, ", first)), alone, params }
    }
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

impl Shape {
    /// The table as of a schema, in the schema of that name. `unknown` are the names of columns that a
    /// newer one added.
    pub(crate) fn new(table: Table, schema: Schema, namespace: &str, unknown: &[String]) -> Self {
        let keys = schema.key(table);
        let columns: Vec<&'static Column> = schema.columns(table).collect();
        let key_names: Vec<String> = keys.iter().map(|key| quoted(key.name)).collect();
        let name = format!("\"{namespace}\".\"{}\"", table.name());
        let selected: Vec<String> = key_names
            .iter()
            .cloned()
            .chain(columns.iter().map(|column| quoted(column.name)))
            .chain(unknown.iter().map(|name| quoted(name)))
            .chain([quoted(CHECK)])
            .map(|column| format!("t.{column}"))
            .collect();
        let select = format!("SELECT {} FROM {name} AS t", selected.join(", "));
        Self { table, schema, keys, columns, unknown: unknown.len(), name, key_names, select }
    }

    fn storages(&self) -> impl Iterator<Item = Storage> {
        let keys = self.keys.iter().map(|key| Storage::of_key(key.kind));
        let columns = self.columns.iter().map(|column| Storage::of(column.kind));
        keys.chain(columns)
    }

    fn located(&self, error: Error, key: &RowKey) -> Error {
        error.with("table", self.table.name()).with("key", format_args!("{key:?}"))
    }

    /// `UNNEST` of arrays of these types, as `r` with these columns. With a schema before its name it would take one
    /// array only; the connection looks for functions in `pg_catalog` alone.
    fn unnest(types: &[Storage], first: usize, names: &[String]) -> String {
        let marks: Vec<String> = types
            .iter()
            .enumerate()
            .map(|(index, storage)| format!("${}::{}", first + index, Array::sql(*storage)))
            .collect();
        format!("unnest({}) AS r ({})", marks.join(", "), names.join(", "))
    }

    /// Writes rows, of which no two have the same key.
    ///
    /// # Errors
    /// `Corrupt` for a row that its table cannot hold.
    pub(crate) fn put(&self, rows: &[(&RowKey, &Bytes)]) -> Result<Write> {
        let types: Vec<Storage> = self.storages().chain([Storage::Integer]).collect();
        let mut arrays: Vec<Array> = types.iter().map(|storage| Array::new(*storage)).collect();
        for (key, body) in rows {
            self.push_row(&mut arrays, key, body).map_err(|error| self.located(error, key))?;
        }
        let names: Vec<String> = self
            .key_names
            .iter()
            .cloned()
            .chain(self.columns.iter().map(|column| quoted(column.name)))
            .chain([quoted(CHECK)])
            .collect();
        let changes: Vec<String> = names
            .iter()
            .skip(self.keys.len())
            .map(|name| format!("{name} = excluded.{name}"))
            .collect();
        let (table, keys, changes) =
            (self.name.clone(), self.key_names.join(", "), changes.join(", "));
        let selected: Vec<String> = names.iter().map(|name| format!("r.{name}")).collect();
        let selected = selected.join(", ");
        let sql = move |from: &str, first: usize| {
            format!(
                "INSERT INTO {table} ({}) SELECT {selected} FROM {from}{} ON CONFLICT ({keys}) DO UPDATE \
                 SET {changes}",
                names.join(", "),
                Self::unnest(&types, first, &names)
            )
        };
        Ok(Write::new(sql, arrays.into_iter().map(Array::finish).collect()))
    }

    fn push_row(&self, arrays: &mut [Array], key: &RowKey, body: &Bytes) -> Result<()> {
        let body = self.schema.fit(self.table, body)?;
        let mut reader = RowReader::new(&body)?;
        let mut check = Check::new(self.table.number());
        let mut arrays = arrays.iter_mut();
        let short = || Error::corrupt("a table has more columns than its rows");
        for value in self.key_values(key)? {
            check.add(Some(value));
            arrays.next().ok_or_else(short)?.push_raw(value)?;
        }
        for column in &self.columns {
            let field = reader.next_value()?.unwrap_or(Field::Null);
            if field == Field::Null && !column.nullable {
                return Err(
                    Error::corrupt("a column is null that may not be").with("column", column.name)
                );
            }
            let array = arrays.next().ok_or_else(short)?;
            let value = array.push(column.kind, field);
            check.add(value.map_err(|error| error.with("column", column.name))?);
        }
        if reader.next_value()?.is_some() {
            return Err(Error::corrupt("a row has more columns than its table"));
        }
        arrays.next().ok_or_else(short)?.push_raw(&check.finish().to_be_bytes())
    }

    /// The columns of a key, which are on the wire what they are in the key.
    fn key_values<'k>(&self, key: &'k RowKey) -> Result<SmallVec<[&'k [u8]; 3]>> {
        self.check_key(key)?;
        let mut rest = key.as_bytes();
        let mut values = SmallVec::new();
        for column in self.keys {
            let end = || rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
            let (length, ends_in) = match column.kind {
                KeyKind::Id | KeyKind::OptionalId => (16, 0),
                KeyKind::Integer => (8, 0),
                KeyKind::Text => (end(), 1),
            };
            let (value, tail) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            values.push(value);
            rest = tail.get(ends_in..).unwrap_or_default();
        }
        Ok(values)
    }

    /// Refuses a key that has not the table's shape.
    fn check_key(&self, key: &RowKey) -> Result<()> {
        let values = key.values(self.keys)?;
        match values.iter().any(|value| matches!(value, Field::Integer(number) if *number < 0)) {
            true => Err(Error::corrupt("a number of a key is negative")),
            false => Ok(()),
        }
    }

    /// Deletes rows.
    ///
    /// # Errors
    /// `Corrupt` for a key that its table cannot hold.
    pub(crate) fn delete(&self, rows: &[&RowKey]) -> Result<Write> {
        let types: Vec<Storage> = self.keys.iter().map(|key| Storage::of_key(key.kind)).collect();
        let mut arrays: Vec<Array> = types.iter().map(|storage| Array::new(*storage)).collect();
        for key in rows {
            let values = self.key_values(key).map_err(|error| self.located(error, key))?;
            for (array, value) in arrays.iter_mut().zip(values) {
                array.push_raw(value)?;
            }
        }
        let (table, names) = (self.name.clone(), self.key_names.clone());
        let sql = move |from: &str, first: usize| {
            let same: Vec<String> =
                names.iter().map(|name| format!("t.{name} = r.{name}")).collect();
            format!(
                "DELETE FROM {table} AS t USING {from}{} WHERE {}",
                Self::unnest(&types, first, &names),
                same.join(" AND ")
            )
        };
        Ok(Write::new(sql, arrays.into_iter().map(Array::finish).collect()))
    }

    /// Deletes the rows of a range; `None` if it can hold none.
    pub(crate) fn prune(&self, range: &KeyRange) -> Option<(String, Vec<Param>)> {
        let (condition, params) = condition(self.keys, &self.key_names, range)?;
        Some((format!("DELETE FROM {}{condition}", self.name), params))
    }

    /// The query for a page of rows, without where the store stands; `None` if the range can hold none.
    pub(crate) fn scan(
        &self,
        range: &KeyRange,
        reverse: bool,
        limit: usize,
    ) -> Option<(String, Vec<Param>)> {
        let (condition, mut params) = condition(self.keys, &self.key_names, range)?;
        params.push(Param::count(limit as u64));
        let order = self.order("t", reverse);
        let sql = format!("{}{condition} ORDER BY {order} LIMIT ${}", self.select, params.len());
        Some((sql, params))
    }

    /// The order of the keys of a table under this name.
    pub(crate) fn order(&self, table: &str, reverse: bool) -> String {
        let direction = if reverse { " DESC" } else { "" };
        let keys = self.key_names.iter().map(|key| format!("{table}.{key}{direction}"));
        keys.collect::<Vec<_>>().join(", ")
    }

    /// Tells whether there is a row.
    pub(crate) fn has_rows(&self) -> String {
        format!("SELECT EXISTS (SELECT 1 FROM {})", self.name)
    }

    /// Reads a row of [`Shape::scan`], whose columns begin at `from`.
    pub(crate) fn read(&self, row: &PgRow, from: usize) -> Result<Row> {
        let named = |error: Error| error.with("table", self.table.name());
        let count = self.keys.len() + self.columns.len() + self.unknown;
        let values: SmallVec<[Option<&[u8]>; 24]> = (from..from + count)
            .map(|index| cell(row, index))
            .collect::<Result<_>>()
            .map_err(named)?;
        let key = self.key(&values).map_err(named)?;
        let expected = row_check(self.table.number(), values.iter().copied());
        let found = integer_at(row, from + count).map_err(|error| self.located(error, &key))?;
        if found != expected {
            let error = Error::corrupt(
                "a row is not as this program wrote it: it is damaged, or was edited by hand; restore \
                 it from a backup",
            );
            return Err(self.located(error, &key));
        }
        let columns = values.get(self.keys.len()..).unwrap_or_default();
        let body = self.body(columns).map_err(|error| self.located(error, &key))?;
        Ok(Row { key, body })
    }

    fn key(&self, values: &[Option<&[u8]>]) -> Result<RowKey> {
        let mut bytes: SmallVec<[u8; 64]> = SmallVec::new();
        for (column, value) in self.keys.iter().zip(values) {
            let value = value.ok_or_else(|| Error::corrupt("a key is null"))?;
            bytes.extend_from_slice(value);
            if column.kind == KeyKind::Text {
                bytes.push(0);
            }
        }
        let key = RowKey::from_bytes(&bytes)?;
        self.check_key(&key).map(|()| key)
    }

    fn body(&self, values: &[Option<&[u8]>]) -> Result<Bytes> {
        let columns = self.columns.iter().zip(values);
        let fields: SmallVec<[Stored<'_>; 24]> = columns
            .map(|(column, value)| {
                stored(column.kind, *value).map_err(|error| error.with("column", column.name))
            })
            .collect::<Result<_>>()?;
        let version = self.schema.version().version;
        Ok(encode_values(version, fields.iter().map(Stored::field)))
    }
}

/// Every table of a store.
#[derive(Debug)]
pub(crate) struct Shapes {
    tables: Vec<Shape>,
    pub(crate) stored: SchemaVersion,
}

impl Shapes {
    /// What the tables of a store look like to this build. `unknown` gives the columns that a newer schema
    /// added to a table, in its order.
    pub(crate) fn new(
        stored: SchemaVersion,
        namespace: &str,
        unknown: impl Fn(Table) -> Vec<String>,
    ) -> Result<Self> {
        let current = Schema::current();
        let is_newer = stored.version > current.version().version;
        let schema = if is_newer { current } else { Schema::at(stored.version)? };
        let shape = |table| Shape::new(table, schema, namespace, &unknown(table));
        Ok(Self { tables: schema.tables().map(shape).collect(), stored })
    }

    /// Every table, in the order of their numbers.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Shape> {
        self.tables.iter()
    }

    /// One of them; `None` for one that a later schema brought, which has no rows here.
    pub(crate) fn of(&self, table: Table) -> Option<&Shape> {
        self.tables.iter().find(|shape| shape.table == table)
    }

    /// What row images come to: of two for one key, the later one. Tells how many those are, too.
    ///
    /// # Errors
    /// `Corrupt` for a row that its table cannot hold.
    pub(crate) fn writes(&self, rows: &[RowChange]) -> Result<(Vec<Write>, usize)> {
        let mut changes: Vec<&RowChange> = rows.iter().collect();
        changes.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
        let mut kept: Vec<&RowChange> = Vec::with_capacity(changes.len());
        for change in changes {
            match kept.last_mut() {
                Some(last) if (last.table, &last.key) == (change.table, &change.key) => {
                    *last = change
                }
                _ => kept.push(change),
            }
        }
        // Deletions and writes of different keys commute.
        kept.sort_by_key(|change| (change.table, change.body.is_some()));
        let mut writes = Vec::new();
        for run in kept.chunk_by(|a, b| (a.table, a.body.is_some()) == (b.table, b.body.is_some()))
        {
            let Some(first) = run.first() else { continue };
            // The head refused rows that the stored schema has no table for.
            let Some(shape) = self.of(first.table) else { continue };
            let put: Vec<(&RowKey, &Bytes)> = run
                .iter()
                .filter_map(|change| change.body.as_ref().map(|body| (&change.key, body)))
                .collect();
            writes.push(match put.is_empty() {
                false => shape.put(&put)?,
                true => shape.delete(&run.iter().map(|change| &change.key).collect::<Vec<_>>())?,
            });
        }
        Ok((writes, kept.len()))
    }
}
