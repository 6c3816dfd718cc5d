//! Snapshot reads: plain functions on the last durable state. No lock, no disk, no waiting.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::block::Serial;
use crate::domain::{
    AuditEntry, DerpMap, DnsRecord, DnsSettings, Node, NodeId, Policy, Presence, Route, User,
};
use crate::state::State;

/// What the writer publishes after each durable commit.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) state: State,
    /// Audit entries that are durable in blocks but not folded into rows yet, oldest first.
    pub(crate) audit: imbl::Vector<Arc<AuditEntry>>,
    /// When this was last known to be the newest.
    pub(crate) fresh_at: Instant,
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

    pub(crate) fn unfolded_audit(&self) -> &imbl::Vector<Arc<AuditEntry>> {
        &self.published.audit
    }

    /// What a node needs to know of its network, from one snapshot. `None` if there is no such
    /// node. Takes time in proportion to the number of nodes and routes.
    #[must_use]
    pub fn netmap(&self, node: NodeId) -> Option<NetMap> {
        let state: &State = self;
        let own = state.nodes().get(node)?.clone();
        let mut presences = state.presence().iter().peekable();
        let mut peers = Vec::with_capacity(state.nodes().len().saturating_sub(1));
        // Nodes and presences are both in the order of node ids.
        for peer in state.nodes().iter() {
            while presences.next_if(|presence| presence.node < peer.id).is_some() {}
            let presence = presences.next_if(|presence| presence.node == peer.id);
            if peer.id != node {
                peers.push(Peer { node: peer.clone(), presence: presence.cloned() });
            }
        }
        let approved = |route: &&Arc<Route>| route.advertised && route.approved;
        Some(NetMap {
            serial: state.serial(),
            node: own,
            peers,
            routes: state.routes().iter().filter(approved).cloned().collect(),
            users: state.users().iter().cloned().collect(),
            policy: state.policies().current().cloned(),
            dns: state.settings().dns().into_owned(),
            dns_records: state.dns_records().iter().cloned().collect(),
            derp_map: state.settings().derp_map().into_owned(),
        })
    }
}

/// Another node, and whether it can be reached.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The node.
    pub node: Arc<Node>,
    /// Its presence; `None` if it was never heard of.
    pub presence: Option<Arc<Presence>>,
}

/// Everything from which the control plane computes what one node may see. Which peers the policy
/// lets through is the control plane's business.
#[derive(Debug, Clone)]
pub struct NetMap {
    /// The commit that this reflects.
    pub serial: Serial,
    /// The node it is for.
    pub node: Arc<Node>,
    /// All other nodes, by id.
    pub peers: Vec<Peer>,
    /// All routes that are advertised and approved, by id.
    pub routes: Vec<Arc<Route>>,
    /// All users, by id.
    pub users: Vec<Arc<User>>,
    /// The policy in force; `None` if there never was one.
    pub policy: Option<Arc<Policy>>,
    /// Resolvers and search domains.
    pub dns: DnsSettings,
    /// Extra DNS records, by id.
    pub dns_records: Vec<Arc<DnsRecord>>,
    /// Relay servers.
    pub derp_map: DerpMap,
}
