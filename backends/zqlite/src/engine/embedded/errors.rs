//! Errors of SQLite, as kinds that say what to do.

use ghostwire_store_core::error::{Error, ErrorKind};
use ghostwire_store_sqlite::sqlite_error;

pub(super) fn unreadable(error: rusqlite::Error) -> Error {
    failed("the store cannot be read", error)
}

pub(super) fn unusable(error: rusqlite::Error) -> Error {
    failed("the store's file cannot be used", error)
}

/// An error of SQLite, as the kind that says what to do.
pub(super) fn failed(what: &'static str, error: rusqlite::Error) -> Error {
    use rusqlite::Error as Sqlite;
    if let Some(code) = error.sqlite_error().map(|failure| failure.extended_code) {
        return sqlite_error(what, code, error);
    }
    let kind = match error {
        Sqlite::FromSqlConversionFailure(..)
        | Sqlite::IntegralValueOutOfRange(..)
        | Sqlite::Utf8Error(..)
        | Sqlite::QueryReturnedNoRows
        | Sqlite::InvalidColumnType(..) => ErrorKind::Corrupt,
        _ => ErrorKind::Unexpected,
    };
    Error::new(kind, what).because(error)
}
