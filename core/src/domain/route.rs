//! Routes: prefixes behind nodes.

use serde::{Deserialize, Serialize};

use super::{NodeId, Prefix, Revision, RouteId, Timestamp};

/// A prefix that a node offers to route.
///
/// It carries traffic when it is advertised by the node and approved by an administrator. Of all
/// nodes whose route for one prefix does, at most one is primary: an online one, if there is any.
/// Exit routes (`0.0.0.0/0` and `::/0`) have no primary, since a client chooses its exit node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Time-ordered identifier.
    pub id: RouteId,
    /// The node that offers it.
    pub node: NodeId,
    /// What it leads to; (node, prefix) is unique.
    pub prefix: Prefix,
    /// The node offers it at present.
    pub advertised: bool,
    /// An administrator approved it.
    pub approved: bool,
    /// Traffic for the prefix goes here.
    pub primary: bool,
    /// When the route was first offered or approved.
    pub created_at: Timestamp,
    /// When a field last changed.
    pub updated_at: Timestamp,
    /// Counts changes, from 1.
    pub revision: Revision,
}

impl Route {
    /// Advertised and approved.
    #[must_use]
    pub fn carries_traffic(&self) -> bool {
        self.advertised && self.approved
    }
}

/// Which routes to list; all of the given conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteFilter {
    /// Of this node.
    pub node: Option<NodeId>,
    /// For exactly this prefix.
    pub prefix: Option<Prefix>,
    /// Approved or not.
    pub approved: Option<bool>,
    /// Primary or not.
    pub primary: Option<bool>,
}
