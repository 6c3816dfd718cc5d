//! Opening what the user names: Headscale's SQLite file, or a dump of it as SQL.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use super::dump;

/// The largest file that is read: 1 GiB, some millions of nodes.
const MAX_FILE: u64 = 1 << 30;

/// The longest text, row or statement: 16 MiB, four times the longest policy. None is longer than its
/// file, but a short dump still needs some room.
const MAX_TEXT: u64 = 16 << 20;
const MIN_TEXT: u64 = 1 << 20;

/// A dump makes a database of about its own size; this many bytes, and four times as many as it has.
const LEAST_ROOM: u64 = 16 << 20;
const PAGE: u64 = 4096;

/// A hundred times what a large file takes on a slow machine: so long, and a second more for each MiB.
const PATIENCE: Duration = Duration::from_secs(60);

/// What kind of file it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// Headscale's database file.
    Database,
    /// What `sqlite3 db.sqlite .dump` prints.
    Dump,
}

/// Opens the file so that nothing in it, and nothing that reads it, can change anything.
pub(super) fn open(path: &Path) -> Result<(Connection, SourceKind)> {
    inspect(path).map_err(|error| error.with("file", path.display()))
}

fn inspect(path: &Path) -> Result<(Connection, SourceKind)> {
    let metadata = std::fs::metadata(path).map_err(|error| cannot_open(&error))?;
    if metadata.is_dir() {
        return Err(Error::invalid("a directory; name the database file or the dump in it"));
    }
    if !metadata.is_file() {
        return Err(Error::invalid("neither a SQLite file nor an SQL dump, but a device or pipe"));
    }
    let length = metadata.len();
    if length == 0 {
        return Err(Error::invalid("the file is empty"));
    }
    if length > MAX_FILE {
        return Err(Error::invalid("the file is too large for a Headscale database")
            .with("bytes", length)
            .with("limit", MAX_FILE));
    }
    let mut file = File::open(path).map_err(|error| cannot_open(&error))?;
    let mut start = Vec::new();
    let mut read = |limit: u64, to: &mut Vec<u8>| {
        (&mut file).take(limit).read_to_end(to).map_err(|error| cannot_open(&error))
    };
    read(100, &mut start)?;
    if start.starts_with(b"SQLite format 3\0") {
        check_header(&start, length)?;
        return Ok((open_database(path, length)?, SourceKind::Database));
    }
    for (magic, what) in [
        (&b"SQLite"[..], "a damaged SQLite file"),
        (b"\x1f\x8b", "a gzip archive; unpack it first"),
        (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first"),
        (b"PK\x03\x04", "a zip archive; unpack it first"),
        (b"PGDMP", "a PostgreSQL dump; only Headscale on SQLite can be imported"),
        (b"{\"ghostwire_store\"", "the portable form of a store; import it as that"),
    ] {
        if start.starts_with(magic) {
            return Err(Error::new(ErrorKind::Unsupported, format!("this is {what}")));
        }
    }
    read(MAX_FILE, &mut start)?;
    let connection = Connection::open_in_memory().map_err(|_| cannot_prepare())?;
    let deadline = prepare(&connection, length)?;
    dump::execute(&connection, start, deadline)?;
    seal(&connection)?;
    Ok((connection, SourceKind::Dump))
}

fn cannot_open(error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, "the file cannot be read").with("reason", error.kind())
}

fn cannot_prepare() -> Error {
    Error::new(ErrorKind::Unexpected, "SQLite cannot be set up for reading")
}

/// Finds a file that was cut off before SQLite stumbles over it.
fn check_header(start: &[u8], length: u64) -> Result<()> {
    let number = |at: usize| -> Option<u64> {
        let bytes = start.get(at..at.checked_add(4)?)?;
        Some(u64::from(u32::from_be_bytes(bytes.try_into().ok()?)))
    };
    let truncated = || Error::corrupt("the SQLite file was cut off").with("bytes", length);
    let page = number(14).ok_or_else(truncated)? & 0xffff;
    let page = if page == 1 { 65_536 } else { page };
    let (changes, pages) = (number(24).ok_or_else(truncated)?, number(28));
    // The count of pages is only good if the writer was new enough to keep it.
    let good = number(92).ok_or_else(truncated)? == changes;
    let wanted = pages.unwrap_or(0).saturating_mul(page);
    if good && wanted > length {
        return Err(truncated().with("expected_bytes", wanted));
    }
    Ok(())
}

fn open_database(path: &Path, length: u64) -> Result<Connection> {
    for (suffix, what) in [("-wal", "write-ahead log"), ("-journal", "rollback journal")] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        if std::fs::metadata(PathBuf::from(beside)).is_ok_and(|beside| beside.len() > 0) {
            return Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "the database has a {what} beside it, whose changes would be missed: stop \
                     Headscale, then run `sqlite3 FILE .dump > dump.sql` and import the dump"
                ),
            ));
        }
    }
    let absolute = path.canonicalize().map_err(|error| cannot_open(&error))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(immutable_uri(&absolute), flags)
        .map_err(|_| Error::corrupt("SQLite cannot open the file"))?;
    prepare(&connection, length)?;
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|_| Error::corrupt("the SQLite file is damaged"))?;
    if verdict != "ok" {
        return Err(Error::corrupt("the SQLite file is damaged; `sqlite3 FILE .recover` may help"));
    }
    seal(&connection)?;
    Ok(connection)
}

/// `file:` and the path, percent-encoded. An immutable file is read without locks and without
/// files beside it, so that it may lie on a medium that cannot be written.
fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri.push_str("?mode=ro&immutable=1");
    uri
}

/// Limits what SQL can cost, in proportion to the file. Steps are counted, so that the outcome is
/// always the same; but a step may take long, so there is an end to that, too, which is told.
fn prepare(connection: &Connection, length: u64) -> Result<Instant> {
    let longest = i32::try_from(length.clamp(MIN_TEXT, MAX_TEXT)).unwrap_or(i32::MAX);
    for (limit, value) in [
        (Limit::SQLITE_LIMIT_LENGTH, longest),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, longest),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 50),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
        (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 0),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        connection.set_limit(limit, value);
    }
    let pages = (length.saturating_mul(4) + LEAST_ROOM) / PAGE;
    connection
        .execute_batch(&format!(
            "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0;
             PRAGMA ignore_check_constraints = ON;
             PRAGMA temp_store = MEMORY; PRAGMA max_page_count = {pages};"
        ))
        .map_err(|_| cannot_prepare())?;
    let deadline = Instant::now() + PATIENCE + Duration::from_secs(length >> 20);
    const STEP: u64 = 10_000;
    let mut left = (100_000_000 + length.saturating_mul(20)) / STEP;
    let spend = move || {
        left = left.saturating_sub(1);
        left == 0 || Instant::now() > deadline
    };
    connection.progress_handler(10_000, Some(spend));
    Ok(deadline)
}

/// From here on tables can be read, and nothing else happens.
fn seal(connection: &Connection) -> Result<()> {
    connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>);
    // Reading a computed column runs whatever its table's maker wrote there.
    let computed = "SELECT count(*) FROM sqlite_master AS t, pragma_table_xinfo(t.name) AS c \
                    WHERE t.type = 'table' AND t.rootpage > 0 AND c.hidden IN (2, 3)";
    let computed: i64 = connection
        .query_row(computed, [], |row| row.get(0))
        .map_err(|_| Error::corrupt("the tables of the database cannot be read"))?;
    if computed > 0 {
        return Err(Error::invalid(
            "not a database of Headscale: a table has a column that is computed",
        ));
    }
    connection.authorizer(Some(only_reading));
    Ok(())
}

/// Plain reading of tables, and nothing that a schema could hide in them.
fn only_reading(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } => Authorization::Allow,
        _ => Authorization::Deny,
    }
}
