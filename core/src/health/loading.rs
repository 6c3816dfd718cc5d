//! How far opening has come.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the rows that were read while a store is opened, for somebody who waits for that.
#[derive(Debug, Default)]
pub struct LoadProgress {
    rows: AtomicU64,
}

impl LoadProgress {
    /// Rows that were read and decoded.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }
}
