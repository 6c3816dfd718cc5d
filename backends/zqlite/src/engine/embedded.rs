//! The embedded engine: the SQLite that the `libsql` crate links too.
//!
//! Its version, 3.47.0, lacks the fix for a checkpoint that races with a write-ahead log being
//! begun anew, so only the connection that writes may checkpoint: the others neither do it by
//! themselves nor when they are closed.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_local_file::{FileKind, StoreFile, file_to_read};
use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, Connection, ErrorCode, OpenFlags, Row, params};

use super::{Batch, Engine, SeriesRange, Snapshot, Write};

const SCHEMA: [(&str, &str); 4] = [
    ("meta", "CREATE TABLE meta(id INTEGER PRIMARY KEY,body BLOB NOT NULL)"),
    (
        "blocks",
        "CREATE TABLE blocks(serial INTEGER PRIMARY KEY,frame BLOB NOT NULL,body BLOB NOT NULL)",
    ),
    ("rows", "CREATE TABLE rows(slot INTEGER PRIMARY KEY,body BLOB NOT NULL)"),
    (
        "series",
        "CREATE TABLE series(tbl INTEGER NOT NULL,key BLOB NOT NULL,body BLOB NOT NULL,PRIMARY KEY(tbl,key))WITHOUT ROWID",
    ),
];
/// 8192 and 16384 store blocks no faster, and make the update of a random row dearer.
const PAGE_SIZE: u32 = 4096;
/// Pages in the log before the writer moves them into the file, after a commit. With four times as
/// many the mean stays the same and the longest wait doubles.
const CHECKPOINT_PAGES: u32 = 1000;
/// The log is cut to this size when it is begun anew.
const LOG_BYTES: u32 = 64 * 1024 * 1024;
/// Idle connections to keep for reading.
const IDLE_READERS: usize = 4;

#[derive(Debug)]
pub(crate) struct Embedded {
    /// Before the writer, so that the writer is closed last and does the final checkpoint.
    readers: Mutex<Vec<Connection>>,
    reader_source: ReaderSource,
    /// `None` if the file is only read.
    writer: Option<Mutex<Connection>>,
}

/// How to get another connection for reading.
#[derive(Debug)]
struct ReaderSource {
    name: std::path::PathBuf,
    flags: OpenFlags,
}

impl Embedded {
    /// Opens the file. An empty one is filled with the head that `initial` gives, and refused if
    /// that is `None`.
    pub(crate) fn open(
        file: &StoreFile,
        read_only: bool,
        initial: Option<&dyn Fn() -> Vec<u8>>,
    ) -> Result<Self> {
        let writer = if read_only {
            None
        } else {
            let writer = open_writer(file, initial)?;
            Some(Mutex::new(writer))
        };
        let engine = Self {
            readers: Mutex::default(),
            reader_source: ReaderSource::of(file, read_only),
            writer,
        };
        let reader = engine.reader_source.open()?;
        require_schema(&reader)?;
        engine.give_back(reader);
        Ok(engine)
    }

    fn give_back(&self, reader: Connection) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < IDLE_READERS {
            readers.push(reader);
        }
    }

    fn begin_snapshot(&self, reader: Connection) -> Result<Box<dyn Snapshot + '_>> {
        let snapshot = EmbeddedSnapshot { engine: self, reader: Some(reader) };
        let reader = snapshot.reader()?;
        run(reader, "BEGIN").map_err(|error| failed("a snapshot cannot be taken", error))?;
        // The snapshot begins with the first read.
        read_head(reader)?;
        Ok(Box::new(snapshot))
    }
}

fn open_writer(file: &StoreFile, initial: Option<&dyn Fn() -> Vec<u8>>) -> Result<Connection> {
    let unusable = |error| failed("the store's file cannot be opened", error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file.path(), flags).map_err(unusable)?;
    prepare(&connection).map_err(unusable)?;
    let pages: i64 =
        connection.pragma_query_value(None, "page_count", |row| row.get(0)).map_err(unusable)?;
    // A file that was begun and not finished has at most a header; a damaged one has more.
    let is_new = pages <= 1 && stored_schema(&connection)?.is_empty();
    if is_new && initial.is_none() {
        return Err(Error::corrupt("the store's file was begun but never finished; remove it")
            .with("path", file.path().display()));
    }
    if is_new {
        // Before the switch to WAL, so that it is in the file itself.
        set(&connection, "page_size", PAGE_SIZE)?;
        set(&connection, "application_id", FileKind::ZQLITE.application_id)?;
    }
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(unusable)?;
    if mode != "wal" {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "the file system cannot hold a store: SQLite's WAL does not work on it",
        )
        .with("path", file.path().display())
        .with("journal_mode", mode));
    }
    for (name, value) in
        [("wal_autocheckpoint", CHECKPOINT_PAGES), ("journal_size_limit", LOG_BYTES)]
    {
        set(&connection, name, value)?;
    }
    if let Some(initial) = initial.filter(|_| is_new) {
        fill(&connection, &initial())
            .map_err(|error| failed("a new store cannot be written", error))?;
    }
    Ok(connection)
}

/// What all connections have in common.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.execute_batch(
        "PRAGMA trusted_schema=OFF;PRAGMA synchronous=FULL;PRAGMA fullfsync=ON;PRAGMA checkpoint_fullfsync=ON;\
         PRAGMA temp_store=MEMORY;PRAGMA cell_size_check=ON;PRAGMA cache_size=-16000",
    )
}

/// Some settings answer with what they became, some do not.
fn set(connection: &Connection, name: &str, value: u32) -> Result<()> {
    connection
        .pragma_update(None, name, value)
        .map_err(|error| failed("the store's file cannot be set up", error))
}

fn fill(connection: &Connection, head: &[u8]) -> rusqlite::Result<()> {
    run(connection, "BEGIN IMMEDIATE")?;
    for (_, sql) in SCHEMA {
        run(connection, sql)?;
    }
    connection.execute("INSERT INTO meta(id,body) VALUES(1,?1)", [head])?;
    run(connection, "COMMIT")
}

fn stored_schema(connection: &Connection) -> Result<Vec<(String, String)>> {
    let read = || {
        connection
            .prepare("SELECT name,sql FROM sqlite_schema ORDER BY rowid")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()
    };
    read().map_err(|error| failed("the file's layout cannot be read", error))
}

/// A layout that is not ours would give rows that are not ours.
fn require_schema(connection: &Connection) -> Result<()> {
    let stored = stored_schema(connection)?;
    let expected = SCHEMA.map(|(name, sql)| (name.to_owned(), sql.to_owned()));
    if stored == expected {
        return Ok(());
    }
    Err(Error::corrupt("the file's layout is not that of a store; restore it from a backup")
        .with("tables", stored.len()))
}

impl ReaderSource {
    fn of(file: &StoreFile, read_only: bool) -> Self {
        let mut flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let name = match file_to_read(file.path()) {
            uri if read_only => {
                flags |= OpenFlags::SQLITE_OPEN_URI;
                uri
            }
            _ => file.path().to_owned(),
        };
        Self { name, flags }
    }

    fn open(&self) -> Result<Connection> {
        let open = || {
            let connection = Connection::open_with_flags(&self.name, self.flags)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            prepare(&connection)?;
            connection.pragma_update(None, "wal_autocheckpoint", 0)?;
            Ok(connection)
        };
        open().map_err(|error| failed("the store's file cannot be opened to be read", error))
    }
}

impl Engine for Embedded {
    fn describe(&self) -> String {
        format!("embedded (SQLite {})", rusqlite::version())
    }

    fn write(&self, batch: &Batch<'_>) -> Result<()> {
        let writer = self.writer.as_ref().ok_or_else(read_only)?;
        let writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        run(&writer, "BEGIN IMMEDIATE")
            .map_err(|error| failed("a transaction cannot be begun", error))?;
        if let Err(error) = write_all(&writer, batch) {
            return Err(roll_back(&writer, error));
        }
        match run(&writer, "COMMIT") {
            Ok(()) => Ok(()),
            Err(error) => {
                let is_known = matches!(
                    error.sqlite_error_code(),
                    Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::ReadOnly)
                );
                let failure = if is_known {
                    failed("the commit was not stored", error)
                } else {
                    Error::new(
                        ErrorKind::OutcomeUnknown,
                        "the disk failed during a commit; whether it was stored shows on reopening",
                    )
                    .because(error)
                };
                Err(roll_back(&writer, failure))
            }
        }
    }

    fn settle(&self) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        match writer.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            // The log is synchronised before anything is moved out of it.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => Ok(()),
            settled => settled.map_err(|error| {
                failed("what an earlier process wrote cannot be made durable", error)
            }),
        }
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = match idle {
            Some(reader) => reader,
            None => self.reader_source.open()?,
        };
        self.begin_snapshot(reader)
    }

    fn fresh_snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        self.begin_snapshot(self.reader_source.open()?)
    }

    fn copy_to(&self, path: &Path) -> Result<()> {
        let writer = self.writer.as_ref().ok_or_else(read_only)?;
        let writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        let path = path.to_str().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "a store whose path is not UTF-8 cannot be copied; move it",
            )
            .with("path", path.display())
        })?;
        writer
            .execute("VACUUM INTO ?1", [path])
            .map(drop)
            .map_err(|error| failed("the file cannot be copied", error).with("copy", path))
    }

    fn close(self: Box<Self>) -> Result<()> {
        drop(self.readers);
        let Some(writer) = self.writer else { return Ok(()) };
        let writer = writer.into_inner().unwrap_or_else(PoisonError::into_inner);
        let moved = writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        let closed = writer.close().map_err(|(_, error)| error);
        moved.and(closed).map_err(|error| {
            Error::new(
                ErrorKind::Unavailable,
                "the log could not be moved into the file; nothing is lost, the next open does it",
            )
            .because(error)
        })
    }
}

fn write_all(writer: &Connection, batch: &Batch<'_>) -> Result<()> {
    let not_stored = |error| failed("the commit was not stored", error);
    let changed = prepared(&mut None, writer, "UPDATE meta SET body=?2 WHERE id=1 AND body=?1")
        .and_then(|statement| statement.execute(params![batch.expected_head, batch.head]))
        .map_err(not_stored)?;
    if changed != 1 {
        return Err(Error::new(
            ErrorKind::Conflict,
            "the file was changed by somebody who does not hold its lock",
        ));
    }
    let (mut block, mut put_row, mut delete_row) = (None, None, None);
    let (mut put_series, mut delete_series) = (None, None);
    for write in &batch.writes {
        let bytes = |range: &std::ops::Range<usize>| {
            batch.bytes.get(range.clone()).ok_or_else(|| {
                Error::new(ErrorKind::Unexpected, "a write refers to bytes that are not there")
            })
        };
        let outcome = match write {
            Write::Block { serial, frame, body } => prepared(
                &mut block,
                writer,
                "INSERT INTO blocks(serial,frame,body) VALUES(?1,?2,?3)",
            )
            .and_then(|statement| statement.execute(params![sql(*serial), frame, body])),
            Write::PutRow { slot, body } => {
                let body = bytes(body)?;
                prepared(&mut put_row, writer, "REPLACE INTO rows(slot,body) VALUES(?1,?2)")
                    .and_then(|statement| statement.execute(params![sql(*slot), body]))
            }
            Write::DeleteRow { slot } => {
                prepared(&mut delete_row, writer, "DELETE FROM rows WHERE slot=?1")
                    .and_then(|statement| statement.execute([sql(*slot)]))
            }
            Write::PutSeries { table, key, body } => {
                let body = bytes(body)?;
                prepared(
                    &mut put_series,
                    writer,
                    "REPLACE INTO series(tbl,key,body) VALUES(?1,?2,?3)",
                )
                .and_then(|statement| statement.execute(params![table, key, body]))
            }
            Write::DeleteSeries { table, key } => {
                prepared(&mut delete_series, writer, "DELETE FROM series WHERE tbl=?1 AND key=?2")
                    .and_then(|statement| statement.execute(params![table, key]))
            }
            Write::PruneSeries(SeriesRange { table, from, to: Some(to) }) => prepared(
                &mut None,
                writer,
                "DELETE FROM series WHERE tbl=?1 AND key>=?2 AND key<?3",
            )
            .and_then(|statement| statement.execute(params![table, from, to])),
            Write::PruneSeries(SeriesRange { table, from, to: None }) => {
                prepared(&mut None, writer, "DELETE FROM series WHERE tbl=?1 AND key>=?2")
                    .and_then(|statement| statement.execute(params![table, from]))
            }
            Write::PurgeBlocks { before } => {
                prepared(&mut None, writer, "DELETE FROM blocks WHERE serial<?1")
                    .and_then(|statement| statement.execute([sql(*before)]))
            }
        };
        outcome.map_err(not_stored)?;
    }
    Ok(())
}

/// The statement, from the connection's cache the first time.
fn prepared<'s, 'c>(
    place: &'s mut Option<CachedStatement<'c>>,
    connection: &'c Connection,
    sql: &str,
) -> rusqlite::Result<&'s mut CachedStatement<'c>> {
    match place {
        Some(statement) => Ok(statement),
        empty => Ok(empty.insert(connection.prepare_cached(sql)?)),
    }
}

/// Ends a transaction that failed with `error`. If even that fails, nobody knows.
fn roll_back(writer: &Connection, error: Error) -> Error {
    if writer.is_autocommit() {
        return error;
    }
    match run(writer, "ROLLBACK") {
        Ok(()) => error,
        Err(source) => {
            tracing::warn!(%error, %source, "a failed transaction cannot be rolled back");
            Error::new(
                ErrorKind::OutcomeUnknown,
                "a failed transaction cannot be rolled back; reopen the backend",
            )
            .because(error)
        }
    }
}

fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// Slots and serials are at most `i64::MAX`.
fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn read_only() -> Error {
    Error::new(ErrorKind::ReadOnly, "the store was opened to be read only")
}

struct EmbeddedSnapshot<'e> {
    engine: &'e Embedded,
    /// Always there until it is dropped.
    reader: Option<Connection>,
}

impl EmbeddedSnapshot<'_> {
    fn reader(&self) -> Result<&Connection> {
        self.reader
            .as_ref()
            .ok_or_else(|| Error::new(ErrorKind::Unexpected, "a snapshot is read after its end"))
    }

    /// Visits what `query` gives.
    fn each(
        &self,
        query: &str,
        parameters: impl rusqlite::Params,
        mut visit: impl FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut statement = self.reader()?.prepare_cached(query).map_err(unreadable)?;
        let mut rows = statement.query(parameters).map_err(unreadable)?;
        while let Some(row) = rows.next().map_err(unreadable)? {
            visit(row)?;
        }
        Ok(())
    }
}

impl Drop for EmbeddedSnapshot<'_> {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take()
            && run(&reader, "ROLLBACK").is_ok()
        {
            self.engine.give_back(reader);
        }
    }
}

fn read_head(reader: &Connection) -> Result<Vec<u8>> {
    let mut statement =
        reader.prepare_cached("SELECT body FROM meta WHERE id=1").map_err(unreadable)?;
    let mut rows = statement.query([]).map_err(unreadable)?;
    match rows.next().map_err(unreadable)? {
        Some(row) => blob(row, 0).map(<[u8]>::to_vec),
        None => Err(Error::corrupt("the store has no head; restore it from a backup")),
    }
}

impl Snapshot for EmbeddedSnapshot<'_> {
    fn head(&mut self) -> Result<Vec<u8>> {
        read_head(self.reader()?)
    }

    fn rows(
        &mut self,
        slots: &[u64],
        visit: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut statement = self
            .reader()?
            .prepare_cached("SELECT body FROM rows WHERE slot=?1")
            .map_err(unreadable)?;
        for &slot in slots {
            let mut rows = statement.query([sql(slot)]).map_err(unreadable)?;
            match rows.next().map_err(unreadable)? {
                Some(row) => visit(slot, blob(row, 0)?)?,
                None => {
                    return Err(Error::corrupt(
                        "a row is missing; restore the store from a backup",
                    )
                    .with("slot", slot));
                }
            }
        }
        Ok(())
    }

    fn every_row(&mut self, visit: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        self.each("SELECT slot,body FROM rows", [], |row| visit(number(row, 0)?, blob(row, 1)?))
    }

    fn series(
        &mut self,
        range: &SeriesRange<'_>,
        reverse: bool,
        limit: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let limit = sql(limit as u64);
        let SeriesRange { table, from, to } = *range;
        let visit = |row: &Row<'_>| visit(blob(row, 0)?, blob(row, 1)?);
        match (to, reverse) {
            (Some(to), false) => self.each(
                "SELECT key,body FROM series WHERE tbl=?1 AND key>=?2 AND key<?3 ORDER BY key LIMIT ?4",
                params![table, from, to, limit],
                visit,
            ),
            (Some(to), true) => self.each(
                "SELECT key,body FROM series WHERE tbl=?1 AND key>=?2 AND key<?3 ORDER BY key DESC LIMIT ?4",
                params![table, from, to, limit],
                visit,
            ),
            (None, false) => self.each(
                "SELECT key,body FROM series WHERE tbl=?1 AND key>=?2 ORDER BY key LIMIT ?3",
                params![table, from, limit],
                visit,
            ),
            (None, true) => self.each(
                "SELECT key,body FROM series WHERE tbl=?1 AND key>=?2 ORDER BY key DESC LIMIT ?3",
                params![table, from, limit],
                visit,
            ),
        }
    }

    fn every_series(
        &mut self,
        visit: &mut dyn FnMut(u8, &[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.each("SELECT tbl,key,body FROM series", [], |row| {
            let table = u8::try_from(number(row, 0)?)
                .map_err(|_| Error::corrupt("a series has a number that is none"))?;
            visit(table, blob(row, 1)?, blob(row, 2)?)
        })
    }

    fn blocks(
        &mut self,
        first: u64,
        last: u64,
        limit: usize,
        visit: &mut dyn FnMut(u64, &[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.each(
            "SELECT serial,frame,body FROM blocks WHERE serial>=?1 AND serial<=?2 ORDER BY serial LIMIT ?3",
            [sql(first), sql(last), sql(limit as u64)],
            |row| visit(number(row, 0)?, blob(row, 1)?, blob(row, 2)?),
        )
    }

    fn check(&mut self) -> Result<()> {
        self.each("PRAGMA integrity_check(1)", [], |row| {
            let verdict: String = row.get(0).map_err(unreadable)?;
            if verdict == "ok" {
                return Ok(());
            }
            Err(Error::corrupt("SQLite finds the file damaged; restore it from a backup")
                .with("found", verdict))
        })
    }
}

fn blob<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r [u8]> {
    row.get_ref(column).map_err(unreadable)?.as_blob().map_err(|error| {
        Error::corrupt("a stored value has the wrong type; restore the store from a backup")
            .because(error)
    })
}

fn number(row: &Row<'_>, column: usize) -> Result<u64> {
    let number: i64 = row.get(column).map_err(unreadable)?;
    u64::try_from(number).map_err(|_| {
        Error::corrupt("a stored number is negative; restore the store from a backup")
            .with("number", number)
    })
}

fn unreadable(error: rusqlite::Error) -> Error {
    failed("the store cannot be read", error)
}

/// An error of SQLite, as the kind that says what to do.
fn failed(what: &'static str, error: rusqlite::Error) -> Error {
    use rusqlite::Error as Sqlite;
    /// SQLITE_IOERR_SHORT_READ: the file ends before a page that it should have.
    const SHORT_READ: i32 = 10 | (2 << 8);
    let Some(failure) = error.sqlite_error() else {
        let kind = match error {
            Sqlite::FromSqlConversionFailure(..)
            | Sqlite::IntegralValueOutOfRange(..)
            | Sqlite::Utf8Error(..)
            | Sqlite::QueryReturnedNoRows
            | Sqlite::InvalidColumnType(..) => ErrorKind::Corrupt,
            _ => ErrorKind::Unexpected,
        };
        return Error::new(kind, what).because(error);
    };
    let (kind, advice) = match failure.code {
        ErrorCode::DiskFull => (ErrorKind::Exhausted, "; make room on the disk"),
        ErrorCode::ReadOnly => (ErrorKind::ReadOnly, "; the file may only be read"),
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::FileLockingProtocolFailed => {
            (ErrorKind::Busy, "; somebody who does not heed its lock uses the file")
        }
        // Every statement is a constant one for a layout that was checked: what SQLite cannot make
        // sense of (SQLITE_ERROR) is the file.
        ErrorCode::Unknown if failure.extended_code == 1 => {
            (ErrorKind::Corrupt, "; it is damaged, restore it from a backup")
        }
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            (ErrorKind::Corrupt, "; it is damaged, restore it from a backup")
        }
        ErrorCode::SystemIoFailure if failure.extended_code == SHORT_READ => {
            (ErrorKind::Corrupt, "; it is cut short, restore it from a backup")
        }
        ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::OutOfMemory => {
            (ErrorKind::Unavailable, "")
        }
        ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => {
            (ErrorKind::PermissionDenied, "")
        }
        // Every key is guarded by the head, so a key that is there already is damage.
        ErrorCode::ConstraintViolation => {
            (ErrorKind::Corrupt, "; what is stored contradicts itself")
        }
        _ => (ErrorKind::Unexpected, ""),
    };
    Error::new(kind, format!("{what}{advice}"))
        .with("sqlite_code", failure.extended_code)
        .because(error)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ghostwire_store_local_file::Access;

    use super::*;

    fn engine() -> (tempfile::TempDir, StoreFile, Embedded) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a%b?c#d e.db");
        let file = StoreFile::open(&path, FileKind::ZQLITE, Access::Create).unwrap();
        let engine = Embedded::open(&file, false, Some(&|| b"one".to_vec())).unwrap();
        (directory, file, engine)
    }

    fn rows_of(bytes: usize) -> Batch<'static> {
        let mut batch = Batch::new(b"one".to_vec(), b"two".to_vec());
        batch.bytes = vec![1; bytes];
        batch.writes.push(Write::PutRow { slot: 1, body: 0..bytes });
        batch
    }

    fn head(engine: &Embedded) -> Vec<u8> {
        engine.snapshot().unwrap().head().unwrap()
    }

    #[test]
    fn a_full_disk_stores_nothing_and_goes_on_when_there_is_room() {
        let (_directory, _file, engine) = engine();
        let limit = |pages: u32| {
            let writer = engine.writer.as_ref().unwrap().lock().unwrap();
            set(&writer, "max_page_count", pages).unwrap();
        };
        limit(8);
        let error = engine.write(&rows_of(100_000)).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Exhausted);
        assert_eq!(head(&engine), b"one");
        limit(8000);
        engine.write(&rows_of(100_000)).unwrap();
        assert_eq!(head(&engine), b"two");
    }

    #[test]
    fn a_head_that_somebody_else_moved_is_a_conflict() {
        let (_directory, file, engine) = engine();
        let other = Connection::open(file.path()).unwrap();
        other.execute("UPDATE meta SET body=x'00'", []).unwrap();
        let error = engine.write(&rows_of(1)).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Conflict);
        other.execute("UPDATE meta SET body=?1", [b"one"]).unwrap();
        engine.write(&rows_of(1)).unwrap();
    }

    #[test]
    fn a_snapshot_stays_and_is_not_in_the_way() {
        let (_directory, _file, engine) = engine();
        let mut before = engine.snapshot().unwrap();
        engine.write(&rows_of(10)).unwrap();
        assert_eq!(before.head().unwrap(), b"one");
        assert_eq!(*before.rows(&[1], &mut |_, _| Ok(())).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(head(&engine), b"two");
        drop(before);
        assert_eq!(engine.readers.lock().unwrap().len(), 2);
        assert_eq!(head(&engine), b"two");
    }

    #[test]
    fn odd_paths_are_read_too() {
        let (_directory, file, engine) = engine();
        engine.write(&rows_of(10)).unwrap();
        Box::new(engine).close().unwrap();
        let engine = Embedded::open(&file, true, None).unwrap();
        assert_eq!(head(&engine), b"two");
        assert_eq!(*engine.write(&rows_of(1)).unwrap_err().kind(), ErrorKind::ReadOnly);
    }

    #[test]
    fn only_the_writer_checkpoints() {
        let (_directory, _file, engine) = engine();
        let pages = |connection: &Connection| -> i64 {
            connection.pragma_query_value(None, "wal_autocheckpoint", |row| row.get(0)).unwrap()
        };
        assert_eq!(
            pages(&engine.writer.as_ref().unwrap().lock().unwrap()),
            i64::from(CHECKPOINT_PAGES)
        );
        let reader = engine.readers.lock().unwrap().pop().unwrap();
        assert_eq!(pages(&reader), 0);
        assert!(reader.db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE).unwrap());
        let synchronous: i64 =
            reader.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
        assert_eq!(synchronous, 2);
    }

    #[test]
    fn errors_say_what_to_do() {
        let kind = |code: i32| {
            let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            failed("x", error).kind().clone()
        };
        for (code, expected) in [
            (13, ErrorKind::Exhausted),
            (8, ErrorKind::ReadOnly),
            (5, ErrorKind::Busy),
            (6, ErrorKind::Busy),
            (11, ErrorKind::Corrupt),
            (26, ErrorKind::Corrupt),
            (10 | (2 << 8), ErrorKind::Corrupt),
            (10 | (4 << 8), ErrorKind::Unavailable),
            (14, ErrorKind::Unavailable),
            (3, ErrorKind::PermissionDenied),
            (21, ErrorKind::Unexpected),
        ] {
            assert_eq!(kind(code), expected, "{code}");
        }
    }
}
