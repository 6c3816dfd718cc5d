//! The writer: one task that owns the state being worked on, and group-commits.
//!
//! It takes requests from the queue and decides them one by one on the working state. The commands of
//! a batch share one commit, which is one block. While that commit is in flight the next batch is
//! decided, on the state that the commit will lead to. The life of a batch:
//!
//! ```text
//!         rotate           begin                Ok          confirm, publish
//!   open --------> sealed -------> in flight ------> durable ------------> published
//!    ^                              |      |            |
//!    |  retry: another process      |      | any other  | the pin cannot
//!    |  committed first             |      v error      | be moved
//!    +------------------------------+    failed <-------+
//! ```
//!
//! - *open*: takes commands; each is decided and changes the working state at once.
//! - *sealed*: takes no more; its block is encoded.
//! - *in flight*: `Backend::commit` runs, on the commit thread if more requests wait, else on this one.
//! - *durable*: the commit is stored, or was found to be. Where the store has a pin, `Backend::confirm`
//!   moves it here, while the next commit is in flight.
//! - *published*: readers get the state and the callers their answers, never before.
//! - *failed*: the callers get the error. The open batch, which was decided on top, is decided again.
//!
//! The modules:
//!
//! - [`batch`]: open and sealed batches, and who waits for them.
//! - [`in_flight`]: the commit in flight, when to rotate, and publishing.
//! - [`outcome`]: how a commit ended. After an error that leaves this open the writer is *poisoned*: it
//!   accepts nothing until it has reopened the backend and compared.
//! - [`event_loop`]: the queue, and what is done when. [`flush`]: commits that only flush.
//!   [`turns`]: what is done where others keep writing, too. [`maintenance`]: requests that are no commands. [`moving`]: to another
//!   database. [`upkeep`]: what the backend does by itself.
//!   [`observing`]: what is told of all that. [`shutdown`]: how it ends.

mod batch;
mod commit_thread;
mod event_loop;
mod flush;
mod in_flight;
mod maintenance;
mod moving;
mod observing;
mod outcome;
mod request;
mod shutdown;
mod turns;
mod upkeep;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::backend::{Backend, BackendInfo, Commit, Head};
use crate::block::{Serial, Sizes};
use crate::checkpoint::Checkpointer;
use crate::digest::DigestCache;
use crate::domain::{Clock, LineageId, SideId, StoreId, WriterId};
use crate::entropy::Entropy;
use crate::error::{Error, ErrorKind};
use crate::health::Vital;
use crate::log::consumers::Consumers;
use crate::log::hold::Holds;
use crate::migration::Seat;
use crate::observe::spans::Database;
use crate::observe::{CountsCache, Event, KeptViews, Reads, Recorder, Watchers, system_name};
use crate::options::{Materialize, StoreOptions, WriterOptions};
use crate::position::{Epoch, Position};
use crate::state::State;
use crate::store::Companion;
use crate::view::Published;

use batch::Batch;
pub(crate) use commit_thread::CommitThread;
use in_flight::InFlight;
pub use request::Committed;
pub(crate) use request::{
    Answer, ConsumerChange, Following, Moving, Origin, Request, SeriesRows, weight,
};
pub(crate) use shutdown::{Closing, End};
use turns::Turns;
use upkeep::Upkeep;

/// What the writer begins with beside the state.
pub(crate) struct Found {
    pub(crate) head: Head,
    pub(crate) checkpointer: Checkpointer,
    pub(crate) sequences: HashMap<WriterId, u64>,
    pub(crate) consumers: Consumers,
}

/// Which database of which network, and which of its histories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity(StoreId, SideId, LineageId);

impl Identity {
    fn of(head: &Head) -> Self {
        Self(head.store, head.side, head.lineage)
    }
}

/// How often in a row a write is decided anew because another process committed first.
const ATTEMPTS: usize = 32;

/// What the writer counts, for dashboards.
#[derive(Debug, Default)]
pub(crate) struct WriterCounters {
    pub(crate) commands: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) groups: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) recoveries: AtomicU64,
    pub(crate) dirty_rows: AtomicU64,
    pub(crate) oldest_block: AtomicU64,
    pub(crate) block_bytes: AtomicU64,
}

/// What is looked at from outside, and no rule depends on.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    pub(crate) reads: Reads,
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) views: KeptViews,
    pub(crate) counts: CountsCache,
}

/// What watchers wait for, and those who close the store.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// The last published commit.
    pub(crate) serial: Serial,
    /// Set once nothing follows any more.
    pub(crate) end: Option<End>,
}

/// What readers and callers share with the writer.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Where the store stood when it was opened, or moved to another database.
    pub(crate) head: arc_swap::ArcSwap<Head>,
    pub(crate) published: arc_swap::ArcSwap<Published>,
    pub(crate) progress: tokio::sync::watch::Sender<Progress>,
    /// The serial of the last block that the backend was given; its rows may be readable before its
    /// state is published.
    pub(crate) submitted: AtomicU64,
    pub(crate) closing: Closing,
    pub(crate) digests: DigestCache,
    /// While somebody reads blocks that are to stay.
    pub(crate) holds: Holds,
    /// How the writer does.
    pub(crate) vital: Vital,
    pub(crate) counters: WriterCounters,
    pub(crate) observed: Observed,
}

/// The task that owns the working state.
pub(crate) struct Writer {
    backend: Arc<dyn Backend>,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    options: WriterOptions,
    materialize: Materialize,
    read_only: bool,
    /// Whether other processes may write to the backend.
    is_shared: bool,
    /// Whether commits are confirmed before anybody is told of them.
    is_pinned: bool,
    /// The last sequence number of each source of series.
    sequences: HashMap<WriterId, u64>,
    /// Whether a writer that is not among them has none.
    sequences_are_all: bool,
    checkpointer: Checkpointer,
    consumers: Consumers,
    /// What the backend counted before they were last read, where others move them, too.
    consumers_revision: Option<u64>,
    /// The store that was opened, and the epoch in which this may write to it.
    identity: Identity,
    epoch: Epoch,
    /// Why nothing may be written any more: somebody else has taken over.
    fenced: Option<Error>,
    /// Why nothing is written for now: the network is moving to another database.
    moving: Option<Error>,
    /// What moves the network and hangs.
    under_way: Option<oneshot::Receiver<moving::Ended>>,
    /// Where the backend is put that the network moves to, if it may.
    seat: Option<Arc<Seat>>,
    /// Why the store ends, though nobody closed it.
    stopped: Option<Error>,
    /// Set by a commit of unknown outcome, or one that was not confirmed: nothing is accepted until the
    /// backend was reopened and compared.
    poisoned: bool,
    /// What was taken from the queue and waits.
    waiting: VecDeque<Request>,
    /// Who waits until a position is published that others have committed.
    followers: Vec<(Position, Answer<()>)>,
    /// The open batch, decided on top of the commit in flight.
    batch: Option<Batch>,
    /// Of the block before the open batch's.
    last_sizes: Sizes,
    in_flight: Option<InFlight>,
    /// How long the open batch should become before its commit begins, if the one before it was
    /// published meanwhile.
    target_len: usize,
    /// So many of the next requests get a commit each: together they were too large for a block.
    alone: usize,
    commit_thread: CommitThread,
    /// How often in a row another process committed first.
    conflicts: usize,
    turns: Turns,
    upkeep: Upkeep,
    companions: Vec<Arc<dyn Companion>>,
    recorder: Option<Arc<dyn Recorder>>,
    /// What `BackendInfo` calls the backend.
    system: &'static str,
    /// When requests were last taken from the queue, if anybody wants to know.
    drained_at: Option<Instant>,
    /// When the rows that are being flushed began to be.
    flushing_since: Option<Instant>,
    /// Nothing goes into the queue any more.
    closing: bool,
    /// Nothing comes from the queue any more.
    drained: bool,
}

impl Writer {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        shared: Arc<Shared>,
        options: &StoreOptions,
        found: Found,
        commit_thread: CommitThread,
    ) -> Self {
        let info = backend.info();
        let BackendInfo { name: system, shared: is_shared, pinned: is_pinned, .. } = info;
        Self {
            backend,
            shared,
            clock: options.clock.clone(),
            entropy: options.entropy.clone(),
            options: options.writer.clone(),
            // Of processes that share a backend, one that flushes late would write older rows over
            // another's newer ones.
            materialize: if is_shared { Materialize::Commit } else { options.materialize },
            read_only: options.read_only,
            is_shared,
            is_pinned,
            sequences: found.sequences,
            sequences_are_all: true,
            checkpointer: found.checkpointer,
            consumers: found.consumers,
            consumers_revision: None,
            identity: Identity::of(&found.head),
            epoch: found.head.epoch,
            fenced: None,
            moving: None,
            under_way: None,
            seat: options.seat.clone(),
            stopped: None,
            poisoned: false,
            waiting: VecDeque::new(),
            followers: Vec::new(),
            batch: None,
            last_sizes: Sizes::default(),
            in_flight: None,
            target_len: 0,
            alone: 0,
            commit_thread,
            conflicts: 0,
            turns: Turns::default(),
            upkeep: Upkeep::default(),
            companions: options.companions.clone(),
            recorder: options.recorder.clone(),
            system: system_name(system),
            drained_at: None,
            flushing_since: None,
            closing: false,
            drained: false,
        }
    }

    /// A commit on the last published state, which does nothing yet.
    fn next_commit(&self) -> Commit {
        let expected = self.shared.published.load().state.position();
        Commit { expected, epoch: self.epoch, ..Commit::default() }
    }

    /// The time by which views tell their age.
    fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Why nothing can be written at all.
    fn refusal(&self) -> Option<Error> {
        if self.read_only {
            return Some(read_only());
        }
        self.fenced.clone().or_else(|| self.moving.clone())
    }

    /// Whether nothing is accepted until the backend was reopened and compared.
    fn poison(&mut self, poisoned: bool) {
        self.poisoned = poisoned;
        self.shared.vital.poison(poisoned);
    }

    /// Tells whoever wants to know.
    fn record(&self, event: &Event<'_>) {
        if let Some(recorder) = &self.recorder {
            recorder.record(event);
        }
    }

    /// Where commits go, as spans say it.
    fn database(&self) -> Database<'_> {
        let namespace = self.recorder.as_deref().and_then(Recorder::namespace);
        Database { system: self.system, namespace }
    }

    /// What is stored is compared with what was acknowledged.
    fn recovers(&self) {
        self.shared.counters.recoveries.fetch_add(1, Ordering::Relaxed);
        self.record(&Event::Recovery);
    }

    /// The rows are those of a later serial. `with_commit` says that it came with a commit and its rows.
    fn checkpointed(&mut self, with_commit: bool) {
        self.shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.shared.vital.checkpointed(self.checkpointer.checkpoint());
        let began = self.flushing_since.take().filter(|_| !with_commit);
        self.record(&Event::Checkpoint { took: began.map(|began| began.elapsed()) });
    }

    /// The last published state.
    fn state(&self) -> State {
        self.shared.published.load().state.clone()
    }
}

fn read_only() -> Error {
    Error::new(ErrorKind::ReadOnly, "the store was opened for reading only")
}

fn outrun() -> Error {
    Error::new(ErrorKind::Busy, "other processes kept writing first; try again")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
