//! What happens after a commit that failed, or that another process made first.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Writer, agrees, store};
use crate::backend::{Backend, Commit};
use crate::block::{EncodedBlock, Serial};
use crate::error::{Error, ErrorKind, Result};
use crate::options::Materialize;
use crate::state::State;
use crate::unfolded::UnfoldedAudit;

/// Blocks are read this many at a time.
pub(crate) const BLOCKS_PER_READ: usize = 256;

impl Writer {
    /// Finds out what became of a commit whose call gave `error`: `Ok` if it is stored, `Conflict`
    /// if other commits are there instead, and `error` if it is not.
    pub(super) async fn resolve(&mut self, commit: &Commit, error: Error) -> Result<()> {
        self.shared.counters.recoveries.fetch_add(1, Ordering::Relaxed);
        let head = match self.backend.reopen().await {
            Ok(head) => head,
            Err(reopening) => {
                tracing::error!(error = %reopening, "the backend cannot be reopened");
                return Err(error);
            }
        };
        self.check_store(&head)?;
        if head.serial > commit.expected {
            return self.resolve_by_block(commit, error).await;
        }
        if *error.kind() != ErrorKind::OutcomeUnknown {
            self.suspect = false;
            return Err(error);
        }
        // It is not there, but may still arrive. Sending the identical block again settles it:
        // either this one is stored, or it conflicts with itself.
        match store(self.backend.as_ref(), commit).await {
            Ok(()) => {
                self.suspect = false;
                Ok(())
            }
            Err(again) if *again.kind() == ErrorKind::Conflict => {
                if self.backend.reopen().await.is_err() {
                    return Err(error);
                }
                self.resolve_by_block(commit, error).await
            }
            Err(_) => Err(error),
        }
    }

    /// Some commit follows the one that this built on: ours, or another process's.
    async fn resolve_by_block(&mut self, commit: &Commit, error: Error) -> Result<()> {
        let unknown = |why: Error| {
            Error::new(ErrorKind::OutcomeUnknown, "the outcome of a commit cannot be read back")
                .with("cause", &error)
                .because(why)
        };
        let blocks = self.backend.blocks(commit.expected, 1).await.map_err(unknown)?;
        self.suspect = false;
        let found = blocks.first().map(|block| block.id);
        if found.is_some() && found == commit.block.as_ref().map(|block| block.id) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Conflict, "another commit came first"))
    }

    /// Reopens the backend and brings the state to where it stands.
    pub(super) async fn reopen(&mut self) -> Result<()> {
        let head = self.backend.reopen().await?;
        self.check_store(&head)?;
        if head.serial > self.state().serial() {
            self.catch_up().await?;
        } else {
            // Batches of series move no serial, and one whose outcome nobody knew may be stored.
            self.positions = crate::loader::read_positions(self.backend.as_ref()).await?;
        }
        self.suspect = false;
        Ok(())
    }

    /// The backend must not have less than what callers were told is durable.
    fn check_store(&self, head: &crate::backend::Head) -> Result<()> {
        let state = self.state();
        if head.serial < state.serial() || (head.serial == state.serial() && !agrees(&state, head))
        {
            return Err(Error::corrupt(
                "the backend lost or replaced commits that were durable; restore a backup",
            )
            .with("stored_serial", head.serial)
            .with("serial", state.serial()));
        }
        Ok(())
    }

    /// Applies the commits that other processes made.
    pub(super) async fn catch_up(&mut self) -> Result<()> {
        let published = self.shared.published.load_full();
        let mut state = published.state.clone();
        let mut audit = published.audit.clone();
        loop {
            let blocks = self.backend.blocks(state.serial(), BLOCKS_PER_READ).await?;
            let read = blocks.len();
            for encoded in blocks {
                let changes = replay(&mut state, &encoded)?;
                self.shared.digests.mark(encoded.serial, &changes.rows);
                audit.extend(changes.audit.iter().cloned());
                let audit = changes.audit.iter().map(|entry| super::audit_row(entry)).collect();
                self.fold.add(encoded.serial, changes.rows, audit);
            }
            if read < BLOCKS_PER_READ {
                break;
            }
        }
        let head = self.backend.head().await?;
        self.checkpoint = head.checkpoint;
        if self.materialize == Materialize::Commit {
            // The next commit folds everything it finds here, so nothing here may be older than
            // what other commits have folded.
            self.fold.thaw();
            if head.checkpoint >= state.serial() {
                self.fold = crate::fold::FoldDebt::default();
                audit = UnfoldedAudit::default();
            }
        }
        self.positions = crate::loader::read_positions(self.backend.as_ref()).await?;
        self.publish_state(state, audit);
        Ok(())
    }
}

/// What a block changed.
pub(crate) struct Replayed {
    pub(crate) rows: Vec<crate::block::RowChange>,
    pub(crate) audit: Vec<Arc<crate::domain::AuditEntry>>,
}

/// Applies a block to the state that it follows.
pub(crate) fn replay(state: &mut State, encoded: &EncodedBlock) -> Result<Replayed> {
    check_follows(state.serial(), state.hash(), encoded)?;
    let block = encoded.decode()?;
    for change in &block.changes {
        state.evolve_row(change).map_err(|error| error.with("serial", encoded.serial))?;
    }
    state.advance(encoded.serial, encoded.hash, encoded.time);
    let audit = block.audit.unwrap_or_default().into_iter().map(Arc::new).collect();
    Ok(Replayed { rows: block.changes, audit })
}

/// Refuses a block that does not continue the chain.
pub(crate) fn check_follows(
    serial: Serial,
    hash: crate::block::BlockHash,
    next: &EncodedBlock,
) -> Result<()> {
    if next.serial == serial.next() && next.previous == hash {
        return Ok(());
    }
    Err(Error::corrupt("the chain of blocks is broken: a block does not follow its predecessor")
        .with("serial", next.serial)
        .with("after", serial))
}

/// Reads all blocks after `after`, in order.
pub(crate) async fn read_blocks(
    backend: &dyn Backend,
    mut after: Serial,
    mut each: impl FnMut(EncodedBlock) -> Result<()>,
) -> Result<()> {
    loop {
        let blocks = backend.blocks(after, BLOCKS_PER_READ).await?;
        let read = blocks.len();
        for block in blocks {
            after = block.serial;
            each(block)?;
        }
        if read < BLOCKS_PER_READ {
            return Ok(());
        }
    }
}
