//! Snapshot reads: plain functions on the last durable state. No lock, no disk, no waiting.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::changes::LogPosition;
use crate::checkpoint::UnflushedAudit;
use crate::domain::{Clock, NodeId};
use crate::netmap::{NetMap, Network};
use crate::state::State;

/// What the writer publishes after each durable commit.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) state: State,
    /// Audit entries that are durable in blocks and not flushed yet.
    pub(crate) audit: UnflushedAudit,
    /// It holds everything that was durable then, by the monotonic clock of the store. That is when a
    /// question was sent, not when it was answered.
    pub(crate) fresh_at: Duration,
    /// What the network maps of this state share, once one was asked for.
    network: OnceLock<Arc<Network>>,
}

impl Published {
    /// What holds everything that was durable at a moment.
    pub(crate) fn new(state: State, audit: UnflushedAudit, fresh_at: Duration) -> Self {
        Self { state, audit, fresh_at, network: OnceLock::new() }
    }

    /// Takes over the network of `replaced` if the state is still the same: only rows were flushed, or
    /// series stored. It holds what `replaced` does, and so is as fresh.
    pub(crate) fn after(mut self, replaced: &Self) -> Self {
        self.fresh_at = self.fresh_at.max(replaced.fresh_at);
        if (self.state.serial(), self.state.hash())
            == (replaced.state.serial(), replaced.state.hash())
        {
            self.network = replaced.network.clone();
        }
        self
    }
}

/// One consistent snapshot of everything but the series. Getting one takes constant time, and so
/// does cloning; it never changes, however long it is kept.
///
/// It dereferences to [`State`], which has the tables:
///
/// ```
/// # fn example(view: &ghostwire_store_core::view::View, key: ghostwire_store_core::domain::NodeKey) {
/// if let Some(node) = view.nodes().by_node_key(&key) {
///     println!("{} is {}", node.label, view.presence().is_online(node.id));
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct View {
    published: Arc<Published>,
    /// Tells its age; none where nobody else can write.
    clock: Option<Arc<dyn Clock>>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("published", &self.published).finish_non_exhaustive()
    }
}

impl Deref for View {
    type Target = State;

    fn deref(&self) -> &State {
        &self.published.state
    }
}

impl View {
    pub(crate) fn new(published: Arc<Published>, clock: Option<Arc<dyn Clock>>) -> Self {
        Self { published, clock }
    }

    /// How long ago this was the newest state, at most: it holds everything that was durable before
    /// that. Zero unless other processes can write to the same backend.
    #[must_use]
    pub fn age(&self) -> Duration {
        let elapsed =
            |clock: &Arc<dyn Clock>| clock.elapsed().saturating_sub(self.published.fresh_at);
        self.clock.as_ref().map_or(Duration::ZERO, elapsed)
    }

    /// Where it stands in the store's history.
    #[must_use]
    pub fn log_position(&self) -> LogPosition {
        LogPosition { serial: self.serial(), hash: self.hash() }
    }

    pub(crate) fn unflushed_audit(&self) -> &UnflushedAudit {
        &self.published.audit
    }

    /// What a node needs to know of its network, from one snapshot. `None` if there is no such
    /// node.
    ///
    /// The maps of all nodes share one [`Network`], put together at the first call for a snapshot,
    /// which takes time in proportion to the number of nodes and routes. Until the next commit
    /// every other map, also of another view, takes the time of a read. Callers who come first at
    /// once each put one together, without waiting for each other. It is kept, 16 bytes a node,
    /// until the next commit, and as long as a view of the snapshot is.
    #[must_use]
    pub fn netmap(&self, node: NodeId) -> Option<NetMap> {
        let node = self.nodes().get(node)?.clone();
        let built = &self.published.network;
        let network = built.get().cloned().unwrap_or_else(|| {
            let network = Arc::new(Network::of(self));
            // Another call may have been faster; both saw the same snapshot.
            let _ = built.set(network.clone());
            built.get().cloned().unwrap_or(network)
        });
        Some(NetMap { node, network })
    }
}
