//! How a commit ended, and catching up with what other processes committed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::in_flight::uninterrupted;
use super::observing::store;
use super::{Answer, Found, Identity, Writer};
use crate::backend::{Commit, Head};
use crate::block::{ChangeKind, RowChange, Serial};
use crate::changes::LogPosition;
use crate::checkpoint::{FlushBacklog, UnflushedAudit};
use crate::domain::CommitId;
use crate::error::{Error, ErrorKind, Result};
use crate::health::LoadProgress;
use crate::loader;
use crate::log::chain::{Chain, read_chain};
use crate::log::consumers::Consumers;
use crate::log::feed;
use crate::log::replay::replay;
use crate::migration::Role;
use crate::observe::{Event, spans};
use crate::options::Materialize;
use crate::position::Position;

impl Writer {
    /// Stores a commit while no other is in flight.
    pub(super) async fn store(&mut self, commit: &Commit) -> Result<()> {
        let span = spans::lone_commit(self.database(), commit);
        let stored = store(self.backend.as_ref(), commit, &span, self.recorder.is_some()).await;
        self.tell_commit(&stored, commit, (0, 0));
        self.settle(commit, stored.outcome).await
    }

    /// Makes the outcome of a commit certain, and remembers it for those who ask how the store does.
    pub(super) async fn settle(&mut self, commit: &Commit, outcome: Result<()>) -> Result<()> {
        let settled = self.resolve_outcome(commit, outcome).await;
        match &settled {
            Ok(()) => self.shared.vital.commit_stored(),
            Err(error) => match error.kind() {
                // The first two say nothing of the disk, and the last one poisons.
                ErrorKind::Conflict | ErrorKind::Fenced { .. } | ErrorKind::OutcomeUnknown => {}
                _ => self.shared.vital.commit_refused(error),
            },
        }
        settled
    }

    /// Makes the outcome of a commit certain. After any error but `Conflict` and `Fenced` the writer is
    /// poisoned, reopens the backend and compares. `Ok` and those two are then certain; so is any other
    /// error unless it is `OutcomeUnknown`, or the backend could not be reopened.
    async fn resolve_outcome(&mut self, commit: &Commit, outcome: Result<()>) -> Result<()> {
        let error = match outcome {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::Conflict => return Err(error),
            ErrorKind::Fenced { .. } => return Err(self.fence(error)),
            _ => {}
        }
        tracing::warn!(%error, "a commit failed; reopening the backend to compare");
        self.shared.vital.note("commit", &error);
        self.poison(true);
        self.recovers();
        if *error.kind() == ErrorKind::OutcomeUnknown {
            self.record(&Event::UnknownOutcome);
        }
        let epoch = self.epoch;
        let head = match self.reopen_backend().await {
            Ok(head) => head,
            Err(reopening) => {
                tracing::error!(error = %reopening, "the backend cannot be reopened");
                return Err(error);
            }
        };
        self.check_head(&head)?;
        if head.position > commit.expected {
            return self.resolve_by_id(commit, &head, error).await;
        }
        if self.epoch != epoch {
            // Only the database that was lost may have it, and that is superseded.
            self.poison(false);
            return Err(Error::new(
                ErrorKind::Unavailable,
                "one of two databases was lost before the other one had the commit, which is not stored",
            )
            .because(error.to_string()));
        }
        if *error.kind() != ErrorKind::OutcomeUnknown {
            self.poison(false);
            return Err(error);
        }
        // It is not there, but may still arrive. Sending the identical commit again settles that:
        // either this one is stored, or it is in conflict with the first.
        let span = spans::lone_commit(self.database(), commit);
        match store(self.backend.as_ref(), commit, &span, self.recorder.is_some()).await.outcome {
            Ok(()) => {
                self.poison(false);
                Ok(())
            }
            Err(second) => match second.kind() {
                ErrorKind::Conflict => match self.backend.reopen().await {
                    Ok(head) => self.resolve_by_id(commit, &head, error).await,
                    Err(_) => Err(error),
                },
                ErrorKind::Fenced { .. } => self.resolve_fenced(commit, second, error).await,
                _ => Err(error),
            },
        }
    }

    /// Somebody took over before the commit was sent again; what was sent first may have arrived
    /// before that.
    async fn resolve_fenced(
        &mut self,
        commit: &Commit,
        fenced: Error,
        unknown: Error,
    ) -> Result<()> {
        let outcome = match self.backend.reopen().await {
            Ok(head) => {
                self.check_head(&head)?;
                match head.position > commit.expected {
                    true => self.resolve_by_id(commit, &head, unknown).await,
                    false => Err(fenced.clone()),
                }
            }
            Err(_) => Err(unknown),
        };
        let fenced = self.fence(fenced);
        outcome.map_err(|error| if *error.kind() == ErrorKind::Conflict { fenced } else { error })
    }

    /// Some commit follows the one that this built on: this one, or another process's. Which it was
    /// tell the head, the block or the feed.
    async fn resolve_by_id(&mut self, commit: &Commit, head: &Head, error: Error) -> Result<()> {
        let unknown = |why: Error| {
            Error::new(ErrorKind::OutcomeUnknown, "the outcome of a commit cannot be read back")
                .with("cause", &error)
                .because(why)
        };
        let next = commit.expected.next();
        let found = if head.position == next {
            Some(head.commit)
        } else if let Some(block) = &commit.block {
            let before = Serial::new(block.serial.get().saturating_sub(1));
            let blocks = self.backend.blocks(before, 1).await.map_err(unknown)?;
            blocks.first().map(|block| CommitId::from_bytes(*block.id.as_bytes()))
        } else {
            let row = feed::row_at(self.backend.as_ref(), next).await.map_err(unknown)?;
            row.map(|row| row.commit)
        };
        self.poison(false);
        match (commit.id(), found) {
            (Some(id), Some(found)) if id == found => Ok(()),
            // Others went on, and nobody follows the log, so that it does not tell.
            (Some(_), None) if commit.block.is_none() => Err(unknown(Error::new(
                ErrorKind::Compacted { oldest: head.position.get() },
                "other processes have committed since, and their commits are not kept",
            ))),
            _ => Err(Error::new(ErrorKind::Conflict, "another commit came first")),
        }
    }

    /// Has what is stored confirmed, where the store has a pin. If that cannot be, nobody is told of it,
    /// and nothing is accepted until it can; a store that another one has overtaken ends.
    pub(super) async fn confirm(&mut self) -> Result<()> {
        if !self.is_pinned {
            return Ok(());
        }
        let backend = self.backend.clone();
        let Err(error) = uninterrupted(async { backend.confirm().await }).await else {
            return Ok(());
        };
        if matches!(error.kind(), ErrorKind::Fenced { .. }) {
            self.stopped = Some(self.fence(error.clone()));
            self.shared.closing.begin();
        } else {
            tracing::error!(%error, "the pin cannot be moved; nothing is written until it can");
            self.shared.vital.note("confirm", &error);
            self.poison(true);
        }
        Err(error)
    }

    /// Nothing is written any more: somebody else has taken over. Nothing of the commit was stored.
    pub(super) fn fence(&mut self, error: Error) -> Error {
        tracing::error!(%error, "this store may not write any more");
        self.poison(false);
        self.shared.vital.fence(&error);
        self.fenced = Some(error.clone());
        error
    }

    /// Reopens the backend and catches up with it.
    pub(super) async fn reopen(&mut self) -> Result<()> {
        let head = self.reopen_backend().await?;
        self.check_head(&head)?;
        self.confirm().await?;
        if head.position > self.state().position() {
            self.catch_up().await?;
        }
        if self.poisoned {
            self.poison(false);
            tracing::info!(
                name: "store_recovered",
                serial = self.state().serial().get(),
                "the backend was reopened and has what was acknowledged; writes are accepted again"
            );
        }
        self.watch_epoch(&head);
        Ok(())
    }

    /// Refuses writes from now on if the epoch is another one.
    fn watch_epoch(&mut self, head: &Head) {
        if head.epoch != self.epoch && self.fenced.is_none() {
            self.fence(head.fenced().with("expected", self.epoch));
        }
    }

    /// The backend must be the one that was opened, and not have less than what callers were told is
    /// durable.
    fn check_head(&self, head: &Head) -> Result<()> {
        // Where both sides are in step this process has seen the other one.
        let is_in_step = self.seat.as_ref().is_some_and(|seat| seat.mirror().is_some());
        if !is_in_step || head.record().role != Role::ActiveSync {
            head.require_served(self.read_only)?;
        }
        if Identity::of(head) != self.identity {
            return Err(Error::corrupt(
                "the backend holds another store, or another history of it, than the one that was \
                 opened; open it anew",
            )
            .with("store", head.store)
            .with("side", head.side)
            .with("lineage", head.lineage));
        }
        let state = self.state();
        let replaced = head.serial == state.serial() && head.hash != state.hash();
        if head.position < state.position() || head.serial < state.serial() || replaced {
            return Err(Error::corrupt(
                "the backend lost or replaced commits that were durable; restore a backup",
            )
            .with("stored_position", head.position)
            .with("position", state.position())
            .with("stored_serial", head.serial)
            .with("serial", state.serial()));
        }
        Ok(())
    }

    /// Catches up with the commits of other processes after a `Conflict`. If there are none, the
    /// backend has fewer commits than were acknowledged, which reopening reports.
    pub(super) async fn catch_up_after_conflict(&mut self) -> Result<()> {
        let known = self.state().position();
        self.catch_up().await?;
        if self.state().position() != known {
            return Ok(());
        }
        if self.consumers_revision.is_some() {
            self.read_consumers().await?;
        }
        self.reopen().await
    }

    /// Answers those who wait for a position that others have come to. A commit in flight finds out by
    /// itself whether somebody else was first, so nothing is done for them before it ends, and no batch ends
    /// because of them.
    pub(super) async fn serve_followers(&mut self) {
        let before = self.state().position();
        let has_come = |(position, _): &mut (Position, Answer<()>)| *position <= before;
        for (_, answer) in self.followers.extract_if(.., has_come) {
            answer.send(Ok(()));
        }
        if self.followers.is_empty() || self.has_commit_in_flight() {
            return;
        }
        let refreshed = match &self.moving {
            Some(error) => Err(error.clone()),
            None => self.refresh().await,
        };
        if self.state().position() != before {
            // It would come second.
            self.reconsider_batch();
        }
        for (_, answer) in self.followers.drain(..) {
            answer.send(refreshed.clone());
        }
    }

    /// Applies and publishes the commits that other processes made. If their blocks are gone, the store
    /// is loaded anew; meanwhile readers have the state as it was.
    pub(super) async fn catch_up(&mut self) -> Result<()> {
        match self.follow().await {
            Err(error) if matches!(error.kind(), ErrorKind::Compacted { .. }) => {
                tracing::warn!(%error, "the blocks to catch up by are gone; loading the store anew");
                let (before, asked) = (self.state().position(), Instant::now());
                let loaded = self.load_anew().await;
                self.note_look(before, asked, &loaded);
                loaded
            }
            followed => followed,
        }
    }

    /// The same, if their blocks are there.
    ///
    /// # Errors
    /// `Compacted` if they are not.
    pub(super) async fn follow(&mut self) -> Result<()> {
        let (before, asked) = (self.state().position(), Instant::now());
        let followed = self.follow_blocks().await;
        self.note_look(before, asked, &followed);
        followed
    }

    /// Somebody looked whether others have written since a position.
    fn note_look(&mut self, before: Position, asked: Instant, looked: &Result<()>) {
        let have_written = self.state().position() != before;
        if have_written || looked.is_ok() {
            self.turns.looked([asked, Instant::now()], have_written);
        }
    }

    async fn follow_blocks(&mut self) -> Result<()> {
        let (asked_at, lagging) = (self.elapsed(), self.backend.lagging_answers());
        let head = self.backend.head().await?;
        let fresh_at = self.fresh_at(asked_at, lagging);
        self.check_head(&head)?;
        self.watch_epoch(&head);
        let published = self.shared.published.load_full();
        let mut state = published.state.clone();
        let mut audit = published.audit.clone();
        let chain =
            Chain::between(LogPosition { serial: state.serial(), hash: state.hash() }, &head);
        read_chain(self.backend.as_ref(), chain, |encoded| {
            let changes = replay(&mut state, &encoded)?;
            self.shared.digests.mark(encoded.serial, &changes.rows);
            // Queries merge what is not in the table.
            let is_in_table = encoded.serial <= head.checkpoint;
            let unflushed = changes.audit.iter().filter(|_| !is_in_table);
            audit.extend(unflushed.clone().cloned());
            let rows = unflushed.map(|entry| RowChange::put(ChangeKind::Created, entry.as_ref()));
            let block = (encoded.serial, encoded.bytes.len() as u64);
            let retain = self.options.retain_block_bytes;
            self.checkpointer.add_block(block, changes.rows, rows.collect(), retain);
            Ok(())
        })
        .await?
        .require_whole()?;
        state.set_position(head.position);
        self.checkpointer.set_checkpoint(head.checkpoint);
        self.shared.vital.checkpointed(head.checkpoint);
        self.checkpointer.set_oldest(head.oldest_block);
        if self.materialize == Materialize::Commit {
            // The next commit flushes the whole backlog, so nothing in it may be older than what
            // other processes have flushed.
            self.checkpointer.backlog.unfreeze();
            if head.checkpoint >= state.serial() {
                self.checkpointer.backlog = FlushBacklog::default();
                audit = UnflushedAudit::default();
            }
        }
        if head.position != published.state.position() {
            // Others may have written any; those that are needed are read then.
            (self.sequences, self.sequences_are_all) = (HashMap::new(), false);
            self.consumers = Consumers::read(self.backend.as_ref(), &head).await?;
        }
        self.publish_state(state, audit, fresh_at);
        Ok(())
    }

    /// When what was asked for at a moment was the newest state: no moment at all if it may have been old.
    fn fresh_at(&self, asked_at: Duration, lagging: u64) -> Duration {
        if self.backend.lagging_answers() == lagging { asked_at } else { Duration::ZERO }
    }

    async fn load_anew(&mut self) -> Result<()> {
        let (asked_at, lagging) = (self.elapsed(), self.backend.lagging_answers());
        let retain = self.options.retain_block_bytes;
        let writes_in = self.refusal().is_none().then_some(self.epoch);
        let entropy = self.entropy.as_ref();
        let loaded =
            loader::load(&self.backend, entropy, retain, writes_in, &LoadProgress::default())
                .await?;
        let fresh_at = self.fresh_at(asked_at, lagging);
        self.check_head(&loaded.found.head)?;
        let Found { checkpointer, sequences, consumers, .. } = loaded.found;
        (self.checkpointer, self.sequences, self.consumers) = (checkpointer, sequences, consumers);
        self.sequences_are_all = true;
        self.shared.digests.mark_all(loaded.state.serial());
        self.publish_state(loaded.state, loaded.audit, fresh_at);
        Ok(())
    }
}

/// What callers are told of a commit that is stored and not confirmed.
pub(super) fn unconfirmed(error: &Error) -> Error {
    Error::new(ErrorKind::OutcomeUnknown, "it is stored, but the pin does not have it")
        .because(error.to_string())
}
