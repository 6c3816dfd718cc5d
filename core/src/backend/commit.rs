//! What is stored in one step.

use super::{Head, KeyRange};
use crate::block::{EncodedBlock, RowChange, Serial};
use crate::domain::{CommitId, LineageId};
use crate::migration::Record;
use crate::position::{Epoch, Position};
use crate::schema::Table;
use crate::secrets::KeyCheck;

/// What to store in one step. The default is nothing.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The head's position that this builds on.
    pub expected: Position,
    /// What [`Backend::revision`](super::Backend::revision) said before what this changes was read, if that
    /// is changed without moving the position, as consumers are. `None` if the position says enough.
    pub revision: Option<u64>,
    /// The head's epoch, in which whoever sends this may write.
    pub epoch: Epoch,
    /// The id of a commit that has no block and changes content all the same: rows of series, or the
    /// coming and going of a consumer. `None` if it only flushes, purges blocks, moves a consumer or changes the head.
    pub entry: Option<CommitId>,
    /// The next block, numbered as the one after the head's.
    pub block: Option<EncodedBlock>,
    /// Rows to write: dirty rows that are flushed, and rows of series. If one key occurs twice, the later
    /// one counts.
    pub rows: Vec<RowChange>,
    /// Ranges of series rows to delete, before `rows` are written.
    pub prune: Vec<KeyRange>,
    /// The new checkpoint.
    pub checkpoint: Option<Serial>,
    /// Blocks before this one may be dropped.
    pub purge_before: Option<Serial>,
    /// What else changes of the head.
    pub head: HeadChange,
}

/// What a commit changes of the head beside where the store stands. The default is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeadChange {
    /// A later epoch: whoever writes in an earlier one is fenced from then on.
    pub epoch: Option<Epoch>,
    /// A new history.
    pub lineage: Option<LineageId>,
    /// The key that credentials are hashed with.
    pub credential_key: Option<KeyChange>,
    /// The copy is complete.
    pub filled: bool,
    /// Another part in the network.
    pub record: Option<RecordChange>,
}

/// That the database says something else of its part in the network from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordChange {
    /// What it must say so far; else the commit is in conflict.
    pub before: Record,
    /// What it says then.
    pub after: Record,
}

/// That credentials are hashed with another key from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyChange {
    /// What the head must say of the key so far; else the commit is in conflict.
    pub before: Option<KeyCheck>,
    /// What it says then.
    pub after: KeyCheck,
}

impl Commit {
    /// One that builds on `head` and does nothing yet.
    #[must_use]
    pub fn on(head: &Head) -> Self {
        Self { expected: head.position, epoch: head.epoch, ..Self::default() }
    }

    /// The id, if it changes content: that of the block, where it has one.
    #[must_use]
    pub fn id(&self) -> Option<CommitId> {
        let of_block = |block: &EncodedBlock| CommitId::from_bytes(*block.id.as_bytes());
        self.block.as_ref().map(of_block).or(self.entry)
    }

    /// Whether it only removes rows of series, or blocks, and keeps the books on that: what makes room on
    /// a full disk.
    #[must_use]
    pub fn frees(&self) -> bool {
        let keeps_books = |row: &RowChange| {
            !self.prune.is_empty() && matches!(row.table, Table::Feed | Table::Consumers)
        };
        self.block.is_none() && self.rows.iter().all(keeps_books)
    }
}
