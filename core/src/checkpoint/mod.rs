//! The checkpoint: the block up to which the backend's tables hold every row.
//!
//! A commit makes a block durable. Its rows are *dirty* until they are *flushed*: written to the
//! tables, many changes of a row as one. A store is opened from the tables and the blocks after the
//! checkpoint, so whatever is not flushed is only in blocks, and those are kept.

mod backlog;
mod flush;
mod pace;
mod unflushed_audit;

pub(crate) use backlog::{Advance, FlushBacklog, FlushSlice};
pub(crate) use flush::Checkpointer;
pub(crate) use unflushed_audit::{Entries, UnflushedAudit};
