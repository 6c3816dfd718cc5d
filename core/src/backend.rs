//! What a backend must do: store rows and blocks. Every rule lives above it.

use async_trait::async_trait;

use crate::block::{BlockHash, EncodedBlock, RowChange, Serial};
use crate::domain::{BlockId, StoreId, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::{RowKey, Schema, SchemaVersion, Table};

/// What stores rows and blocks.
///
/// # Promises
/// A backend keeps these, and the conformance suite checks them:
/// - [`commit`](Backend::commit) is all or nothing, also across a crash, and durable when it returns
///   `Ok`, unless [`BackendInfo::durable`] says otherwise.
/// - `commit` succeeds only if the head's serial is [`Commit::expected`]; otherwise it gives
///   `Conflict` and changes nothing.
/// - Of two rows with the same table and key, the later one counts; deleting an absent row is no error.
/// - [`scan`](Backend::scan) sees every commit that returned before it began, and compares keys
///   bytewise.
/// - Bodies and blocks come back byte for byte, up to [`Schema::fit`] for bodies.
///
/// A backend need not be fast at concurrent commits: the writer sends one at a time. `scan`,
/// `blocks` and `head` may be called at any time, also during a commit. Methods may block the
/// calling thread for the duration of a disk write only in `commit`, `migrate`, `reopen` and
/// `close`, which the writer calls on threads of its own. The runtime of those waits for sockets only
/// if the backend is [`shared`](BackendInfo::shared).
///
/// Whatever is on top of another backend is better off as a [`Layer`](crate::layer::Layer), which has
/// the same methods.
#[async_trait]
pub trait Backend: Send + Sync + std::fmt::Debug + 'static {
    /// What it is, for people and dashboards. No answer may change a result.
    fn info(&self) -> BackendInfo;

    /// Where the store stands.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    async fn head(&self) -> Result<Head>;

    /// Brings what is stored from its schema version to `target`, in one atomic step, after
    /// copying the files (where there are any) beside themselves. Does nothing if there is
    /// nothing to do.
    ///
    /// # Errors
    /// `SchemaMismatch`, `Unavailable`, `ReadOnly`.
    async fn migrate(&self, target: Schema) -> Result<()>;

    /// At most `limit` rows of one table, in the order of their keys.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    async fn scan(&self, scan: Scan) -> Result<Vec<Row>>;

    /// At most `limit` blocks after `after`, in order; the first is `after + 1` unless it was
    /// purged.
    ///
    /// # Errors
    /// `Compacted` if `after + 1` was purged, `Unavailable`, `Corrupt`.
    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>>;

    /// Stores everything in `commit`, or nothing.
    ///
    /// # Errors
    /// `Conflict` if the head is not the expected one; `OutcomeUnknown` if it cannot be told
    /// whether the commit was stored; `Unavailable`, `Busy`, `ReadOnly`, `Exhausted` (disk full) if
    /// it surely was not.
    async fn commit(&self, commit: &Commit) -> Result<()>;

    /// Drops and re-establishes connections after a failed commit, and tells where the store
    /// stands, from what is stored: never from memory, and never from what was written and not
    /// synchronised.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    async fn reopen(&self) -> Result<Head>;

    /// Reads everything stored and checks what the engine can check of it.
    ///
    /// # Errors
    /// `Corrupt`, saying where.
    async fn verify(&self) -> Result<()>;

    /// Says that [`Backend::close`] follows as soon as what was accepted is stored. A backend that
    /// locks its files lets another opener wait for that, instead of refusing it at once. Must not
    /// block; does nothing by default.
    fn announce_close(&self) {}

    /// Releases files, locks and connections; all of them are free when it returns. Calls after
    /// that give `Unavailable`.
    ///
    /// # Errors
    /// `Unavailable` if the last bytes could not be written.
    async fn close(&self) -> Result<()>;
}

/// Where a store stands: its last commit, and what is kept of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Identifies the store; drawn when it was made.
    pub store: StoreId,
    /// The last commit's number.
    pub serial: Serial,
    /// The last block's id; all zero before the first.
    pub block: BlockId,
    /// The last block's hash.
    pub hash: BlockHash,
    /// The last block's time.
    pub time: Timestamp,
    /// Up to here the tables are complete; they may hold some of what follows.
    pub checkpoint: Serial,
    /// The oldest block that is still stored; `serial + 1` if none is.
    pub oldest_block: Serial,
    /// The schema of what is stored.
    pub schema: SchemaVersion,
}

impl Head {
    /// Where a new store stands.
    #[must_use]
    pub fn genesis(store: StoreId, schema: Schema) -> Self {
        Self {
            store,
            serial: Serial::ZERO,
            block: BlockId::from_bytes([0; 16]),
            hash: BlockHash::GENESIS,
            time: Timestamp::EPOCH,
            checkpoint: Serial::ZERO,
            oldest_block: Serial::ZERO.next(),
            schema: schema.version(),
        }
    }

    /// The head that `commit` leads to. These are the rules for a commit, for every backend.
    ///
    /// # Errors
    /// `Conflict` if this is not the head that the commit builds on; `InvalidArgument` for a block
    /// that does not follow, or a checkpoint that moves back or beyond the last block.
    pub fn after(mut self, commit: &Commit) -> Result<Self> {
        if commit.expected != self.serial {
            return Err(Error::new(ErrorKind::Conflict, "the store has moved on")
                .with("expected", commit.expected)
                .with("serial", self.serial));
        }
        if let Some(block) = &commit.block {
            if block.serial != self.serial.next() || block.previous != self.hash {
                return Err(Error::invalid("a block does not follow the last one")
                    .with("block", block.serial)
                    .with("serial", self.serial));
            }
            self.serial = block.serial;
            self.block = block.id;
            self.hash = block.hash;
            self.time = block.time;
        }
        if let Some(checkpoint) = commit.checkpoint {
            if checkpoint < self.checkpoint || checkpoint > self.serial {
                return Err(Error::invalid("a checkpoint moves forward, up to the last block")
                    .with("checkpoint", checkpoint)
                    .with("stored", self.checkpoint)
                    .with("serial", self.serial));
            }
            self.checkpoint = checkpoint;
        }
        if let Some(before) = commit.purge_before {
            // A block whose rows are not flushed is the only copy of them.
            self.oldest_block = self.oldest_block.max(before.min(self.checkpoint.next()));
        }
        Ok(self)
    }
}

/// What to store in one step. The default is nothing.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The head's serial that this builds on.
    pub expected: Serial,
    /// The next block, numbered `expected + 1`.
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
}

impl Commit {
    /// Whether it only removes rows of series, or blocks: what makes room on a full disk.
    #[must_use]
    pub fn frees(&self) -> bool {
        self.block.is_none() && self.rows.is_empty()
    }
}

/// The keys `from <= key < to` of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The table of the keys.
    pub table: Table,
    /// First key, inclusive; the empty key is before all others.
    pub from: RowKey,
    /// Last key, exclusive; `None` is after all others.
    pub to: Option<RowKey>,
}

impl KeyRange {
    /// Every key of `table`.
    #[must_use]
    pub fn all(table: Table) -> Self {
        Self { table, from: RowKey::new(), to: None }
    }

    /// Whether a key of its table is in the range.
    #[must_use]
    pub fn contains(&self, key: &RowKey) -> bool {
        *key >= self.from && self.to.as_ref().is_none_or(|to| key < to)
    }
}

/// A page of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The rows to choose from.
    pub range: KeyRange,
    /// Largest key first.
    pub reverse: bool,
    /// How many at most.
    pub limit: usize,
}

/// A stored row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its key, unique in its table.
    pub key: RowKey,
    /// Its columns, encoded.
    pub body: bytes::Bytes,
}

/// What a backend says about itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BackendInfo {
    /// Its name in configuration: `zqlite`, `libsql`, `postgres`, `memory`.
    pub name: &'static str,
    /// What does the storing, for example `embedded (SQLite 3.47.0)`.
    pub engine: String,
    /// Where it stores, without secrets: a path, or a host and database name.
    pub location: Option<String>,
    /// Whether a commit survives the loss of power.
    pub durable: bool,
    /// Whether other processes may write to it at the same time.
    pub shared: bool,
    /// Whether what is stored is encrypted and authenticated.
    pub sealed: bool,
    /// Bytes on disk, where that is known.
    pub bytes: Option<u64>,
    /// Its write-ahead log, if it has one.
    pub log: Option<LogInfo>,
    /// Counted since it was opened.
    pub counters: BackendCounters,
}

/// SQLite's write-ahead log: commits go into it, and later from there into the file. It can be begun
/// anew only while nobody reads an older state of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct LogInfo {
    /// Bytes on disk.
    pub bytes: u64,
    /// For how many commits an open read transaction has kept a log that is too long from being begun
    /// anew; 0 while none does.
    pub held_commits: u64,
    /// How often that began since the store was opened.
    pub held: u64,
    /// Checkpoints that failed since the store was opened.
    pub failed_checkpoints: u64,
    /// When the store was opened the log ended before its last frame: acknowledged commits may be
    /// missing.
    pub ended_early: bool,
    /// Whether that was looked for in its index, too.
    pub index: LogIndex,
}

/// The index that SQLite keeps beside a log, as it was before the store was opened. It alone tells that
/// a log was cut between two commits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogIndex {
    /// There was none.
    #[default]
    Absent,
    /// The log was compared with it.
    Compared,
    /// It was not looked at: another reader has the store open, or it cannot be read.
    Unread,
}

/// The effect of compacting a store's file, in bytes on disk, with what lies beside the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Compacted {
    /// Bytes before.
    pub before: u64,
    /// Bytes after.
    pub after: u64,
}

/// What a backend did since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct BackendCounters {
    /// Commits that were stored, those without a block included.
    pub commits: u64,
    /// Commits refused or failed.
    pub failed_commits: u64,
    /// Blocks that those commits brought.
    pub blocks: u64,
    /// Bytes of those blocks.
    pub block_bytes: u64,
    /// Rows written to tables.
    pub rows: u64,
    /// Calls of `scan` that were answered.
    pub scans: u64,
}

impl BackendCounters {
    /// Counts a commit, which wrote so many rows if it was stored.
    pub fn count(&mut self, commit: &Commit, stored: Option<usize>) {
        let Some(rows) = stored else {
            self.failed_commits += 1;
            return;
        };
        self.commits += 1;
        self.rows += rows as u64;
        if let Some(block) = &commit.block {
            self.blocks += 1;
            self.block_bytes += block.bytes.len() as u64;
        }
    }
}
