//! Network maps: everything from which the control plane computes what a node may see.

use std::ops::Deref;
use std::sync::Arc;

use crate::block::Serial;
use crate::domain::{
    DerpMap, DnsRecord, DnsSettings, NetworkSettings, Node, Policy, Presence, Route, User,
};
use crate::state::State;

/// A node, and whether it can be reached.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The node, with its keys and addresses.
    pub node: Arc<Node>,
    /// Its presence; `None` if it was never heard of.
    pub presence: Option<Arc<Presence>>,
}

/// What the maps of all nodes have in common, from one snapshot.
#[derive(Debug, Clone)]
pub struct Network {
    /// The commit that this reflects.
    pub serial: Serial,
    /// All nodes, by id.
    pub nodes: Vec<Peer>,
    /// All routes that are advertised and approved, by id. `primary` is as it was last written down: for a
    /// node whose key has expired since, see [`State::route_to`] and [`State::allowed_ips`].
    pub routes: Vec<Arc<Route>>,
    /// All users, by id.
    pub users: Vec<Arc<User>>,
    /// The policy in force; `None` if there never was one.
    pub policy: Option<Arc<Policy>>,
    /// Addresses, and what every node is told.
    pub settings: NetworkSettings,
    /// Resolvers and search domains.
    pub dns: DnsSettings,
    /// Extra DNS records, by id.
    pub dns_records: Vec<Arc<DnsRecord>>,
    /// Relay servers.
    pub derp_map: DerpMap,
}

impl Network {
    pub(crate) fn of(state: &State) -> Self {
        let mut presences = state.presence().iter().peekable();
        let mut nodes = Vec::with_capacity(state.nodes().len());
        // Nodes and presences are both in the order of node ids.
        for node in state.nodes().iter() {
            while presences.next_if(|presence| presence.node < node.id).is_some() {}
            let presence = presences.next_if(|presence| presence.node == node.id);
            nodes.push(Peer { node: node.clone(), presence: presence.cloned() });
        }
        Self {
            serial: state.serial(),
            nodes,
            routes: state.routes().carrying().cloned().collect(),
            users: state.users().iter().cloned().collect(),
            policy: state.policies().current().cloned(),
            settings: state.settings().network().clone(),
            dns: state.settings().dns().clone(),
            dns_records: state.dns_records().iter().cloned().collect(),
            derp_map: state.settings().derp_map().clone(),
        }
    }
}

/// The network as one node asks for it: the [`Network`], to which this dereferences, and who asks.
/// Which peers the policy lets through is the control plane's business.
///
/// ```
/// # fn example(view: &ghostwire_store_core::view::View, id: ghostwire_store_core::domain::NodeId) {
/// if let Some(map) = view.netmap(id) {
///     println!("{}: {} peers at {}", map.node.label, map.peer_count(), map.serial);
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct NetMap {
    /// The node it is for.
    pub node: Arc<Node>,
    pub(crate) network: Arc<Network>,
}

impl NetMap {
    /// All other nodes, by id.
    pub fn peers(&self) -> impl DoubleEndedIterator<Item = &Peer> + Clone {
        self.nodes.iter().filter(|peer| peer.node.id != self.node.id)
    }

    /// How many other nodes there are. Takes constant time.
    #[must_use]
    pub fn peer_count(&self) -> usize {
        self.nodes.len().saturating_sub(1)
    }
}

impl Deref for NetMap {
    type Target = Network;

    fn deref(&self) -> &Network {
        &self.network
    }
}
