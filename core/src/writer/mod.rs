//! The group-commit loop. One task owns the state that is being worked on. It carries commands out
//! as they come in; when a group ends, it is made durable by one commit, and the next group is
//! begun meanwhile. Only when the commit is durable, its state is published and its callers hear
//! of it.
//!
//! ```text
//! queue -> decide, evolve (each command of the open group)          this thread
//!       -> Backend::commit (a block and a slice of folding)         another, if more waits
//!       -> publish -> answer every caller                           this thread
//! ```

mod disk;
mod ending;
mod flight;
mod folding;
mod group;
mod recovery;
mod request;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::backend::{Backend, Commit, Head, KeyRange};
use crate::block::{RowChange, Serial, Sizes};
use crate::digest::DigestCache;
use crate::domain::WriterId;
use crate::entropy::Entropy;
use crate::error::{Error, ErrorKind, Result};
use crate::fold::FoldDebt;
use crate::options::{Materialize, StoreOptions, WriterOptions};
use crate::schema::{Record, Table};
use crate::state::State;
use crate::view::Published;

pub(crate) use disk::Disk;
pub(crate) use ending::{Closing, End};
use flight::{Flight, Step, store};
use group::{Group, Load};
pub(crate) use recovery::{check_follows, read_blocks};
pub use request::Committed;
pub(crate) use request::{Answer, Request, SeriesBatch, weight};

/// Requests are taken in so many at a time, so that a commit that ends is soon noticed.
const BITE: usize = 16;

/// What the writer counts, for dashboards.
#[derive(Debug, Default)]
pub(crate) struct WriterCounters {
    pub(crate) commands: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) groups: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) recoveries: AtomicU64,
    pub(crate) fold_debt: AtomicU64,
}

/// What watchers wait for, and those who close the store.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub(crate) serial: Serial,
    /// Nothing follows any more.
    pub(crate) end: Option<End>,
}

/// What readers and callers share with the writer.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) published: arc_swap::ArcSwap<Published>,
    pub(crate) progress: tokio::sync::watch::Sender<Progress>,
    /// The serial of the last block that the backend was given; its rows may be read before its
    /// state is published.
    pub(crate) storing: AtomicU64,
    pub(crate) closing: Closing,
    pub(crate) digests: DigestCache,
    pub(crate) counters: WriterCounters,
}

/// The task that owns the working state.
pub(crate) struct Writer {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) options: WriterOptions,
    pub(crate) materialize: Materialize,
    pub(crate) read_only: bool,
    pub(crate) is_shared: bool,
    positions: HashMap<WriterId, u64>,
    fold: FoldDebt,
    retained: Retained,
    /// Up to here the rows hold everything.
    checkpoint: Serial,
    folding: bool,
    /// Set by a failed commit: nothing is accepted until the backend was reopened and compared.
    suspect: bool,
    /// What was taken from the queue and waits.
    backlog: VecDeque<Request>,
    /// What is being carried out, on top of the commit under way.
    group: Option<Group>,
    /// Of the block before the open group's.
    last_sizes: Sizes,
    /// The commit under way.
    flight: Option<Flight>,
    /// How long the open group is to become before its commit begins, if the one before it is over
    /// already.
    awaited: usize,
    /// So many of those that come next have a commit each: what they had together was too large.
    alone: usize,
    /// Stores commits beside this thread.
    disk: Disk,
    /// How often in a row another process was first.
    conflicts: usize,
    /// Nothing goes into the queue any more.
    closing: bool,
    /// Nothing comes from the queue any more.
    ended: bool,
}

/// What the writer starts from.
pub(crate) struct Start {
    pub(crate) positions: HashMap<WriterId, u64>,
    pub(crate) fold: FoldDebt,
    pub(crate) retained: Retained,
    pub(crate) checkpoint: Serial,
}

/// Which blocks are kept for followers.
#[derive(Debug)]
pub(crate) struct Retained {
    blocks: VecDeque<(Serial, u64)>,
    bytes: u64,
    /// The first block that is not beyond the limit.
    oldest: Serial,
}

impl Retained {
    /// What is kept when a store is opened: `blocks` of `bytes` each, as far as they are known.
    pub(crate) fn new(oldest: Serial) -> Self {
        Self { blocks: VecDeque::new(), bytes: 0, oldest }
    }

    pub(crate) fn add(&mut self, serial: Serial, bytes: u64, limit: u64) {
        self.blocks.push_back((serial, bytes));
        self.bytes += bytes;
        while self.bytes > limit
            && let Some((serial, bytes)) = self.blocks.pop_front()
        {
            self.bytes -= bytes;
            self.oldest = serial.next();
        }
    }
}

impl Writer {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        shared: Arc<Shared>,
        options: &StoreOptions,
        start: Start,
        disk: Disk,
    ) -> Self {
        let is_shared = backend.info().shared;
        Self {
            backend,
            shared,
            entropy: options.entropy.clone(),
            options: options.writer.clone(),
            // Processes that share a backend would undo each other's folding if it lagged behind.
            materialize: if is_shared { Materialize::Commit } else { options.materialize },
            read_only: options.read_only,
            is_shared,
            positions: start.positions,
            fold: start.fold,
            retained: start.retained,
            checkpoint: start.checkpoint,
            folding: false,
            suspect: false,
            backlog: VecDeque::new(),
            group: None,
            last_sizes: Sizes::default(),
            flight: None,
            awaited: 0,
            alone: 0,
            disk,
            conflicts: 0,
            closing: false,
            ended: false,
        }
    }

    /// Serves the queue until the store is closed, or until every handle on it is gone. Folds, if
    /// somebody waits for it; otherwise that can wait for the next opening.
    async fn run(&mut self, queue: &mut mpsc::Receiver<Request>) -> Result<()> {
        let mut patience = self.options.idle_before_fold;
        while self.step(queue, &mut patience).await {}
        self.backend.announce_close();
        match self.closing {
            true => self.fold_all().await.map(drop),
            false => Ok(()),
        }
    }

    /// Takes in a bite and does what follows. Tells whether there is more to do.
    async fn step(&mut self, queue: &mut mpsc::Receiver<Request>, patience: &mut Duration) -> bool {
        if !self.closing && self.shared.closing.has_begun() {
            self.closing = true;
            // What was accepted before is completed.
            queue.close();
        }
        let held_up = self.take_in(queue).await;
        let waiting = !self.backlog.is_empty() || !queue.is_empty();
        match self.next_step(held_up || !waiting) {
            Step::Begin => self.turn(waiting).await,
            Step::Publish => self.publish_flight().await,
            Step::Gather if waiting && !held_up => {}
            Step::Gather if self.is_quiet() && self.ended => return false,
            Step::Gather => self.wait(queue, held_up, patience).await,
        }
        true
    }

    /// Whether nothing is being carried out or stored.
    fn is_quiet(&self) -> bool {
        self.group.is_none() && self.flight.is_none()
    }

    /// Serves some of what waits. Tells whether the next request has to wait for those before it.
    async fn take_in(&mut self, queue: &mut mpsc::Receiver<Request>) -> bool {
        for _ in 0..BITE {
            let next = self.backlog.pop_front().or_else(|| queue.try_recv().ok());
            let Some(request) = next else { break };
            if let Some(request) = self.serve(request, queue).await {
                self.backlog.push_front(request);
                return true;
            }
        }
        false
    }

    /// Waits until something arrives or a commit ends; folds if nothing does.
    async fn wait(
        &mut self,
        queue: &mut mpsc::Receiver<Request>,
        held_up: bool,
        patience: &mut Duration,
    ) {
        const LONGEST_WAIT: Duration = Duration::from_secs(60);
        let mut received = Vec::with_capacity(BITE);
        let taken = self.group.as_ref().map_or(0, Group::len);
        let room = self.options.max_group.saturating_sub(taken).clamp(1, BITE);
        let idle = self.fold.len() > 0 && !self.suspect && !self.read_only;
        let listens = !held_up && !self.ended;
        let (shared, closing) = (self.shared.clone(), self.closing);
        let arrival = async {
            tokio::select! {
                biased;
                count = queue.recv_many(&mut received, room) => Some(count),
                () = shared.closing.told(), if !closing => None,
            }
        };
        let count = match &mut self.flight {
            Some(flight) => tokio::select! {
                biased;
                () = flight.ended() => None,
                count = arrival, if listens => count,
            },
            None if idle => match tokio::time::timeout(*patience, arrival).await {
                Ok(count) => count,
                Err(_) => {
                    // A full disk must not be tried again at once for ever.
                    *patience = match self.fold_one_slice(1024).await {
                        true => self.options.idle_before_fold,
                        false => (*patience * 2).min(LONGEST_WAIT),
                    };
                    None
                }
            },
            None => arrival.await,
        };
        self.ended |= count == Some(0);
        self.backlog.extend(received);
    }

    /// Serves a request, or gives it back if it has to wait for those before it.
    async fn serve(
        &mut self,
        request: Request,
        queue: &mut mpsc::Receiver<Request>,
    ) -> Option<Request> {
        let load = match &request {
            Request::Submit(submission, _) => Load::of(&submission.command),
            Request::Series(series, _) => Load::Series(series.rows.len()),
            _ if !self.is_quiet() => return Some(request),
            _ => {
                self.act(request).await;
                return None;
            }
        };
        let refusal = if self.read_only {
            Some(read_only())
        } else if self.suspect {
            self.reopen().await.err()
        } else {
            None
        };
        if let Some(error) = refusal {
            self.refuse_all(request, queue, &error);
            return None;
        }
        let max_group = if self.alone > 0 { 1 } else { self.options.max_group };
        let full_block = self.options.full_block();
        let group = self.open_group();
        if !group.has_room_for(load, max_group, full_block) {
            return Some(request);
        }
        match request {
            Request::Submit(submission, answer) => group.submit(submission, answer),
            Request::Series(series, answer) => group.append(series, answer),
            _ => {}
        }
        self.alone = self.alone.saturating_sub(1);
        None
    }

    /// What refuses one write refuses all that wait; none is to try a dead disk by itself.
    fn refuse_all(&mut self, request: Request, queue: &mut mpsc::Receiver<Request>, error: &Error) {
        let mut waiting = vec![request];
        waiting.extend(self.backlog.drain(..));
        // All of them before the first answer: who hears of it and tries again is no part of this.
        waiting.extend(std::iter::from_fn(|| queue.try_recv().ok()));
        self.backlog = waiting.into_iter().filter_map(|request| refuse(request, error)).collect();
    }

    /// Serves a request that is no write, while nothing is under way.
    async fn act(&mut self, request: Request) {
        match request {
            Request::Refresh(answer) => answer.send(self.refresh().await),
            Request::Replace(ranges, rows, answer) => answer.send(self.replace(ranges, rows).await),
            Request::Checkpoint(answer) => answer.send(self.fold_all().await),
            Request::Verify(answer) => answer.send(self.verify().await),
            Request::Submit(..) | Request::Series(..) => {}
        }
    }

    pub(crate) fn state(&self) -> State {
        self.shared.published.load().state.clone()
    }

    async fn replace(&mut self, prune: Vec<KeyRange>, rows: Vec<RowChange>) -> Result<()> {
        const ATTEMPTS: usize = 32;
        if self.read_only {
            return Err(read_only());
        }
        for _ in 0..ATTEMPTS {
            self.refresh().await?;
            if self.has_unfolded_in(&prune) {
                self.fold_all().await?;
            }
            let expected = self.state().serial();
            let (prune, rows) = (prune.clone(), rows.clone());
            let commit = Commit { expected, prune, rows, ..Commit::default() };
            match self.store(&commit).await {
                Err(error) if *error.kind() == ErrorKind::Conflict => self.learn().await?,
                stored => return stored,
            }
        }
        Err(Error::new(ErrorKind::Busy, "other processes kept writing first; try again"))
    }

    /// Whether lines of the audit trail in these ranges are only in blocks: they would come back when
    /// those are folded.
    fn has_unfolded_in(&self, ranges: &[KeyRange]) -> bool {
        let published = self.shared.published.load();
        let mut of_audit = ranges.iter().filter(|range| range.table == Table::Audit);
        of_audit.any(|range| published.audit.within(range, false).next().is_some())
    }

    /// Writers wait meanwhile, so that what is read is of one moment.
    async fn verify(&mut self) -> Result<()> {
        // What another process has committed is no damage.
        self.refresh().await?;
        self.fold_all().await?;
        self.backend.verify().await?;
        let limit = self.options.retain_block_bytes;
        let loaded = crate::loader::load(&self.backend, limit).await?;
        let (stored, state) = (loaded.state, self.state());
        let digest = crate::digest::state_digest(&stored);
        if stored.hash() != state.hash() || digest != crate::digest::state_digest(&state) {
            return Err(Error::corrupt("what is stored differs from what is in memory")
                .with("serial", state.serial())
                .with("stored_serial", stored.serial())
                .with("stored_digest", digest));
        }
        crate::kept::check(self.backend.as_ref(), &state).await
    }

    async fn refresh(&mut self) -> Result<()> {
        if self.suspect {
            return self.reopen().await;
        }
        if self.is_shared { self.catch_up().await } else { Ok(()) }
    }

    /// Brings in the commits of other processes after a `Conflict`. If there are none, the backend
    /// has fewer commits than this process, which reopening finds out about.
    async fn learn(&mut self) -> Result<()> {
        let known = self.state().serial();
        self.catch_up().await?;
        if self.state().serial() == known { self.reopen().await } else { Ok(()) }
    }

    /// One commit, while nothing else is under way.
    async fn store(&mut self, commit: &Commit) -> Result<()> {
        let outcome = store(self.backend.as_ref(), commit).await;
        self.judge(commit, outcome).await
    }

    /// How a commit ended. After it failed in a way that leaves the outcome open, the backend is
    /// reopened and asked; `Ok` and `Conflict` are then certain.
    async fn judge(&mut self, commit: &Commit, outcome: Result<()>) -> Result<()> {
        let error = match outcome {
            Ok(()) => return Ok(()),
            Err(error) if *error.kind() == ErrorKind::Conflict => return Err(error),
            Err(error) => error,
        };
        tracing::warn!(%error, "a commit failed; reopening the backend to compare");
        self.suspect = true;
        self.resolve(commit, error).await
    }
}

/// Refuses a write; gives everything else back.
fn refuse(request: Request, error: &Error) -> Option<Request> {
    // As text that is not cut: it says what to do.
    let refusal = || {
        Error::new(error.kind().clone(), "the command was not stored").because(error.to_string())
    };
    match request {
        Request::Submit(_, answer) => {
            answer.send(Err(refusal()));
        }
        Request::Series(_, answer) => {
            answer.send(Err(refusal()));
        }
        other => return Some(other),
    }
    None
}

pub(crate) fn audit_row(entry: &crate::domain::AuditEntry) -> RowChange {
    RowChange {
        table: Table::Audit,
        kind: crate::block::ChangeKind::Created,
        key: entry.key(),
        body: Some(entry.encode()),
    }
}

fn read_only() -> Error {
    Error::new(ErrorKind::ReadOnly, "the store was opened for reading only")
}

/// Whether the head is the one that the state was built from.
pub(crate) fn agrees(state: &State, head: &Head) -> bool {
    head.serial == state.serial() && head.hash == state.hash()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
