//! Following the commits of a store.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch::Receiver;

use crate::backend::Backend;
use crate::block::{BlockHash, EncodedBlock, Serial};
use crate::chain::Chain;
use crate::changes::{self, ChangeStream};
use crate::error::{Error, ErrorKind, Result};
use crate::handle::Core;
use crate::observe::{Watcher, Watchers};
use crate::writer::{End, Progress};

/// Commits after `after`, one by one; `hash` is that of the commit there, if it is known.
pub(super) fn stream(core: &Core, after: Serial, hash: Option<BlockHash>) -> ChangeStream {
    let (backend, progress) = (core.backend.clone(), core.shared.progress.subscribe());
    let watchers = core.shared.observed.watchers.clone();
    let watcher = Watchers::join(watchers, after, core.options.recorder.clone());
    let chain = Chain::from(after, hash);
    let read = VecDeque::new();
    let following =
        Following { backend, progress, after, hash, started: false, chain, read, watcher };
    Box::pin(futures_util::stream::unfold(Some(following), |following| async move {
        let mut following = following?;
        match following.next().await {
            Ok(Some(commit)) => {
                following.watcher.told(commit.serial);
                Some((Ok(commit), Some(following)))
            }
            Ok(None) => {
                following.watcher.ends("closed");
                None
            }
            Err(error) => {
                following.watcher.ends(error.kind().name());
                Some((Err(error.during("store.watch")), None))
            }
        }
    }))
}

/// A watcher's position in the log.
struct Following {
    backend: Arc<dyn Backend>,
    progress: Receiver<Progress>,
    /// Where to start, and the hash there, if it is known.
    after: Serial,
    hash: Option<BlockHash>,
    started: bool,
    /// The blocks that were read.
    chain: Chain,
    read: VecDeque<EncodedBlock>,
    /// Told how far this has come.
    watcher: Watcher,
}

impl Following {
    /// The next commit; `None` once the store is closed and everything was told.
    async fn next(&mut self) -> Result<Option<changes::CommitChanges>> {
        const BLOCKS_PER_READ: usize = 64;
        if !std::mem::replace(&mut self.started, true) {
            self.check_start().await?;
        }
        loop {
            if let Some(block) = self.read.pop_front() {
                return changes::of_block(&block).map(Some);
            }
            // Blocks beyond the published serial may belong to a commit that is in flight.
            let Progress { serial: published, end, .. } = self.progress.borrow_and_update().clone();
            if let Some(End::Failed(error) | End::Overtaken(error)) = end {
                return Err(error);
            }
            let after = self.chain.last();
            if published > after {
                let blocks = self.backend.blocks(after, BLOCKS_PER_READ).await?;
                self.read = blocks.into_iter().filter(|block| block.serial <= published).collect();
                for block in &self.read {
                    let is_first = after == self.after && self.chain.last() == after;
                    self.chain.follow(block.serial, block).map_err(|error| match is_first {
                        true => another_history().with("after", after),
                        false => error,
                    })?;
                }
                if self.read.is_empty() {
                    return Err(Error::corrupt("a durable block is missing").with("after", after));
                }
                continue;
            }
            if end.is_some() || self.progress.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    /// Refuses a position that is not in the history, where only waiting would follow otherwise.
    async fn check_start(&self) -> Result<()> {
        let Progress { serial: published, end, .. } = self.progress.borrow().clone();
        if let Some(End::Failed(error) | End::Overtaken(error)) = end {
            return Err(error);
        }
        if self.after < published || (self.after == published && self.hash.is_none()) {
            return Ok(());
        }
        // Another process may have brought the store there.
        let head = self.backend.head().await?;
        if self.after > head.serial {
            return Err(another_history().with("after", self.after).with("serial", head.serial));
        }
        if self.after == head.serial && self.hash.is_some_and(|hash| hash != head.hash) {
            return Err(another_history().with("after", self.after));
        }
        Ok(())
    }
}

fn another_history() -> Error {
    let what = "the store's history does not contain the position to watch from: it was put back to an \
                older copy, or is another store; take a view, and watch from its position";
    Error::new(ErrorKind::Conflict, what)
}
