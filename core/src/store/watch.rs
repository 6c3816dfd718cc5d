//! Following the commits of a store.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch::Receiver;

use crate::backend::Backend;
use crate::block::{EncodedBlock, Serial};
use crate::changes::{self, ChangeStream};
use crate::error::{Error, Result};
use crate::writer::Progress;

/// Commits after `after`, one by one.
pub(super) fn stream(
    backend: Arc<dyn Backend>,
    progress: Receiver<Progress>,
    after: Serial,
) -> ChangeStream {
    let following = Following { backend, progress, after, read: VecDeque::new() };
    Box::pin(futures_util::stream::unfold(Some(following), |following| async move {
        let mut following = following?;
        match following.next().await {
            Ok(Some(commit)) => Some((Ok(commit), Some(following))),
            Ok(None) => None,
            Err(error) => Some((Err(error.during("store.watch")), None)),
        }
    }))
}

/// A watcher's place in the chain of blocks.
struct Following {
    backend: Arc<dyn Backend>,
    progress: Receiver<Progress>,
    after: Serial,
    read: VecDeque<EncodedBlock>,
}

impl Following {
    /// The next commit; `None` once the store is closed and everything was told.
    async fn next(&mut self) -> Result<Option<changes::CommitChanges>> {
        const BLOCKS_PER_READ: usize = 64;
        loop {
            if let Some(block) = self.read.pop_front() {
                self.after = block.serial;
                return changes::of_block(&block).map(Some);
            }
            // Blocks beyond the published serial may belong to a commit that is under way.
            let Progress { serial: published, closed, .. } = *self.progress.borrow_and_update();
            if published > self.after {
                let blocks = self.backend.blocks(self.after, BLOCKS_PER_READ).await?;
                self.read = blocks.into_iter().filter(|block| block.serial <= published).collect();
                if self.read.is_empty() {
                    return Err(
                        Error::corrupt("a durable block is missing").with("after", self.after)
                    );
                }
                continue;
            }
            if closed || self.progress.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}
