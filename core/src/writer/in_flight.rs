//! The commit in flight: the batch that is being stored while the next one is decided.
//!
//! At most one commit is in flight. The batch after it is decided on the state that the commit will
//! lead to, and can be taken back: nobody sees that state, nor is told of those commands, before both
//! are durable.

use std::collections::BTreeSet;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tracing::Span;

use super::batch::{Batch, Callers, SealedBatch};
use super::observing::{Stored, Timing, store};
use super::outcome::unconfirmed;
use super::{ATTEMPTS, CommitThread, Identity, Request, Writer, outrun, weight};
use crate::backend::{Backend, Commit};
use crate::block::{ClosedBlock, RowChange, Serial};
use crate::checkpoint::{Advance, FlushSlice, UnflushedAudit};
use crate::domain::{AuditEntry, WriterId};
use crate::error::{Error, ErrorKind, Result};
use crate::loader;
use crate::log::consumers::{Consumers, Entered};
use crate::observe::spans;
use crate::options::Materialize;
use crate::schema::Table;
use crate::state::State;
use crate::view::Published;

/// A batch whose commit is being stored.
pub(super) struct InFlight {
    pub(super) callers: Callers,
    /// The state once it is stored.
    state: State,
    sequences: Vec<(WriterId, u64)>,
    /// What the block changed and this commit does not flush.
    unflushed: Unflushed,
    block: Option<(Serial, u64)>,
    commit: Arc<Commit>,
    /// Which rows of the commit come from the backlog.
    flushed: Range<usize>,
    advance: Option<Advance>,
    /// What it changes of the consumers.
    entered: Entered,
    storing: Storing,
    /// The database that it was sent to.
    sent_to: Identity,
    /// When it was sent: it was the newest one when it was stored, which is later.
    sent_at: Duration,
    /// Of the batch, and of its commit.
    _batch_span: Span,
    span: Span,
    pub(super) timing: Timing,
    /// Rows of series that it brings.
    points: usize,
}

/// A commit that is stored, and not published yet.
struct Durable(InFlight);

#[derive(Default)]
struct Unflushed {
    changes: Vec<RowChange>,
    audit_rows: Vec<RowChange>,
    audit: Vec<AuditEntry>,
}

enum Storing {
    /// On the commit thread.
    Running(oneshot::Receiver<Stored>),
    Ended(Stored),
}

/// What to do with the open batch and the commit in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: the batch takes more requests, or waits.
    Gather,
    /// Publish the commit that has ended, and answer its callers.
    Publish,
    /// Seal the batch and begin its commit; then publish the one before, if it has ended.
    Rotate,
}

/// Callers are answered as soon as their commit ends, whatever the open batch does. Of batches that
/// overlap none is smaller than the one before, unless nothing more waits: so neither disk nor CPU
/// is idle for longer than it must be, and batches cannot shrink until every caller has a commit.
///
/// `batch` is how long the open batch is; `in_flight` how long the commit in flight is, and whether it
/// has ended; `target_len` how long the last one was, if it was published while this batch was open.
pub(super) fn next_step(
    batch: Option<usize>,
    in_flight: Option<(usize, bool)>,
    target_len: usize,
    nothing_more: bool,
) -> Step {
    match (batch, in_flight) {
        (_, Some((_, false))) | (None, None) => Step::Gather,
        (None, Some(_)) => Step::Publish,
        (Some(len), in_flight) => {
            if nothing_more || len >= in_flight.map_or(target_len, |(before, _)| before) {
                Step::Rotate
            } else if in_flight.is_some() {
                Step::Publish
            } else {
                Step::Gather
            }
        }
    }
}

/// What a call that writes comes to. If it panics, the outcome is unknown.
pub(super) async fn uninterrupted(call: impl Future<Output = Result<()>>) -> Result<()> {
    guarded(call).await
}

/// The same of a call that gives something.
pub(super) async fn guarded<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    AssertUnwindSafe(call).catch_unwind().await.unwrap_or_else(|_| Err(panicked()))
}

fn panicked() -> Error {
    Error::new(ErrorKind::OutcomeUnknown, "the backend panicked during a commit")
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.callers.len()
    }

    fn has_ended(&mut self) -> bool {
        if let Storing::Running(outcome) = &mut self.storing {
            let outcome = match outcome.try_recv() {
                Ok(outcome) => outcome,
                Err(oneshot::error::TryRecvError::Empty) => return false,
                Err(oneshot::error::TryRecvError::Closed) => Err(panicked()).into(),
            };
            self.storing = Storing::Ended(outcome);
        }
        true
    }

    /// Waits for the end. Cancel safe.
    pub(super) async fn ended(&mut self) {
        if let Storing::Running(outcome) = &mut self.storing {
            let outcome = outcome.await.unwrap_or_else(|_| Err(panicked()).into());
            self.storing = Storing::Ended(outcome);
        }
    }

    /// What is flushed is no longer its business.
    fn leave_flushing(&mut self) {
        let commit = Commit {
            rows: Vec::new(),
            checkpoint: None,
            purge_before: None,
            ..Commit::clone(&self.commit)
        };
        self.commit = Arc::new(commit);
        (self.flushed, self.advance, self.unflushed) = (0..0, None, Unflushed::default());
        self.block = None;
    }

    /// Begins to store it on the commit thread.
    fn begin(&mut self, backend: Arc<dyn Backend>, thread: &CommitThread) {
        let (commit, span, timed) =
            (self.commit.clone(), self.span.clone(), self.timing.is_wanted());
        let (sender, receiver) = oneshot::channel();
        thread.run(move |runtime| {
            let stored = runtime.block_on(store(backend.as_ref(), &commit, &span, timed));
            // Released first: the receiver may be about to close the backend.
            drop((backend, commit, span));
            let _ = sender.send(stored);
        });
        self.storing = Storing::Running(receiver);
    }

    /// Stores it on this thread.
    async fn complete(&mut self, backend: &dyn Backend) {
        let timed = self.timing.is_wanted();
        self.storing = Storing::Ended(store(backend, &self.commit, &self.span, timed).await);
    }
}

impl Writer {
    pub(super) fn next_step(&mut self, nothing_more: bool) -> Step {
        let batch = self.batch.as_ref().map(Batch::len);
        let in_flight = self.in_flight.as_mut().map(|commit| (commit.len(), commit.has_ended()));
        next_step(batch, in_flight, self.target_len, nothing_more)
    }

    /// The batch that takes commands now.
    pub(super) fn open_batch(&mut self) -> &mut Batch {
        let Self { batch, in_flight, shared, last_sizes, options, .. } = self;
        let max_block = options.max_block_bytes;
        batch.get_or_insert_with(|| match in_flight {
            Some(commit) => Batch::on(&commit.state, *last_sizes, max_block),
            None => Batch::on(&shared.published.load().state, *last_sizes, max_block),
        })
    }

    /// Publishes the commit in flight, which has ended.
    pub(super) async fn publish_in_flight(&mut self) {
        let Some(in_flight) = self.in_flight.take() else { return };
        let len = in_flight.len();
        let Some(durable) = self.await_commit(in_flight).await else { return };
        let overlaps = self.batch.is_some();
        self.target_len = if overlaps { len } else { 0 };
        self.conclude(durable, overlaps).await;
    }

    /// Seals the open batch and begins its commit, then publishes the commit before it.
    pub(super) async fn rotate(&mut self, more_waits: bool) {
        let durable = match self.in_flight.take() {
            Some(in_flight) => match self.await_commit(in_flight).await {
                Some(durable) => Some(durable),
                None => return,
            },
            None => None,
        };
        // A hop to the commit thread pays only if there is something to do meanwhile.
        let overlaps = more_waits || durable.is_some() || self.target_len > 0;
        self.target_len = 0;
        self.keep_up_between_commits().await;
        let learnt = self.learn_sequences().await;
        let Some(batch) = self.batch.take() else { return };
        self.last_sizes = batch.sizes();
        let sealed_at = self.moment();
        let seal = || batch.seal(self.entropy.as_ref(), &self.sequences);
        let (callers, sealed) = self.shared.vital.at_work(seal);
        let sealed = match learnt.and(sealed) {
            Ok(sealed) => self.look_for_consumers(&sealed).await.map(|()| sealed),
            refused => refused,
        };
        match sealed {
            Ok(sealed) if !sealed.is_empty() => {
                let mut in_flight = self.prepare(callers, sealed, sealed_at);
                if overlaps {
                    in_flight.begin(self.backend.clone(), &self.commit_thread);
                }
                if let Some(durable) = durable {
                    if let Err(error) = self.confirm().await {
                        // It builds on what nobody is told of. What it flushed is newer, and so is put
                        // back first.
                        in_flight.ended().await;
                        self.take_back(in_flight).fail(&unconfirmed(&error));
                        return self.take_back(durable.0).fail(&unconfirmed(&error));
                    }
                    self.publish(durable, overlaps);
                }
                if !overlaps {
                    in_flight.complete(self.backend.as_ref()).await;
                }
                self.in_flight = Some(in_flight);
            }
            Ok(sealed) => {
                if let Some(durable) = durable
                    && !self.conclude(durable, false).await
                {
                    return self.put_back(callers.into_requests());
                }
                self.answer_without_commit(callers, sealed.before).await;
            }
            Err(error) => {
                if let Some(durable) = durable
                    && !self.conclude(durable, false).await
                {
                    return self.put_back(callers.into_requests());
                }
                if *error.kind() == ErrorKind::Exhausted && callers.len() > 1 {
                    // Their block would be too large. Alone, only those that are too large by
                    // themselves fail.
                    self.alone = callers.len();
                    self.put_back(callers.into_requests());
                } else {
                    callers.fail(&error);
                }
            }
        }
    }

    /// Nothing is to be stored: every command was refused, or was a repetition.
    async fn answer_without_commit(&mut self, callers: Callers, serial: Serial) {
        // A refusal, too, must hold on what other processes have written.
        if self.is_shared {
            match self.catch_up().await {
                Ok(()) if self.state().serial() != serial => return self.retry(callers),
                Ok(()) => {}
                Err(error) => return callers.fail(&error),
            }
        }
        self.count(&callers);
        callers.answer(serial);
    }

    /// Has the requests decided again before all others, unless that has happened too often.
    fn retry(&mut self, callers: Callers) {
        self.conflicts += 1;
        self.turns.lost(Instant::now());
        if self.conflicts >= ATTEMPTS {
            self.conflicts = 0;
            return callers.fail(&outrun());
        }
        self.put_back(callers.into_requests());
    }

    pub(super) fn has_commit_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    pub(super) fn put_back(&mut self, requests: impl DoubleEndedIterator<Item = Request>) {
        requests.rev().for_each(|request| self.waiting.push_front(request));
    }

    /// Waits for the end of a commit and resolves its outcome. If it was not stored, the batch that
    /// was decided on top of it is taken back.
    async fn await_commit(&mut self, mut in_flight: InFlight) -> Option<Durable> {
        in_flight.ended().await;
        let stored = match &mut in_flight.storing {
            Storing::Ended(stored) => std::mem::replace(stored, Ok(()).into()),
            Storing::Running(_) => Ok(()).into(),
        };
        in_flight.timing.stored(&stored);
        self.tell_commit(&stored, &in_flight.commit, (in_flight.len(), in_flight.points));
        let settled = self.settle(&in_flight.commit, stored.outcome).await;
        if in_flight.sent_to != self.identity {
            // Another database goes on, and has every row in its tables.
            in_flight.leave_flushing();
        }
        let error = match settled {
            Ok(()) => {
                self.conflicts = 0;
                self.turns.won();
                self.sequences.extend(in_flight.sequences.iter().copied());
                self.consumers.stored(std::mem::take(&mut in_flight.entered));
                return Some(Durable(in_flight));
            }
            Err(error) => error,
        };
        let callers = self.take_back(in_flight);
        if *error.kind() != ErrorKind::Conflict {
            callers.fail(&error);
        } else if let Err(error) = self.catch_up_after_conflict().await {
            callers.fail(&error);
        } else {
            self.retry(callers);
        }
        None
    }

    /// Gives up a commit, and the open batch, which was decided on top of it. What it flushed is to be
    /// flushed again, and its callers are to be answered.
    fn take_back(&mut self, in_flight: InFlight) -> Callers {
        let flushed = in_flight.commit.rows.get(in_flight.flushed.clone()).unwrap_or_default();
        self.checkpointer.backlog.put_back(flushed, in_flight.advance);
        self.reconsider_batch();
        in_flight.callers
    }

    /// Confirms and publishes a durable commit. Tells whether that could be; otherwise it is for
    /// reopening to publish it.
    async fn conclude(&mut self, durable: Durable, overlaps: bool) -> bool {
        match self.confirm().await {
            Ok(()) => self.publish(durable, overlaps),
            Err(error) => {
                self.target_len = 0;
                self.take_back(durable.0).fail(&unconfirmed(&error));
                return false;
            }
        }
        true
    }

    /// Reads how far the writers of the open batch have come that nothing is known of, since others may have
    /// stored series of theirs.
    async fn learn_sequences(&mut self) -> Result<()> {
        if self.sequences_are_all {
            return Ok(());
        }
        let writers = self.batch.iter().flat_map(Batch::writers);
        let unknown: BTreeSet<_> =
            writers.filter(|writer| !self.sequences.contains_key(writer)).collect();
        for writer in unknown {
            if let Some(sequence) = loader::read_sequence(self.backend.as_ref(), writer).await? {
                self.sequences.insert(writer, sequence);
            }
        }
        Ok(())
    }

    /// A consumer may have taken more than this process knows, where others serve it: it is not to be
    /// given up because of that.
    async fn look_for_consumers(&mut self, sealed: &SealedBatch) -> Result<()> {
        let block = sealed.block.as_ref().map_or(0, |closed| closed.block.bytes.len());
        self.make_room_for((block + weight(&sealed.series)) as u64).await
    }

    /// The same for a commit of so many bytes.
    pub(super) async fn make_room_for(&mut self, bytes: u64) -> Result<()> {
        if self.is_shared && self.consumers.would_overflow(bytes) {
            self.read_consumers().await?;
        }
        Ok(())
    }

    /// Reads who follows. What is then written of them is in conflict if somebody else stored something
    /// since: that another process moved one is not seen in the position.
    pub(super) async fn read_consumers(&mut self) -> Result<()> {
        self.consumers_revision = self.backend.revision().await?;
        let head = self.backend.head().await?;
        self.consumers = Consumers::read(self.backend.as_ref(), &head).await?;
        Ok(())
    }

    /// What a commit has to find, if it writes of consumers.
    pub(super) fn revision_for(&self, commit: &Commit) -> Option<u64> {
        let of_consumers = commit.rows.iter().any(|row| row.table == Table::Consumers);
        self.consumers_revision.filter(|_| of_consumers)
    }

    /// Up to where a commit may purge blocks, which perhaps advances the checkpoint.
    pub(super) fn purge_before(&self, checkpoint: Option<Serial>) -> Option<Serial> {
        match self.shared.holds.is_held() {
            true => None,
            false => self.checkpointer.purge_before(checkpoint, self.consumers.taken()),
        }
    }

    fn prepare(
        &mut self,
        callers: Callers,
        sealed: SealedBatch,
        sealed_at: Option<Instant>,
    ) -> InFlight {
        let SealedBatch { state, expected, before, entry, block, series, sequences } = sealed;
        let (mut unflushed, mut encoded) = (Unflushed::default(), None);
        if let Some(ClosedBlock { block, changes, audit_rows, audit }) = block {
            self.shared.submitted.store(block.serial.get(), Ordering::SeqCst);
            self.shared.digests.mark(block.serial, &changes);
            unflushed = Unflushed { changes, audit_rows, audit };
            encoded = Some(block);
        }
        let arriving = unflushed.changes.len() + unflushed.audit_rows.len();
        let FlushSlice { mut rows, advance } = match self.materialize {
            // There is a backlog only if the store was opened with one.
            Materialize::Commit => self.checkpointer.backlog.take(usize::MAX),
            Materialize::Checkpoint => {
                self.checkpointer.take(arriving, self.options.max_dirty_rows)
            }
        };
        // The backlog is older than this batch's rows, and has no key of the series.
        let flushed = 0..rows.len();
        let epoch = self.epoch;
        let checkpoint = advance.map(|advance| advance.to);
        let mut commit = Commit { expected, epoch, entry, checkpoint, ..Commit::default() };
        if self.materialize == Materialize::Commit {
            let Unflushed { changes, audit_rows, .. } = std::mem::take(&mut unflushed);
            rows.extend(changes);
            rows.extend(audit_rows);
            commit.checkpoint = encoded.as_ref().map(|block| block.serial).or(commit.checkpoint);
        }
        commit.purge_before = self.purge_before(commit.checkpoint);
        let block = encoded.as_ref().map(|block| (block.serial, block.bytes.len() as u64));
        commit.block = encoded;
        commit.rows = rows;
        let entered = self.consumers.enter(&mut commit, &series, before);
        commit.revision = self.revision_for(&commit);
        let points = series.len();
        commit.rows.extend(series);
        let batch_span = spans::batch(callers.spans(), callers.len());
        let span = spans::commit(&batch_span, self.database(), &commit, callers.spans());
        let timing = Timing::encoded(sealed_at);
        InFlight {
            callers,
            state,
            sequences,
            unflushed,
            block,
            commit: Arc::new(commit),
            flushed,
            advance,
            entered,
            storing: Storing::Ended(Ok(()).into()),
            sent_to: self.identity,
            sent_at: self.elapsed(),
            _batch_span: batch_span,
            span,
            timing,
            points,
        }
    }

    /// Makes a durable batch visible, remembers what is still to be flushed, and answers the callers.
    fn publish(&mut self, Durable(mut stored): Durable, overlaps: bool) {
        self.count(&stored.callers);
        let mut audit = self.shared.published.load().audit.clone();
        if let Some(advance) = stored.advance {
            // These are in the table by now and need no longer be merged into queries.
            audit.remove_first(advance.audit);
        }
        if let Some(checkpoint) = stored.commit.checkpoint {
            self.checkpointer.set_checkpoint(checkpoint);
            self.checkpointed(true);
        }
        if let Some(before) = stored.commit.purge_before {
            self.checkpointer.set_oldest(before);
        }
        if let Some(block) = stored.block {
            self.shared.counters.groups.fetch_add(1, Ordering::Relaxed);
            let Unflushed { changes, audit_rows, audit: entries } =
                std::mem::take(&mut stored.unflushed);
            audit.extend(entries.into_iter().map(Arc::new));
            let retain = self.options.retain_block_bytes;
            self.checkpointer.add_block(block, changes, audit_rows, retain);
        }
        let serial = stored.state.serial();
        let replaced = self.publish_state(std::mem::take(&mut stored.state), audit, stored.sent_at);
        let slow = self.slow(&stored);
        stored.callers.answer(serial);
        // Nobody waits for what is told of it.
        self.tell_slow(slow);
        if overlaps {
            // Freeing the old state costs a good part of what making the new one does.
            self.commit_thread.run(move |_| drop((replaced, stored.commit)));
        }
    }

    /// Publishes a state that holds everything that was durable at a moment. Gives what was published
    /// before.
    pub(super) fn publish_state(
        &self,
        state: State,
        audit: UnflushedAudit,
        fresh_at: Duration,
    ) -> Arc<Published> {
        let serial = state.serial();
        let dirty = self.checkpointer.backlog.len() as u64;
        let counters = &self.shared.counters;
        counters.dirty_rows.store(dirty, Ordering::Relaxed);
        let (oldest, bytes) = self.checkpointer.kept();
        counters.oldest_block.store(oldest.get(), Ordering::Relaxed);
        counters.block_bytes.store(bytes, Ordering::Relaxed);
        let replaced = self.shared.published.load();
        let published = Arc::new(Published::new(state, audit, fresh_at).after(&replaced));
        drop(replaced);
        let replaced = self.shared.published.swap(published);
        if self.recorder.is_some() {
            self.shared.observed.views.replaced(&replaced);
        }
        self.shared.progress.send_modify(|progress| progress.serial = serial);
        replaced
    }

    fn count(&self, callers: &Callers) {
        let counters = &self.shared.counters;
        let (commands, refused) = callers.commands();
        counters.commands.fetch_add(commands as u64, Ordering::Relaxed);
        counters.rejected.fetch_add(refused as u64, Ordering::Relaxed);
    }
}
