//! What a backend did since it was opened.

use std::sync::atomic::{AtomicU64, Ordering};

use ghostwire_store_core::backend::{BackendCounters, Commit};

#[derive(Debug, Default)]
pub(crate) struct Counters {
    commits: AtomicU64,
    pub(crate) failed_commits: AtomicU64,
    blocks: AtomicU64,
    block_bytes: AtomicU64,
    rows: AtomicU64,
    pub(crate) scans: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> BackendCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BackendCounters {
            commits: read(&self.commits),
            failed_commits: read(&self.failed_commits),
            blocks: read(&self.blocks),
            block_bytes: read(&self.block_bytes),
            rows: read(&self.rows),
            scans: read(&self.scans),
        }
    }

    pub(crate) fn committed(&self, commit: &Commit) {
        let add = |counter: &AtomicU64, count: usize| {
            counter.fetch_add(count as u64, Ordering::Relaxed);
        };
        add(&self.commits, 1);
        add(&self.rows, commit.rows.len());
        if let Some(block) = &commit.block {
            add(&self.blocks, 1);
            add(&self.block_bytes, block.bytes.len());
        }
    }
}
