//! What a store is opened with.

use std::sync::Arc;
use std::time::Duration;

use crate::attest::AttestationOptions;
use crate::block::MAX_BLOCK;
use crate::domain::{Actor, Clock, SystemClock};
use crate::entropy::{Entropy, SystemEntropy};
use crate::health::LoadProgress;
use crate::keys::KeyManager;
use crate::layer::Deadlines;
use crate::migration::Seat;
use crate::observe::Recorder;
use crate::secrets::HashKeys;
use crate::store::Companion;

/// When row changes reach the backend's tables. Both give the same state; blocks are durable at
/// once either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Materialize {
    /// With every commit, for those who read the tables with other tools: write-through.
    Commit,
    /// In the background, many changes of a row as one: write-back.
    #[default]
    Checkpoint,
}

/// Limits of the writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterOptions {
    /// Writes that may wait in the queue; 1 to 1,000,000.
    pub queue_capacity: usize,
    /// Bytes that writes may own from when they are accepted until they are answered; 1 to 2^40.
    /// Writes of up to 4 KiB are bounded by their number alone, and one that owns more than all of
    /// these bytes waits until it is the only one.
    pub queue_bytes: u64,
    /// How long a write waits for room in the queue, and the check of an imported key for its turn,
    /// before it gives `Busy`.
    pub queue_timeout: Duration,
    /// Writes that share one commit at most; 1 to 65,536.
    pub max_group: usize,
    /// Dirty rows that may wait to be flushed; beyond it, flushing takes precedence over writes.
    pub max_dirty_rows: usize,
    /// Bytes of blocks that are kept for `watch` once their rows are flushed.
    pub retain_block_bytes: u64,
    /// How long the queue must be empty before the writer flushes.
    pub idle_before_flush: Duration,
    /// The longest block, in bytes: 65,536 to [`MAX_BLOCK`], which is the default. Less is for tests
    /// and for consumers of blocks that cannot take as much. A call over many entities makes
    /// commits of a quarter of it, at most of 16 MiB.
    pub max_block_bytes: usize,
}

impl WriterOptions {
    /// A block that has grown beyond this many bytes takes no further commands, and a command over
    /// many entities ends its part there.
    pub(crate) fn full_block(&self) -> usize {
        const FULL_BLOCK: usize = 16 * 1024 * 1024;
        FULL_BLOCK.min(self.max_block_bytes / 4)
    }
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            queue_capacity: 4096,
            queue_bytes: 256 * 1024 * 1024,
            queue_timeout: Duration::from_secs(5),
            max_group: 1024,
            max_dirty_rows: 65_536,
            retain_block_bytes: 64 * 1024 * 1024,
            idle_before_flush: Duration::from_millis(50),
            max_block_bytes: MAX_BLOCK,
        }
    }
}

/// How far the clock may be ahead of what was known of it, before it is taken for wrong. A clock
/// that is behind is never refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockOptions {
    /// While a store is open: ahead of the last reading and the time that has passed since.
    pub max_step: Duration,
    /// When a store is opened to be written: ahead of the time of its last commit.
    pub max_gap: Duration,
    /// Opens the store whatever the clock says.
    pub accept: bool,
}

impl Default for ClockOptions {
    fn default() -> Self {
        Self {
            max_step: Duration::from_secs(3600),
            max_gap: Duration::from_secs(30 * 86_400),
            accept: false,
        }
    }
}

/// How a store is probed for [`Store::check_health`](crate::Store::check_health).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthOptions {
    /// A probe counts for so long: a scrape every second is not to be a synchronisation of the disk every
    /// second.
    pub probe_interval: Duration,
    /// Whoever asks waits no longer. A probe that takes longer goes on, and until it ends the store counts
    /// as not writable.
    pub probe_deadline: Duration,
}

impl Default for HealthOptions {
    fn default() -> Self {
        Self { probe_interval: Duration::from_secs(5), probe_deadline: Duration::from_secs(2) }
    }
}

/// What a store is opened with besides its backend. The store takes nothing from its environment by
/// itself: clock and random numbers are handed in.
#[derive(Clone)]
pub struct StoreOptions {
    /// Tells the time of commands.
    pub clock: Arc<dyn Clock>,
    /// When the clock is taken for wrong.
    pub clock_bounds: ClockOptions,
    /// Random numbers, for ids and secrets. The writer draws from it, too, once a commit, so a
    /// seeded sequence is repeatable only where commits are.
    pub entropy: Arc<dyn Entropy>,
    /// The key that hashes API keys, pre-auth keys and session tokens, and its former versions.
    /// Without one, credentials can be neither made nor checked.
    pub hash_key: Option<Arc<HashKeys>>,
    /// What changes the keys of a sealed store while it is open; without it [`Store::keys`](crate::Store::keys)
    /// is refused.
    pub keys: Option<Arc<dyn KeyManager>>,
    /// When rows are written to the tables.
    pub materialize: Materialize,
    /// The seat that the store is opened on: then it can be moved to another database while it is open. Its
    /// occupant's keys and manner of writing rows hold instead of [`keys`](Self::keys) and
    /// [`materialize`](Self::materialize).
    pub seat: Option<Arc<Seat>>,
    /// Limits of the writer.
    pub writer: WriterOptions,
    /// Every write gives `ReadOnly`, nothing is flushed, and an older schema is read as it is.
    pub read_only: bool,
    /// Who the audit trail names for writes of this handle.
    pub actor: Actor,
    /// A shared backend's view must be younger when a credential is checked. Whoever follows looks at
    /// least twice as often.
    pub max_view_age: Duration,
    /// Whether to follow what other processes commit to a shared backend: what notifies of it, and where
    /// nothing does, by looking. Without that a view stays as it is until somebody writes, or asks for a
    /// fresh one.
    pub follows: bool,
    /// How long the calls of a shared backend may take.
    pub deadlines: Deadlines,
    /// Who takes what the store attests of its state by itself; nobody by default.
    pub attestations: Option<AttestationOptions>,
    /// How the store is probed for health checks.
    pub health: HealthOptions,
    /// Counts what is read while the store is opened.
    pub progress: Arc<LoadProgress>,
    /// What ends with the store.
    pub companions: Vec<Arc<dyn Companion>>,
    /// Who takes figures of what the store does; nobody by default.
    pub recorder: Option<Arc<dyn Recorder>>,
}

impl Default for StoreOptions {
    /// System clock and random numbers, no hash key, flushing in the background.
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            clock_bounds: ClockOptions::default(),
            entropy: Arc::new(SystemEntropy),
            hash_key: None,
            keys: None,
            materialize: Materialize::default(),
            seat: None,
            writer: WriterOptions::default(),
            read_only: false,
            actor: Actor::system(),
            max_view_age: Duration::from_secs(2),
            follows: true,
            deadlines: Deadlines::default(),
            attestations: None,
            health: HealthOptions::default(),
            progress: Arc::default(),
            companions: Vec::new(),
            recorder: None,
        }
    }
}

impl std::fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreOptions")
            .field("clock_bounds", &self.clock_bounds)
            .field("hash_key", &self.hash_key.is_some())
            .field("materialize", &self.materialize)
            .field("writer", &self.writer)
            .field("read_only", &self.read_only)
            .field("actor", &self.actor)
            .field("max_view_age", &self.max_view_age)
            .field("follows", &self.follows)
            .field("deadlines", &self.deadlines)
            .field("attestations", &self.attestations)
            .field("companions", &self.companions)
            .finish_non_exhaustive()
    }
}
