//! Routes: prefixes behind nodes.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Fingerprint, NodeId, Patch, Prefix, Revision, RouteId, Text, Timestamp, Update};

/// A prefix that a node offers to route.
///
/// It carries traffic when it is advertised by the node and approved by an administrator. Of all
/// nodes whose route for one prefix does, at most one is primary: one that is online and whose key
/// has not expired, if there is any; of several the one with the lowest metric.
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
    /// What it costs to go this way; the lowest goes first. (Schema version 4.)
    #[serde(default, skip_serializing_if = "RouteMetric::is_default")]
    pub metric: RouteMetric,
    /// What an administrator notes about it. (Schema version 4.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Text<255>>,
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

/// What it costs to take a route: of several for one prefix the one with the lowest metric goes
/// first. Any 32-bit number; 0 if nobody set it.
///
/// ```
/// use ghostwire_store::domain::RouteMetric;
///
/// assert!(RouteMetric::default() < RouteMetric::new(100));
/// assert_eq!(RouteMetric::new(100).get(), 100);
/// ```
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct RouteMetric(u32);

impl RouteMetric {
    /// Any number is a metric.
    #[must_use]
    pub const fn new(metric: u32) -> Self {
        Self(metric)
    }

    /// As a plain integer.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Whether it is that of a route whose metric nobody set.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for RouteMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A change to a route; fields left at `Keep` stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoutePatch {
    /// What it costs to go this way.
    pub metric: Update<RouteMetric>,
    /// What an administrator notes about it.
    pub description: Patch<Text<255>>,
}

/// All routes of one node, of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRoutes {
    /// The routes, by prefix.
    pub routes: Vec<Arc<Route>>,
    /// Stands for them as they are, but for `primary`, which follows from other nodes too.
    pub fingerprint: Fingerprint,
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn route(id: u8, revision: u64) -> Route {
        Route {
            id: RouteId::from_bytes([id; 16]),
            node: NodeId::from_bytes([9; 16]),
            prefix: "10.1.0.0/16".parse().unwrap(),
            advertised: true,
            approved: false,
            primary: false,
            metric: RouteMetric::default(),
            description: None,
            created_at: Timestamp::EPOCH,
            updated_at: Timestamp::EPOCH,
            revision: Revision::new(revision).unwrap(),
        }
    }

    #[test]
    fn what_nobody_set_is_left_out() {
        let plain = serde_json::to_string(&route(1, 1)).unwrap();
        assert!(!plain.contains("metric") && !plain.contains("description"), "{plain}");
        let full = Route {
            metric: RouteMetric::new(u32::MAX),
            description: "behind the lift".parse().ok(),
            ..route(1, 1)
        };
        let text = serde_json::to_string(&full).unwrap();
        assert!(text.contains(r#""metric":4294967295,"description":"behind the lift""#), "{text}");
        assert_eq!(serde_json::from_str::<Route>(&text).unwrap(), full);
    }
}
