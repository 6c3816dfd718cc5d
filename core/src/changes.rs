//! The feed of changes.

use std::pin::Pin;

use futures_core::Stream;

use crate::block::{BlockHash, ChangeKind, EncodedBlock, Serial};
use crate::domain::Timestamp;
use crate::error::{EntityKind, Result};
use crate::state::EntityId;

/// A position in the log: after one commit. The hash covers that commit and all before it, so a store
/// that was put back to an older copy and went on from there has other positions.
///
/// To keep one elsewhere, keep the serial's number and the hash's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogPosition {
    /// The last commit; zero before the first.
    pub serial: Serial,
    /// Its block's hash.
    pub hash: BlockHash,
}

/// What one commit changed, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitChanges {
    /// The commit. Watching again after this serial continues after it, also in another process.
    pub serial: Serial,
    /// Its block's hash.
    pub hash: BlockHash,
    /// The effective time of its commands.
    pub at: Timestamp,
    /// The entities that changed, in order.
    pub changes: Vec<EntityChange>,
}

impl CommitChanges {
    /// The position after this commit, for [`Store::watch_from`](crate::Store::watch_from).
    #[must_use]
    pub fn log_position(&self) -> LogPosition {
        LogPosition { serial: self.serial, hash: self.hash }
    }
}

/// What happened to one entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntityChange {
    /// The kind of entity.
    pub entity: EntityKind,
    /// The identifier of the entity.
    pub handle: EntityId,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// Commits as they become durable, without gaps.
pub type ChangeStream = Pin<Box<dyn Stream<Item = Result<CommitChanges>> + Send>>;

/// What a block changed, without the rows.
pub(crate) fn of_block(encoded: &EncodedBlock) -> Result<CommitChanges> {
    let block = encoded.decode()?;
    let mut changes = Vec::with_capacity(block.changes.len());
    for change in &block.changes {
        if let Some(entity) = change.table.entity() {
            let handle = EntityId::from_key(change.table, &change.key)?;
            changes.push(EntityChange { entity, handle, kind: change.kind });
        }
    }
    Ok(CommitChanges { serial: encoded.serial, hash: encoded.hash, at: block.time, changes })
}
