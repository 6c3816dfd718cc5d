//! Opaque values by a number, in one table.

use crate::codes::{Category, MISMATCH};
use crate::failure::Failure;
use crate::library::{Connection, Statement, Value};

/// The longest value that is stored: a row has to fit a page, and the self-test tries this much.
pub const MAX_VALUE: usize = 3_072;

/// How many rows are read at once: the library makes the whole result at the first step.
pub(crate) const PAGE: usize = 500;

const CREATE: &str = "CREATE TABLE store (id INTEGER PRIMARY KEY, value BLOB NOT NULL)";
const INSERT: &str = "INSERT INTO store (id, value) VALUES (?, ?)";
const DELETE: &str = "DELETE FROM store WHERE id = ?";
const GET: &str = "SELECT value FROM store WHERE id = ?";
const SCAN: &str = "SELECT id, value FROM store WHERE id > ? ORDER BY id LIMIT 500";

/// The table, with its statements.
#[derive(Debug)]
pub(crate) struct Rows<'c> {
    insert: Statement<'c>,
    delete: Statement<'c>,
    get: Statement<'c>,
    scan: Statement<'c>,
}

/// Makes the table in a new database. Statements that were prepared before die with that.
pub(crate) fn create(connection: &Connection<'_>) -> Result<(), Failure> {
    connection.execute(CREATE)
}

impl<'c> Rows<'c> {
    pub(crate) fn prepare(connection: &'c Connection<'c>) -> Result<Self, Failure> {
        Ok(Self {
            insert: connection.prepare(INSERT)?,
            delete: connection.prepare(DELETE)?,
            get: connection.prepare(GET)?,
            scan: connection.prepare(SCAN)?,
        })
    }

    /// Adds a row; there is none of this number.
    pub(crate) fn insert(&mut self, id: i64, value: &[u8]) -> Result<(), Failure> {
        self.insert.execute(&[Value::Integer(id), Value::Blob(value)])
    }

    /// Removes a row, if there is one.
    pub(crate) fn delete(&mut self, id: i64) -> Result<(), Failure> {
        self.delete.execute(&[Value::Integer(id)])
    }

    /// Gives the value of a row to `take`; `None` if there is no such row.
    pub(crate) fn get<T>(
        &mut self,
        id: i64,
        take: impl FnOnce(Option<&[u8]>) -> T,
    ) -> Result<T, Failure> {
        self.get.begin(&[Value::Integer(id)])?;
        let taken = match self.get.step()? {
            Some(mut row) => take(Some(row.blob(0)?)),
            None => take(None),
        };
        self.get.reset()?;
        Ok(taken)
    }

    /// Visits at most [`PAGE`] rows after a number, in order, and says how many.
    pub(crate) fn scan(
        &mut self,
        after: i64,
        mut visit: impl FnMut(i64, &[u8]),
    ) -> Result<usize, Failure> {
        self.scan.begin(&[Value::Integer(after)])?;
        let (mut last, mut count) = (after, 0);
        while let Some(mut row) = self.scan.step()? {
            let id = row.integer(0)?;
            if id <= last || count == PAGE {
                let why = "the rows are not in order, or more than were asked for";
                return Err(Failure::new("zqlite_step", MISMATCH, Category::Unknown, why));
            }
            visit(id, row.blob(1)?);
            (last, count) = (id, count + 1);
        }
        self.scan.reset()?;
        Ok(count)
    }

    /// Visits every row.
    pub(crate) fn all(&mut self, mut visit: impl FnMut(i64, &[u8])) -> Result<usize, Failure> {
        let (mut last, mut total) = (i64::MIN, 0);
        loop {
            let found = self.scan(last, |id, value| {
                last = id;
                visit(id, value);
            })?;
            total += found;
            if found < PAGE {
                return Ok(total);
            }
        }
    }
}
