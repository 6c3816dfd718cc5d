//! sqlx's errors as the store's. Of what a server says only the code, the table and the constraint are
//! kept: its texts may have values of rows in them.

use std::io;

use ghostwire_store_core::error::{Error, ErrorKind};
use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

use crate::sqlstate::{During, Verdict, judge};

/// How a statement failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) verdict: Verdict,
    pub(crate) error: Error,
}

impl Failure {
    /// Reads an error of sqlx.
    pub(crate) fn of(error: &sqlx::Error, during: During) -> Self {
        match error {
            sqlx::Error::Database(found) => Self::of_server(found.as_ref(), during),
            sqlx::Error::PoolTimedOut => Self::refused(
                ErrorKind::Unavailable,
                "no connection to the database was to be had in time: the server does not answer, or all \
                 connections are in use",
            ),
            sqlx::Error::PoolClosed => Self::refused(ErrorKind::Unavailable, "the store is closed"),
            sqlx::Error::Tls(_) => Self::untrusted(),
            // What the client's TLS finds wrong; the text is its own.
            sqlx::Error::Io(cause)
                if during == During::Connecting && cause.kind() == io::ErrorKind::InvalidData =>
            {
                let Self { verdict, error } = Self::untrusted();
                Self { verdict, error: error.because(cause.to_string()) }
            }
            sqlx::Error::Io(cause) => Self::lost(during, Some(cause.kind())),
            sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) => Self::refused(
                ErrorKind::Exhausted,
                "a value is too large for the database's protocol",
            ),
            sqlx::Error::Configuration(_) => Self::refused(
                ErrorKind::InvalidArgument,
                "the settings of the connection cannot be used: a certificate cannot be read",
            ),
            _ => Self::lost(during, None),
        }
    }

    fn of_server(found: &dyn DatabaseError, during: During) -> Self {
        let code = found.code().unwrap_or_default();
        let severity = found.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::severity);
        let verdict = judge(severity, &code, during);
        let (kind, message) = match &verdict {
            Verdict::Refused(kind, message) => (kind.clone(), *message),
            Verdict::Again => {
                (ErrorKind::Busy, "others kept the transaction from being serialized")
            }
            Verdict::Reprepare => {
                (ErrorKind::Unavailable, "the server does not have a statement that was prepared")
            }
            Verdict::Unknown => return Self::unknown(Some(&code)),
        };
        let mut error = Error::new(kind, message).with("sqlstate", &code);
        if let Some(found) = found.try_downcast_ref::<PgDatabaseError>() {
            for (key, value) in [("table", found.table()), ("constraint", found.constraint())] {
                if let Some(value) = value {
                    error = error.with(key, value);
                }
            }
        }
        Self { verdict, error }
    }

    fn refused(kind: ErrorKind, message: &'static str) -> Self {
        Self { verdict: Verdict::Refused(kind.clone(), message), error: Error::new(kind, message) }
    }

    fn untrusted() -> Self {
        Self::refused(
            ErrorKind::Unavailable,
            "the server has no TLS, or its certificate is not one that is trusted for its host; name the \
             file of its authority as `root_certificate`",
        )
    }

    fn unknown(code: Option<&str>) -> Self {
        let error = Error::new(
            ErrorKind::OutcomeUnknown,
            "the connection to the database was lost during a commit",
        );
        let error = match code {
            Some(code) => error.with("sqlstate", code),
            None => error,
        };
        Self { verdict: Verdict::Unknown, error }
    }

    /// The connection broke, or what came over it is no answer.
    fn lost(during: During, cause: Option<io::ErrorKind>) -> Self {
        let failure = match during {
            During::Commit => Self::unknown(None),
            During::Connecting => {
                Self::refused(ErrorKind::Unavailable, "the database cannot be reached")
            }
            During::Read => {
                Self::refused(ErrorKind::Unavailable, "the connection to the database was lost")
            }
        };
        match cause {
            Some(cause) => Self { error: failure.error.because(cause.to_string()), ..failure },
            None => failure,
        }
    }
}

/// An error of a statement that only reads.
pub(crate) fn in_read(error: &sqlx::Error) -> Error {
    Failure::of(error, During::Read).error
}

/// An error of making a connection.
pub(crate) fn in_connecting(error: &sqlx::Error) -> Error {
    Failure::of(error, During::Connecting).error
}

#[cfg(test)]
mod on_a_server;
