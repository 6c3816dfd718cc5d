//! What to flush next, and how the checkpoint advances.

use super::backlog::{FlushBacklog, FlushSlice};
use super::pace::{flush_size, keeping_up};
use crate::block::{RowChange, Serial};
use crate::log::retention::Retained;

/// What is not in the tables yet, and what is kept of the log.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    pub(crate) backlog: FlushBacklog,
    retained: Retained,
    checkpoint: Serial,
    /// Whether the last batch flushed rows along.
    flushing: bool,
}

impl Checkpointer {
    pub(crate) fn new(backlog: FlushBacklog, retained: Retained, checkpoint: Serial) -> Self {
        Self { backlog, retained, checkpoint, flushing: false }
    }

    /// What a batch flushes along with the `arriving` rows that it changes.
    pub(crate) fn take(&mut self, arriving: usize, max_dirty: usize) -> FlushSlice {
        let mut size = flush_size(self.backlog.len(), arriving, max_dirty, self.flushing);
        // Blocks beyond their limit are kept only because their rows are dirty. A few rows that
        // change all the time are no backlog, but their blocks would pile up.
        if self.retained.oldest() > self.checkpoint.next() {
            size = size.max(keeping_up(arriving));
        }
        self.flushing = size > 0;
        self.backlog.take(size)
    }

    /// Up to where a commit that advances the checkpoint may purge blocks.
    pub(crate) fn purge_before(&self, checkpoint: Option<Serial>) -> Option<Serial> {
        checkpoint.map(|checkpoint| self.retained.oldest().min(checkpoint.next()))
    }

    /// A block was stored, of which these rows were not flushed. `block` is its serial and its length.
    pub(crate) fn add_block(
        &mut self,
        block: (Serial, u64),
        changes: Vec<RowChange>,
        audit: Vec<RowChange>,
        retain_bytes: u64,
    ) {
        let (serial, bytes) = block;
        self.retained.add(serial, bytes, retain_bytes);
        self.backlog.add(serial, changes, audit);
    }

    /// The checkpoint is stored as this.
    pub(crate) fn set_checkpoint(&mut self, checkpoint: Serial) {
        self.checkpoint = checkpoint;
    }
}
