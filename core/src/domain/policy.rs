//! Access policies: versioned documents.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::deserialize_stored;
use super::{ActorName, DocumentText, Timestamp};
use crate::error::{Error, Result};

/// A policy's version: 1, 2, 3, without gaps at the top end. At most `i64::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct PolicyVersion(u64);

impl PolicyVersion {
    /// The first version.
    pub const FIRST: Self = Self(1);

    /// # Errors
    /// `InvalidArgument` for 0 and above `i64::MAX`.
    pub fn new(value: u64) -> Result<Self> {
        if value == 0 || i64::try_from(value).is_err() {
            return Err(Error::invalid("a policy version is 1 to 9223372036854775807")
                .with("version", value));
        }
        Ok(Self(value))
    }

    /// As a plain integer.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for PolicyVersion {
    type Error = Error;

    fn try_from(value: u64) -> Result<Self> {
        Self::new(value)
    }
}

impl From<PolicyVersion> for u64 {
    fn from(version: PolicyVersion) -> Self {
        version.0
    }
}

impl fmt::Display for PolicyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One version of the access policy. The newest one is in force.
///
/// An empty document is a policy that denies everything; having no policy at all is a different
/// thing, and what to do then is the control plane's decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its number; versions count from 1.
    pub version: PolicyVersion,
    /// The policy as it was written, byte for byte.
    pub document: DocumentText,
    /// Who put it in force.
    #[serde(deserialize_with = "deserialize_stored")]
    pub author: ActorName,
    /// When it was put in force.
    pub created_at: Timestamp,
}
