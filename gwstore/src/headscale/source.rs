//! Opening what the user names: Headscale's SQLite file, or a dump of it as SQL.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_sqlite::FileKind;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::budget::{Budget, cannot_prepare};
use super::dump;
use crate::failure::input_error;

/// The largest file that is read: 1 GiB, some millions of nodes.
const MAX_FILE: u64 = 1 << 30;

/// What kind of file it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// Headscale's database file.
    Database,
    /// What `sqlite3 db.sqlite .dump` prints.
    Dump,
}

/// A file that can be read, and nothing else.
pub(super) struct Source {
    pub(super) connection: Connection,
    pub(super) kind: SourceKind,
    /// Whether changes may be in a log that is not there.
    pub(super) keeps_log: bool,
}

/// Opens the file so that nothing in it, and nothing that reads it, can change anything.
pub(super) fn open(path: &Path) -> Result<Source> {
    inspect(path).map_err(|error| error.with("file", path.display()))
}

fn inspect(path: &Path) -> Result<Source> {
    if path.as_os_str() == "-" {
        let message = "standard input is not read here: a database is read more than once";
        return Err(Error::invalid(message).with("help", "write it to a file, and name that"));
    }
    let metadata = std::fs::metadata(path).map_err(cannot_open)?;
    if metadata.is_dir() {
        return Err(Error::invalid("a directory; name the database file or the dump in it"));
    }
    if !metadata.is_file() {
        return Err(Error::invalid("neither a SQLite file nor an SQL dump, but a device or pipe"));
    }
    let length = metadata.len();
    if length == 0 {
        let help = "of a database with a write-ahead log all may be in its `-wal`, which has to be \
                    copied with it";
        return Err(Error::invalid("the file is empty").with("help", help));
    }
    if length > MAX_FILE {
        return Err(Error::invalid("the file is too large for a Headscale database")
            .with("bytes", length)
            .with("limit", MAX_FILE));
    }
    let mut file = File::open(path).map_err(cannot_open)?;
    let mut start = Vec::new();
    let mut read =
        |limit: u64, to: &mut Vec<u8>| (&mut file).take(limit).read_to_end(to).map_err(cannot_open);
    read(100, &mut start)?;
    if start.starts_with(b"SQLite format 3\0") {
        if is_own(&start) {
            return Err(own_store());
        }
        check_header(&start, length)?;
        let keeps_log = start.get(18..20) == Some(&[2_u8, 2][..]);
        let connection = open_database(path, length)?;
        return Ok(Source { connection, kind: SourceKind::Database, keeps_log });
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
    let budget = Budget::of(length);
    budget.impose(&connection)?;
    dump::execute(&connection, start, &budget)?;
    seal(&connection)?;
    Ok(Source { connection, kind: SourceKind::Dump, keeps_log: false })
}

fn cannot_open(error: std::io::Error) -> Error {
    input_error("the file cannot be read", None, error)
}

/// Whether the header says that a backend made the file. With a log beside it, it cannot be opened here.
fn is_own(header: &[u8]) -> bool {
    let Some(id) = header.get(68..72) else { return false };
    FileKind::ALL.iter().any(|kind| id == kind.application_id.to_be_bytes())
}

pub(super) fn own_store() -> Error {
    let message = "this is a store of gwstore's own, not a database of Headscale";
    Error::new(ErrorKind::Unsupported, message)
        .with("help", "`gwstore export` and `gwstore import portable` move one to another")
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
        let has_changes = match std::fs::metadata(PathBuf::from(beside)) {
            Ok(beside) => beside.len() > 0,
            // One that cannot be looked up may have some.
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        };
        if has_changes {
            return Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "the database has a {what} beside it, whose changes would be missed: stop \
                     Headscale, then run `sqlite3 FILE .dump > dump.sql` and import the dump"
                ),
            ));
        }
    }
    let absolute = path.canonicalize().map_err(cannot_open)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(immutable_uri(&absolute), flags)
        .map_err(|_| Error::corrupt("SQLite cannot open the file"))?;
    let budget = Budget::of(length);
    budget.impose(&connection)?;
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => budget.too_much_work(),
            Some(ErrorCode::OutOfMemory | ErrorCode::TooBig) => budget.too_much_memory(),
            _ => Error::corrupt("the SQLite file is damaged"),
        })?;
    if verdict != "ok" {
        let help = "`sqlite3 FILE .recover > dump.sql` saves what can be saved; import that dump";
        return Err(Error::corrupt("the SQLite file is damaged").with("help", help));
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
