//! What a backend must do: store rows and blocks. Every rule lives above it.

mod attestation;
mod commit;
mod head;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::block::{EncodedBlock, Serial};
use crate::error::Result;
use crate::position::{Epoch, Position};
use crate::schema::{RowKey, Schema, Table};

pub use attestation::{Attestation, AttestedState};
pub use commit::{Commit, HeadChange, KeyChange, RecordChange};
pub use head::Head;

/// What stores rows and blocks.
///
/// # Promises
/// A backend keeps these, and the conformance suite checks them:
/// - [`commit`](Backend::commit) is all or nothing, also across a crash, and durable when it returns
///   `Ok`, unless [`BackendInfo::durable`] says otherwise.
/// - `commit` succeeds only if the head's position is [`Commit::expected`] and its epoch
///   [`Commit::epoch`], checked in the transaction that writes; otherwise it gives `Conflict` or `Fenced`
///   and changes nothing.
/// - Of two rows with the same table and key, the later one counts; deleting an absent row is no error.
/// - [`scan`](Backend::scan) sees every commit that returned before it began, compares keys bytewise,
///   and reads rows, position and serial of one moment.
/// - Bodies and blocks come back byte for byte, up to [`Schema::fit`] for bodies.
///
/// A backend need not be fast at concurrent commits: the writer sends one at a time. `scan`,
/// `blocks` and `head` may be called at any time, also during a commit. Methods may block the
/// calling thread for the duration of a disk write only in `commit`, `maintain`, `confirm`, `probe`, `migrate`,
/// `reopen` and `close`, which the writer calls on threads of its own. The runtime of those waits for sockets only
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

    /// Counts what `head`, `reopen` and loading were told by something that may lag behind, as a standby
    /// does. If it is another number after a call than before, what that call told may be old: it is part
    /// of the history all the same. By default nothing lags.
    fn lagging_answers(&self) -> u64 {
        0
    }

    /// Counts what was stored, also what leaves the position as it is: a commit that names it as
    /// [`Commit::revision`] is in conflict if anything was stored since. By default there is none, and
    /// nobody else who could store something.
    ///
    /// # Errors
    /// Those of `head`.
    async fn revision(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Brings what is stored from its schema version to `target`, in one atomic step, after
    /// copying the files (where there are any) beside themselves. Does nothing if there is
    /// nothing to do.
    ///
    /// # Errors
    /// `SchemaMismatch`, `Unavailable`, `ReadOnly`.
    async fn migrate(&self, target: Schema) -> Result<()>;

    /// At most `limit` rows of one table, in the order of their keys, and where the store stood when
    /// they were read. Nothing of the read outlives the call: no snapshot, no lock, no cursor.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    async fn scan(&self, scan: Scan) -> Result<ScanPage>;

    /// At most `limit` blocks after `after`, in order; the first is `after + 1` unless it was
    /// purged.
    ///
    /// # Errors
    /// `Compacted` if `after + 1` was purged, `Unavailable`, `Corrupt`.
    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>>;

    /// Waits until somebody else may have committed, and no longer than `at_most`. It may return for no
    /// reason, and does so when it begins to listen: what was committed before that it has not heard of. So
    /// whoever calls it reads the head then. By default it only waits, which is to poll.
    ///
    /// # Errors
    /// `Unavailable` if it cannot listen at present; then the caller does the waiting.
    async fn await_change(&self, at_most: Duration) -> Result<()> {
        tokio::time::sleep(at_most).await;
        Ok(())
    }

    /// Has nobody else commit until the next `commit` of this handle has ended, or
    /// [`end_turn`](Backend::end_turn) is called, or the backend finds that this takes too long; and tells
    /// whether that is so. Whoever then reads what is stored, decides and commits does not come second. By
    /// default there are no turns.
    ///
    /// # Errors
    /// `Busy` if others keep theirs; `Unavailable`. Nothing is stored then, and nobody kept from anything.
    async fn take_turn(&self) -> Result<bool> {
        Ok(false)
    }

    /// Lets others commit again. Does nothing if the turn has ended.
    ///
    /// # Errors
    /// `Unavailable`; the backend then ends it by itself.
    async fn end_turn(&self) -> Result<()> {
        Ok(())
    }

    /// Stores everything in `commit`, or nothing. If the future is dropped the outcome is unknown, and
    /// what it used (a connection, a transaction) is closed, never used again.
    ///
    /// # Errors
    /// `Conflict` if the head is not the expected one; `Fenced` if its epoch is another one;
    /// `OutcomeUnknown` if it cannot be told whether the commit was stored; `Unavailable`, `Busy`,
    /// `ReadOnly`, `Exhausted` (disk full) if it surely was not.
    async fn commit(&self, commit: &Commit) -> Result<()>;

    /// Has every commit that is stored by now noted outside of the store, if it has a pin
    /// ([`BackendInfo::pinned`]). The writer calls it for a commit that is stored before anybody sees it
    /// or is answered, and meanwhile the next one may be stored. Does nothing by default.
    ///
    /// # Errors
    /// `Unavailable` if the pin cannot be moved: the commits stay, and this may be called again.
    /// `Fenced` if it is not where this store left it: another copy of the store runs, and nothing is
    /// answered any more.
    async fn confirm(&self) -> Result<()> {
        Ok(())
    }

    /// Does some of what the backend has to do by itself, such as sealing what is stored under a new key, and
    /// tells whether more is left. The writer calls it while no commit is in flight: between commits now
    /// and then, and when it is idle. It changes neither content nor position, is a durable step of its own
    /// or none, and may be broken off anywhere. Has nothing to do by default.
    ///
    /// # Errors
    /// Those of `commit`: nothing of the step is stored, and a later call takes it up again. After
    /// `OutcomeUnknown` the backend is reopened first.
    async fn maintain(&self, budget: Budget) -> Result<bool> {
        let _ = budget;
        Ok(false)
    }

    /// Proves that a commit in this epoch would be stored now, by what a commit does: it takes the same way
    /// to the same place, and is as durable when this returns. Nothing that is stored changes, nor does the
    /// position. To answer from memory, or from what the last commit came to, is no proof.
    ///
    /// # Errors
    /// Those of `commit`, but for `Conflict`.
    async fn probe(&self, epoch: Epoch) -> Result<()>;

    /// Has an empty store stand where `head` does, without the history that leads there, so that it can
    /// be filled as a copy: [`Head::adopt`] has the rule, and says what is taken over. From then on it is
    /// [`filling`](Head::filling), until a commit ends that.
    ///
    /// # Errors
    /// `Restricted` if the store is not empty, and then it changes nothing; those of `commit`.
    async fn adopt(&self, head: &Head) -> Result<()>;

    /// Drops and re-establishes connections after a failed commit, and tells where the store
    /// stands, from what is stored: never from memory, and never from what was written and not
    /// synchronised.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    async fn reopen(&self) -> Result<Head>;

    /// Reads everything stored and checks what the engine can check of it. Commits go on meanwhile: no
    /// snapshot is held for longer than a page or a structure takes, and none keeps a log from being
    /// begun anew for long.
    ///
    /// # Errors
    /// `Corrupt`, saying where.
    async fn verify(&self) -> Result<()>;

    /// Signs that the store was in this state, which the caller has found to be so. Refuses by default.
    ///
    /// # Errors
    /// `Unsupported` if there are no keys to sign with; `Unavailable`.
    async fn attest(&self, _state: &AttestedState) -> Result<Attestation> {
        Err(attestation::unsigned())
    }

    /// Has this told how long the backend's connections take, from now on; only the first one is. Does
    /// nothing by default, for backends that have none.
    fn observe_connections(&self, observer: Arc<dyn ConnectionObserver>) {
        let _ = observer;
    }

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

/// What one call of [`Backend::maintain`] may cost. A single record may exceed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// How long it may work before it writes.
    pub time: Duration,
    /// How many bytes it may write.
    pub bytes: u64,
}

impl Default for Budget {
    /// 2 ms, 256 KiB.
    fn default() -> Self {
        Self { time: Duration::from_millis(2), bytes: 256 * 1024 }
    }
}

/// How far a sealed store's records are sealed under the newest version of its data key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Resealed {
    /// The version that seals.
    pub version: u32,
    /// Records under it.
    pub records: u64,
    /// All records.
    pub of: u64,
}

impl Resealed {
    /// Whether some are left under older versions.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.records < self.of
    }

    /// The share of them that is done, in percent, rounded down; 100 only once all are.
    #[must_use]
    pub fn percent(&self) -> u64 {
        match self.of {
            0 => 100,
            of => u64::try_from(u128::from(self.records) * 100 / u128::from(of)).unwrap_or(100),
        }
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

/// Rows of one moment, and which moment that was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanPage {
    /// The rows.
    pub rows: Vec<Row>,
    /// The head's position when they were read.
    pub position: Position,
    /// The head's serial when they were read.
    pub serial: Serial,
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
    /// Whether a pin, a mark outside of the store, tells when an older copy of it was put back. Only then
    /// [`Backend::confirm`] has to be called.
    pub pinned: bool,
    /// The fingerprint of the keys that sign what is stored, and what [`Backend::attest`] says; `None` if
    /// nothing does.
    pub signer: Option<String>,
    /// Of a sealed store, how far its records are sealed under the newest key; `None` of any other.
    pub resealed: Option<Resealed>,
    /// Bytes on disk, where that is known.
    pub bytes: Option<u64>,
    /// Its file, if it keeps one.
    pub file: Option<FileInfo>,
    /// The file system that it stores on, where that is known.
    pub filesystem: Option<Filesystem>,
    /// By how many milliseconds its server's clock was ahead of this machine's when it was opened; behind if
    /// negative. `None` if there is no server.
    pub clock_ahead_ms: Option<i64>,
    /// Its connections, if it has some.
    pub pool: Option<PoolInfo>,
    /// Its write-ahead log, if it has one.
    pub log: Option<LogInfo>,
    /// Counted since it was opened.
    pub counters: BackendCounters,
}

/// The connections of a backend, as they are now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PoolInfo {
    /// Those that nobody uses.
    pub idle: u64,
    /// Those that somebody uses.
    pub used: u64,
    /// How many there may be.
    pub max: u64,
    /// How many are kept, however long nobody uses them.
    pub idle_min: u64,
    /// How many are kept at most while nobody uses them.
    pub idle_max: u64,
    /// Who waits for one.
    pub pending: u64,
    /// How often one was waited for in vain since the backend was opened.
    pub timeouts: u64,
}

/// Who is told how long it takes to get and to use a connection. It must not block.
pub trait ConnectionObserver: Send + Sync + std::fmt::Debug {
    /// A new one was made.
    fn created(&self, took: Duration);
    /// Somebody got one, new or not; the time until there was room for it.
    fn waited(&self, took: Duration);
    /// Somebody gave one back.
    fn used(&self, took: Duration);
}

/// The file of a backend that keeps one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileInfo {
    /// Bytes of it that hold nothing, and that later commits use; `None` until they were counted.
    pub free: Option<u64>,
    /// Whether something else was found at its path, or at that of what belongs to it.
    pub displaced: Option<Displaced>,
    /// At which of these that was found first.
    #[serde(default)]
    pub displaced_part: Option<FilePart>,
}

/// One of the files that a store consists of while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilePart {
    /// What is read at the next opening.
    Store,
    /// What was acknowledged and is not in the file yet. Removed, only whoever has it open can still read it.
    Log,
    /// What keeps others away.
    Lock,
}

/// A file that is open was moved, removed or replaced. Others may have written to it or to what took its place, so
/// nothing is written through it any more, also once it is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Displaced {
    /// It is not back: a store that is opened now would be another one, or none.
    Away,
    /// It is back: the store can be closed and opened again.
    Back,
}

/// Room on a file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Filesystem {
    /// Bytes that this process may still write.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

/// SQLite's write-ahead log: commits go into it, and later from there into the file. It can be begun
/// anew only while nobody reads an older state of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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
