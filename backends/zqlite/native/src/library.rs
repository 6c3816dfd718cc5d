//! The library, safely: in the manner of rusqlite.

use std::ffi::{CStr, CString};
use std::fmt;
use std::path::Path;

use crate::codes::{Category, DONE, ERROR, MISUSE, OK, RANGE, ROW, types};
use crate::failure::{Failure, LoadError};
use crate::raw::{RawConnection, RawStatement, Symbols};

/// A library that is loaded, for as long as the process lives.
///
/// A fault in it ends the process, so nothing else should be in that: see [`child`](crate::child).
#[derive(Debug)]
pub struct Library(Symbols);

impl Library {
    /// Loads the library in this file, which was checked: see [`LibraryFile::load`](crate::LibraryFile::load).
    pub(crate) fn load(path: &Path) -> Result<Self, LoadError> {
        Symbols::load(path).map(Self)
    }

    /// What the library calls its version.
    #[must_use]
    pub fn version(&self) -> &str {
        self.0.version()
    }

    /// The number of its interface: 10000 is 1.0.0.
    #[must_use]
    pub fn abi(&self) -> i32 {
        self.0.abi()
    }

    /// How many of the interface's functions it has.
    #[must_use]
    pub fn functions(&self) -> usize {
        crate::raw::REQUIRED.len() + self.0.later()
    }

    /// Opens the database in this file, or makes it.
    ///
    /// # Errors
    /// If it cannot be opened; the library does not say why.
    pub fn open(&self, path: &Path) -> Result<Connection<'_>, Failure> {
        const OPERATION: &str = "zqlite_open";
        let misuse = |why| Failure::new(OPERATION, MISUSE, Category::Misuse, why);
        let path = path.to_str().ok_or_else(|| misuse("the path is not UTF-8"))?;
        let path = CString::new(path).map_err(|_| misuse("the path has a NUL"))?;
        match RawConnection::open(&self.0, &path) {
            Some(raw) => Ok(Connection { raw }),
            None => Err(Failure::new(OPERATION, ERROR, Category::Unknown, "")),
        }
    }
}

/// An open database. One thread at a time may use it, and its statements are used by the same one.
#[derive(Debug)]
pub struct Connection<'l> {
    raw: RawConnection<'l>,
}

impl Connection<'_> {
    /// Runs one statement that gives no rows.
    ///
    /// # Errors
    /// Those of the library.
    pub fn execute(&self, sql: &str) -> Result<(), Failure> {
        let code = self.raw.execute(&statement("zqlite_execute", sql)?);
        self.require_ok("zqlite_execute", code)
    }

    /// Prepares one statement. It dies with the next change of the schema.
    ///
    /// # Errors
    /// Those of the library.
    pub fn prepare(&self, sql: &str) -> Result<Statement<'_>, Failure> {
        const OPERATION: &str = "zqlite_prepare";
        match self.raw.prepare(&statement(OPERATION, sql)?) {
            Some(raw) => Ok(Statement { raw, connection: self }),
            None => Err(self.failure(OPERATION, ERROR)),
        }
    }

    /// Begins a transaction, which is rolled back unless it is committed.
    ///
    /// # Errors
    /// Those of the library, which has one transaction at a time.
    pub fn begin(&self) -> Result<Transaction<'_>, Failure> {
        self.require_ok("zqlite_begin_transaction", self.raw.begin())?;
        Ok(Transaction { connection: self, is_open: true })
    }

    fn require_ok(&self, operation: &'static str, code: i32) -> Result<(), Failure> {
        match code {
            OK => Ok(()),
            code => Err(self.failure(operation, code)),
        }
    }

    /// What the connection knows of a call that gave `code`.
    fn failure(&self, operation: &'static str, code: i32) -> Failure {
        let known = self.raw.error_code();
        // Before 1.7.1 nearly every call says 1.
        let code = if code == ERROR && known > ERROR { known } else { code };
        let category = Category::of(self.raw.error_category());
        let message = if known == OK { String::new() } else { self.raw.error_message() };
        Failure::new(operation, code, category, &message)
    }
}

fn statement(operation: &'static str, sql: &str) -> Result<CString, Failure> {
    CString::new(sql)
        .map_err(|_| Failure::new(operation, MISUSE, Category::Misuse, "the statement has a NUL"))
}

/// A value to bind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'v> {
    /// No value.
    Null,
    /// A number.
    Integer(i64),
    /// A number with a fraction.
    Real(f64),
    /// Text without NUL: the library ends a text there.
    Text(&'v str),
    /// Bytes.
    Blob(&'v [u8]),
}

/// A value that the library lends until the row is given up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueRef<'r> {
    /// No value.
    Null,
    /// A number.
    Integer(i64),
    /// A number with a fraction.
    Real(f64),
    /// Text up to its first NUL.
    Text(&'r [u8]),
    /// Bytes.
    Blob(&'r [u8]),
}

/// A prepared statement.
pub struct Statement<'c> {
    raw: RawStatement<'c>,
    connection: &'c Connection<'c>,
}

impl fmt::Debug for Statement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Statement")
    }
}

impl Statement<'_> {
    /// Binds a value, which is copied; the first parameter has the index 0.
    ///
    /// # Errors
    /// `RANGE` or `MISUSE` for an index that there is none of, and for a text with a NUL.
    pub fn bind(&mut self, index: usize, value: Value<'_>) -> Result<(), Failure> {
        let Ok(at) = i32::try_from(index) else {
            return Err(Failure::new("zqlite_bind", RANGE, Category::Misuse, "no such parameter"));
        };
        let (operation, code) = match value {
            Value::Null => ("zqlite_bind_null", self.raw.bind_null(at)),
            Value::Integer(value) => ("zqlite_bind_int", self.raw.bind_int(at, value)),
            Value::Real(value) => ("zqlite_bind_real", self.raw.bind_real(at, value)),
            Value::Blob(value) => ("zqlite_bind_blob", self.raw.bind_blob(at, value)),
            Value::Text(value) => {
                let text = statement("zqlite_bind_text", value)?;
                ("zqlite_bind_text", self.raw.bind_text(at, &text))
            }
        };
        self.connection.require_ok(operation, code)
    }

    /// The next row; `None` after the last. What a row lends ends with the next step.
    ///
    /// # Errors
    /// Those of the library, which gives no reason here.
    pub fn step(&mut self) -> Result<Option<Row<'_>>, Failure> {
        match self.raw.step() {
            ROW => {
                let columns = self.raw.column_count();
                Ok(Some(Row { raw: &mut self.raw, columns }))
            }
            DONE => Ok(None),
            // Also OK, which no step gives. What the connection says then is of an earlier call.
            code => Err(Failure::new("zqlite_step", code, Category::Unknown, "")),
        }
    }

    /// Runs the statement with these values, and gives no rows.
    ///
    /// # Errors
    /// As [`Statement::bind`] and [`Statement::step`].
    pub fn execute(&mut self, values: &[Value<'_>]) -> Result<(), Failure> {
        self.begin(values)?;
        let outcome = self.step().map(drop);
        let reset = self.reset();
        outcome.and(reset)
    }

    /// Makes it ready to be stepped through with these values.
    ///
    /// # Errors
    /// As [`Statement::bind`].
    pub fn begin(&mut self, values: &[Value<'_>]) -> Result<(), Failure> {
        self.reset()?;
        values.iter().enumerate().try_for_each(|(index, value)| self.bind(index, *value))
    }

    /// Ends the rows; the next step runs it anew.
    ///
    /// # Errors
    /// Those of the library.
    pub fn reset(&mut self) -> Result<(), Failure> {
        let code = self.raw.reset();
        self.connection.require_ok("zqlite_reset", code)
    }
}

/// A row, as long as it is borrowed: the statement cannot be stepped, bound or reset meanwhile.
pub struct Row<'s> {
    raw: &'s mut dyn Columns,
    columns: i32,
}

impl fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("columns", &self.columns).finish()
    }
}

/// The part of a statement that a row has, whatever the statement borrows.
trait Columns {
    fn get(&self) -> &RawStatement<'_>;
    fn text(&mut self, column: i32) -> Option<&[u8]>;
    fn name(&mut self, column: i32) -> Option<String>;
}

impl Columns for RawStatement<'_> {
    fn get(&self) -> &RawStatement<'_> {
        self
    }

    fn text(&mut self, column: i32) -> Option<&[u8]> {
        self.column_text(column).map(CStr::to_bytes)
    }

    fn name(&mut self, column: i32) -> Option<String> {
        self.column_name(column).map(|name| name.to_string_lossy().into_owned())
    }
}

impl Row<'_> {
    /// How many columns it has.
    #[must_use]
    pub fn columns(&self) -> usize {
        usize::try_from(self.columns).unwrap_or_default()
    }

    fn column(&self, column: usize) -> Result<i32, Failure> {
        i32::try_from(column).ok().filter(|column| *column < self.columns).ok_or_else(|| {
            Failure::new("zqlite_column", RANGE, Category::Misuse, "there is no such column")
        })
    }

    /// The name of a column; of a row that is selected.
    ///
    /// # Errors
    /// `RANGE` if there is no such column.
    pub fn name(&mut self, column: usize) -> Result<Option<String>, Failure> {
        self.column(column).map(|column| self.raw.name(column))
    }

    /// The value of a column, lent until the next call: the library may have one place for what it lends.
    ///
    /// ```compile_fail,E0499
    /// fn both(row: &mut ghostwire_store_zqlite_native::Row<'_>) {
    ///     let one = row.get(0);
    ///     let two = row.get(1);
    ///     drop((one, two));
    /// }
    /// ```
    ///
    /// # Errors
    /// `RANGE` if there is no such column; `MISUSE` for what the library should not say of one.
    pub fn get(&mut self, column: usize) -> Result<ValueRef<'_>, Failure> {
        let column = self.column(column)?;
        let odd = |operation, why| Failure::new(operation, MISUSE, Category::Misuse, why);
        let kind = self.raw.get().column_type(column);
        match kind {
            types::NULL => Ok(ValueRef::Null),
            types::INTEGER => Ok(ValueRef::Integer(self.raw.get().column_int64(column))),
            types::REAL => Ok(ValueRef::Real(self.raw.get().column_double(column))),
            types::TEXT => match self.raw.text(column) {
                Some(text) => Ok(ValueRef::Text(text)),
                None => Err(odd("zqlite_column_text", "a text is null")),
            },
            types::BLOB => self
                .raw
                .get()
                .column_blob(column)
                .map(ValueRef::Blob)
                .map_err(|_| odd("zqlite_column_blob", "a blob is null or too long")),
            _ => Err(odd("zqlite_column_type", "the type is none of ABI 1.0.0")),
        }
    }

    /// The number in a column.
    ///
    /// # Errors
    /// As [`Row::get`]; `MISMATCH` if it is none.
    pub fn integer(&mut self, column: usize) -> Result<i64, Failure> {
        match self.get(column)? {
            ValueRef::Integer(value) => Ok(value),
            _ => Err(mismatch()),
        }
    }

    /// The bytes in a column.
    ///
    /// # Errors
    /// As [`Row::get`]; `MISMATCH` if it has none.
    pub fn blob(&mut self, column: usize) -> Result<&[u8], Failure> {
        match self.get(column)? {
            ValueRef::Blob(value) => Ok(value),
            _ => Err(mismatch()),
        }
    }
}

fn mismatch() -> Failure {
    let why = "the column has a value of another type";
    Failure::new("zqlite_column_type", crate::codes::MISMATCH, Category::Misuse, why)
}

/// A transaction. Dropped before it is committed, it is rolled back.
#[derive(Debug)]
pub struct Transaction<'c> {
    connection: &'c Connection<'c>,
    is_open: bool,
}

impl Transaction<'_> {
    /// Makes it durable. After an error it is not known whether it is.
    ///
    /// # Errors
    /// Those of the library.
    pub fn commit(mut self) -> Result<(), Failure> {
        self.is_open = false;
        let code = self.connection.raw.commit();
        self.connection.require_ok("zqlite_commit_transaction", code)
    }

    /// Undoes it.
    ///
    /// # Errors
    /// Those of the library.
    pub fn rollback(mut self) -> Result<(), Failure> {
        self.is_open = false;
        let code = self.connection.raw.rollback();
        self.connection.require_ok("zqlite_rollback_transaction", code)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.is_open {
            // Whoever wants to know whether it is undone rolls it back himself.
            let _ = self.connection.raw.rollback();
        }
    }
}
