//! Who is online. Sessions are numbered; a message of an older session, or of one that was closed,
//! changes nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use super::State;
use super::collection::Collection;
use super::decision::{Context, Decision, Draft, Reply};
use super::instances::disconnect_lost;
use super::part::Scales;
use super::routes::{elect_primary, electing};
use crate::command::PresenceCommand;
use crate::domain::{
    self, Endpoint, EndpointList, InstanceId, NodeId, Presence, SessionNumber, Timestamp,
};
use crate::entity::{Rules, dates};
use crate::error::{EntityKind, Error, ErrorKind, Result};

/// The presence of all nodes that were ever heard of, by node.
pub type Presences = Collection<Presence, ()>;

impl Presences {
    /// Whether the node is connected.
    #[must_use]
    pub fn is_online(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(|presence| presence.online)
    }
}

impl Rules for Presence {
    dates! { events: last_seen, absent_since, endpoints; ends: }

    /// Who is connected is not absent, and nobody holds the connection of who is not.
    fn check(&self) -> Result<()> {
        let message = match (self.online, self.absent_since, self.instance) {
            (true, Some(_), _) => "is online, and so not absent; leave `absent_since` out",
            (false, _, Some(_)) => "is offline, so nobody holds it; leave `instance` out",
            _ => return Ok(()),
        };
        Err(Error::invalid(message).about(EntityKind::Presence).with("node", self.node))
    }

    /// Its node exists, and so does the instance that holds it.
    fn check_beside(&self, state: &State) -> Result<()> {
        state.nodes().require(self.node)?;
        self.instance.map_or(Ok(()), |id| state.instances().require(id).map(drop))
    }

    /// Routes are told whether their node is there.
    fn follow(state: &mut State, old: Option<&Self>, new: Option<&Self>) {
        let is_online = |presence: Option<&Self>| presence.is_some_and(|presence| presence.online);
        let online = is_online(new);
        if is_online(old) != online
            && let Some(presence) = new.or(old)
        {
            state.tables.routes.set_online(presence.node, online);
        }
    }
}

/// What a message says about its session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Message {
    Connect,
    Heartbeat,
    Disconnect,
}

/// What a message says about its node's endpoints.
enum Endpoints<'c> {
    Same,
    All(&'c EndpointList),
    With(Endpoint),
    Without(SocketAddr),
}

impl<'c> Endpoints<'c> {
    fn of(update: &'c domain::Update<EndpointList>) -> Self {
        match update {
            domain::Update::Keep => Self::Same,
            domain::Update::Set(all) => Self::All(all),
        }
    }

    fn after(self, old: &EndpointList) -> EndpointList {
        match self {
            Self::Same => old.clone(),
            Self::All(all) => all.clone(),
            Self::With(endpoint) => old.with(endpoint),
            Self::Without(addr) => old.without(addr),
        }
    }
}

/// Whether a message is applied: one of a newer session always is, one of the current session only
/// while that is up, and a session cannot be opened twice.
fn is_applied(presence: &Presence, message: Message, session: SessionNumber) -> bool {
    session > presence.session
        || (session == presence.session && presence.online && message != Message::Connect)
}

pub(crate) fn decide(
    state: &State,
    command: &PresenceCommand,
    context: &Context<'_>,
) -> Result<Decision> {
    match command {
        PresenceCommand::Connect { node, session, endpoints, instance } => {
            let endpoints = Endpoints::of(endpoints);
            hear(state, *node, (Message::Connect, *session), endpoints, *instance, context)
        }
        PresenceCommand::Heartbeat { node, session, endpoints, instance } => {
            let endpoints = Endpoints::of(endpoints);
            hear(state, *node, (Message::Heartbeat, Some(*session)), endpoints, *instance, context)
        }
        PresenceCommand::PutEndpoint { node, session, endpoint, instance } => {
            let endpoints = Endpoints::With(*endpoint);
            hear(state, *node, (Message::Heartbeat, Some(*session)), endpoints, *instance, context)
        }
        PresenceCommand::RemoveEndpoint { node, session, addr, instance } => {
            let endpoints = Endpoints::Without(*addr);
            hear(state, *node, (Message::Heartbeat, Some(*session)), endpoints, *instance, context)
        }
        PresenceCommand::Disconnect { node, session } => hear(
            state,
            *node,
            (Message::Disconnect, Some(*session)),
            Endpoints::Same,
            None,
            context,
        ),
        PresenceCommand::Touch { node, unless_since } => {
            touch(state, *node, *unless_since, context)
        }
        PresenceCommand::DisconnectAll { of, part } => {
            let mut draft = Draft::of(state);
            let is_meant = |holder: Option<InstanceId>| of.is_none() || holder == *of;
            let mut scales = Scales::of(*part);
            let (count, ended) = disconnect(&mut draft, part.after, &mut scales, is_meant, context);
            let decision = draft.finish(Reply::Count(count).of_part(ended));
            // One line for the call, with its first part.
            if count == 0 || part.after.is_some() {
                return Ok(decision);
            }
            let action = PresenceCommand::DISCONNECT_ALL;
            Ok(match of {
                Some(instance) => decision.noting(action, EntityKind::Instance, instance),
                None => decision.noting(action, EntityKind::Presence, "all"),
            })
        }
        PresenceCommand::DisconnectLost { unseen_for, own, part } => {
            disconnect_lost(state, *unseen_for, *own, *part, context)
        }
    }
}

/// A message about a connection, of this number or else of the next one.
fn hear(
    state: &State,
    node: NodeId,
    (message, session): (Message, Option<SessionNumber>),
    endpoints: Endpoints<'_>,
    instance: Option<InstanceId>,
    context: &Context<'_>,
) -> Result<Decision> {
    // A node that was removed stays removed: its late messages do not bring it back. Nor does an instance
    // hold anything that was declared lost and does not know.
    state.nodes().require(node)?;
    instance.map_or(Ok(()), |instance| state.instances().require(instance).map(drop))?;
    let old = state.presence().get(node);
    let session = session.map_or_else(|| next_session(node, old), Ok)?;
    if let Some(old) = old
        && !is_applied(old, message, session)
    {
        return Ok(Decision::unchanged(Reply::Presence(old.clone())));
    }
    let endpoints = endpoints.after(old.map_or(&EndpointList::empty(), |old| &old.endpoints));
    // Under a clock that is ahead one would never be heard of again.
    let endpoints = endpoints.seen_by(context.now);
    let current = old.filter(|old| old.session == session && old.online);
    if let Some(current) = current
        && message == Message::Heartbeat
        && says_nothing_new(state, current, &endpoints, context)
    {
        return Ok(Decision::unchanged(Reply::Presence(current.clone())));
    }
    let was_online = old.is_some_and(|old| old.online);
    let online = message != Message::Disconnect;
    // Whoever opened a connection holds it, whoever else may hear of it.
    let holder = current.map_or(instance, |current| current.instance);
    let presence = Presence {
        node,
        session,
        online,
        last_seen: Some(context.now),
        endpoints,
        absent_since: None,
        instance: holder.filter(|_| online),
    };
    let decision = Decision::put(presence);
    if was_online == online {
        return Ok(decision);
    }
    Ok(electing(state, decision, node, context))
}

/// The number of a connection that comes without one.
fn next_session(node: NodeId, old: Option<&Arc<Presence>>) -> Result<SessionNumber> {
    let next = old.map_or(SessionNumber::new(1).ok(), |old| old.session.next());
    next.ok_or_else(|| {
        Error::new(ErrorKind::Exhausted, "had the last session number; register another node")
            .about(EntityKind::Presence)
            .with("node", node)
    })
}

/// Whether a heartbeat of the current connection need not be recorded: not long after the last one, and
/// with the endpoints that are known.
fn says_nothing_new(
    state: &State,
    current: &Presence,
    endpoints: &EndpointList,
    context: &Context<'_>,
) -> bool {
    let interval = state.settings().heartbeat_interval();
    let is_recent = current.last_seen.is_some_and(|seen| context.now.since(seen) < interval);
    is_recent && endpoints.says_the_same_as(&current.endpoints)
}

/// The node was seen; its connection stays as it is.
fn touch(
    state: &State,
    node: NodeId,
    unless_since: Timestamp,
    context: &Context<'_>,
) -> Result<Decision> {
    state.nodes().require(node)?;
    let old = state.presence().get(node);
    if let Some(old) = old
        && old.last_seen.is_some_and(|seen| seen >= unless_since)
    {
        return Ok(Decision::unchanged(Reply::Presence(old.clone())));
    }
    let old = old.map_or_else(|| Presence::new(node), |old| Presence::clone(old));
    Ok(Decision::put(Presence { last_seen: Some(context.now), absent_since: None, ..old }))
}

/// Turns off the nodes after `after` that are online and whose holder is meant, until the scales are full;
/// gives how many, and where it ended, if there is more. When a node was last seen stays as it is: nobody
/// knows when it went. That it is absent is learned now.
pub(super) fn disconnect(
    draft: &mut Draft,
    after: Option<NodeId>,
    scales: &mut Scales,
    is_meant: impl Fn(Option<InstanceId>) -> bool,
    context: &Context<'_>,
) -> (u64, Option<Option<NodeId>>) {
    let state = draft.state.clone();
    let (mut count, mut last, mut ended) = (0, after, None);
    let mut prefixes = Vec::new();
    let connected = state.presence().after(after).filter(|presence| presence.online);
    for old in connected.filter(|presence| is_meant(presence.instance)) {
        if scales.are_full() {
            ended = Some(last);
            break;
        }
        draft.put(Presence {
            online: false,
            absent_since: Some(context.now),
            instance: None,
            ..Presence::clone(old)
        });
        scales.weigh(draft);
        for route in state.routes().of_node(old.node).filter(|route| route.primary) {
            prefixes.push(route.prefix);
            scales.handover();
        }
        count += 1;
        last = Some(old.node);
    }
    // Not before all of them are offline: none is to take over from another.
    for prefix in prefixes {
        elect_primary(draft, prefix, context.now);
    }
    (count, ended)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::{NodeCommand, Part, Restore, SettingCommand};
    use crate::domain::{Endpoint, NetworkSettings, SettingDocument};
    use crate::state::testing::*;

    fn heartbeat(node: NodeId, session: u64) -> PresenceCommand {
        let session = SessionNumber::new(session).unwrap();
        let endpoints = domain::Update::Keep;
        PresenceCommand::Heartbeat { node, session, endpoints, instance: None }
    }

    fn reap() -> NodeCommand {
        NodeCommand::ReapEphemeral { part: Part::WHOLE }
    }

    fn disconnect(node: NodeId, session: u64) -> PresenceCommand {
        PresenceCommand::Disconnect { node, session: SessionNumber::new(session).unwrap() }
    }

    #[test]
    fn an_old_sessions_offline_is_ignored() {
        let mut world = World::new();
        let alice = world.user("alice");
        let node = world.register(alice.id, 1).unwrap().id;
        world.run(connect(node, 1)).unwrap();
        world.run(connect(node, 2)).unwrap();
        world.run(disconnect(node, 1)).unwrap();
        assert!(world.state.presence().is_online(node));
        world.run(disconnect(node, 2)).unwrap();
        assert!(!world.state.presence().is_online(node));
    }

    #[test]
    fn a_late_heartbeat_does_not_reopen_a_closed_session() {
        let mut world = World::new();
        let alice = world.user("alice");
        let node = world.register(alice.id, 1).unwrap().id;
        world.run(connect(node, 1)).unwrap();
        world.run(disconnect(node, 1)).unwrap();
        let before = world.state.presence().get(node).cloned();
        world.advance(Duration::from_secs(60));
        world.run(heartbeat(node, 1)).unwrap();
        world.run(connect(node, 1)).unwrap();
        assert_eq!(world.state.presence().get(node).cloned(), before);
    }

    #[test]
    fn a_late_heartbeat_does_not_resurrect_a_reaped_node() {
        let mut world = World::new();
        let alice = world.user("alice");
        let key = world.ephemeral_key(alice.id);
        let node = world.register_with(key.id, 1).unwrap().id;
        world.run(connect(node, 1)).unwrap();
        world.run(disconnect(node, 1)).unwrap();
        world.advance(Duration::from_secs(1799));
        assert_eq!(world.run(reap()).unwrap(), Reply::Nodes(vec![]));
        world.advance(Duration::from_secs(1));
        assert_eq!(world.run(reap()).unwrap(), Reply::Nodes(vec![node]));
        for late in [heartbeat(node, 1), connect(node, 2)] {
            assert_eq!(*world.run(late).unwrap_err().kind(), ErrorKind::NotFound);
        }
        assert!(world.state.nodes().is_empty() && world.state.presence().is_empty());
    }

    #[test]
    fn after_a_restart_nobody_is_online_until_it_connects_anew() {
        let mut world = World::new();
        let alice = world.user("alice");
        let node = world.register(alice.id, 1).unwrap().id;
        world.run(connect(node, 5)).unwrap();
        let seen = world.state.presence().get(node).unwrap().last_seen;
        world.advance(Duration::from_secs(60));
        assert_eq!(
            world.run(PresenceCommand::DisconnectAll { of: None, part: Part::WHOLE }).unwrap(),
            Reply::Count(1)
        );
        let presence = world.state.presence().get(node).unwrap();
        assert_eq!((presence.online, presence.last_seen), (false, seen));
        world.run(heartbeat(node, 5)).unwrap();
        assert!(!world.state.presence().is_online(node));
        world.run(connect(node, 6)).unwrap();
        assert!(world.state.presence().is_online(node));
    }

    #[test]
    fn absence_begins_when_the_store_learns_of_it() {
        let mut world = World::new();
        let alice = world.user("alice");
        let key = world.ephemeral_key(alice.id);
        let node = world.register_with(key.id, 1).unwrap().id;
        world.run(connect(node, 1)).unwrap();
        // Quiet, but connected, for longer than the cutoff; then the control plane restarts.
        world.advance(Duration::from_secs(1_801));
        let learned = world.now;
        world.run(PresenceCommand::DisconnectAll { of: None, part: Part::WHOLE }).unwrap();
        let presence = world.state.presence().get(node).unwrap();
        assert_eq!(presence.absent_from(), Some(learned));
        world.advance(Duration::from_secs(1_799));
        assert_eq!(world.run(reap()).unwrap(), Reply::Nodes(vec![]));
        // It comes and goes: what counts is when it was last seen.
        world.run(connect(node, 2)).unwrap();
        assert_eq!(world.state.presence().get(node).unwrap().absent_from(), None);
        world.run(disconnect(node, 2)).unwrap();
        let presence = world.state.presence().get(node).unwrap();
        assert_eq!((presence.absent_since, presence.absent_from()), (None, Some(world.now)));
        world.run(PresenceCommand::DisconnectAll { of: None, part: Part::WHOLE }).unwrap();
        world.advance(Duration::from_secs(1_800));
        assert_eq!(world.run(reap()).unwrap(), Reply::Nodes(vec![node]));
    }

    #[test]
    fn who_is_online_is_not_absent() {
        let mut world = World::new();
        let alice = world.user("alice");
        let node = world.register(alice.id, 1).unwrap().id;
        let presence =
            Presence { online: true, absent_since: Some(world.now), ..Presence::new(node) };
        let images = vec![presence.clone().into()];
        let error = world.run(Restore { images, skip_invalid: false }).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
        let images = vec![Presence { online: false, ..presence }.into()];
        world.run(Restore { images, skip_invalid: false }).unwrap();
    }

    #[test]
    fn a_connection_without_a_number_gets_the_next_one() {
        let mut world = World::new();
        let alice = world.user("alice");
        let node = world.register(alice.id, 1).unwrap().id;
        let open = || PresenceCommand::Connect {
            node,
            session: None,
            endpoints: domain::Update::Keep,
            instance: None,
        };
        let drawn = |world: &mut World| match world.run(open()).unwrap() {
            Reply::Presence(presence) => presence.session.get(),
            other => panic!("{other:?}"),
        };
        assert_eq!((drawn(&mut world), drawn(&mut world)), (1, 2));
        world.run(connect(node, 7)).unwrap();
        world.run(disconnect(node, 7)).unwrap();
        assert_eq!(drawn(&mut world), 8);
        world.run(connect(node, i64::MAX as u64)).unwrap();
        assert_eq!(*world.run(open()).unwrap_err().kind(), ErrorKind::Exhausted);
    }

    #[test]
    fn a_heartbeat_that_says_nothing_new_is_no_write_within_the_interval() {
        let mut world = World::new();
        let alice = world.user("alice");
        let node = world.register(alice.id, 1).unwrap().id;
        let network =
            NetworkSettings { heartbeat_interval_seconds: 60, ..NetworkSettings::default() };
        let document = SettingDocument::Network(network);
        world.run(SettingCommand::Put { document, expected: None }).unwrap();
        let begun = world.now;
        let seen = |world: &World| world.state.presence().get(node).unwrap().last_seen.unwrap();
        let told = |world: &World, addr: &str| {
            let endpoint = Endpoint::new(addr.parse().unwrap(), world.now);
            PresenceCommand::Heartbeat {
                node,
                session: SessionNumber::new(1).unwrap(),
                endpoints: domain::Update::Set(EndpointList::new([endpoint]).unwrap()),
                instance: None,
            }
        };
        // It opens the connection.
        world.run(told(&world, "192.0.2.1:1")).unwrap();
        world.advance(Duration::from_secs(59));
        world.run(heartbeat(node, 1)).unwrap();
        world.run(told(&world, "192.0.2.1:1")).unwrap();
        assert_eq!(seen(&world), begun);
        world.run(told(&world, "192.0.2.1:2")).unwrap();
        assert_eq!(seen(&world), world.now);
        world.advance(Duration::from_secs(60));
        world.run(heartbeat(node, 1)).unwrap();
        assert_eq!(seen(&world), world.now);
        // A connection that ends or begins always is.
        world.advance(Duration::from_secs(1));
        world.run(disconnect(node, 1)).unwrap();
        assert_eq!(seen(&world), world.now);
        world.advance(Duration::from_secs(1));
        world.run(heartbeat(node, 2)).unwrap();
        assert_eq!(seen(&world), world.now);
    }

    #[test]
    fn a_node_can_be_seen_without_a_connection() {
        let mut world = World::new();
        let alice = world.user("alice");
        let key = world.ephemeral_key(alice.id);
        let node = world.register_with(key.id, 1).unwrap().id;
        world.advance(Duration::from_secs(1_799));
        let touch = |world: &mut World, ago: u64| {
            let unless_since = world.now.saturating_sub(Duration::from_secs(ago));
            world.run(PresenceCommand::Touch { node, unless_since }).unwrap();
            world.state.presence().get(node).unwrap().last_seen.unwrap()
        };
        let first = touch(&mut world, 60);
        assert_eq!(first, world.now);
        assert!(!world.state.presence().is_online(node));
        world.advance(Duration::from_secs(60));
        assert_eq!(touch(&mut world, 60), first);
        world.advance(Duration::from_secs(1));
        assert_eq!(touch(&mut world, 60), world.now);
        // It counts for the cutoff, and opens nothing.
        world.advance(Duration::from_secs(1_799));
        assert_eq!(world.run(reap()).unwrap(), Reply::Nodes(vec![]));
        world.run(connect(node, 1)).unwrap();
        assert_eq!(touch(&mut world, 0), world.now);
        assert!(world.state.presence().is_online(node));
        world.run(PresenceCommand::DisconnectAll { of: None, part: Part::WHOLE }).unwrap();
        world.advance(Duration::from_secs(1_700));
        touch(&mut world, 60);
        world.advance(Duration::from_secs(1_799));
        assert_eq!(world.run(reap()).unwrap(), Reply::Nodes(vec![]));
        world.advance(Duration::from_secs(1));
        assert_eq!(world.run(reap()).unwrap(), Reply::Nodes(vec![node]));
        let late = PresenceCommand::Touch { node, unless_since: world.now };
        assert_eq!(*world.run(late).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn an_online_ephemeral_node_is_not_reaped_however_quiet() {
        let mut world = World::new();
        let alice = world.user("alice");
        let key = world.ephemeral_key(alice.id);
        let node = world.register_with(key.id, 1).unwrap().id;
        world.run(connect(node, 1)).unwrap();
        world.advance(Duration::from_secs(1_000_000));
        assert_eq!(world.run(reap()).unwrap(), Reply::Nodes(vec![]));
    }
}
