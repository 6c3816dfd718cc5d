//! The numbers of ABI 1.0.0.

use std::fmt;

mod numbers {
    pub(crate) const OK: i32 = 0;
    pub(crate) const ERROR: i32 = 1;
    pub(crate) const BUSY: i32 = 5;
    pub(crate) const LOCKED: i32 = 6;
    pub(crate) const NOMEM: i32 = 7;
    pub(crate) const READONLY: i32 = 8;
    pub(crate) const INTERRUPT: i32 = 9;
    pub(crate) const IOERR: i32 = 10;
    pub(crate) const CORRUPT: i32 = 11;
    pub(crate) const CONSTRAINT: i32 = 19;
    pub(crate) const MISMATCH: i32 = 20;
    pub(crate) const MISUSE: i32 = 21;
    pub(crate) const NOLFS: i32 = 22;
    pub(crate) const AUTH: i32 = 23;
    pub(crate) const FORMAT: i32 = 24;
    pub(crate) const RANGE: i32 = 25;
    pub(crate) const NOTADB: i32 = 26;
    pub(crate) const ROW: i32 = 100;
    pub(crate) const DONE: i32 = 101;
}
pub(crate) use numbers::*;

/// Of columns.
pub(crate) mod types {
    pub(crate) const INTEGER: i32 = 1;
    pub(crate) const REAL: i32 = 2;
    pub(crate) const TEXT: i32 = 3;
    pub(crate) const BLOB: i32 = 4;
    pub(crate) const NULL: i32 = 5;
}

const KNOWN: [(i32, &str); 19] = [
    (OK, "OK"),
    (ERROR, "ERROR"),
    (BUSY, "BUSY"),
    (LOCKED, "LOCKED"),
    (NOMEM, "NOMEM"),
    (READONLY, "READONLY"),
    (INTERRUPT, "INTERRUPT"),
    (IOERR, "IOERR"),
    (CORRUPT, "CORRUPT"),
    (CONSTRAINT, "CONSTRAINT"),
    (MISMATCH, "MISMATCH"),
    (MISUSE, "MISUSE"),
    (NOLFS, "NOLFS"),
    (AUTH, "AUTH"),
    (FORMAT, "FORMAT"),
    (RANGE, "RANGE"),
    (NOTADB, "NOTADB"),
    (ROW, "ROW"),
    (DONE, "DONE"),
];

/// What the header calls a code; `None` if ABI 1.0.0 has no such code.
#[must_use]
pub fn code_name(code: i32) -> Option<&'static str> {
    KNOWN.into_iter().find(|(known, _)| *known == code).map(|(_, name)| name)
}

/// What an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Category {
    /// There is no error, or the library kept none.
    None,
    /// A statement that the library does not understand or cannot run.
    Sql,
    /// A constraint of a table.
    Constraint,
    /// The file system, a full disk included.
    Io,
    /// A call at the wrong time or with wrong arguments; another holder of the file, too.
    Misuse,
    /// No memory.
    Memory,
    /// Access.
    Authorization,
    /// The file is none of the library's, or damaged.
    Format,
    /// Any other.
    Unknown,
}

impl Category {
    /// By its number.
    #[must_use]
    pub fn of(number: i32) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Sql,
            2 => Self::Constraint,
            3 => Self::Io,
            4 => Self::Misuse,
            5 => Self::Memory,
            6 => Self::Authorization,
            7 => Self::Format,
            _ => Self::Unknown,
        }
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Self::None => 0,
            Self::Sql => 1,
            Self::Constraint => 2,
            Self::Io => 3,
            Self::Misuse => 4,
            Self::Memory => 5,
            Self::Authorization => 6,
            Self::Format => 7,
            Self::Unknown => 255,
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Sql => "sql",
            Self::Constraint => "constraint",
            Self::Io => "io",
            Self::Misuse => "misuse",
            Self::Memory => "memory",
            Self::Authorization => "authorization",
            Self::Format => "format",
            Self::Unknown => "unknown",
        })
    }
}
