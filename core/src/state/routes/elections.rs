//! Elections: which of several routes for a prefix carries its traffic.

use std::net::IpAddr;
use std::sync::Arc;

use crate::domain::{NodeId, Prefix, Route, Timestamp, expired};
use crate::state::State;
use crate::state::decision::{Context, Decision, Draft};

impl State {
    /// The route that traffic for `address` takes at `now`: the primary with the longest prefix. One
    /// whose node's key has expired by then is not given, though no election has said so yet, but what
    /// an election would give.
    #[must_use]
    pub fn route_to(&self, address: IpAddr, now: Timestamp) -> Option<&Arc<Route>> {
        self.route_when(address, || now)
    }

    /// The same, at a time that is asked for only where a key expires: reading two clocks takes as long as
    /// all the rest.
    pub(crate) fn route_when(
        &self,
        address: IpAddr,
        now: impl FnOnce() -> Timestamp,
    ) -> Option<&Arc<Route>> {
        self.routes().lookup(address, now, |primary, now| self.elected(primary.prefix, now))
    }

    /// The prefixes for which an election at `now` would give another primary: keys expire without a
    /// write.
    pub fn due_elections(&self, now: Timestamp) -> impl Iterator<Item = Prefix> + '_ {
        let id = |route: Option<&Arc<Route>>| route.map(|route| route.id);
        self.routes().carried_online().filter(move |prefix| {
            id(self.elected(*prefix, now)) != id(self.routes().primary(*prefix))
        })
    }

    /// Which route is to be primary at `now`: the present one while it can be and none that can has a
    /// lower metric. Else, of those with the lowest metric, the oldest.
    fn elected(&self, prefix: Prefix, now: Timestamp) -> Option<&Arc<Route>> {
        let routes = self.routes();
        let first = routes.able(prefix).find(|route| self.has_valid_key(route.node, now))?;
        let stays = |current: &&Arc<Route>| {
            routes.is_able(current)
                && current.metric <= first.metric
                && self.has_valid_key(current.node, now)
        };
        Some(routes.primary(prefix).filter(stays).unwrap_or(first))
    }

    fn has_valid_key(&self, node: NodeId, now: Timestamp) -> bool {
        self.nodes().get(node).is_some_and(|node| !expired(node.expires_at, now))
    }
}

/// Tells the table of routes when the key of a primary's node expires.
pub(in crate::state) fn learn_expiry(state: &mut State, primary: &Route) {
    let expires_at = state.nodes().get(primary.node).and_then(|node| node.expires_at);
    state.tables.routes.expire(primary, expires_at);
}

/// What a node carries decides, and nobody else's routes, whose primary has to be elected anew when
/// the node comes, goes, or its key has another expiry.
pub(in crate::state) fn carried_by(
    state: &State,
    node: NodeId,
) -> impl Iterator<Item = Prefix> + '_ {
    let carrying = state.routes().of_node(node).filter(|route| route.carries_traffic());
    carrying.map(|route| route.prefix)
}

/// What a node carries as primary, by prefix, as an election at `now` would have it.
pub(in crate::state) fn served_by(
    state: &State,
    node: NodeId,
    now: Timestamp,
) -> impl Iterator<Item = Prefix> + '_ {
    let is_served =
        move |prefix: &Prefix| state.elected(*prefix, now).is_some_and(|route| route.node == node);
    carried_by(state, node).filter(is_served)
}

/// What was decided about a node, and who is primary then for what it carries.
pub(in crate::state) fn electing(
    state: &State,
    decision: Decision,
    node: NodeId,
    context: &Context<'_>,
) -> Decision {
    let mut prefixes = carried_by(state, node).peekable();
    if prefixes.peek().is_none() {
        return decision;
    }
    let mut draft = Draft::of(state);
    decision.changes.into_iter().for_each(|change| draft.change(change));
    for prefix in prefixes {
        elect_primary(&mut draft, prefix, context.now);
    }
    let mut elected = draft.finish(decision.reply);
    elected.audit = decision.audit;
    elected
}

/// Makes that route the primary of a prefix which is to be it, or none. Gives whether it was another.
///
/// The flag is derived, so it counts neither as a revision nor as an update.
pub(in crate::state) fn elect_primary(draft: &mut Draft, prefix: Prefix, now: Timestamp) -> bool {
    let current = draft.state.routes().primary(prefix).cloned();
    let next = draft.state.elected(prefix, now).cloned();
    if current.as_ref().map(|route| route.id) == next.as_ref().map(|route| route.id) {
        return false;
    }
    for (route, primary) in [(current, false), (next, true)] {
        if let Some(route) = route {
            draft.put(Route { primary, ..Route::clone(&route) });
        }
    }
    true
}
