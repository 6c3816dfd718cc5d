//! Routes: who offers which prefix, and who carries its traffic.

mod primaries;
mod table;

use std::collections::BTreeMap;

pub use table::Routes;

use super::State;
use super::decision::{Context, Decision, Draft, EntityId, Reply};
use crate::command::RouteCommand;
use crate::domain::{NodeId, Prefix, Revision, Route, RouteId};
use crate::entity::{Rules, dates};
use crate::error::{EntityKind, Error, Result};

/// A node offers at most this many routes.
const MAX_ROUTES_OF_NODE: usize = 1024;

/// The two sides of a route.
#[derive(Clone, Copy)]
enum Side {
    Advertised,
    Approved,
}

impl Rules for Route {
    dates! { events: created_at, updated_at; ends: }

    /// Its node exists and has no other for its prefix; it is primary if that can be, and alone.
    fn check_beside(&self, state: &State) -> Result<()> {
        state.nodes().require(self.node)?;
        if state.routes().find(self.node, self.prefix).is_some() {
            return Err(Error::already_exists(EntityKind::Route, "node_prefix")
                .with("node", self.node)
                .with("prefix", self.prefix));
        }
        if !self.primary {
            return Ok(());
        }
        if let Some(holder) = state.routes().primary(self.prefix) {
            return Err(Error::already_exists(EntityKind::Route, "primary")
                .with("prefix", self.prefix)
                .with("held_by", holder.id));
        }
        let online = state.presence().is_online(self.node);
        if !(self.carries_traffic() && online) || self.prefix.is_exit() {
            return Err(Error::invalid(
                "a primary route is advertised, approved, no exit route, and its node is online",
            )
            .about(EntityKind::Route)
            .with("id", self.id));
        }
        Ok(())
    }

    /// Only what an online node offers can be primary.
    fn follow(state: &mut State, old: Option<&Self>, new: Option<&Self>) {
        let online = new.is_some_and(|new| state.presence().is_online(new.node));
        state.tables.routes.rank(old, new, online);
    }
}

pub(crate) fn decide(
    state: &State,
    command: &RouteCommand,
    context: &Context<'_>,
) -> Result<Decision> {
    match command {
        RouteCommand::Advertise { node, prefixes } => {
            set(state, *node, prefixes, Side::Advertised, context)
        }
        RouteCommand::Approve { node, prefixes } => {
            set(state, *node, prefixes, Side::Approved, context)
        }
        RouteCommand::Delete { id } => {
            let route = state.routes().require(*id)?;
            let mut draft = Draft::of(state);
            draft.delete(EntityId::Route(*id));
            if route.carries_traffic() {
                elect_primary(&mut draft, route.prefix);
            }
            let decision = draft.finish(Reply::Done);
            Ok(decision
                .noting(RouteCommand::DELETE, EntityKind::Route, id)
                .beside(EntityKind::Node, Some(route.node)))
        }
    }
}

/// Makes exactly `wanted` the node's advertised or approved prefixes. What is neither any longer
/// disappears.
fn set(
    state: &State,
    node: NodeId,
    wanted: &[(RouteId, Prefix)],
    side: Side,
    context: &Context<'_>,
) -> Result<Decision> {
    state.nodes().require(node)?;
    if wanted.len() > MAX_ROUTES_OF_NODE {
        return Err(Error::invalid("a call takes at most 1024 prefixes")
            .about(EntityKind::Route)
            .with("node", node)
            .with("routes", wanted.len()));
    }
    let mut wanted: BTreeMap<Prefix, RouteId> =
        wanted.iter().map(|(id, prefix)| (*prefix, *id)).collect();
    let mut draft = Draft::of(state);
    let mut unchanged = true;
    // Only these can change who is primary.
    let mut carriers = Vec::new();
    for old in state.routes().of_node(node) {
        let on = wanted.remove(&old.prefix).is_some();
        let mut route = Route::clone(old);
        match side {
            Side::Advertised => route.advertised = on,
            Side::Approved => route.approved = on,
        }
        if !route.advertised && !route.approved {
            draft.delete(EntityId::Route(old.id));
        } else if route != **old {
            if route.carries_traffic() != old.carries_traffic() {
                carriers.push(old.prefix);
            }
            let (updated_at, revision) = (context.now, route.revision.next());
            draft.put(Route { updated_at, revision, ..route });
        } else {
            continue;
        }
        unchanged = false;
    }
    // What is left has no route yet. It has one side, so it carries nothing.
    for (prefix, id) in wanted {
        draft.state.routes().check_fresh(id)?;
        draft.put(Route {
            id,
            node,
            prefix,
            advertised: matches!(side, Side::Advertised),
            approved: matches!(side, Side::Approved),
            primary: false,
            created_at: context.now,
            updated_at: context.now,
            revision: Revision::FIRST,
        });
        unchanged = false;
    }
    for prefix in carriers {
        elect_primary(&mut draft, prefix);
    }
    let reply = Reply::Routes(draft.state.routes().of_node(node).cloned().collect());
    if unchanged {
        return Ok(Decision::unchanged(reply));
    }
    let action = match side {
        Side::Advertised => RouteCommand::ADVERTISE,
        Side::Approved => RouteCommand::APPROVE,
    };
    Ok(draft.finish(reply).noting(action, EntityKind::Node, node))
}

/// Keeps the primary of a prefix while it can be; otherwise hands over to the oldest route that can
/// be, or to none.
///
/// The flag is derived, so it counts neither as a revision nor as an update.
pub(super) fn elect_primary(draft: &mut Draft, prefix: Prefix) {
    let routes = draft.state.routes();
    let current = routes.primary(prefix).cloned();
    if current.as_ref().is_some_and(|current| routes.is_able(current)) {
        return;
    }
    let next = routes.oldest_able(prefix).cloned();
    for (route, primary) in [(current, false), (next, true)] {
        if let Some(route) = route {
            draft.put(Route { primary, ..Route::clone(&route) });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::command::{NodeCommand, PresenceCommand};
    use crate::domain::SessionNumber;
    use crate::state::testing::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn online(world: &mut World, node: NodeId, session: u64) {
        world.run(connect(node, session)).unwrap();
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
    fn what_nobody_approved_stands_for_no_election() {
        let mut world = World::new();
        let (a, b) = two_routers(&mut world);
        let alice = world.state.nodes().get(a).unwrap().user.unwrap();
        for machine in 3..30 {
            let node = world.register(alice, machine).unwrap().id;
            online(&mut world, node, 1);
            let prefixes = world.prefixes(&["10.1.0.0/16", "10.2.0.0/16"]);
            world.run(RouteCommand::Advertise { node, prefixes }).unwrap();
        }
        let routes = world.state.routes();
        assert_eq!(routes.of_prefix(prefix("10.1.0.0/16")).count(), 29);
        assert_eq!(routes.able_len(), 2);
        assert_eq!(routes.carrying().map(|route| route.node).collect::<Vec<_>>(), [a, b]);
        // Nor does one whose node is away.
        offline(&mut world, a, 1);
        assert_eq!((primary(&world), world.state.routes().able_len()), (Some(b), 1));
        world.run(NodeCommand::Delete { id: b }).unwrap();
        assert_eq!((primary(&world), world.state.routes().able_len()), (None, 0));
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
