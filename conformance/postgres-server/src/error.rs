//! What goes wrong.

use std::fmt;

/// What went wrong, where, and what to do about it: a sentence for whoever runs the tests.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// What was tried, before what came of it.
    pub(crate) fn of(tried: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self(format!("{tried}: {error}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

// A test that fails by `unwrap` shows this one.
impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
