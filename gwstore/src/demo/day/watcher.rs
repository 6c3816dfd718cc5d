//! Somebody who follows the changes from the first to the last.

use std::time::Duration;

use futures_util::StreamExt;
use ghostwire_store::{Result, Store};
use ghostwire_store_core::block::Serial;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{broken, check};

/// How long the last commit may take to be told.
const PATIENCE: Duration = Duration::from_secs(30);

/// A task that reads the stream of changes.
pub(super) struct Watcher {
    seen: watch::Receiver<(Serial, u64)>,
    task: JoinHandle<Result<()>>,
}

impl Watcher {
    /// Watches from the store's present state on.
    pub(super) fn start(store: &dyn Store) -> Self {
        let first = store.view().serial();
        let mut changes = store.watch(first);
        let (tell, seen) = watch::channel((first, 0));
        let task = tokio::spawn(async move {
            let (mut last, mut commits) = (first, 0);
            while let Some(commit) = changes.next().await {
                let commit = commit?;
                check(commit.serial == last.next(), "the stream of changes has a gap")?;
                last = commit.serial;
                commits += 1;
                if tell.send((last, commits)).is_err() {
                    break;
                }
            }
            Ok(())
        });
        Self { seen, task }
    }

    /// Waits until the stream has told everything up to `last`. Gives how many commits it told.
    pub(super) async fn finish(mut self, last: Serial) -> Result<u64> {
        let reached = self.seen.wait_for(|(seen, _)| *seen >= last);
        let commits = match tokio::time::timeout(PATIENCE, reached).await {
            Ok(Ok(seen)) => Some(seen.1),
            Ok(Err(_)) | Err(_) => None,
        };
        if let Some(commits) = commits {
            self.task.abort();
            return Ok(commits);
        }
        if self.task.is_finished()
            && let Ok(Err(error)) = self.task.await
        {
            return Err(error);
        }
        Err(broken("the stream of changes did not tell the last commit"))
    }
}
