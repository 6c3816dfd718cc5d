//! Counters for optimistic concurrency.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How often an entity was changed; 1 after its creation. At most `i64::MAX`, so that every
/// database can hold it.
///
/// Passing the revision that was read makes an update conditional: if somebody else changed the
/// entity in between, the update gives `Conflict` and changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Revision(u64);

impl Revision {
    /// The revision of a new entity.
    pub const FIRST: Self = Self(1);

    /// # Errors
    /// `InvalidArgument` above `i64::MAX`.
    pub fn new(value: u64) -> Result<Self> {
        if i64::try_from(value).is_err() {
            return Err(
                Error::invalid("a revision is at most 9223372036854775807").with("revision", value)
            );
        }
        Ok(Self(value))
    }

    /// As a plain integer.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1).min(i64::MAX as u64))
    }
}

impl TryFrom<u64> for Revision {
    type Error = Error;

    fn try_from(value: u64) -> Result<Self> {
        Self::new(value)
    }
}

impl From<Revision> for u64 {
    fn from(revision: Revision) -> Self {
        revision.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
