//! One connection to SQLite, whichever crate makes it, and what each one is told.
//!
//! SQLite 3.47.0, which both backends link, lacks the fix for a checkpoint that races with a log being
//! begun anew. So only the connection that writes may checkpoint: the others neither do it by
//! themselves nor when they are closed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ghostwire_store_core::error::{Error, ErrorKind, Result};

use crate::wal::{Checkpoint, Mode};
use crate::{FileKind, Interrupt, StoreFile, file_to_read, file_without_log};

/// How long a connection waits for a lock that a tool of somebody else's holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What every connection is told. Checkpoints of SQLite's own swallow errors, so there are none; a
/// reference in a table of somebody else's must not keep a row of ours from going.
const SETTINGS: [&str; 9] = [
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA synchronous = FULL",
    "PRAGMA fullfsync = ON",
    "PRAGMA checkpoint_fullfsync = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA cache_size = -16000",
];

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Writes; the only one that may checkpoint the log.
    Writer,
    /// Reads beside the writer. One that may not write moves nothing when it is closed.
    Reader,
    /// Reads where there is no writer.
    ReadOnly,
    /// Reads the file as if there were no log beside it.
    WithoutLog,
}

impl Role {
    fn name(self, path: &Path) -> PathBuf {
        match self {
            Self::Writer | Self::Reader => path.to_owned(),
            Self::ReadOnly => file_to_read(path),
            Self::WithoutLog => file_without_log(path),
        }
    }
}

/// A connection of one of the crates that call SQLite. Its errors are those of SQLite, as
/// [`sqlite_error`](crate::sqlite_error) has them.
pub trait Connection: Sized + Send {
    /// Opens the file of this name, an absolute path or a URI, to be read and, if `writes`, written.
    fn open(name: &Path, writes: bool) -> Result<Self>;

    /// Sets how long it waits for locks.
    fn set_busy_timeout(&self, timeout: Duration) -> Result<()>;

    /// Runs a statement and forgets it; rows that it gives are dropped.
    fn run(&mut self, sql: &str) -> Result<()>;

    /// Runs a statement that gives no rows, and keeps it prepared.
    fn run_prepared(&mut self, sql: &str) -> Result<()>;

    /// The first row of a query, which is kept prepared: integers. `Corrupt` if there is none.
    fn integers<const N: usize>(&mut self, sql: &str) -> Result<[i64; N]>;

    /// The first value of a query: a blob, because libsql panics at text that is not UTF-8. `Corrupt` if
    /// there is none.
    fn blob(&mut self, sql: &str) -> Result<Vec<u8>>;

    /// What interrupts it, from another thread.
    fn interrupter(&self) -> Interrupt;

    /// Whether no transaction is open.
    fn is_idle(&self) -> bool;
}

/// Opens the store's file at this path, which is absolute.
///
/// # Errors
/// Those of SQLite.
pub fn connect<C: Connection>(path: &Path, role: Role) -> Result<C> {
    let mut connection = C::open(&role.name(path), role == Role::Writer)?;
    connection.set_busy_timeout(BUSY_TIMEOUT)?;
    SETTINGS.iter().try_for_each(|setting| connection.run(setting))?;
    if role != Role::Writer {
        connection.run("PRAGMA query_only = ON")?;
    }
    Ok(connection)
}

/// Fills a new file in one transaction. Only after it the file is switched to WAL, because its owner is
/// looked up in the file itself.
pub(crate) fn create<C: Connection>(
    file: &StoreFile,
    kind: FileKind,
    fill: impl FnOnce(&mut C) -> Result<()>,
) -> Result<()> {
    let mut connection: C = connect(file.path(), Role::Writer)?;
    // 8192 and 16384 store blocks no faster, and make the update of a random row dearer.
    connection.run("PRAGMA page_size = 4096")?;
    connection.run("PRAGMA encoding = 'UTF-8'")?;
    connection.run("BEGIN EXCLUSIVE")?;
    connection.run(&format!("PRAGMA application_id = {}", kind.application_id))?;
    fill(&mut connection)?;
    connection.run("COMMIT")
}

/// Switches to WAL.
pub(crate) fn use_log<C: Connection>(writer: &mut C) -> Result<()> {
    writer.run("PRAGMA journal_mode = WAL")?;
    let mode = writer.blob("SELECT CAST(journal_mode AS BLOB) FROM pragma_journal_mode")?;
    if mode != b"wal" {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "the file system cannot hold a store: SQLite's WAL does not work on it; use a local one",
        )
        .with("journal_mode", String::from_utf8_lossy(&mode)));
    }
    // The log is cut to this when it is begun anew.
    writer.run("PRAGMA journal_size_limit = 67108864")
}

/// Has SQLite check its own structures. `quick_check` would not do: it does not compare the keys of
/// rows that follow each other, and a search goes astray where they are not in order.
///
/// # Errors
/// `Corrupt` with the first thing that it finds; those of SQLite.
pub fn check_structure<C: Connection>(connection: &mut C) -> Result<()> {
    // What it reports may quote damaged text.
    const CHECK: &str = "SELECT CAST(integrity_check AS BLOB) FROM pragma_integrity_check LIMIT 1";
    let found = connection.blob(CHECK)?;
    if found == b"ok" {
        return Ok(());
    }
    Err(Error::corrupt("SQLite finds the file damaged; restore it from a backup")
        .with("found", String::from_utf8_lossy(&found)))
}

/// Moves pages of the log into the file.
pub(crate) fn checkpoint<C: Connection>(writer: &mut C, mode: Mode) -> Result<Checkpoint> {
    let run = |writer: &mut C, sql| {
        let [busy, frames, moved] = writer.integers(sql)?;
        Ok(Checkpoint::of_columns(busy, frames, moved))
    };
    match mode {
        Mode::Passive => run(writer, "PRAGMA wal_checkpoint(PASSIVE)"),
        Mode::TruncateAtOnce => {
            writer.set_busy_timeout(Duration::ZERO)?;
            let outcome = run(writer, "PRAGMA wal_checkpoint(TRUNCATE)");
            writer.set_busy_timeout(BUSY_TIMEOUT).and(outcome)
        }
    }
}
