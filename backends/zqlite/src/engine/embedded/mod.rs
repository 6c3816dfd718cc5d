//! The embedded engine: the SQLite that the `libsql` crate links too.
//!
//! Its version, 3.47.0, lacks the fix for a checkpoint that races with a write-ahead log being
//! begun anew, so only the connection that writes may checkpoint: the others neither do it by
//! themselves nor when they are closed.

mod errors;
mod snapshot;
mod write;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_sqlite::{
    Checkpoint, Checkpointer, FileKind, Mode, StoreFile, file_to_read, file_without_log, has_log,
};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{Batch, Engine, Snapshot};
use errors::{failed, read_only};
use snapshot::{EmbeddedSnapshot, read_head};

const SCHEMA: [(&str, &str); 6] = [
    ("meta", "CREATE TABLE meta(id INTEGER PRIMARY KEY,body BLOB NOT NULL)"),
    (
        "blocks",
        "CREATE TABLE blocks(serial INTEGER PRIMARY KEY,frame BLOB NOT NULL,body BLOB NOT NULL)",
    ),
    ("rows", "CREATE TABLE rows(slot INTEGER PRIMARY KEY,body BLOB NOT NULL)"),
    ("journal", "CREATE TABLE journal(number INTEGER PRIMARY KEY,body BLOB NOT NULL)"),
    // By row id, so that a leaf holds a whole page; WITHOUT ROWID it holds a quarter.
    (
        "chunks",
        "CREATE TABLE chunks(id INTEGER PRIMARY KEY,tbl INTEGER NOT NULL,key BLOB NOT NULL,body BLOB NOT NULL)",
    ),
    ("chunks_in_order", "CREATE UNIQUE INDEX chunks_in_order ON chunks(tbl,key)"),
];
/// 8192 and 16384 store blocks no faster, and make the update of a random row dearer.
const PAGE_SIZE: u32 = 4096;
/// The log is cut to this size when it is begun anew.
const LOG_BYTES: u32 = 64 * 1024 * 1024;
/// Idle connections to keep for reading.
const IDLE_READERS: usize = 4;
/// How long a connection waits for a lock that a tool of somebody else's holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Embedded {
    /// Before the writer, so that the writer is closed last and does the final checkpoint.
    readers: Mutex<Vec<Connection>>,
    /// `None` if the file is only read.
    writer: Option<Mutex<Connection>>,
    reader_source: ReaderSource,
}

/// How to get another connection for reading.
#[derive(Debug)]
struct ReaderSource {
    file: Arc<StoreFile>,
    name: PathBuf,
    flags: OpenFlags,
}

impl Embedded {
    /// Opens the file. An empty one is filled with the head that `initial` gives, and refused if
    /// that is `None`.
    pub(crate) fn open(
        file: &Arc<StoreFile>,
        read_only: bool,
        initial: Option<&dyn Fn() -> Vec<u8>>,
    ) -> Result<Self> {
        let writer = if read_only {
            None
        } else {
            let writer = open_writer(file, initial)?;
            file.log().connected();
            Some(Mutex::new(writer))
        };
        let engine = Self {
            readers: Mutex::default(),
            reader_source: ReaderSource::of(file, read_only),
            writer,
        };
        let reader = engine.reader_source.open()?;
        require_schema(&reader).map_err(|error| error.with("path", file.path().display()))?;
        engine.give_back(reader);
        Ok(engine)
    }

    fn give_back(&self, reader: Connection) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < IDLE_READERS {
            readers.push(reader);
        }
    }

    fn file(&self) -> &StoreFile {
        &self.reader_source.file
    }

    fn lock_writer(&self) -> Result<MutexGuard<'_, Connection>> {
        let writer = self.writer.as_ref().ok_or_else(read_only)?;
        Ok(writer.lock().unwrap_or_else(PoisonError::into_inner))
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
            "the file system cannot hold a store: SQLite's WAL does not work on it; use a local one",
        )
        .with("path", file.path().display())
        .with("journal_mode", mode));
    }
    // SQLite's own checkpoints swallow errors; the log's keeper asks for them.
    for (name, value) in [("wal_autocheckpoint", 0), ("journal_size_limit", LOG_BYTES)] {
        set(&connection, name, value)?;
    }
    if let Some(initial) = initial.filter(|_| is_new) {
        fill(&connection, &initial())
            .map_err(|error| failed("a new store cannot be written", error))?;
    }
    Ok(connection)
}

/// What all connections have in common. None moves the log when it is closed, also if that is because
/// the store was refused: what is found wrong may be that the log is another file's.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    leave_log(connection, true)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // The layout is compared at open; this is for a trigger that another program adds meanwhile.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
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
    Err(Error::corrupt(
        "the file's layout is not that of a store of this version; restore it from a backup, or, if \
         an earlier version made it, export it with that one and import it here",
    )
        .with("tables", stored.len()))
}

const READ: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

impl ReaderSource {
    fn of(file: &Arc<StoreFile>, read_only: bool) -> Self {
        let mut flags = READ;
        let name = match file_to_read(file.path()) {
            uri if read_only => {
                flags |= OpenFlags::SQLITE_OPEN_URI;
                uri
            }
            _ => file.path().to_owned(),
        };
        Self { file: Arc::clone(file), name, flags }
    }

    /// On the file that the other connections have, and no other.
    fn open(&self) -> Result<Connection> {
        self.file.require_in_place()?;
        let open = || {
            let connection = Connection::open_with_flags(&self.name, self.flags)?;
            prepare(&connection)?;
            connection.pragma_update(None, "wal_autocheckpoint", 0)?;
            Ok(connection)
        };
        let reader = open()
            .map_err(|error| failed("the store's file cannot be opened to be read", error))?;
        self.file.require_in_place()?;
        Ok(reader)
    }
}

impl Engine for Embedded {
    fn describe(&self) -> String {
        format!("embedded (SQLite {})", rusqlite::version())
    }

    fn write(&self, batch: &Batch<'_>) -> Result<()> {
        let log = self.file().log();
        log.require_trusted()?;
        let writer = self.lock_writer()?;
        write::write(&writer, batch)?;
        self.file().confirm_commit()?;
        log.after_commit(&mut Writing(&writer));
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.file().log().settle(&mut Writing(&writer))
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = match idle {
            Some(reader) => reader,
            None => self.reader_source.open()?,
        };
        Ok(Box::new(EmbeddedSnapshot::of_reader(self, reader)?))
    }

    fn fresh_snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        Ok(Box::new(EmbeddedSnapshot::of_reader(self, self.reader_source.open()?)?))
    }

    fn writer_snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        Ok(Box::new(EmbeddedSnapshot::of_writer(self.lock_writer()?)?))
    }

    fn bytes_in_use(&self) -> Result<u64> {
        let writer = self.lock_writer()?;
        let number = |name: &str| writer.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let count =
            || Ok((number("page_count")? - number("freelist_count")?) * number("page_size")?);
        count()
            .map(|bytes| u64::try_from(bytes).unwrap_or(0))
            .map_err(|error| failed("the file cannot be measured", error))
    }

    fn copy_to(&self, path: &Path) -> Result<()> {
        let writer = self.lock_writer()?;
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
        let truncate = || writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        let log = self.reader_source.file.log();
        let moved = log.finish(|| truncate().map_err(|error| failed(NOT_MOVED, error)));
        if log.is_trusted()
            && let Err(error) = leave_log(&writer, false)
        {
            tracing::warn!(%error, "the log stays");
        }
        let closed = writer.close().map_err(|(_, error)| failed(NOT_MOVED, error));
        moved.and(closed).map_err(|error| {
            Error::new(
                ErrorKind::Unavailable,
                "the log could not be moved into the file; nothing is lost, the next open does it",
            )
            .because(error)
        })
    }
}

const NOT_MOVED: &str = "the log cannot be moved into the file";

/// Whether closing the connection, if it is the last one, is to leave the log where it is, or to move
/// it into the file and remove it.
fn leave_log(connection: &Connection, leave: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, leave).map(drop)
}

/// The connection that writes.
struct Writing<'c>(&'c Connection);

impl Checkpointer for Writing<'_> {
    fn checkpoint(&mut self, mode: Mode) -> Result<Checkpoint> {
        let Self(connection) = self;
        let run = |sql| {
            connection.prepare_cached(sql)?.query_row([], |row| {
                Ok(Checkpoint::of_columns(row.get(0)?, row.get(1)?, row.get(2)?))
            })
        };
        match mode {
            Mode::Passive => run("PRAGMA wal_checkpoint(PASSIVE)"),
            Mode::TruncateAtOnce => {
                let outcome = connection
                    .busy_timeout(Duration::ZERO)
                    .and_then(|()| run("PRAGMA wal_checkpoint(TRUNCATE)"));
                connection.busy_timeout(BUSY_TIMEOUT).and(outcome)
            }
        }
        .map_err(|error| failed(NOT_MOVED, error))
    }
}

/// The head of a file with the log beside it, and without, if both can be read.
pub(crate) fn heads(file: &Arc<StoreFile>) -> Option<(Vec<u8>, Vec<u8>)> {
    let path = file.path();
    if !has_log(path) {
        return None;
    }
    let head = |name: PathBuf, flags| {
        let source = ReaderSource { file: Arc::clone(file), name, flags };
        source.open().and_then(|reader| read_head(&reader)).ok()
    };
    let without_log = head(file_without_log(path), READ | OpenFlags::SQLITE_OPEN_URI)?;
    Some((head(path.to_owned(), READ)?, without_log))
}

fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// Slots and serials are at most `i64::MAX`.
fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
