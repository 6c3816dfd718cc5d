//! Writes to routes.

use crate::domain::{Fingerprint, NodeId, Prefix, Revision, RouteId, RoutePatch};

commands! {
    /// A write to routes.
    RouteCommand {
        /// A node says what it routes: exactly these prefixes, at most 1,024, each with the id of the
        /// route, should it be new. A route that is neither advertised nor approved any longer disappears.
        /// With `expected`, only if the node's routes are still those.
        ADVERTISE = "route.advertise" Advertise {
            node: NodeId,
            prefixes: Vec<(RouteId, Prefix)>,
            #[serde(default)]
            expected: Option<Fingerprint>,
        },
        /// A node routes one prefix more; the id is that of the route, should it be new.
        ADVERTISE_ONE = "route.advertise_one" AdvertiseOne { id: RouteId, node: NodeId, prefix: Prefix },
        /// A node routes one prefix less.
        WITHDRAW_ONE = "route.withdraw_one" WithdrawOne { node: NodeId, prefix: Prefix },
        /// An administrator approves exactly these prefixes of a node, advertised already or not. With
        /// `expected`, only if the node's routes are still those.
        APPROVE = "route.approve" Approve {
            node: NodeId,
            prefixes: Vec<(RouteId, Prefix)>,
            #[serde(default)]
            expected: Option<Fingerprint>,
        },
        /// An administrator approves one route, or does so no longer.
        SET_APPROVED = "route.set_approved" SetApproved { id: RouteId, approved: bool },
        /// A change to a route; with `expected`, only if that is still its revision.
        UPDATE = "route.update" Update { id: RouteId, patch: RoutePatch, expected: Option<Revision> },
        /// Elect anew who is primary for these prefixes, at most 1,024: keys expire without a write.
        ELECT = "route.elect" Elect { prefixes: Vec<Prefix> },
        /// Removal of one route.
        DELETE = "route.delete" Delete { id: RouteId },
    }
}
