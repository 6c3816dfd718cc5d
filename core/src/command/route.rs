//! Writes to routes.

use serde::{Deserialize, Serialize};

use crate::domain::{NodeId, Prefix, RouteId};

/// A write to routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteCommand {
    /// A node says what it routes: exactly these prefixes, at most 1,024. A route that is neither
    /// advertised nor approved any longer disappears.
    Advertise {
        /// Which node.
        node: NodeId,
        /// Its prefixes, each with the id of the route, should it be new.
        prefixes: Vec<(RouteId, Prefix)>,
    },
    /// An administrator approves exactly these prefixes of a node, advertised already or not.
    Approve {
        /// Which node.
        node: NodeId,
        /// Its prefixes, each with the id of the route, should it be new.
        prefixes: Vec<(RouteId, Prefix)>,
    },
    /// Removal of one route.
    Delete {
        /// Which.
        id: RouteId,
    },
}

names! {
    RouteCommand {
        Advertise = ADVERTISE "route.advertise",
        Approve = APPROVE "route.approve",
        Delete = DELETE "route.delete",
    }
}
