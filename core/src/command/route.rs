//! Writes to routes.

use crate::domain::{NodeId, Prefix, RouteId};

commands! {
    /// A write to routes.
    RouteCommand {
        /// A node says what it routes: exactly these prefixes, at most 1,024, each with the id of the
        /// route, should it be new. A route that is neither advertised nor approved any longer disappears.
        ADVERTISE = "route.advertise" Advertise { node: NodeId, prefixes: Vec<(RouteId, Prefix)> },
        /// An administrator approves exactly these prefixes of a node, advertised already or not.
        APPROVE = "route.approve" Approve { node: NodeId, prefixes: Vec<(RouteId, Prefix)> },
        /// Removal of one route.
        DELETE = "route.delete" Delete { id: RouteId },
    }
}
