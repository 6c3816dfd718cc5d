//! The group-commit loop. One task owns the state that is being worked on; it drains its queue,
//! applies each command, makes the whole group durable with one commit, publishes the new state,
//! and only then answers.
//!
//! ```text
//! queue -> decide, evolve (each command) -> Backend::commit (block + a slice of folding)
//!       -> publish -> answer every caller
//! ```

mod group;
mod recovery;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;

use crate::backend::{Backend, Commit, Head, KeyRange};
use crate::block::{RowChange, Serial};
use crate::command::Submission;
use crate::digest::DigestCache;
use crate::domain::WriterId;
use crate::entropy::Entropy;
use crate::error::{Error, ErrorKind, Result};
use crate::fold::{FoldDebt, Slice};
use crate::options::{Materialize, WriterOptions};
use crate::schema::{Record, Table};
use crate::state::{Reply, State};
use crate::view::Published;

use group::Group;
pub(crate) use recovery::{check_follows, read_blocks};

/// A caller's answer.
pub(crate) type Answer<T> = oneshot::Sender<Result<T>>;

/// What a command came to, and the commit that holds it.
#[derive(Debug, Clone)]
pub struct Committed<T = Reply> {
    /// The answer.
    pub value: T,
    /// The commit from which on it holds.
    pub serial: Serial,
}

/// What waits in the queue.
pub(crate) enum Request {
    Submit(Box<Submission>, Answer<Committed>),
    Series(SeriesBatch, Answer<()>),
    Prune(Vec<KeyRange>, Answer<()>),
    /// Look for commits of other processes.
    Refresh(Answer<()>),
    /// Fold everything.
    Checkpoint(Answer<Serial>),
    /// Read everything that is stored and compare.
    Verify(Answer<()>),
    Close(Answer<()>),
}

/// Rows of a series, and how far the writer of the batch got with them.
pub(crate) struct SeriesBatch {
    pub(crate) rows: Vec<RowChange>,
    /// (writer, sequence): a batch whose sequence is not above the writer's last one is a
    /// repetition and does nothing.
    pub(crate) position: Option<(WriterId, u64)>,
}

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

/// What watchers wait for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    pub(crate) serial: Serial,
    /// Nothing follows any more.
    pub(crate) closed: bool,
}

/// What readers and callers share with the writer.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) published: arc_swap::ArcSwap<Published>,
    pub(crate) progress: tokio::sync::watch::Sender<Progress>,
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
    pub(crate) positions: HashMap<WriterId, u64>,
    pub(crate) fold: FoldDebt,
    pub(crate) retained: Retained,
    /// Up to here the rows hold everything.
    pub(crate) checkpoint: Serial,
    pub(crate) folding: bool,
    /// Set by a failed commit: nothing is accepted until the backend was reopened and compared.
    pub(crate) suspect: bool,
}

/// Which blocks are kept for followers.
#[derive(Debug)]
pub(crate) struct Retained {
    blocks: std::collections::VecDeque<(Serial, u64)>,
    bytes: u64,
    /// The first block that is not beyond the limit.
    oldest: Serial,
}

impl Retained {
    /// What is kept when a store is opened: `blocks` of `bytes` each, as far as they are known.
    pub(crate) fn new(oldest: Serial) -> Self {
        Self { blocks: std::collections::VecDeque::new(), bytes: 0, oldest }
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
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        const LONGEST_WAIT: Duration = Duration::from_secs(60);
        let mut requests = Vec::with_capacity(self.options.max_group);
        let mut wait = self.options.idle_before_fold;
        loop {
            let idle = self.fold.len() > 0 && !self.suspect && !self.read_only;
            let receive = queue.recv_many(&mut requests, self.options.max_group);
            let received = if idle {
                match tokio::time::timeout(wait, receive).await {
                    Ok(received) => received,
                    Err(_) => {
                        // A full disk must not be tried again at once for ever.
                        let folded = self.fold_one_slice(1024).await;
                        wait = match folded {
                            true => self.options.idle_before_fold,
                            false => (wait * 2).min(LONGEST_WAIT),
                        };
                        continue;
                    }
                }
            } else {
                receive.await
            };
            if received == 0 {
                // Every handle is gone; what was accepted is durable, and folding can wait for the
                // next opening.
                let _ = self.close().await;
                return;
            }
            if self.serve(&mut requests, &mut queue).await {
                return;
            }
        }
    }

    /// Serves what was drained from the queue. Tells whether the store was closed.
    async fn serve(
        &mut self,
        requests: &mut Vec<Request>,
        queue: &mut mpsc::Receiver<Request>,
    ) -> bool {
        let mut group = Group::default();
        let mut batch = std::mem::take(requests).into_iter();
        while let Some(request) = batch.next() {
            match request {
                Request::Submit(submission, answer) => {
                    self.end_group_before(&mut group, group::Load::of(&submission.command)).await;
                    group.submit(*submission, answer);
                }
                Request::Series(series, answer) => {
                    let load = group::Load::Series(series.rows.len());
                    self.end_group_before(&mut group, load).await;
                    group.append(series, answer);
                }
                Request::Refresh(answer) => {
                    self.commit_group(std::mem::take(&mut group)).await;
                    let _ = answer.send(self.refresh().await);
                }
                Request::Prune(range, answer) => {
                    self.commit_group(std::mem::take(&mut group)).await;
                    let _ = answer.send(self.prune(range).await);
                }
                Request::Checkpoint(answer) => {
                    self.commit_group(std::mem::take(&mut group)).await;
                    let _ = answer.send(self.fold_all().await);
                }
                Request::Verify(answer) => {
                    self.commit_group(std::mem::take(&mut group)).await;
                    let _ = answer.send(self.verify().await);
                }
                Request::Close(answer) => {
                    self.commit_group(std::mem::take(&mut group)).await;
                    queue.close();
                    let closers = self.drain(batch, queue).await;
                    let folded = self.fold_all().await.map(|_| ());
                    let closed = self.close().await;
                    let _ = answer.send(folded.and(closed));
                    for answer in closers {
                        let _ = answer.send(Ok(()));
                    }
                    return true;
                }
            }
        }
        self.commit_group(group).await;
        false
    }

    async fn close(&self) -> Result<()> {
        self.shared.progress.send_modify(|progress| progress.closed = true);
        self.backend.close().await
    }

    /// Completes what was queued before the queue was closed. Other requests than writes have
    /// nothing left to wait for; gives those that want to close, too.
    async fn drain(
        &mut self,
        mut batch: std::vec::IntoIter<Request>,
        queue: &mut mpsc::Receiver<Request>,
    ) -> Vec<Answer<()>> {
        let mut group = Group::default();
        let mut closers = Vec::new();
        loop {
            let request = match batch.next() {
                Some(request) => request,
                None => match queue.recv().await {
                    Some(request) => request,
                    None => break,
                },
            };
            match request {
                Request::Submit(submission, answer) => {
                    self.end_group_before(&mut group, group::Load::of(&submission.command)).await;
                    group.submit(*submission, answer);
                }
                Request::Series(series, answer) => {
                    let load = group::Load::Series(series.rows.len());
                    self.end_group_before(&mut group, load).await;
                    group.append(series, answer);
                }
                Request::Close(answer) => closers.push(answer),
                Request::Refresh(answer) | Request::Prune(_, answer) | Request::Verify(answer) => {
                    let _ = answer.send(Err(closed()));
                }
                Request::Checkpoint(answer) => {
                    let _ = answer.send(Err(closed()));
                }
            }
        }
        self.commit_group(group).await;
        closers
    }

    pub(crate) fn state(&self) -> State {
        self.shared.published.load().state.clone()
    }

    /// Commits a group that has no room for what comes next.
    async fn end_group_before(&mut self, group: &mut Group, load: group::Load) {
        if !group.has_room_for(load) {
            self.commit_group(std::mem::take(group)).await;
        }
    }

    async fn commit_group(&mut self, group: Group) {
        if group.is_empty() {
            return;
        }
        let span = tracing::debug_span!("writer.group", commands = group.len());
        let committed = async {
            let mut rest = group;
            while !rest.is_empty() {
                rest = self.commit_some(rest).await;
            }
        };
        committed.instrument(span).await;
    }

    /// A group's commit, tried again on top of other processes' commits for as long as those come
    /// first. Gives the commands that did not fit into the block.
    async fn commit_some(&mut self, group: Group) -> Group {
        const ATTEMPTS: usize = 32;
        if self.read_only {
            return group.fail(&read_only());
        }
        let mut last_error = None;
        for _ in 0..ATTEMPTS {
            if self.suspect
                && let Err(error) = self.reopen().await
            {
                return group.fail(&error);
            }
            let applied = group.apply(&self.state(), self.entropy.as_ref(), &self.positions);
            let applied = match applied {
                Ok(applied) => applied,
                Err(error) => return group.fail(&error),
            };
            let serial = applied.state.serial();
            if applied.is_empty() {
                // A refusal, too, must not rest on what another process has changed meanwhile.
                if self.is_shared {
                    match self.catch_up().await {
                        Ok(()) if self.state().serial() != serial => continue,
                        Ok(()) => {}
                        Err(error) => return group.fail(&error),
                    }
                }
                self.count(&applied);
                return group.answer(applied.outcomes, serial);
            }
            let slice = self.slice_for(&applied);
            let mut commit = Commit {
                expected: self.state().serial(),
                block: applied.block.clone(),
                rows: applied.series.clone(),
                ..Commit::default()
            };
            self.add_folding(&mut commit, &applied, &slice);
            let stored = self.store(commit).await;
            match stored {
                Ok(()) => {
                    self.count(&applied);
                    self.positions.extend(applied.positions.iter().copied());
                    let outcomes = self.publish(applied, &slice);
                    return group.answer(outcomes, serial);
                }
                Err(error) if *error.kind() == ErrorKind::Conflict => {
                    // Another process was first: learn what it wrote, then decide again.
                    if let Err(error) = self.learn().await {
                        return group.fail(&error);
                    }
                    last_error = Some(error);
                }
                Err(error) => return group.fail(&error),
            }
        }
        let error = Error::new(ErrorKind::Busy, "other processes kept writing first; try again");
        group.fail(&match last_error {
            Some(last) => error.because(last),
            None => error,
        })
    }

    fn slice_for(&mut self, applied: &group::Applied) -> Slice {
        if self.materialize == Materialize::Commit {
            // Nothing, unless the store was opened with blocks that were not folded.
            return self.fold.slice(usize::MAX, self.state().serial());
        }
        let arriving = applied.changes.len() + applied.audit.len();
        let limit = self.options.max_fold_debt;
        let mut size = crate::fold::slice_size(self.fold.len(), arriving, limit, self.folding);
        // Blocks beyond their limit are kept only because they are not folded. Few rows that
        // change all the time never grow into a debt, but their blocks would pile up.
        if self.retained.oldest > self.checkpoint.next() {
            size = size.max((arriving + arriving / 2).max(256));
        }
        self.folding = size > 0;
        self.fold.slice(size, self.state().serial())
    }

    /// Adds to a commit what it folds: its own rows, or a slice of the debt.
    fn add_folding(&self, commit: &mut Commit, applied: &group::Applied, slice: &Slice) {
        // The debt is older than this group's rows, and shares no key with those of the series.
        commit.rows.extend(slice.rows.iter().cloned());
        commit.checkpoint = slice.checkpoint;
        if self.materialize == Materialize::Commit {
            commit.rows.extend(applied.changes.iter().cloned());
            commit.rows.extend(applied.audit.iter().map(|entry| audit_row(entry)));
            if let Some(block) = &applied.block {
                commit.checkpoint = Some(block.serial);
            }
        }
        if let Some(checkpoint) = commit.checkpoint {
            commit.purge_before = Some(self.retained.oldest.min(checkpoint.next()));
        }
    }

    /// Makes a stored group visible, and remembers what is still to be folded.
    fn publish(&mut self, applied: group::Applied, slice: &Slice) -> Vec<Result<Reply>> {
        self.fold.stored(slice.rows.len());
        let mut audit = self.shared.published.load().audit.clone();
        if slice.checkpoint.is_some() {
            self.drop_folded_audit(&mut audit);
        }
        let committed = (self.materialize == Materialize::Commit)
            .then(|| applied.block.as_ref().map(|block| block.serial))
            .flatten();
        if let Some(checkpoint) = committed.or(slice.checkpoint) {
            self.checkpoint = checkpoint;
            self.shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(block) = &applied.block {
            let limit = self.options.retain_block_bytes;
            self.retained.add(block.serial, block.bytes.len() as u64, limit);
            self.shared.digests.mark(block.serial, &applied.changes);
            if self.materialize == Materialize::Checkpoint {
                self.fold.add(applied.audit.iter().map(|entry| audit_row(entry)).collect());
                self.fold.add(applied.changes);
                audit.extend(applied.audit);
            }
        }
        self.publish_state(applied.state, audit);
        applied.outcomes
    }

    pub(crate) fn publish_state(
        &self,
        state: State,
        audit: imbl::Vector<Arc<crate::domain::AuditEntry>>,
    ) {
        let serial = state.serial();
        let fold_debt = self.fold.len() as u64;
        self.shared.counters.fold_debt.store(fold_debt, Ordering::Relaxed);
        self.shared.published.store(Arc::new(Published { state, audit, fresh_at: Instant::now() }));
        self.shared.progress.send_replace(Progress { serial, closed: false });
    }

    /// Entries that are rows by now need no longer be merged into queries.
    fn drop_folded_audit(&self, audit: &mut imbl::Vector<Arc<crate::domain::AuditEntry>>) {
        while let Some(oldest) = audit.front() {
            if self.fold.contains(Table::Audit, &oldest.key()) {
                break;
            }
            audit.pop_front();
        }
    }

    fn count(&self, applied: &group::Applied) {
        let counters = &self.shared.counters;
        let rejected = applied.outcomes.iter().filter(|outcome| outcome.is_err()).count();
        counters.commands.fetch_add(applied.outcomes.len() as u64, Ordering::Relaxed);
        counters.rejected.fetch_add(rejected as u64, Ordering::Relaxed);
        counters.groups.fetch_add(u64::from(applied.block.is_some()), Ordering::Relaxed);
    }

    /// Folds one slice in a commit of its own, and tells whether that went well.
    async fn fold_one_slice(&mut self, size: usize) -> bool {
        let folded = self.try_fold(size).await;
        if let Err(error) = &folded {
            tracing::warn!(%error, "folding failed; the blocks keep what is not folded");
        }
        folded.is_ok()
    }

    async fn try_fold(&mut self, size: usize) -> Result<()> {
        if self.suspect {
            self.reopen().await?;
        }
        let serial = self.state().serial();
        let slice = self.fold.slice(size, serial);
        if slice.rows.is_empty() {
            return Ok(());
        }
        let mut commit = Commit {
            expected: serial,
            rows: slice.rows.clone(),
            checkpoint: slice.checkpoint,
            ..Commit::default()
        };
        if let Some(checkpoint) = commit.checkpoint {
            commit.purge_before = Some(self.retained.oldest.min(checkpoint.next()));
        }
        match self.store(commit).await {
            Ok(()) => {}
            Err(error) if *error.kind() == ErrorKind::Conflict => return self.learn().await,
            Err(error) => return Err(error),
        }
        self.fold.stored(slice.rows.len());
        let published = self.shared.published.load_full();
        let mut audit = published.audit.clone();
        if let Some(checkpoint) = slice.checkpoint {
            self.checkpoint = checkpoint;
            self.shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
            self.drop_folded_audit(&mut audit);
        }
        self.publish_state(published.state.clone(), audit);
        Ok(())
    }

    /// Folds until the rows hold everything. Gives the serial that they hold.
    async fn fold_all(&mut self) -> Result<Serial> {
        if self.suspect {
            self.reopen().await?;
        }
        while self.fold.len() > 0 && !self.read_only {
            self.try_fold(4096).await?;
        }
        Ok(self.state().serial())
    }

    async fn prune(&mut self, ranges: Vec<KeyRange>) -> Result<()> {
        const ATTEMPTS: usize = 32;
        if self.read_only {
            return Err(read_only());
        }
        for _ in 0..ATTEMPTS {
            // What is not folded yet would come back later.
            self.fold_all().await?;
            let expected = self.state().serial();
            let commit = Commit { expected, prune: ranges.clone(), ..Commit::default() };
            match self.store(commit).await {
                Err(error) if *error.kind() == ErrorKind::Conflict => self.learn().await?,
                stored => return stored,
            }
        }
        Err(Error::new(ErrorKind::Busy, "other processes kept writing first; try again"))
    }

    /// Writers wait meanwhile, so that what is read is of one moment.
    async fn verify(&mut self) -> Result<()> {
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
        Ok(())
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

    /// One commit. After it failed in a way that leaves the outcome open, the backend is reopened
    /// and asked; `Ok` and `Conflict` are then certain.
    async fn store(&mut self, commit: Commit) -> Result<()> {
        let error = match self.backend.commit(commit.clone()).await {
            Ok(()) => return Ok(()),
            Err(error) if *error.kind() == ErrorKind::Conflict => return Err(error),
            Err(error) => error,
        };
        tracing::warn!(%error, "a commit failed; reopening the backend to compare");
        self.suspect = true;
        self.resolve(commit, error).await
    }
}

pub(crate) fn audit_row(entry: &crate::domain::AuditEntry) -> RowChange {
    RowChange {
        table: Table::Audit,
        kind: crate::block::ChangeKind::Created,
        key: entry.key(),
        body: Some(entry.encode()),
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the store is closed")
}

fn read_only() -> Error {
    Error::new(ErrorKind::ReadOnly, "the store was opened for reading only")
}

/// Whether the head is the one that the state was built from.
pub(crate) fn agrees(state: &State, head: &Head) -> bool {
    head.serial == state.serial() && head.hash == state.hash()
}
