//! Folding: bringing into rows what only blocks hold.

use std::sync::atomic::Ordering;

use super::Writer;
use crate::backend::Commit;
use crate::block::Serial;
use crate::error::{ErrorKind, Result};
use crate::fold::{Slice, slice_size};
use crate::options::Materialize;

impl Writer {
    /// What the next group folds along with the `arriving` rows that it changes.
    pub(super) fn next_slice(&mut self, arriving: usize) -> Slice {
        if self.materialize == Materialize::Commit {
            // Nothing, unless the store was opened with blocks that were not folded.
            return self.fold.slice(usize::MAX);
        }
        let mut size =
            slice_size(self.fold.len(), arriving, self.options.max_fold_debt, self.folding);
        // Blocks beyond their limit are kept only because they are not folded. Few rows that
        // change all the time never grow into a debt, but their blocks would pile up.
        if self.retained.oldest > self.checkpoint.next() {
            size = size.max((arriving + arriving / 2).max(256));
        }
        self.folding = size > 0;
        self.fold.slice(size)
    }

    /// Up to where a commit that moves the checkpoint may drop blocks.
    pub(super) fn purge_before(&self, checkpoint: Option<Serial>) -> Option<Serial> {
        checkpoint.map(|checkpoint| self.retained.oldest.min(checkpoint.next()))
    }

    /// Folds one slice in a commit of its own, and tells whether that went well.
    pub(super) async fn fold_one_slice(&mut self, size: usize) -> bool {
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
        let slice = self.fold.slice(size);
        if slice.rows.is_empty() {
            return Ok(());
        }
        let checkpoint = slice.checkpoint.map(|checkpoint| checkpoint.serial);
        let commit = Commit {
            expected: self.state().serial(),
            rows: slice.rows,
            checkpoint,
            purge_before: self.purge_before(checkpoint),
            ..Commit::default()
        };
        if let Err(error) = self.store(&commit).await {
            self.fold.take_back(&commit.rows, slice.checkpoint);
            let conflict = *error.kind() == ErrorKind::Conflict;
            return if conflict { self.learn().await } else { Err(error) };
        }
        let published = self.shared.published.load_full();
        let mut audit = published.audit.clone();
        if let Some(checkpoint) = slice.checkpoint {
            self.checkpoint = checkpoint.serial;
            self.shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
            audit.remove_first(checkpoint.audit);
        }
        self.publish_state(published.state.clone(), audit);
        Ok(())
    }

    /// Folds until the rows hold everything. Gives the serial that they hold.
    pub(super) async fn fold_all(&mut self) -> Result<Serial> {
        if self.suspect {
            self.reopen().await?;
        }
        while self.fold.len() > 0 && !self.read_only {
            self.try_fold(4096).await?;
        }
        Ok(self.state().serial())
    }
}
