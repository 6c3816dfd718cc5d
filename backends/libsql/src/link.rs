//! One connection, called synchronously: libsql's local futures never pend.

use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_sqlite::{
    Checkpoint, Checkpointer, Mode, file_to_read, file_without_log, sqlite_error,
};
use libsql::params::Params;
use libsql::{
    AuthContext, AuthHook, Authorization, Builder, Database, OpenFlags, Row, Statement, Value,
    ValueType,
};

/// How long a connection waits for a lock that a tool of somebody else's holds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Drives a future of libsql's local engine, which does its work when it is polled first.
fn ready<T>(future: impl Future<Output = libsql::Result<T>>) -> Result<T> {
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

/// Sets SQLite up for libsql, which panics if another user of the same library came first.
pub(crate) fn set_up_engine() -> Result<()> {
    let build = || ready(Builder::new_local(":memory:").build()).map(drop);
    catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Unsupported,
            "something in this process used SQLite before libsql was set up; call \
             ghostwire_store_libsql::prepare_process first",
        ))
    })
}

/// Lets no trigger run and no view be read: nothing of ours stands in one. They are looked for when
/// a file is opened; this is for those that another program makes meanwhile.
fn only_what_was_asked(context: &AuthContext<'_>) -> Authorization {
    match context.accessor {
        None => Authorization::Allow,
        Some(_trigger_or_view) => Authorization::Deny,
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Writes; the only one that may checkpoint the WAL.
    Writer,
    /// Reads beside the writer.
    Reader,
    /// Reads where there is no writer.
    ReadOnly,
    /// Reads the file as if there were no log beside it.
    WithoutLog,
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
    /// Opens `path`, which is absolute, so that nothing in it is taken for a URI.
    pub(crate) fn open(path: &Path, role: Role) -> Result<Self> {
        let named = |error: Error| error.with("path", path.display());
        if !path.is_absolute() || path.to_str().is_none_or(|path| path.contains('\0')) {
            return Err(named(Error::invalid("the store's path must be UTF-8 without NUL")));
        }
        let flags = match role {
            Role::Writer => OpenFlags::SQLITE_OPEN_READ_WRITE,
            // One that may not write moves nothing when it is closed.
            Role::Reader | Role::ReadOnly | Role::WithoutLog => OpenFlags::SQLITE_OPEN_READ_ONLY,
        };
        let name = match role {
            Role::Writer | Role::Reader => path.to_owned(),
            Role::ReadOnly => file_to_read(path),
            Role::WithoutLog => file_without_log(path),
        };
        let database: Database =
            ready(Builder::new_local(name).flags(flags).build()).map_err(named)?;
        let connection = database.connect().map_err(|error| named(engine_error(&error)))?;
        connection.busy_timeout(PATIENCE).map_err(|error| named(engine_error(&error)))?;
        let hook = Some(Arc::new(only_what_was_asked) as AuthHook);
        connection.authorizer(hook).map_err(|error| named(engine_error(&error)))?;
        let mut link = Self { statements: HashMap::new(), connection };
        link.run("PRAGMA temp_store = MEMORY").map_err(named)?;
        link.run("PRAGMA trusted_schema = OFF").map_err(named)?;
        // A reference in a table of somebody else's must not keep a row of ours from going.
        link.run("PRAGMA foreign_keys = OFF").map_err(named)?;
        match role {
            Role::Writer => link.run("PRAGMA synchronous = FULL"),
            Role::Reader | Role::ReadOnly | Role::WithoutLog => link.run("PRAGMA query_only = ON"),
        }
        .map_err(named)?;
        // SQLite's own checkpoints swallow errors; the log's keeper asks the writer for them.
        link.run("PRAGMA wal_autocheckpoint = 0").map_err(named)?;
        Ok(link)
    }

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

    /// Runs a statement once and forgets it; rows that it gives are dropped.
    pub(crate) fn run(&mut self, sql: &str) -> Result<()> {
        self.run_with(sql, Vec::new())
    }

    /// As [`Link::run`], with parameters.
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
        let statement = self.statement(sql)?;
        // libsql binds without a look at the result code, and binding to a statement that was
        // stepped and not reset fails.
        statement.reset();
        let result = (|| {
            let mut rows = ready(statement.query(Params::Positional(parameters)))?;
            while let Some(row) = ready(rows.next())? {
                each(&row)?;
            }
            Ok(())
        })();
        statement.reset();
        result
    }

    /// Whether no transaction is open.
    pub(crate) fn is_idle(&self) -> bool {
        self.connection.is_autocommit()
    }
}

impl Checkpointer for Link {
    fn checkpoint(&mut self, mode: Mode) -> Result<Checkpoint> {
        let run = |link: &mut Self, sql: &str| {
            let mut outcome = Err(Error::new(ErrorKind::Unexpected, "a checkpoint gave no answer"));
            link.query(sql, Vec::new(), |row| {
                let [busy, frames, moved] = [integer(row, 0)?, integer(row, 1)?, integer(row, 2)?];
                outcome = Ok(Checkpoint::of_columns(busy, frames, moved));
                Ok(())
            })?;
            outcome
        };
        match mode {
            Mode::Passive => run(self, "PRAGMA wal_checkpoint(PASSIVE)"),
            Mode::TruncateAtOnce => {
                let patience = |link: &Self, patience| {
                    link.connection.busy_timeout(patience).map_err(|error| engine_error(&error))
                };
                patience(self, Duration::ZERO)?;
                let outcome = run(self, "PRAGMA wal_checkpoint(TRUNCATE)");
                patience(self, PATIENCE).and(outcome)
            }
        }
    }
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
