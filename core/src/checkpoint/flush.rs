//! What to flush next, and how the checkpoint advances.

use super::backlog::{FlushBacklog, FlushSlice};
use super::pace::{flush_size, keeping_up};
use crate::backend::Head;
use crate::block::{RowChange, Serial};
use crate::log::retention::Retained;

/// What is not in the tables yet, and what is kept of the log.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    pub(crate) backlog: FlushBacklog,
    retained: Retained,
    checkpoint: Serial,
    /// The oldest block that is stored.
    oldest: Serial,
    /// Whether the last batch flushed rows along.
    flushing: bool,
}

impl Checkpointer {
    pub(crate) fn new(backlog: FlushBacklog, retained: Retained, head: &Head) -> Self {
        let (checkpoint, oldest) = (head.checkpoint, head.oldest_block);
        Self { backlog, retained, checkpoint, oldest, flushing: false }
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

    /// Up to where a commit may purge blocks, which perhaps advances the checkpoint; somebody may need
    /// those after `taken`. Never many at once: everybody waits for a commit, and what was kept for a
    /// consumer for days may be gigabytes.
    pub(crate) fn purge_before(
        &self,
        checkpoint: Option<Serial>,
        taken: Option<Serial>,
    ) -> Option<Serial> {
        const MOST_AT_ONCE: u64 = 256;
        // A commit that does not flush is not to do it for a few.
        const LEAST_WITHOUT_FLUSH: u64 = 64;
        let flushed = checkpoint.unwrap_or(self.checkpoint).next();
        let needed = taken.map_or(flushed, |taken| flushed.min(taken.next()));
        let purgeable = needed.min(self.retained.oldest()).get().saturating_sub(self.oldest.get());
        let least = if checkpoint.is_some() { 1 } else { LEAST_WITHOUT_FLUSH };
        (purgeable >= least).then(|| Serial::new(self.oldest.get() + purgeable.min(MOST_AT_ONCE)))
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

    /// The oldest block that is stored, and how many bytes those have that are kept.
    pub(crate) fn kept(&self) -> (Serial, u64) {
        (self.oldest, self.retained.bytes())
    }

    pub(crate) fn checkpoint(&self) -> Serial {
        self.checkpoint
    }

    /// The checkpoint is stored as this.
    pub(crate) fn set_checkpoint(&mut self, checkpoint: Serial) {
        self.checkpoint = checkpoint;
    }

    /// This is the oldest block that is stored.
    pub(crate) fn set_oldest(&mut self, oldest: Serial) {
        self.oldest = oldest;
    }
}
