//! The commit that is being stored while the next group is carried out.
//!
//! At most one commit is under way. The group after it is carried out on the state that the commit
//! will lead to, and can be taken back: nobody sees that state or hears of the commands before
//! both are durable.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tracing::Instrument;

use super::group::{Callers, Closed, Group};
use super::{Disk, Request, Writer};
use crate::backend::{Backend, Commit};
use crate::block::{ClosedBlock, RowChange, Serial};
use crate::domain::{AuditEntry, WriterId};
use crate::error::{Error, ErrorKind, Result};
use crate::fold::{Checkpoint, Slice};
use crate::options::Materialize;
use crate::state::State;
use crate::unfolded::UnfoldedAudit;
use crate::view::Published;

/// A group whose commit is being stored.
pub(super) struct Flight {
    callers: Callers,
    /// The state once it is stored.
    state: State,
    positions: Vec<(WriterId, u64)>,
    /// What the block changed, unless the commit folds that, too.
    unfolded: Unfolded,
    block: Option<(Serial, u64)>,
    commit: Arc<Commit>,
    /// Which rows of the commit are a slice of the debt.
    slice: Range<usize>,
    checkpoint: Option<Checkpoint>,
    storing: Storing,
}

#[derive(Default)]
struct Unfolded {
    changes: Vec<RowChange>,
    audit_rows: Vec<RowChange>,
    audit: Vec<AuditEntry>,
}

enum Storing {
    /// On the other thread.
    Running(oneshot::Receiver<Result<()>>),
    Ended(Result<()>),
}

/// What is to be done with the open group and the commit under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: the group takes more in, or waits.
    Gather,
    /// Tell the callers of the commit, which is over.
    Publish,
    /// End the group, begin to store it, and tell the callers of the commit before, if it is over.
    Begin,
}

/// Whoever is stored is told at once, whatever the group does. Of groups that overlap none is
/// smaller than the one before, unless nothing else waits: neither the disk nor the commands are
/// waited for longer than they must be, and groups cannot shrink until each caller has a commit
/// of its own.
///
/// `group` is how long the open group is, `flight` how long the one under way and whether it is
/// over, `awaited` how long the last one was if it is published and this group was open then.
pub(super) fn next_step(
    group: Option<usize>,
    flight: Option<(usize, bool)>,
    awaited: usize,
    nothing_more: bool,
) -> Step {
    match (group, flight) {
        (_, Some((_, false))) | (None, None) => Step::Gather,
        (None, Some(_)) => Step::Publish,
        (Some(len), flight) => {
            if nothing_more || len >= flight.map_or(awaited, |(before, _)| before) {
                Step::Begin
            } else if flight.is_some() {
                Step::Publish
            } else {
                Step::Gather
            }
        }
    }
}

/// Has the backend store a commit. If it panics, nobody knows whether it did.
pub(super) async fn store(backend: &dyn Backend, commit: &Commit) -> Result<()> {
    let storing = AssertUnwindSafe(async { backend.commit(commit).await });
    storing.catch_unwind().await.unwrap_or_else(|_| Err(unknown()))
}

fn unknown() -> Error {
    Error::new(ErrorKind::OutcomeUnknown, "the backend panicked during a commit")
}

impl Flight {
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn len(&self) -> usize {
        self.callers.len()
    }

    fn is_over(&mut self) -> bool {
        if let Storing::Running(told) = &mut self.storing {
            let outcome = match told.try_recv() {
                Ok(outcome) => outcome,
                Err(oneshot::error::TryRecvError::Empty) => return false,
                Err(oneshot::error::TryRecvError::Closed) => Err(unknown()),
            };
            self.storing = Storing::Ended(outcome);
        }
        true
    }

    /// Waits for the end. May be dropped and called again.
    pub(super) async fn ended(&mut self) {
        if let Storing::Running(told) = &mut self.storing {
            let outcome = told.await.unwrap_or_else(|_| Err(unknown()));
            self.storing = Storing::Ended(outcome);
        }
    }

    /// Stores it on the other thread.
    fn begin(&mut self, backend: Arc<dyn Backend>, disk: &Disk) {
        let (commit, span) = (self.commit.clone(), self.span());
        let (tell, told) = oneshot::channel();
        disk.run(move |runtime| {
            let storing = async { store(backend.as_ref(), &commit).await };
            let outcome = runtime.block_on(storing.instrument(span));
            // Nobody holds the backend for a commit that is over.
            drop((backend, commit));
            let _ = tell.send(outcome);
        });
        self.storing = Storing::Running(told);
    }

    /// Stores it on this thread.
    async fn complete(&mut self, backend: &dyn Backend) {
        let outcome = store(backend, &self.commit).instrument(self.span()).await;
        self.storing = Storing::Ended(outcome);
    }

    fn span(&self) -> tracing::Span {
        tracing::debug_span!("writer.group", commands = self.callers.len())
    }
}

impl Writer {
    pub(super) fn next_step(&mut self, nothing_more: bool) -> Step {
        let group = self.group.as_ref().map(Group::len);
        let flight = self.flight.as_mut().map(|flight| (flight.len(), flight.is_over()));
        next_step(group, flight, self.awaited, nothing_more)
    }

    /// Tells the callers of the commit that is over.
    pub(super) async fn publish_flight(&mut self) {
        let Some(flight) = self.flight.take() else { return };
        let len = flight.len();
        let Some(landed) = self.land(flight).await else { return };
        let overlaps = self.group.is_some();
        self.awaited = if overlaps { len } else { 0 };
        self.publish(landed, overlaps);
    }

    /// Ends the open group and begins to store it, then tells the callers of the one before.
    pub(super) async fn turn(&mut self, more_waits: bool) {
        let landed = match self.flight.take() {
            Some(flight) => match self.land(flight).await {
                Some(landed) => Some(landed),
                None => return,
            },
            None => None,
        };
        // Where nobody else could use it, the way to the other thread only takes time.
        let overlaps = more_waits || landed.is_some() || self.awaited > 0;
        self.awaited = 0;
        let Some(group) = self.group.take() else { return };
        self.last_sizes = group.sizes();
        let (callers, closed) = group.close(self.entropy.as_ref(), &self.positions);
        match closed {
            Ok(closed) if !closed.is_empty() => {
                let mut flight = self.prepare(callers, closed);
                if overlaps {
                    flight.begin(self.backend.clone(), &self.disk);
                }
                if let Some(landed) = landed {
                    self.publish(landed, overlaps);
                }
                if !overlaps {
                    flight.complete(self.backend.as_ref()).await;
                }
                self.flight = Some(flight);
            }
            Ok(closed) => {
                if let Some(landed) = landed {
                    self.publish(landed, false);
                }
                self.answer_without_commit(callers, closed.expected).await;
            }
            Err(error) => {
                if let Some(landed) = landed {
                    self.publish(landed, false);
                }
                if *error.kind() == ErrorKind::Exhausted && callers.len() > 1 {
                    // One of them is too large by itself. The others have nothing to do with that.
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
        // A refusal, too, must not rest on what another process has changed meanwhile.
        if self.is_shared {
            match self.catch_up().await {
                Ok(()) if self.state().serial() != serial => return self.again(callers),
                Ok(()) => {}
                Err(error) => return callers.fail(&error),
            }
        }
        self.count(&callers);
        callers.answer(serial);
    }

    /// Puts the requests back to the front of what waits, unless that has happened too often.
    fn again(&mut self, callers: Callers) {
        const ATTEMPTS: usize = 32;
        self.conflicts += 1;
        if self.conflicts >= ATTEMPTS {
            self.conflicts = 0;
            return callers.fail(&Error::new(
                ErrorKind::Busy,
                "other processes kept writing first; try again",
            ));
        }
        self.put_back(callers.into_requests());
    }

    fn put_back(&mut self, requests: impl DoubleEndedIterator<Item = Request>) {
        requests.rev().for_each(|request| self.backlog.push_front(request));
    }

    /// Finds out how a commit ended. If it was not stored, what was built on it is taken back.
    async fn land(&mut self, mut flight: Flight) -> Option<Flight> {
        flight.ended().await;
        let outcome = match &mut flight.storing {
            Storing::Ended(outcome) => std::mem::replace(outcome, Ok(())),
            Storing::Running(_) => Ok(()),
        };
        let error = match self.judge(&flight.commit, outcome).await {
            Ok(()) => {
                self.conflicts = 0;
                self.positions.extend(flight.positions.iter().copied());
                return Some(flight);
            }
            Err(error) => error,
        };
        let rows = flight.commit.rows.get(flight.slice.clone()).unwrap_or_default();
        self.fold.take_back(rows, flight.checkpoint);
        if let Some(group) = self.group.take() {
            self.put_back(group.into_requests());
        }
        if *error.kind() != ErrorKind::Conflict {
            flight.callers.fail(&error);
        } else if let Err(error) = self.learn().await {
            flight.callers.fail(&error);
        } else {
            // Another process was first: decide again, on top of what it wrote.
            self.again(flight.callers);
        }
        None
    }

    fn prepare(&mut self, callers: Callers, closed: Closed) -> Flight {
        let Closed { state, expected, block, series, positions } = closed;
        let (mut unfolded, mut encoded) = (Unfolded::default(), None);
        if let Some(ClosedBlock { block, changes, audit_rows, audit }) = block {
            self.shared.storing.store(block.serial.get(), Ordering::SeqCst);
            self.shared.digests.mark(block.serial, &changes);
            unfolded = Unfolded { changes, audit_rows, audit };
            encoded = Some(block);
        }
        let arriving = unfolded.changes.len() + unfolded.audit_rows.len();
        let Slice { mut rows, checkpoint } = self.next_slice(arriving);
        // The debt is older than this group's rows, and shares no key with those of the series.
        let slice = 0..rows.len();
        rows.extend(series);
        let mut commit = Commit {
            expected,
            checkpoint: checkpoint.map(|checkpoint| checkpoint.serial),
            ..Commit::default()
        };
        if self.materialize == Materialize::Commit {
            let Unfolded { changes, audit_rows, .. } = std::mem::take(&mut unfolded);
            rows.extend(changes);
            rows.extend(audit_rows);
            commit.checkpoint = encoded.as_ref().map(|block| block.serial).or(commit.checkpoint);
        }
        commit.purge_before = self.purge_before(commit.checkpoint);
        let block = encoded.as_ref().map(|block| (block.serial, block.bytes.len() as u64));
        commit.block = encoded;
        commit.rows = rows;
        Flight {
            callers,
            state,
            positions,
            unfolded,
            block,
            commit: Arc::new(commit),
            slice,
            checkpoint,
            storing: Storing::Ended(Ok(())),
        }
    }

    /// Makes a stored group visible, remembers what is still to be folded, and tells the callers.
    fn publish(&mut self, flight: Flight, overlaps: bool) {
        self.count(&flight.callers);
        let mut audit = self.shared.published.load().audit.clone();
        if let Some(checkpoint) = flight.checkpoint {
            // These are rows by now and need no longer be merged into queries.
            audit.remove_first(checkpoint.audit);
        }
        if let Some(checkpoint) = flight.commit.checkpoint {
            self.checkpoint = checkpoint;
            self.shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        }
        if let Some((serial, bytes)) = flight.block {
            self.shared.counters.groups.fetch_add(1, Ordering::Relaxed);
            self.retained.add(serial, bytes, self.options.retain_block_bytes);
            audit.extend(flight.unfolded.audit.into_iter().map(Arc::new));
            self.fold.add(serial, flight.unfolded.changes, flight.unfolded.audit_rows);
        }
        let serial = flight.state.serial();
        let replaced = self.publish_state(flight.state, audit);
        flight.callers.answer(serial);
        if overlaps {
            // Taking the old state apart costs a good part of what making the new one does.
            self.disk.run(move |_| drop((replaced, flight.commit)));
        }
    }

    /// Gives what was published before.
    pub(super) fn publish_state(&self, state: State, audit: UnfoldedAudit) -> Arc<Published> {
        let serial = state.serial();
        let fold_debt = self.fold.len() as u64;
        self.shared.counters.fold_debt.store(fold_debt, Ordering::Relaxed);
        let replaced = self.shared.published.load();
        let published = Arc::new(Published::new(state, audit).after(&replaced));
        drop(replaced);
        let replaced = self.shared.published.swap(published);
        self.shared.progress.send_modify(|progress| progress.serial = serial);
        replaced
    }

    fn count(&self, callers: &Callers) {
        let counters = &self.shared.counters;
        let (commands, refused) = callers.commands();
        counters.commands.fetch_add(commands as u64, Ordering::Relaxed);
        counters.rejected.fetch_add(refused as u64, Ordering::Relaxed);
    }

    /// The group that takes commands now.
    pub(super) fn open_group(&mut self) -> &mut Group {
        let Self { group, flight, shared, last_sizes, options, .. } = self;
        let max_block = options.max_block_bytes;
        group.get_or_insert_with(|| match flight {
            Some(flight) => Group::on(flight.state(), *last_sizes, max_block),
            None => Group::on(&shared.published.load().state, *last_sizes, max_block),
        })
    }
}
