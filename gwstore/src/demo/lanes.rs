//! Random numbers that come out the same however long the disk takes.
//!
//! A store draws from one source for its callers (ids, secrets) and for its writer (a block's id).
//! How many blocks there are depends on timing, so the writer must not take from the callers'
//! sequence.

use std::future::Future;

use ghostwire_store::Result;
use ghostwire_store::entropy::{Entropy, SeededEntropy};

tokio::task_local! {
    static IS_CALLER: ();
}

/// One sequence for what runs inside [`as_caller`], another for everything else.
#[derive(Debug)]
pub(super) struct Lanes {
    callers: SeededEntropy,
    others: SeededEntropy,
}

impl Lanes {
    pub(super) fn new(seed: u64) -> Self {
        let others = SeededEntropy::new(seed ^ 0x6f74_6865_7273);
        Self { callers: SeededEntropy::new(seed), others }
    }
}

impl Entropy for Lanes {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        match IS_CALLER.try_with(|()| ()) {
            Ok(()) => self.callers.fill(bytes),
            Err(_) => self.others.fill(bytes),
        }
    }
}

/// Runs the store's only caller.
pub(super) async fn as_caller<T>(future: impl Future<Output = T>) -> T {
    IS_CALLER.scope((), future).await
}
