//! One connection, called synchronously: libsql's local futures never pend.

use std::collections::HashMap;
use std::future::Future;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_sqlite::{Connection, Interrupt, sqlite_error};
use libsql::params::Params;
use libsql::{
    AuthContext, AuthHook, Authorization, Builder, Database, OpenFlags, Row, Statement, Value,
    ValueType,
};

/// Drives a future of libsql's local engine, which does its work when it is polled first.
pub(crate) fn ready<T>(future: impl Future<Output = libsql::Result<T>>) -> Result<T> {
    match future.now_or_never() {
        Some(result) => result.map_err(|error| engine_error(&error)),
        None => Err(Error::new(ErrorKind::Unexpected, "libsql's local engine did not answer")),
    }
}

/// Says what an error of the engine means. Its text names tables and columns, never a value.
pub(crate) fn engine_error(error: &libsql::Error) -> Error {
    use libsql::Error as Libsql;
    const WHAT: &str = "the store's file cannot be used";
    let kind = match error {
        Libsql::SqliteFailure(code, message) => return sqlite_error(WHAT, *code, message.clone()),
        Libsql::ConnectionFailed(_) => ErrorKind::Unavailable,
        Libsql::InvalidColumnType | Libsql::NullValue | Libsql::QueryReturnedNoRows => {
            ErrorKind::Corrupt
        }
        _ => ErrorKind::Unexpected,
    };
    Error::new(kind, WHAT).because(error.to_string())
}

/// Lets no trigger run and no view be read: nothing of ours stands in one. They are looked for when
/// a file is opened; this is for those that another program makes meanwhile.
fn only_what_was_asked(context: &AuthContext<'_>) -> Authorization {
    match context.accessor {
        None => Authorization::Allow,
        Some(_trigger_or_view) => Authorization::Deny,
    }
}

/// A connection and its prepared statements.
pub(crate) struct Link {
    // Before the connection: it closes when nothing refers to it any more.
    statements: HashMap<String, Statement>,
    connection: libsql::Connection,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("statements", &self.statements.len()).finish_non_exhaustive()
    }
}

impl Link {
    /// The statement for `sql`, prepared once.
    fn statement(&mut self, sql: &str) -> Result<&Statement> {
        if !self.statements.contains_key(sql) {
            let statement = ready(self.connection.prepare(sql))?;
            self.statements.insert(sql.to_owned(), statement);
        }
        self.statements
            .get(sql)
            .ok_or_else(|| Error::new(ErrorKind::Unexpected, "a prepared statement got lost"))
    }

    /// Prepares `sql`, to learn whether it means anything in this file.
    pub(crate) fn prepare(&mut self, sql: &str) -> Result<()> {
        self.statement(sql).map(drop)
    }

    /// As [`Connection::run`], with parameters.
    pub(crate) fn run_with(&mut self, sql: &str, parameters: Vec<Value>) -> Result<()> {
        let statement = ready(self.connection.prepare(sql))?;
        let mut rows = ready(statement.query(Params::Positional(parameters)))?;
        while ready(rows.next())?.is_some() {}
        statement.reset();
        Ok(())
    }

    /// Runs a prepared statement that gives no rows; tells how many rows it changed.
    pub(crate) fn execute(&mut self, sql: &str, parameters: Vec<Value>) -> Result<usize> {
        run_prepared(self.statement(sql)?, parameters)
    }

    /// Runs a prepared statement for each of many parameter lists.
    pub(crate) fn execute_each(
        &mut self,
        sql: &str,
        parameters: impl IntoIterator<Item = Result<Vec<Value>>>,
    ) -> Result<usize> {
        let statement = self.statement(sql)?;
        parameters.into_iter().try_fold(0, |sum, parameters| {
            run_prepared(statement, parameters?).map(|changed| sum + changed)
        })
    }

    /// Runs a prepared query and hands each of its rows to `each`.
    pub(crate) fn query(
        &mut self,
        sql: &str,
        parameters: Vec<Value>,
        mut each: impl FnMut(&Row) -> Result<()>,
    ) -> Result<()> {
        self.query_until(sql, parameters, |row| each(row).map(ControlFlow::Continue))
    }

    /// As [`Link::query`], until `each` says that it is enough.
    pub(crate) fn query_until(
        &mut self,
        sql: &str,
        parameters: Vec<Value>,
        mut each: impl FnMut(&Row) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let statement = self.statement(sql)?;
        // libsql binds without a look at the result code, and binding to a statement that was
        // stepped and not reset fails.
        statement.reset();
        let result = (|| {
            let mut rows = ready(statement.query(Params::Positional(parameters)))?;
            while let Some(row) = ready(rows.next())? {
                if each(&row)?.is_break() {
                    break;
                }
            }
            Ok(())
        })();
        statement.reset();
        result
    }
}

impl Connection for Link {
    fn open(name: &Path, writes: bool) -> Result<Self> {
        let flags = match writes {
            true => OpenFlags::SQLITE_OPEN_READ_WRITE,
            false => OpenFlags::SQLITE_OPEN_READ_ONLY,
        };
        let database: Database = ready(Builder::new_local(name).flags(flags).build())?;
        let connection = database.connect().map_err(|error| engine_error(&error))?;
        let hook = Some(Arc::new(only_what_was_asked) as AuthHook);
        connection.authorizer(hook).map_err(|error| engine_error(&error))?;
        Ok(Self { statements: HashMap::new(), connection })
    }

    fn set_busy_timeout(&self, timeout: Duration) -> Result<()> {
        self.connection.busy_timeout(timeout).map_err(|error| engine_error(&error))
    }

    fn run(&mut self, sql: &str) -> Result<()> {
        self.run_with(sql, Vec::new())
    }

    fn run_prepared(&mut self, sql: &str) -> Result<()> {
        self.execute(sql, Vec::new()).map(drop)
    }

    fn integers<const N: usize>(&mut self, sql: &str) -> Result<[i64; N]> {
        let mut values = None;
        self.query(sql, Vec::new(), |row| {
            let mut found = [0; N];
            for (index, value) in found.iter_mut().enumerate() {
                *value = integer(row, index)?;
            }
            values.get_or_insert(found);
            Ok(())
        })?;
        values.ok_or_else(no_row)
    }

    fn blob(&mut self, sql: &str) -> Result<Vec<u8>> {
        let mut value = None;
        self.query(sql, Vec::new(), |row| {
            if let Value::Blob(bytes) = cell(row, 0, Storage::Blob)? {
                value.get_or_insert(bytes);
            }
            Ok(())
        })?;
        value.ok_or_else(no_row)
    }

    fn interrupter(&self) -> Interrupt {
        let connection = self.connection.clone();
        // It sets a flag, which cannot fail.
        Arc::new(move || drop(connection.interrupt()))
    }

    fn is_idle(&self) -> bool {
        self.connection.is_autocommit()
    }
}

fn no_row() -> Error {
    Error::corrupt("SQLite gives no row where there has to be one")
}

fn run_prepared(statement: &Statement, parameters: Vec<Value>) -> Result<usize> {
    statement.reset();
    let result = ready(statement.execute(Params::Positional(parameters)));
    statement.reset();
    result
}

/// What a column is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    Integer,
    Real,
    Text,
    Blob,
}

impl Storage {
    /// The name in a STRICT table.
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Integer => "INTEGER",
            Self::Real => "REAL",
            Self::Text => "TEXT",
            Self::Blob => "BLOB",
        }
    }

    /// How to select `column`: libsql panics on text that is not UTF-8 and cuts it at a NUL, so
    /// text is read as bytes. In brackets, because SQLite takes an unknown name in double quotes
    /// for a text.
    pub(crate) fn select(self, column: &str) -> String {
        match self {
            Self::Text => format!("CAST([{column}] AS BLOB)"),
            Self::Integer | Self::Real | Self::Blob => format!("[{column}]"),
        }
    }
}

/// Reads a column that was selected with [`Storage::select`].
pub(crate) fn cell(row: &Row, index: usize, storage: Storage) -> Result<Value> {
    let index = i32::try_from(index).unwrap_or(i32::MAX);
    let found = row.column_type(index).map_err(|error| engine_error(&error))?;
    // Only a type that libsql reads without a panic gets as far as `get_value`.
    match (storage, found) {
        (_, ValueType::Null) => Ok(Value::Null),
        (Storage::Integer, ValueType::Integer)
        | (Storage::Real, ValueType::Real)
        | (Storage::Text | Storage::Blob, ValueType::Blob) => {
            let value = row.get_value(index).map_err(|error| engine_error(&error))?;
            match (storage, value) {
                (Storage::Text, Value::Blob(bytes)) => String::from_utf8(bytes)
                    .map(Value::Text)
                    .map_err(|_| Error::corrupt("a stored text is not UTF-8")),
                (_, value) => Ok(value),
            }
        }
        _ => {
            Err(Error::corrupt("a stored column has the wrong type")
                .with("expected", storage.sql()))
        }
    }
}

/// Reads an integer column.
pub(crate) fn integer(row: &Row, index: usize) -> Result<i64> {
    match cell(row, index, Storage::Integer)? {
        Value::Integer(integer) => Ok(integer),
        _ => Err(Error::corrupt("a stored number is missing")),
    }
}

/// Reads a text column.
pub(crate) fn text(row: &Row, index: usize) -> Result<String> {
    match cell(row, index, Storage::Text)? {
        Value::Text(text) => Ok(text),
        _ => Err(Error::corrupt("a stored text is missing")),
    }
}
