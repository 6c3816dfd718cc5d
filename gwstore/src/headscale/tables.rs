//! Reading tables by the columns they have: Headscale's schema has changed often.

use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;

use ghostwire_store_core::domain::Timestamp;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::time;

/// Why a row was left out.
pub(super) type Reason = String;

/// The tables of a database.
pub(super) struct Tables {
    connection: Connection,
    names: BTreeSet<String>,
}

impl Tables {
    /// Finds the tables; views and virtual tables are none.
    pub(super) fn new(connection: Connection) -> Result<Self> {
        let find = || -> rusqlite::Result<BTreeSet<String>> {
            let mut statement = connection
                .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0")?;
            let names = statement.query_map([], |row| row.get::<_, String>(0))?;
            names.collect()
        };
        let names = find().map_err(|error| unreadable("sqlite_master", &error))?;
        Ok(Self { connection, names })
    }

    /// Whether there is such a table.
    pub(super) fn has(&self, table: &str) -> bool {
        self.names.contains(table)
    }

    /// Their names, without those of SQLite itself.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str).filter(|name| !name.starts_with("sqlite_"))
    }

    /// How many rows the table has; 0 if it is not there.
    pub(super) fn count(&self, table: &str) -> Result<usize> {
        if !self.has(table) {
            return Ok(0);
        }
        let count = || -> rusqlite::Result<usize> {
            let mut statement =
                self.connection.prepare(&format!("SELECT 1 FROM {}", quoted(table)))?;
            let (mut rows, mut count) = (statement.query([])?, 0);
            while rows.next()?.is_some() {
                count += 1;
            }
            Ok(count)
        };
        count().map_err(|error| unreadable(table, &error))
    }

    /// Columns of the table that are not among the known ones, each with how many rows have a value in it
    /// that says more than nothing, zero or an empty list.
    pub(super) fn filled_columns(
        &self,
        table: &str,
        known: &[&str],
    ) -> Result<Vec<(String, usize)>> {
        if !self.has(table) {
            return Ok(Vec::new());
        }
        let count = || -> rusqlite::Result<Vec<(String, usize)>> {
            let mut statement =
                self.connection.prepare(&format!("SELECT * FROM {}", quoted(table)))?;
            let names = statement.column_names().into_iter().enumerate();
            let mut counts: Vec<(usize, String, usize)> = names
                .filter(|(_, name)| !known.iter().any(|known| known.eq_ignore_ascii_case(name)))
                .map(|(index, name)| (index, name.chars().take(100).collect(), 0))
                .collect();
            if counts.is_empty() {
                return Ok(Vec::new());
            }
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                for (index, _, count) in &mut counts {
                    *count += usize::from(says_something(row.get_ref(*index)?));
                }
            }
            let filled = counts.into_iter().filter(|(_, _, count)| *count > 0);
            Ok(filled.map(|(_, name, count)| (name, count)).collect())
        };
        count().map_err(|error| unreadable(table, &error))
    }

    /// Whether the table has such a column.
    pub(super) fn has_column(&self, table: &'static str, column: &str) -> Result<bool> {
        if !self.has(table) {
            return Ok(false);
        }
        let statement = self
            .connection
            .prepare(&format!("SELECT * FROM \"{table}\""))
            .map_err(|error| unreadable(table, &error))?;
        Ok(statement.column_names().iter().any(|name| name.eq_ignore_ascii_case(column)))
    }

    /// Calls `visit` with each row, in the order of the first column of `order`. A table that is
    /// not there has no rows.
    pub(super) fn each(
        &self,
        table: &'static str,
        order: &'static str,
        mut visit: impl FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<()> {
        if !self.has(table) {
            return Ok(());
        }
        if !self.has_column(table, order)? {
            return Err(Error::new(ErrorKind::Unsupported, "a table lacks a column")
                .with("table", table)
                .with("column", order));
        }
        let broken = |error: rusqlite::Error| unreadable(table, &error);
        let mut statement = self
            .connection
            .prepare(&format!("SELECT * FROM \"{table}\" ORDER BY \"{order}\""))
            .map_err(broken)?;
        let names = statement.column_names().into_iter().enumerate();
        let columns: HashMap<_, _> =
            names.map(|(index, name)| (name.to_ascii_lowercase(), index)).collect();
        let mut rows = statement.query([]).map_err(broken)?;
        while let Some(row) = rows.next().map_err(broken)? {
            visit(&Row { table, columns: &columns, row })?;
        }
        Ok(())
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn says_something(value: ValueRef<'_>) -> bool {
    match value {
        ValueRef::Null | ValueRef::Integer(0) => false,
        ValueRef::Text(text) | ValueRef::Blob(text) => {
            !is_any(text, &["", "0", "false", "null", "[]", "{}"])
        }
        ValueRef::Integer(_) | ValueRef::Real(_) => true,
    }
}

/// An error without SQLite's message, which may repeat what it read.
fn unreadable(table: &str, error: &rusqlite::Error) -> Error {
    let code = error.sqlite_error_code();
    let message = match code {
        Some(rusqlite::ErrorCode::OperationInterrupted) => {
            "reading the database takes too much work; it is damaged, or made to do harm"
        }
        _ => "a table cannot be read; the database is damaged, or not one of Headscale's",
    };
    let error = Error::corrupt(message).with("table", table);
    match code {
        Some(code) => error.with("sqlite", format_args!("{code:?}")),
        None => error,
    }
}

/// A row, by column names. A column that the table lacks reads as NULL.
pub(super) struct Row<'r> {
    pub(super) table: &'static str,
    columns: &'r HashMap<String, usize>,
    row: &'r rusqlite::Row<'r>,
}

impl Row<'_> {
    fn value(&self, column: &str) -> ValueRef<'_> {
        let index = self.columns.get(column).copied();
        index.and_then(|index| self.row.get_ref(index).ok()).unwrap_or(ValueRef::Null)
    }

    /// The row's own number.
    pub(super) fn id(&self) -> Result<i64> {
        match self.value("id") {
            ValueRef::Integer(id) => Ok(id),
            _ => Err(Error::corrupt("a row has no integer as its id").with("table", self.table)),
        }
    }

    /// Text, as it is; numbers count as text.
    pub(super) fn text(&self, column: &str) -> Result<Option<String>, Reason> {
        match self.value(column) {
            ValueRef::Null => Ok(None),
            ValueRef::Integer(number) => Ok(Some(number.to_string())),
            ValueRef::Real(_) => Err(format!("{column}: a number where text should be")),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => std::str::from_utf8(bytes)
                .map(|text| Some(text.to_owned()))
                .map_err(|_| format!("{column}: not valid UTF-8")),
        }
    }

    /// Text that is not empty: Headscale does not tell '' from NULL.
    pub(super) fn filled(&self, column: &str) -> Result<Option<String>, Reason> {
        Ok(self.text(column)?.filter(|text| !text.is_empty()))
    }

    /// Text that is not empty, as what it stands for.
    pub(super) fn parsed<T: FromStr<Err = Error>>(
        &self,
        column: &str,
    ) -> Result<Option<T>, Reason> {
        self.filled(column)?.map(|text| parse(column, &text)).transpose()
    }

    /// As [`Row::parsed`], for a column that must not be empty.
    pub(super) fn required<T: FromStr<Err = Error>>(&self, column: &str) -> Result<T, Reason> {
        self.parsed(column)?.ok_or_else(|| format!("{column}: is empty"))
    }

    /// A whole number.
    pub(super) fn integer(&self, column: &str) -> Result<Option<i64>, Reason> {
        match self.value(column) {
            ValueRef::Null => Ok(None),
            ValueRef::Integer(number) => Ok(Some(number)),
            ValueRef::Text(text) => {
                let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
                number.map(Some).ok_or_else(|| format!("{column}: not a whole number"))
            }
            _ => Err(format!("{column}: not a whole number")),
        }
    }

    /// The number of a row of another table; Headscale also wrote 0 for none.
    pub(super) fn reference(&self, column: &str) -> Result<Option<i64>, Reason> {
        Ok(self.integer(column)?.filter(|id| *id != 0))
    }

    /// Yes or no; NULL is no.
    pub(super) fn flag(&self, column: &str) -> Result<bool, Reason> {
        match self.value(column) {
            ValueRef::Null | ValueRef::Integer(0) => Ok(false),
            ValueRef::Integer(1) => Ok(true),
            ValueRef::Text(text) if is_any(text, &["true", "t", "1"]) => Ok(true),
            ValueRef::Text(text) if is_any(text, &["false", "f", "0", ""]) => Ok(false),
            _ => Err(format!("{column}: neither true nor false")),
        }
    }

    /// A time; zero times are `None`.
    pub(super) fn time(&self, column: &str) -> Result<Option<Timestamp>, Reason> {
        time::parse(self.value(column)).map_err(|error| format!("{column}: {error}"))
    }

    /// A JSON list of texts; NULL, empty text and the JSON `null` that Go writes are empty lists.
    pub(super) fn list(&self, column: &str) -> Result<Vec<String>, Reason> {
        let Some(text) = self.filled(column)? else { return Ok(Vec::new()) };
        let list: Option<Vec<String>> = serde_json::from_str(&text)
            .map_err(|_| format!("{column}: not a JSON list of texts"))?;
        Ok(list.unwrap_or_default())
    }

    /// Whether Headscale marked the row as deleted.
    pub(super) fn is_deleted(&self) -> Result<bool, Reason> {
        Ok(self.time("deleted_at")?.is_some())
    }

    /// When the row was made, or else changed.
    pub(super) fn created(&self) -> Result<Option<Timestamp>, Reason> {
        match self.time("created_at")? {
            Some(at) => Ok(Some(at)),
            None => self.time("updated_at"),
        }
    }
}

fn is_any(text: &[u8], words: &[&str]) -> bool {
    words.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()))
}

/// The text as what it stands for; errors name the column.
pub(super) fn parse<T: FromStr<Err = Error>>(column: &str, text: &str) -> Result<T, Reason> {
    text.parse().map_err(|error| format!("{column}: {error}"))
}
