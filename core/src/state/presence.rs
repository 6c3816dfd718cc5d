//! Who is online. Sessions are numbered; a message of an older session, or of one that was closed,
//! changes nothing.

use super::State;
use super::collection::Collection;
use super::decision::{Context, Decision, Draft, Reply};
use super::part::Scales;
use super::routes::elect_primary;
use crate::command::{Part, PresenceCommand};
use crate::domain::{self, EndpointList, NodeId, Presence, SessionNumber};
use crate::entity::{Rules, dates};
use crate::error::{EntityKind, Error, Result};

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
    dates! { events: last_seen, absent_since; ends: }

    /// Who is connected is not absent.
    fn check(&self) -> Result<()> {
        match self.absent_since {
            Some(since) if self.online => Err(Error::invalid(
                "a node that is online is not absent; leave `absent_since` out, or `online`",
            )
            .about(EntityKind::Presence)
            .with("node", self.node)
            .with("absent_since", since)),
            _ => Ok(()),
        }
    }

    /// Its node exists.
    fn check_beside(&self, state: &State) -> Result<()> {
        state.nodes().require(self.node).map(|_| ())
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
    let keep = domain::Update::Keep;
    let (node, session, endpoints, message) = match command {
        PresenceCommand::Connect { node, session, endpoints } => {
            (*node, *session, endpoints, Message::Connect)
        }
        PresenceCommand::Heartbeat { node, session, endpoints } => {
            (*node, *session, endpoints, Message::Heartbeat)
        }
        PresenceCommand::Disconnect { node, session } => {
            (*node, *session, &keep, Message::Disconnect)
        }
        PresenceCommand::DisconnectAll { part } => return Ok(disconnect_all(state, *part, context)),
    };
    // A node that was removed stays removed: its late messages do not bring it back.
    state.nodes().require(node)?;
    let old = state.presence().get(node);
    if let Some(old) = old
        && !is_applied(old, message, session)
    {
        return Ok(Decision::unchanged(Reply::Presence(old.clone())));
    }
    let was_online = old.is_some_and(|old| old.online);
    let online = message != Message::Disconnect;
    let presence = Presence {
        node,
        session,
        online,
        last_seen: Some(context.now),
        endpoints: endpoints
            .resolve(old.map_or(&EndpointList::empty(), |old| &old.endpoints))
            .clone(),
        absent_since: None,
    };
    let decision = Decision::put(presence);
    // What the node carries, and nobody else's routes, decides who is primary.
    let mut prefixes = Vec::new();
    if was_online != online {
        let carrying = state.routes().of_node(node).filter(|route| route.carries_traffic());
        prefixes.extend(carrying.map(|route| route.prefix));
    }
    if prefixes.is_empty() {
        return Ok(decision);
    }
    let mut draft = Draft::of(state);
    decision.changes.into_iter().for_each(|change| draft.change(change));
    for prefix in prefixes {
        elect_primary(&mut draft, prefix);
    }
    Ok(draft.finish(decision.reply))
}

/// When a node was last seen stays as it is: nobody knows when it went. That it is absent is learned now.
fn disconnect_all(state: &State, part: Part, context: &Context<'_>) -> Decision {
    let mut draft = Draft::of(state);
    let mut scales = Scales::of(part);
    let (mut count, mut last, mut ended) = (0, part.after, None);
    let mut prefixes = Vec::new();
    for old in state.presence().after(part.after).filter(|presence| presence.online) {
        if scales.are_full() {
            ended = Some(last);
            break;
        }
        draft.put(Presence {
            online: false,
            absent_since: Some(context.now),
            ..Presence::clone(old)
        });
        scales.weigh(&draft);
        for route in state.routes().of_node(old.node).filter(|route| route.primary) {
            prefixes.push(route.prefix);
            scales.handover();
        }
        count += 1;
        last = Some(old.node);
    }
    // Not before all of them are offline: none is to take over from another.
    for prefix in prefixes {
        elect_primary(&mut draft, prefix);
    }
    draft.finish(Reply::Count(count).of_part(ended))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::{NodeCommand, Restore};
    use crate::error::ErrorKind;
    use crate::state::testing::*;

    fn connect(node: NodeId, session: u64) -> PresenceCommand {
        let session = SessionNumber::new(session).unwrap();
        PresenceCommand::Connect { node, session, endpoints: domain::Update::Keep }
    }

    fn heartbeat(node: NodeId, session: u64) -> PresenceCommand {
        let session = SessionNumber::new(session).unwrap();
        PresenceCommand::Heartbeat { node, session, endpoints: domain::Update::Keep }
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
            world.run(PresenceCommand::DisconnectAll { part: Part::WHOLE }).unwrap(),
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
        world.run(PresenceCommand::DisconnectAll { part: Part::WHOLE }).unwrap();
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
        world.run(PresenceCommand::DisconnectAll { part: Part::WHOLE }).unwrap();
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
