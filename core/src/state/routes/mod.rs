//! Routes: who offers which prefix, and who carries its traffic.

mod primaries;
mod table;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

pub use table::Routes;

use super::State;
use super::decision::{Context, Decision, Draft, EntityId, Reply, check_revision};
use crate::command::RouteCommand;
use crate::domain::{
    Fingerprint, NodeId, Prefix, Revision, Route, RouteId, RouteMetric, RoutePatch, Timestamp,
    expired,
};
use crate::entity::{Rules, dates};
use crate::error::{EntityKind, Error, ErrorKind, Result};

/// A node has at most this many routes on one side, and a call names at most so many prefixes.
pub(crate) const MAX_PREFIXES: usize = 1024;

/// The two sides of a route.
#[derive(Clone, Copy)]
enum Side {
    Advertised,
    Approved,
}

impl Side {
    fn of(self, route: &Route) -> bool {
        match self {
            Self::Advertised => route.advertised,
            Self::Approved => route.approved,
        }
    }

    fn set(self, route: &mut Route, on: bool) {
        match self {
            Self::Advertised => route.advertised = on,
            Self::Approved => route.approved = on,
        }
    }
}

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

impl Rules for Route {
    dates! { events: created_at, updated_at; ends: }

    /// Its node exists and has no other for its prefix; it is primary if that can be, and alone. Whether
    /// keys have expired since is for the next election.
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
        if let Some(new) = new.filter(|new| new.primary) {
            learn_expiry(state, new);
        }
    }
}

/// Tells the table of routes when the key of a primary's node expires.
pub(super) fn learn_expiry(state: &mut State, primary: &Route) {
    let expires_at = state.nodes().get(primary.node).and_then(|node| node.expires_at);
    state.tables.routes.expire(primary, expires_at);
}

pub(crate) fn decide(
    state: &State,
    command: &RouteCommand,
    context: &Context<'_>,
) -> Result<Decision> {
    match command {
        RouteCommand::Advertise { node, prefixes, expected } => {
            check_fingerprint(state, *node, *expected)?;
            set(state, *node, prefixes, Side::Advertised, context)
        }
        RouteCommand::AdvertiseOne { id, node, prefix } => {
            advertise_one(state, *id, *node, *prefix, context)
        }
        RouteCommand::WithdrawOne { node, prefix } => withdraw_one(state, *node, *prefix, context),
        RouteCommand::Approve { node, prefixes, expected } => {
            check_fingerprint(state, *node, *expected)?;
            set(state, *node, prefixes, Side::Approved, context)
        }
        RouteCommand::SetApproved { id, approved } => set_approved(state, *id, *approved, context),
        RouteCommand::Update { id, patch, expected } => {
            update(state, *id, patch, *expected, context)
        }
        RouteCommand::Delete { id } => {
            let route = state.routes().require(*id)?;
            let mut draft = Draft::of(state);
            draft.delete(EntityId::Route(*id));
            if route.carries_traffic() {
                elect_primary(&mut draft, route.prefix, context.now);
            }
            let decision = draft.finish(Reply::Done);
            Ok(decision
                .noting(RouteCommand::DELETE, EntityKind::Route, id)
                .beside(EntityKind::Node, Some(route.node)))
        }
        RouteCommand::Elect { prefixes } => {
            check_count(prefixes.len())?;
            let mut draft = Draft::of(state);
            let moves = |prefix: &&Prefix| elect_primary(&mut draft, **prefix, context.now);
            let moved = prefixes.iter().filter(moves).count();
            Ok(draft.finish(Reply::Count(moved as u64)))
        }
    }
}

/// Refuses if the caller expected other routes of the node.
pub(super) fn check_fingerprint(
    state: &State,
    node: NodeId,
    expected: Option<Fingerprint>,
) -> Result<()> {
    let Some(expected) = expected else { return Ok(()) };
    state.nodes().require(node)?;
    let found = state.routes().fingerprint(node);
    if found == expected {
        return Ok(());
    }
    let message = "has other routes than were read, somebody changed them; read them again";
    Err(Error::new(ErrorKind::Conflict, message)
        .about(EntityKind::Node)
        .with("id", node)
        .with("expected_routes", expected)
        .with("routes", found))
}

fn check_count(prefixes: usize) -> Result<()> {
    if prefixes <= MAX_PREFIXES {
        return Ok(());
    }
    Err(Error::invalid("a call takes at most 1024 prefixes")
        .about(EntityKind::Route)
        .with("routes", prefixes))
}

/// Refuses one more route of a node on one side where there are as many as a list can have.
fn check_room(state: &State, node: NodeId, side: Side) -> Result<()> {
    if state.routes().of_node(node).filter(|route| side.of(route)).count() < MAX_PREFIXES {
        return Ok(());
    }
    let message = match side {
        Side::Advertised => "advertises 1024 prefixes, which is the most; withdraw one first",
        Side::Approved => "has 1024 approved prefixes, which is the most; remove an approval first",
    };
    Err(Error::new(ErrorKind::Exhausted, message).about(EntityKind::Node).with("id", node))
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
    check_count(wanted.len()).map_err(|error| error.with("node", node))?;
    let mut wanted: BTreeMap<Prefix, RouteId> =
        wanted.iter().map(|(id, prefix)| (*prefix, *id)).collect();
    let mut draft = Draft::of(state);
    let mut changed = false;
    for old in state.routes().of_node(node) {
        let on = wanted.remove(&old.prefix).is_some();
        changed |= turn(&mut draft, old, side, on, context.now);
    }
    // What is left has no route yet.
    changed |= !wanted.is_empty();
    for (prefix, id) in wanted {
        draft.state.routes().check_fresh(id)?;
        draft.put(one_sided(id, node, prefix, side, context.now));
    }
    let reply = Reply::Routes(draft.state.routes().of_node(node).cloned().collect());
    if !changed {
        return Ok(Decision::unchanged(reply));
    }
    let action = match side {
        Side::Advertised => RouteCommand::ADVERTISE,
        Side::Approved => RouteCommand::APPROVE,
    };
    Ok(draft.finish(reply).noting(action, EntityKind::Node, node))
}

/// A new route. It has one side, so it carries nothing.
fn one_sided(id: RouteId, node: NodeId, prefix: Prefix, side: Side, now: Timestamp) -> Route {
    Route {
        id,
        node,
        prefix,
        advertised: matches!(side, Side::Advertised),
        approved: matches!(side, Side::Approved),
        primary: false,
        metric: RouteMetric::default(),
        description: None,
        created_at: now,
        updated_at: now,
        revision: Revision::FIRST,
    }
}

/// Turns one side of a route on or off, and elects anew if it begins or ceases to carry traffic. On
/// neither side it disappears. Gives whether anything changed.
fn turn(draft: &mut Draft, old: &Route, side: Side, on: bool, now: Timestamp) -> bool {
    if side.of(old) == on {
        return false;
    }
    let mut route = Route { updated_at: now, revision: old.revision.next(), ..old.clone() };
    side.set(&mut route, on);
    if !route.advertised && !route.approved {
        draft.delete(EntityId::Route(old.id));
        return true;
    }
    draft.put(route);
    elect_primary(draft, old.prefix, now);
    true
}

fn advertise_one(
    state: &State,
    id: RouteId,
    node: NodeId,
    prefix: Prefix,
    context: &Context<'_>,
) -> Result<Decision> {
    state.nodes().require(node)?;
    let old = state.routes().find(node, prefix);
    if let Some(old) = old.filter(|old| old.advertised) {
        return Ok(Decision::unchanged(Reply::Route(old.clone())));
    }
    check_room(state, node, Side::Advertised)?;
    let mut draft = Draft::of(state);
    match old {
        Some(old) => {
            turn(&mut draft, old, Side::Advertised, true, context.now);
        }
        None => {
            state.routes().check_fresh(id)?;
            draft.put(one_sided(id, node, prefix, Side::Advertised, context.now));
        }
    }
    let reply = reply_of(&draft, old.map_or(id, |old| old.id));
    Ok(draft.finish(reply).noting(RouteCommand::ADVERTISE_ONE, EntityKind::Node, node))
}

fn withdraw_one(
    state: &State,
    node: NodeId,
    prefix: Prefix,
    context: &Context<'_>,
) -> Result<Decision> {
    state.nodes().require(node)?;
    let old = state.routes().find(node, prefix).filter(|old| old.advertised).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "the node does not advertise the prefix")
            .about(EntityKind::Route)
            .with("node", node)
            .with("prefix", prefix)
    })?;
    let mut draft = Draft::of(state);
    turn(&mut draft, old, Side::Advertised, false, context.now);
    let reply = reply_of(&draft, old.id);
    Ok(draft.finish(reply).noting(RouteCommand::WITHDRAW_ONE, EntityKind::Node, node))
}

fn set_approved(
    state: &State,
    id: RouteId,
    approved: bool,
    context: &Context<'_>,
) -> Result<Decision> {
    let old = state.routes().require(id)?;
    if old.approved == approved {
        return Ok(Decision::unchanged(Reply::Route(old.clone())));
    }
    if approved {
        check_room(state, old.node, Side::Approved)?;
    }
    let mut draft = Draft::of(state);
    turn(&mut draft, old, Side::Approved, approved, context.now);
    let reply = reply_of(&draft, id);
    Ok(draft.finish(reply).noting(RouteCommand::SET_APPROVED, EntityKind::Route, id))
}

fn update(
    state: &State,
    id: RouteId,
    patch: &RoutePatch,
    expected: Option<Revision>,
    context: &Context<'_>,
) -> Result<Decision> {
    let old = state.routes().require(id)?;
    check_revision(EntityKind::Route, id, old.revision, expected)?;
    let mut route = Route::clone(old);
    let mut changed = patch.metric.apply(&mut route.metric);
    changed |= patch.description.apply(&mut route.description);
    if !changed {
        return Ok(Decision::unchanged(Reply::Route(old.clone())));
    }
    route.revision = old.revision.next();
    route.updated_at = context.now;
    let metric_counts = route.metric != old.metric && route.carries_traffic();
    let mut draft = Draft::of(state);
    draft.put(route);
    if metric_counts {
        elect_primary(&mut draft, old.prefix, context.now);
    }
    let reply = reply_of(&draft, id);
    Ok(draft.finish(reply).noting(RouteCommand::UPDATE, EntityKind::Route, id))
}

/// The route as it is now; just `Done` if it disappeared.
fn reply_of(draft: &Draft, id: RouteId) -> Reply {
    draft.state.routes().get(id).map_or(Reply::Done, |route| Reply::Route(route.clone()))
}

/// What a node carries decides, and nobody else's routes, whose primary has to be elected anew when
/// the node comes, goes, or its key has another expiry.
pub(super) fn carried_by(state: &State, node: NodeId) -> impl Iterator<Item = Prefix> + '_ {
    let carrying = state.routes().of_node(node).filter(|route| route.carries_traffic());
    carrying.map(|route| route.prefix)
}

/// What a node carries as primary, by prefix, as an election at `now` would have it.
pub(super) fn served_by(
    state: &State,
    node: NodeId,
    now: Timestamp,
) -> impl Iterator<Item = Prefix> + '_ {
    let is_served =
        move |prefix: &Prefix| state.elected(*prefix, now).is_some_and(|route| route.node == node);
    carried_by(state, node).filter(is_served)
}

/// What was decided about a node, and who is primary then for what it carries.
pub(super) fn electing(
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
pub(super) fn elect_primary(draft: &mut Draft, prefix: Prefix, now: Timestamp) -> bool {
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::command::{NodeCommand, PresenceCommand};
    use crate::domain::{NodePatch, Patch, SessionNumber, Update};
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
            world
                .run(RouteCommand::Advertise { node, prefixes: prefixes.clone(), expected: None })
                .unwrap();
            world.run(RouteCommand::Approve { node, prefixes, expected: None }).unwrap();
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
            world
                .run(RouteCommand::Advertise { node, prefixes: prefixes.clone(), expected: None })
                .unwrap();
            world.run(RouteCommand::Approve { node, prefixes, expected: None }).unwrap();
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
        world.run(RouteCommand::Approve { node: a, prefixes: vec![], expected: None }).unwrap();
        assert_eq!(primary(&world), Some(b));
        world.run(RouteCommand::Advertise { node: b, prefixes: vec![], expected: None }).unwrap();
        assert_eq!(primary(&world), None);
        assert!(world.state.routes().find(b, prefix("10.1.0.0/16")).unwrap().approved);
        world.run(RouteCommand::Advertise { node: a, prefixes: vec![], expected: None }).unwrap();
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
            world.run(RouteCommand::Advertise { node, prefixes, expected: None }).unwrap();
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
        world
            .run(RouteCommand::Advertise { node, prefixes: prefixes.clone(), expected: None })
            .unwrap();
        world.run(RouteCommand::Approve { node, prefixes, expected: None }).unwrap();
        assert!(world.state.routes().iter().all(|route| !route.primary));
    }

    fn expire(world: &mut World, node: NodeId, at: Timestamp) {
        let part = crate::command::Part::WHOLE;
        world.run(NodeCommand::Expire { nodes: vec![node], at, part }).unwrap();
    }

    #[test]
    fn a_key_that_expires_by_itself_waits_for_an_election() {
        let mut world = World::new();
        let (a, b) = two_routers(&mut world);
        let soon = world.now.saturating_add(std::time::Duration::from_secs(60));
        expire(&mut world, a, soon);
        assert_eq!((primary(&world), world.state.due_elections(world.now).count()), (Some(a), 0));
        world.now = soon;
        let address = "10.1.2.3".parse().unwrap();
        assert_eq!(world.state.route_to(address, soon).map(|route| route.node), Some(b));
        assert_eq!(primary(&world), Some(a), "nobody was elected yet");
        let due: Vec<_> = world.state.due_elections(soon).collect();
        assert_eq!(due, [prefix("10.1.0.0/16")]);
        let elect = RouteCommand::Elect { prefixes: due };
        assert_eq!(world.run(elect.clone()).unwrap(), Reply::Count(1));
        assert_eq!(primary(&world), Some(b));
        assert_eq!(world.run(elect).unwrap(), Reply::Count(0));
        // None is left, and a prefix that nobody carries elects nobody.
        expire(&mut world, b, soon);
        assert_eq!((primary(&world), world.state.route_to(address, soon)), (None, None));
        let prefixes = vec![prefix("10.1.0.0/16"), prefix("10.9.0.0/16"), prefix("0.0.0.0/0")];
        assert_eq!(world.run(RouteCommand::Elect { prefixes }).unwrap(), Reply::Count(0));
        let too_many = vec![prefix("10.1.0.0/16"); MAX_PREFIXES + 1];
        let error = world.run(RouteCommand::Elect { prefixes: too_many }).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn a_lookup_knows_every_expiry_however_it_came() {
        let mut world = World::new();
        let (a, b) = two_routers(&mut world);
        let after = |seconds| std::time::Duration::from_secs(seconds);
        let (begun, address) = (world.now, "10.1.2.3".parse().unwrap());
        let found = |state: &State, seconds| {
            let route = state.route_to(address, begun.saturating_add(after(seconds)));
            route.map(|route| route.node)
        };
        let loaded = |state: &State| {
            let mut loading = crate::state::Loading::default();
            state.images().for_each(|image| loading.add(image));
            loading.finish().unwrap()
        };
        expire(&mut world, b, begun.saturating_add(after(90)));
        assert_eq!((primary(&world), found(&world.state, 600)), (Some(a), Some(a)));
        expire(&mut world, a, begun.saturating_add(after(60)));
        for state in [&world.state, &loaded(&world.state)] {
            let nodes = [59, 60, 89, 90].map(|seconds| found(state, seconds));
            assert_eq!(nodes, [Some(a), Some(b), Some(b), None]);
        }
        // An election hands over, and the next primary's expiry counts.
        offline(&mut world, a, 1);
        for state in [&world.state, &loaded(&world.state)] {
            assert_eq!([89, 90].map(|seconds| found(state, seconds)), [Some(b), None]);
        }
        // Later is later, and never is never.
        let patch = |expires_at| NodePatch { expires_at, ..NodePatch::default() };
        let later = begun.saturating_add(after(600));
        for (expires_at, last) in [(Patch::Set(later), None), (Patch::Clear, Some(b))] {
            let patch = Box::new(patch(expires_at));
            world.run(NodeCommand::Update { id: b, patch, expected: None }).unwrap();
            for state in [&world.state, &loaded(&world.state)] {
                assert_eq!([599, 600].map(|seconds| found(state, seconds)), [Some(b), last]);
            }
        }
    }

    #[test]
    fn an_election_is_due_where_a_repair_of_the_clock_left_none() {
        let mut world = World::new();
        let (a, b) = two_routers(&mut world);
        let right = world.now;
        let soon = right.saturating_add(std::time::Duration::from_secs(3600));
        for node in [a, b] {
            expire(&mut world, node, soon);
        }
        // Under a clock that is ahead nobody could be primary.
        world.now = soon.saturating_add(std::time::Duration::from_secs(1));
        let prefixes: Vec<_> = world.state.due_elections(world.now).collect();
        world.run(RouteCommand::Elect { prefixes: prefixes.clone() }).unwrap();
        assert_eq!(primary(&world), None);
        assert_eq!(world.state.due_elections(right).collect::<Vec<_>>(), prefixes);
    }

    #[test]
    fn the_lowest_metric_is_elected() {
        let mut world = World::new();
        let (a, b) = two_routers(&mut world);
        let cost = |world: &mut World, node, metric| {
            let id = world.state.routes().find(node, prefix("10.1.0.0/16")).unwrap().id;
            let metric = Update::Set(RouteMetric::new(metric));
            let patch = RoutePatch { metric, ..RoutePatch::default() };
            world.run(RouteCommand::Update { id, patch, expected: None }).unwrap();
        };
        cost(&mut world, b, 3);
        cost(&mut world, a, 3);
        assert_eq!(primary(&world), Some(a), "an equal metric does not take over");
        cost(&mut world, a, 4);
        assert_eq!(primary(&world), Some(b));
        cost(&mut world, a, 3);
        assert_eq!(primary(&world), Some(b));
        offline(&mut world, b, 1);
        assert_eq!(primary(&world), Some(a));
    }

    #[test]
    fn the_longest_prefix_wins() {
        let mut world = World::new();
        let alice = world.user("alice");
        let node = world.register(alice.id, 1).unwrap().id;
        online(&mut world, node, 1);
        let prefixes = world.prefixes(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "fd01::/16"]);
        world
            .run(RouteCommand::Advertise { node, prefixes: prefixes.clone(), expected: None })
            .unwrap();
        world.run(RouteCommand::Approve { node, prefixes, expected: None }).unwrap();
        let lookup = |address: &str| {
            world.state.route_to(address.parse().unwrap(), world.now).map(|r| r.prefix.to_string())
        };
        assert_eq!(lookup("10.1.2.3").as_deref(), Some("10.1.2.0/24"));
        assert_eq!(lookup("10.1.9.9").as_deref(), Some("10.1.0.0/16"));
        assert_eq!(lookup("10.200.0.1").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(lookup("11.0.0.1"), None);
        assert_eq!(lookup("fd01::9").as_deref(), Some("fd01::/16"));
    }
}
