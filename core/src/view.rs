//! Snapshot reads: plain functions on the last durable state. No lock, no disk, no waiting.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::changes::LogPosition;
use crate::checkpoint::UnflushedAudit;
use crate::domain::NodeId;
use crate::netmap::{NetMap, Network};
use crate::state::State;

/// What the writer publishes after each durable commit.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) state: State,
    /// Audit entries that are durable in blocks and not flushed yet.
    pub(crate) audit: UnflushedAudit,
    /// When this was last known to be the newest.
    pub(crate) fresh_at: Instant,
    /// What the network maps of this state share, once one was asked for.
    network: OnceLock<Arc<Network>>,
}

impl Published {
    /// What was the newest state at a moment.
    pub(crate) fn new(state: State, audit: UnflushedAudit, fresh_at: Instant) -> Self {
        Self { state, audit, fresh_at, network: OnceLock::new() }
    }

    /// Takes over the network of `replaced` if the state is still the same: only rows were flushed, or
    /// series stored.
    pub(crate) fn after(mut self, replaced: &Self) -> Self {
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
#[derive(Debug, Clone)]
pub struct View {
    published: Arc<Published>,
    shared: bool,
}

impl Deref for View {
    type Target = State;

    fn deref(&self) -> &State {
        &self.published.state
    }
}

impl View {
    pub(crate) fn new(published: Arc<Published>, shared: bool) -> Self {
        Self { published, shared }
    }

    /// How long ago this was known to be the newest state. Zero unless other processes can write
    /// to the same backend.
    #[must_use]
    pub fn age(&self) -> Duration {
        if self.shared { self.published.fresh_at.elapsed() } else { Duration::ZERO }
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
