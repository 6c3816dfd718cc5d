//! Blocks: what one durable commit holds. The unit of replication, of `watch` and of recovery.

use std::fmt;

use bytes::Bytes;

use crate::domain::{AuditEntry, BlockId, Timestamp};
use crate::schema::{Record, RowKey, Table};

pub use super::encoding::{BlockBuilder, ClosedBlock, EncodedBlock, MAX_BLOCK, Sizes};

crate::position::count! {
    /// A block's number: 0 is the empty store, then 1, 2, 3 without gaps. At most `i64::MAX`.
    Serial, "Before the first block."
}

/// A block's SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockHash([u8; 32]);

impl BlockHash {
    /// What the first block names as its predecessor.
    pub const GENESIS: Self = Self([0; 32]);

    /// The hash with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockHash({self})")
    }
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Created,
    /// It replaced an older one.
    Updated,
    /// It is gone.
    Deleted,
}

/// A row's image after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// The table of the row.
    pub table: Table,
    /// What happened to it.
    pub kind: ChangeKind,
    /// The key, by whose bytes rows are ordered.
    pub key: RowKey,
    /// Its new body; `None` if and only if it is gone.
    pub body: Option<Bytes>,
}

impl RowChange {
    /// That `record` was created or updated.
    pub(crate) fn put<R: Record>(kind: ChangeKind, record: &R) -> Self {
        Self { table: R::SCHEMA.table, kind, key: record.key(), body: Some(record.encode()) }
    }
}

/// What one commit holds, readable.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// The number of its commit.
    pub serial: Serial,
    /// Unique; tells an identical block from a different one with the same serial.
    pub id: BlockId,
    /// The hash of the block before it.
    pub previous: BlockHash,
    /// The effective time of its commands; before that of the previous block only if it repairs what
    /// a clock that was ahead has written.
    pub time: Timestamp,
    /// The schema version of its rows.
    pub schema: u32,
    /// The rows that changed, in the order in which they did.
    pub changes: Vec<RowChange>,
    /// Who did what; `None` if retention erased it.
    pub audit: Option<Vec<AuditEntry>>,
}
