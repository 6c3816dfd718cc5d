//! How a commit ended, and catching up with what other processes committed.

use std::sync::atomic::Ordering;

use super::Writer;
use super::in_flight::store;
use crate::backend::{Commit, Head};
use crate::block::{ChangeKind, RowChange};
use crate::checkpoint::{FlushBacklog, UnflushedAudit};
use crate::error::{Error, ErrorKind, Result};
use crate::log::chain::{Chain, read_chain};
use crate::log::replay::replay;
use crate::options::Materialize;

impl Writer {
    /// Stores a commit while no other is in flight.
    pub(super) async fn store(&mut self, commit: &Commit) -> Result<()> {
        let outcome = store(self.backend.as_ref(), commit).await;
        self.resolve_outcome(commit, outcome).await
    }

    /// Makes the outcome of a commit certain. After any error but `Conflict` the writer is poisoned,
    /// reopens the backend and compares. `Ok` and `Conflict` are then certain; so is any other error
    /// unless it is `OutcomeUnknown`, or the backend could not be reopened.
    pub(super) async fn resolve_outcome(
        &mut self,
        commit: &Commit,
        outcome: Result<()>,
    ) -> Result<()> {
        let error = match outcome {
            Ok(()) => return Ok(()),
            Err(error) if *error.kind() == ErrorKind::Conflict => return Err(error),
            Err(error) => error,
        };
        tracing::warn!(%error, "a commit failed; reopening the backend to compare");
        self.poisoned = true;
        self.shared.counters.recoveries.fetch_add(1, Ordering::Relaxed);
        let head = match self.backend.reopen().await {
            Ok(head) => head,
            Err(reopening) => {
                tracing::error!(error = %reopening, "the backend cannot be reopened");
                return Err(error);
            }
        };
        self.check_head(&head)?;
        if head.serial > commit.expected {
            return self.resolve_by_block(commit, error).await;
        }
        if *error.kind() != ErrorKind::OutcomeUnknown {
            self.poisoned = false;
            return Err(error);
        }
        // It is not there, but may still arrive. Sending the identical block again settles that:
        // either this one is stored, or it is in conflict with the first.
        match store(self.backend.as_ref(), commit).await {
            Ok(()) => {
                self.poisoned = false;
                Ok(())
            }
            Err(second) if *second.kind() == ErrorKind::Conflict => {
                if self.backend.reopen().await.is_err() {
                    return Err(error);
                }
                self.resolve_by_block(commit, error).await
            }
            Err(_) => Err(error),
        }
    }

    /// Some commit follows the one that this built on: this one, or another process's.
    async fn resolve_by_block(&mut self, commit: &Commit, error: Error) -> Result<()> {
        let unknown = |why: Error| {
            Error::new(ErrorKind::OutcomeUnknown, "the outcome of a commit cannot be read back")
                .with("cause", &error)
                .because(why)
        };
        let blocks = self.backend.blocks(commit.expected, 1).await.map_err(unknown)?;
        self.poisoned = false;
        let found = blocks.first().map(|block| block.id);
        if found.is_some() && found == commit.block.as_ref().map(|block| block.id) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Conflict, "another commit came first"))
    }

    /// Reopens the backend and catches up with it.
    pub(super) async fn reopen(&mut self) -> Result<()> {
        let head = self.backend.reopen().await?;
        self.check_head(&head)?;
        if head.serial > self.state().serial() {
            self.catch_up().await?;
        } else {
            // Series rows move no serial, and some of unknown outcome may have been stored.
            self.positions = crate::loader::read_positions(self.backend.as_ref()).await?;
        }
        self.poisoned = false;
        Ok(())
    }

    /// The backend must not have less than what callers were told is durable.
    fn check_head(&self, head: &Head) -> Result<()> {
        let state = self.state();
        let replaced = head.serial == state.serial() && head.hash != state.hash();
        if head.serial < state.serial() || replaced {
            return Err(Error::corrupt(
                "the backend lost or replaced commits that were durable; restore a backup",
            )
            .with("stored_serial", head.serial)
            .with("serial", state.serial()));
        }
        Ok(())
    }

    /// Catches up with the commits of other processes after a `Conflict`. If there are none, the
    /// backend has fewer commits than were acknowledged, which reopening reports.
    pub(super) async fn catch_up_after_conflict(&mut self) -> Result<()> {
        let known = self.state().serial();
        self.catch_up().await?;
        if self.state().serial() == known { self.reopen().await } else { Ok(()) }
    }

    /// Applies and publishes the commits that other processes made.
    pub(super) async fn catch_up(&mut self) -> Result<()> {
        let published = self.shared.published.load_full();
        let mut state = published.state.clone();
        let mut audit = published.audit.clone();
        let chain = Chain::from(state.serial(), state.hash());
        read_chain(self.backend.as_ref(), chain, |encoded| {
            let changes = replay(&mut state, &encoded)?;
            self.shared.digests.mark(encoded.serial, &changes.rows);
            audit.extend(changes.audit.iter().cloned());
            let rows = changes.audit.iter();
            let rows = rows.map(|entry| RowChange::put(ChangeKind::Created, entry.as_ref()));
            self.checkpointer.backlog.add(encoded.serial, changes.rows, rows.collect());
            Ok(())
        })
        .await?;
        let head = self.backend.head().await?;
        self.checkpointer.set_checkpoint(head.checkpoint);
        if self.materialize == Materialize::Commit {
            // The next commit flushes the whole backlog, so nothing in it may be older than what
            // other processes have flushed.
            self.checkpointer.backlog.unfreeze();
            if head.checkpoint >= state.serial() {
                self.checkpointer.backlog = FlushBacklog::default();
                audit = UnflushedAudit::default();
            }
        }
        self.positions = crate::loader::read_positions(self.backend.as_ref()).await?;
        self.publish_state(state, audit);
        Ok(())
    }
}
