//! Following what other processes commit.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Core;
use crate::backend::Backend;
use crate::error::Result;
use crate::threads::{self, Waits};

/// However short views may live, there is some time between two looks.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
/// How long the first attempt to listen after a failed one waits, and the last.
const BACKOFF: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(30)];

/// Starts a thread that follows what others commit until the store ends. It does not keep it open.
///
/// # Errors
/// `Unavailable` if the system gives no thread.
pub(crate) async fn follow(core: &Arc<Core>) -> Result<()> {
    let follower = Follower {
        core: Arc::downgrade(core),
        backend: core.backend.clone(),
        interval: (core.options.max_view_age / 2).max(SHORTEST_INTERVAL),
        backoff: None,
        fails: false,
    };
    let mut progress = core.shared.progress.subscribe();
    threads::start("ghostwire-store-follow", Waits::Everything, move |runtime| {
        runtime.block_on(async {
            tokio::select! {
                biased;
                // Fails only if the store is gone, too.
                _ = progress.wait_for(|progress| progress.end.is_some()) => {}
                () = follower.run() => {}
            }
        });
    })
    .await
}

struct Follower {
    core: Weak<Core>,
    backend: Arc<dyn Backend>,
    /// How often it looks if it hears nothing.
    interval: Duration,
    /// Since it cannot listen.
    backoff: Option<Duration>,
    /// The last look was in vain.
    fails: bool,
}

impl Follower {
    async fn run(mut self) {
        loop {
            self.wait().await;
            let Some(core) = self.core.upgrade() else { return };
            if core.shared.closing.has_begun() {
                return;
            }
            let looked = core.refresh().await;
            self.tell(&looked);
        }
    }

    async fn wait(&mut self) {
        let Err(error) = self.backend.await_change(self.interval).await else {
            if self.backoff.take().is_some() {
                tracing::info!("other processes' commits are heard of again");
            }
            return;
        };
        if self.core.upgrade().is_none_or(|core| core.shared.closing.has_begun()) {
            return;
        }
        let [first, longest] = BACKOFF;
        if self.backoff.is_none() {
            tracing::warn!(%error, "nothing is heard of other processes' commits; looking for them instead");
        }
        let backoff = self.backoff.map_or(first, |backoff| (backoff * 2).min(longest));
        self.backoff = Some(backoff);
        tokio::time::sleep(backoff.min(self.interval)).await;
    }

    /// Says once that it fails, and once that it no longer does.
    fn tell(&mut self, looked: &Result<()>) {
        match looked {
            Err(error) if !self.fails => {
                tracing::warn!(%error, "other processes' commits cannot be followed; trying again");
            }
            Ok(()) if self.fails => tracing::info!("other processes' commits are followed again"),
            _ => {}
        }
        self.fails = looked.is_err();
    }
}
