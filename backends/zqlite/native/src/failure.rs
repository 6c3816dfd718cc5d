//! What can go wrong with the library.

use std::fmt;

use ghostwire_store_core::error::{Error, ErrorKind};

use crate::codes::{
    AUTH, BUSY, CORRUPT, Category, FORMAT, IOERR, LOCKED, NOMEM, NOTADB, READONLY, code_name,
};

/// Why a library is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError {
    /// The system does not load it.
    NotLoaded(String),
    /// It is another library.
    OtherLibrary,
    /// It is ZQLite from before it had a stable interface.
    BeforeAbi,
    /// It has another interface, of this number.
    OtherAbi(i32),
    /// Its interface lacks this function.
    Missing(&'static str),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLoaded(why) => write!(f, "the system does not load it: {why}"),
            Self::OtherLibrary => f.write_str("it is not ZQLite: it has no zqlite_open"),
            Self::BeforeAbi => f.write_str(
                "it has no zqlite_abi_version: it is from before ABI 1.0.0, which came with ZQLite 1.6.8",
            ),
            Self::OtherAbi(found) => {
                write!(f, "its interface has the number {found}; 1.x is needed, 10000 to 19999")
            }
            Self::Missing(name) => write!(f, "it says that it has ABI 1.x, and lacks {name}"),
        }
    }
}

impl std::error::Error for LoadError {}

/// The longest message that is kept of the library's.
const MESSAGE: usize = 200;

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was called.
    pub operation: &'static str,
    /// The result of the call or, where that says nothing, the connection's code.
    pub code: i32,
    /// The connection's category.
    pub category: Category,
    /// The connection's message: printable characters, and not too many.
    pub message: String,
}

impl Failure {
    pub(crate) fn new(
        operation: &'static str,
        code: i32,
        category: Category,
        message: &str,
    ) -> Self {
        Self { operation, code, category, message: printable(message) }
    }

    /// As an error of the store; `what` failed.
    #[must_use]
    pub fn into_error(self, what: &'static str) -> Error {
        let (kind, advice) = match self.code {
            BUSY | LOCKED => (ErrorKind::Busy, "; another process holds the file, end it"),
            NOMEM => (ErrorKind::Unavailable, "; memory ran out"),
            READONLY => (ErrorKind::ReadOnly, "; the file may only be read"),
            AUTH => (ErrorKind::PermissionDenied, ""),
            CORRUPT | FORMAT | NOTADB => {
                (ErrorKind::Corrupt, "; the file is damaged, restore it from a backup")
            }
            IOERR => (ErrorKind::Unavailable, "; look for room and faults on the disk"),
            _ => (ErrorKind::Unavailable, ""),
        };
        Error::new(kind, format!("{what}{advice}")).because(self)
    }
}

fn printable(message: &str) -> String {
    message.chars().take(MESSAGE).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, code, category, message } = self;
        let name = code_name(*code).unwrap_or("no code of ABI 1.0.0");
        write!(f, "{operation} of the ZQLite library gave {code} ({name}, {category})")?;
        if message.is_empty() { Ok(()) } else { write!(f, ": {message}") }
    }
}

impl std::error::Error for Failure {}
