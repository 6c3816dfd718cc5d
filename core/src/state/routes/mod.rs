//! Routes: who offers which prefix, and who carries its traffic.

mod elections;
mod primaries;
mod table;

use std::collections::BTreeMap;

pub(super) use elections::{carried_by, elect_primary, electing, learn_expiry, served_by};
pub use table::Routes;

use super::State;
use super::decision::{Context, Decision, Draft, EntityId, Reply, check_revision};
use crate::command::RouteCommand;
use crate::domain::{
    Fingerprint, NodeId, Prefix, Revision, Route, RouteId, RouteMetric, RoutePatch, Timestamp,
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

#[cfg(test)]
mod tests;
