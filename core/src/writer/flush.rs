//! Commits that only flush: while the writer is idle, on demand, and at the end.

use std::time::Instant;

use super::Writer;
use crate::backend::Commit;
use crate::block::Serial;
use crate::error::{ErrorKind, Result};

impl Writer {
    /// Flushes one slice, and tells whether that went well.
    pub(super) async fn flush_slice(&mut self, size: usize) -> bool {
        let flushed = self.try_flush(size).await;
        if let Err(error) = &flushed {
            tracing::warn!(%error, "flushing failed; the rows stay in their blocks");
            self.shared.vital.note("flush", error);
        }
        flushed.is_ok()
    }

    async fn try_flush(&mut self, size: usize) -> Result<()> {
        if self.poisoned {
            self.reopen().await?;
        }
        let slice = self.checkpointer.backlog.take(size);
        if !slice.rows.is_empty() && self.recorder.is_some() {
            self.flushing_since.get_or_insert_with(Instant::now);
        }
        let checkpoint = slice.advance.map(|advance| advance.to);
        let purge_before =
            self.purge_before(Some(checkpoint.unwrap_or(self.checkpointer.checkpoint())));
        if slice.rows.is_empty() && purge_before.is_none() && self.consumers.removable().is_none() {
            return Ok(());
        }
        let mut commit =
            Commit { rows: slice.rows, checkpoint, purge_before, ..self.next_commit() };
        let removed = self.consumers.remove_taken(&mut commit);
        let (sent_at, sent_to) = (self.elapsed(), self.identity);
        if let Err(error) = self.store(&commit).await {
            // Another database has every row in its tables, some of them newer.
            if sent_to == self.identity {
                self.checkpointer.backlog.put_back(&commit.rows, slice.advance);
            }
            return match error.kind() {
                ErrorKind::Conflict => self.catch_up_after_conflict().await,
                _ => Err(error),
            };
        }
        self.consumers.set_removed(removed);
        if let Some(before) = purge_before {
            self.checkpointer.set_oldest(before);
        }
        let published = self.shared.published.load_full();
        let mut audit = published.audit.clone();
        if let Some(advance) = slice.advance {
            self.checkpointer.set_checkpoint(advance.to);
            self.checkpointed(false);
            audit.remove_first(advance.audit);
        }
        self.publish_state(published.state.clone(), audit, sent_at);
        Ok(())
    }

    /// Whether there are dirty rows, or blocks or entries of the feed that nobody needs.
    pub(super) fn has_to_flush(&self) -> bool {
        self.has_rows_or_blocks_to_flush() || self.consumers.removable().is_some()
    }

    fn has_rows_or_blocks_to_flush(&self) -> bool {
        let checkpoint = Some(self.checkpointer.checkpoint());
        self.checkpointer.backlog.len() > 0 || self.purge_before(checkpoint).is_some()
    }

    /// Flushes every dirty row, and removes every block that nobody needs. Of the entries of the feed it
    /// removes as many as one commit may: the others can wait, and nobody is to wait for them. Gives the
    /// serial up to which the tables are complete.
    pub(super) async fn flush_all(&mut self) -> Result<Serial> {
        if self.poisoned {
            self.reopen().await?;
        }
        let mut is_first = self.has_to_flush();
        while (is_first || self.has_rows_or_blocks_to_flush()) && self.refusal().is_none() {
            self.try_flush(4096).await?;
            is_first = false;
        }
        Ok(self.state().serial())
    }
}
