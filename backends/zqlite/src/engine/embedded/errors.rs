//! Errors of SQLite, as kinds that say what to do.

use ghostwire_store_core::error::{Error, ErrorKind};
use rusqlite::ErrorCode;

pub(super) fn unreadable(error: rusqlite::Error) -> Error {
    failed("the store cannot be read", error)
}

/// An error of SQLite, as the kind that says what to do.
pub(super) fn failed(what: &'static str, error: rusqlite::Error) -> Error {
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

pub(super) fn read_only() -> Error {
    Error::new(ErrorKind::ReadOnly, "the store was opened to be read only")
}
