//! Routes: who offers which prefix, and who carries its traffic.

use std::net::IpAddr;
use std::sync::Arc;

use super::decision::{Context, Decision, Draft, Handle, Reply};
use super::listing::{Listing, behind};
use super::primaries::Primaries;
use super::{Map, Set, State};
use crate::command::{Image, RouteCommand};
use crate::domain::{NodeId, Page, PageRequest, Prefix, Revision, Route, RouteFilter, RouteId};
use crate::error::{Entity, Error, Result};

/// A node offers at most this many routes.
const MAX_ROUTES_OF_NODE: usize = 1024;

/// All routes.
#[derive(Clone, Default, Debug)]
pub struct Routes {
    by_id: Map<RouteId, Arc<Route>>,
    by_node: Map<(NodeId, Prefix), RouteId>,
    by_prefix: Set<(Prefix, RouteId)>,
    primaries: Primaries,
}

impl Routes {
    /// The route with this id.
    #[must_use]
    pub fn get(&self, id: RouteId) -> Option<&Arc<Route>> {
        self.by_id.get(&id)
    }

    /// A node's route for exactly this prefix.
    #[must_use]
    pub fn find(&self, node: NodeId, prefix: Prefix) -> Option<&Arc<Route>> {
        self.by_node.get(&(node, prefix)).and_then(|id| self.by_id.get(id))
    }

    /// A node's routes, by prefix.
    pub fn of_node(&self, node: NodeId) -> impl Iterator<Item = &Arc<Route>> + '_ {
        let first = Prefix::new(IpAddr::from([0, 0, 0, 0]), 0).ok();
        first
            .map(|first| self.by_node.range((node, first)..))
            .into_iter()
            .flatten()
            .take_while(move |((owner, _), _)| *owner == node)
            .filter_map(|(_, id)| self.by_id.get(id))
    }

    /// All routes for exactly this prefix, by id.
    pub fn of_prefix(&self, prefix: Prefix) -> impl Iterator<Item = &Arc<Route>> + '_ {
        let first = RouteId::from_bytes([0; 16]);
        let last = RouteId::from_bytes([0xff; 16]);
        self.by_prefix
            .range((prefix, first)..=(prefix, last))
            .filter_map(|(_, id)| self.by_id.get(id))
    }

    /// The primary route for exactly this prefix.
    #[must_use]
    pub fn primary(&self, prefix: Prefix) -> Option<&Arc<Route>> {
        self.primaries.get(prefix)
    }

    /// The primary route with the longest prefix that contains `address`. Takes a step for each six
    /// bits of the longest prefix that begins like the address.
    #[must_use]
    pub fn lookup(&self, address: IpAddr) -> Option<&Arc<Route>> {
        self.primaries.lookup(address)
    }

    /// All routes, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.by_id.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// A page of routes, by prefix (family, address, length) and then id.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing.
    pub fn list(&self, filter: &RouteFilter, page: &PageRequest) -> Result<Page<Arc<Route>>> {
        let listing = Listing::new(Entity::Route, filter);
        let start: Option<(Prefix, RouteId)> = listing.start(page)?;
        let matching = self
            .by_prefix
            .range(behind(start.as_ref()))
            .filter_map(|(_, id)| self.by_id.get(id))
            .filter(|route| {
                filter.node.is_none_or(|node| route.node == node)
                    && filter.prefix.is_none_or(|prefix| route.prefix == prefix)
                    && filter.approved.is_none_or(|approved| route.approved == approved)
                    && filter.primary.is_none_or(|primary| route.primary == primary)
            });
        Ok(listing.take(page, matching.cloned(), |route| (route.prefix, route.id)))
    }

    pub(super) fn put(&mut self, route: Arc<Route>) -> bool {
        let old = self.by_id.insert(route.id, route.clone());
        if let Some(old) = &old {
            self.unindex(old);
        }
        self.by_node.insert((route.node, route.prefix), route.id);
        self.by_prefix.insert((route.prefix, route.id));
        if route.primary {
            self.primaries.put(route);
        }
        old.is_some()
    }

    pub(super) fn remove(&mut self, id: RouteId) {
        if let Some(old) = self.by_id.remove(&id) {
            self.unindex(&old);
        }
    }

    fn unindex(&mut self, old: &Route) {
        self.by_node.remove(&(old.node, old.prefix));
        self.by_prefix.remove(&(old.prefix, old.id));
        if self.primary(old.prefix).is_some_and(|primary| primary.id == old.id) {
            self.primaries.remove(old.prefix);
        }
    }
}

/// The two sides of a route.
#[derive(Clone, Copy)]
enum Side {
    Advertised,
    Approved,
}

impl State {
    pub(super) fn decide_route(
        &self,
        command: &RouteCommand,
        context: &Context<'_>,
    ) -> Result<Decision> {
        match command {
            RouteCommand::Advertise { node, prefixes } => {
                self.set_routes(*node, prefixes, Side::Advertised, context)
            }
            RouteCommand::Approve { node, prefixes } => {
                self.set_routes(*node, prefixes, Side::Approved, context)
            }
            RouteCommand::Delete { id } => {
                let route =
                    self.routes.get(*id).ok_or_else(|| Error::not_found(Entity::Route, id))?;
                let mut draft = Draft::of(self);
                draft.delete(Handle::Route(*id));
                draft.elect_primary(route.prefix);
                Ok(draft.finish(Reply::Done).noting("route.delete", Entity::Route, id))
            }
        }
    }

    /// Makes exactly `wanted` the node's advertised or approved prefixes. What is neither any
    /// longer disappears.
    fn set_routes(
        &self,
        node: NodeId,
        wanted: &[(RouteId, Prefix)],
        side: Side,
        context: &Context<'_>,
    ) -> Result<Decision> {
        self.node(node)?;
        if wanted.len() > MAX_ROUTES_OF_NODE {
            return Err(Error::invalid("a call takes at most 1024 prefixes")
                .about(Entity::Route)
                .with("node", node)
                .with("routes", wanted.len()));
        }
        let wanted: std::collections::BTreeMap<Prefix, RouteId> =
            wanted.iter().map(|(id, prefix)| (*prefix, *id)).collect();
        let mut draft = Draft::of(self);
        let mut touched = Vec::new();
        for old in self.routes.of_node(node) {
            let on = wanted.contains_key(&old.prefix);
            let mut route = Route::clone(old);
            match side {
                Side::Advertised => route.advertised = on,
                Side::Approved => route.approved = on,
            }
            if !route.advertised && !route.approved {
                draft.delete(Handle::Route(old.id));
            } else if route != **old {
                draft.put_route(route, context);
            } else {
                continue;
            }
            touched.push(old.prefix);
        }
        for (&prefix, &id) in &wanted {
            if self.routes.find(node, prefix).is_some() {
                continue;
            }
            super::decision::check_fresh(Entity::Route, id, draft.state.routes.get(id).is_some())?;
            draft.put(Image::Route(Arc::new(Route {
                id,
                node,
                prefix,
                advertised: matches!(side, Side::Advertised),
                approved: matches!(side, Side::Approved),
                primary: false,
                created_at: context.now,
                updated_at: context.now,
                revision: Revision::FIRST,
            })));
            touched.push(prefix);
        }
        let unchanged = touched.is_empty();
        for prefix in touched {
            draft.elect_primary(prefix);
        }
        let reply = Reply::Routes(draft.state.routes.of_node(node).cloned().collect());
        if unchanged {
            return Ok(Decision::unchanged(reply));
        }
        let action = match side {
            Side::Advertised => "route.advertise",
            Side::Approved => "route.approve",
        };
        Ok(draft.finish(reply).noting(action, Entity::Node, node))
    }

    /// A route that may carry traffic now.
    fn is_eligible(&self, route: &Route) -> bool {
        route.advertised && route.approved && self.presence.is_online(route.node)
    }
}

impl Draft {
    fn put_route(&mut self, route: Route, context: &Context<'_>) {
        self.put(Image::Route(Arc::new(Route {
            updated_at: context.now,
            revision: route.revision.next(),
            ..route
        })));
    }

    /// Keeps the primary of a prefix while it may carry traffic; otherwise hands over to the
    /// eligible route that is oldest, or to none. Exit routes have no primary.
    ///
    /// The flag is derived, so it counts neither as a revision nor as an update.
    pub(super) fn elect_primary(&mut self, prefix: Prefix) {
        if prefix.is_exit() {
            return;
        }
        let state = &self.state;
        let current = state.routes.primary(prefix).cloned();
        let eligible = |route: &Arc<Route>| state.is_eligible(route);
        if current.as_ref().is_some_and(eligible) {
            return;
        }
        let able = state.routes.of_prefix(prefix).filter(|route| eligible(route));
        let next = able.min_by_key(|route| (route.created_at, route.id)).cloned();
        let moves = [(current, false), (next, true)];
        for (route, primary) in moves {
            if let Some(route) = route {
                self.put(Image::Route(Arc::new(Route { primary, ..Route::clone(&route) })));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::command::{NodeCommand, PresenceCommand};
    use crate::domain::{Change, SessionNumber};
    use crate::state::testing::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn online(world: &mut World, node: NodeId, session: u64) {
        let session = SessionNumber::new(session).unwrap();
        world.run(PresenceCommand::Connect { node, session, endpoints: Change::Keep }).unwrap();
    }

    fn offline(world: &mut World, node: NodeId, session: u64) {
        let session = SessionNumber::new(session).unwrap();
        world.run(PresenceCommand::Disconnect { node, session }).unwrap();
    }

    /// Two online nodes that both carry 10.1.0.0/16.
    fn two_routers(world: &mut World) -> (NodeId, NodeId) {
        let alice = world.user("alice");
        let (a, b) =
            (world.register(alice.id, 1).unwrap().id, world.register(alice.id, 2).unwrap().id);
        for node in [a, b] {
            online(world, node, 1);
            let prefixes = world.prefixes(&["10.1.0.0/16"]);
            world.run(RouteCommand::Advertise { node, prefixes: prefixes.clone() }).unwrap();
            world.run(RouteCommand::Approve { node, prefixes }).unwrap();
        }
        (a, b)
    }

    fn primary(world: &World) -> Option<NodeId> {
        let primaries: Vec<_> = world.state.routes().iter().filter(|r| r.primary).collect();
        assert!(primaries.len() <= 1);
        let found = primaries.first().map(|route| route.node);
        assert_eq!(found, world.state.routes().primary(prefix("10.1.0.0/16")).map(|r| r.node));
        found
    }

    #[test]
    fn a_prefix_has_one_primary_that_fails_over_and_stays() {
        let mut world = World::new();
        let (a, b) = two_routers(&mut world);
        assert_eq!(primary(&world), Some(a));
        offline(&mut world, a, 1);
        assert_eq!(primary(&world), Some(b));
        online(&mut world, a, 2);
        assert_eq!(primary(&world), Some(b), "coming back does not take over");
        world.run(NodeCommand::Delete { id: b }).unwrap();
        assert_eq!(primary(&world), Some(a));
        offline(&mut world, a, 2);
        assert_eq!(primary(&world), None);
    }

    #[test]
    fn the_oldest_takes_over_whatever_its_id() {
        let mut world = World::new();
        let alice = world.user("alice");
        // Within a millisecond the order of ids is no order of creation.
        let ids = [[3; 16], [2; 16], [1; 16]].map(RouteId::from_bytes);
        let nodes = [1, 2, 3].map(|machine| world.register(alice.id, machine).unwrap().id);
        for (node, id) in nodes.into_iter().zip(ids) {
            world.advance(std::time::Duration::from_micros(1));
            let prefixes = vec![(id, prefix("10.1.0.0/16"))];
            world.run(RouteCommand::Advertise { node, prefixes: prefixes.clone() }).unwrap();
            world.run(RouteCommand::Approve { node, prefixes }).unwrap();
        }
        let [first, second, third] = nodes;
        for node in [third, second, first] {
            online(&mut world, node, 1);
        }
        assert_eq!(primary(&world), Some(third), "the others were not online yet");
        offline(&mut world, third, 1);
        assert_eq!(primary(&world), Some(first));
        offline(&mut world, first, 1);
        assert_eq!(primary(&world), Some(second));
    }

    #[test]
    fn only_advertised_and_approved_routes_carry_traffic() {
        let mut world = World::new();
        let (a, b) = two_routers(&mut world);
        world.run(RouteCommand::Approve { node: a, prefixes: vec![] }).unwrap();
        assert_eq!(primary(&world), Some(b));
        world.run(RouteCommand::Advertise { node: b, prefixes: vec![] }).unwrap();
        assert_eq!(primary(&world), None);
        assert!(world.state.routes().find(b, prefix("10.1.0.0/16")).unwrap().approved);
        world.run(RouteCommand::Advertise { node: a, prefixes: vec![] }).unwrap();
        assert!(world.state.routes().find(a, prefix("10.1.0.0/16")).is_none());
    }

    #[test]
    fn exit_routes_have_no_primary() {
        let mut world = World::new();
        let alice = world.user("alice");
        let node = world.register(alice.id, 1).unwrap().id;
        online(&mut world, node, 1);
        let prefixes = world.prefixes(&["0.0.0.0/0", "::/0"]);
        world.run(RouteCommand::Advertise { node, prefixes: prefixes.clone() }).unwrap();
        world.run(RouteCommand::Approve { node, prefixes }).unwrap();
        assert!(world.state.routes().iter().all(|route| !route.primary));
    }

    #[test]
    fn the_longest_prefix_wins() {
        let mut world = World::new();
        let alice = world.user("alice");
        let node = world.register(alice.id, 1).unwrap().id;
        online(&mut world, node, 1);
        let prefixes = world.prefixes(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "fd01::/16"]);
        world.run(RouteCommand::Advertise { node, prefixes: prefixes.clone() }).unwrap();
        world.run(RouteCommand::Approve { node, prefixes }).unwrap();
        let lookup = |address: &str| {
            world.state.routes().lookup(address.parse().unwrap()).map(|r| r.prefix.to_string())
        };
        assert_eq!(lookup("10.1.2.3").as_deref(), Some("10.1.2.0/24"));
        assert_eq!(lookup("10.1.9.9").as_deref(), Some("10.1.0.0/16"));
        assert_eq!(lookup("10.200.0.1").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(lookup("11.0.0.1"), None);
        assert_eq!(lookup("fd01::9").as_deref(), Some("fd01::/16"));
    }
}
