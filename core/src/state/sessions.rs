//! Sign-in sessions.

use std::sync::Arc;

use super::api_keys::TOUCH_INTERVAL;
use super::collection::{Collection, Index, update_set};
use super::decision::{Context, Decision, EntityId, Reply};
use super::listing::owned;
use super::part::{delete_each, sweep};
use super::{Set, State};
use crate::command::SessionCommand;
use crate::domain::{
    Page, PageRequest, SecretScheme, Session, SessionId, SessionOwner, Timestamp, expired,
};
use crate::entity::{Rules, dates};
use crate::error::{EntityKind, Error, Result};

/// All sessions, also those that have expired but were not swept yet.
pub type Sessions = Collection<Session, SessionIndex>;

#[derive(Clone, Default, Debug)]
pub struct SessionIndex {
    /// A user's session that was begun from a node is under both.
    by_owner: Set<(SessionOwner, SessionId)>,
    by_expiry: Set<(Timestamp, SessionId)>,
}

impl Index<Session> for SessionIndex {
    fn update(&mut self, id: SessionId, old: Option<&Session>, new: Option<&Arc<Session>>) {
        let ends = |session: &Session| (session.expires_at, id);
        let new = new.map(AsRef::as_ref);
        if old.map(|old| (old.owner, old.node)) != new.map(|new| (new.owner, new.node)) {
            for party in old.iter().flat_map(|old| old.parties()) {
                self.by_owner.remove(&(party, id));
            }
            for party in new.iter().flat_map(|new| new.parties()) {
                self.by_owner.insert((party, id));
            }
        }
        update_set(&mut self.by_expiry, old.map(ends), new.map(ends));
    }
}

impl Sessions {
    /// The ids of an owner's sessions, in the order of their beginning; of a node also those that users
    /// began from it.
    pub fn of_owner(&self, owner: SessionOwner) -> impl Iterator<Item = SessionId> + '_ {
        self.index.by_owner.range(owned(owner, None)).map(|(_, id)| *id)
    }

    /// A page of sessions, by id; of one owner, if given, as by [`Sessions::of_owner`].
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing.
    pub fn list(
        &self,
        owner: Option<SessionOwner>,
        page: &PageRequest,
    ) -> Result<Page<Arc<Session>>> {
        match owner {
            Some(of) => self.page_of((of, &self.index.by_owner), &owner, page, |_| true),
            None => self.page(&owner, page, |_| true),
        }
    }
}

impl Rules for Session {
    dates! { events: created_at, last_seen; ends: expires_at }

    fn check(&self) -> Result<()> {
        let refused = |message: &'static str| {
            Err(Error::invalid(message).about(EntityKind::Session).with("id", self.id))
        };
        // No store makes another one, and anybody can: it proves nothing but who made it up.
        if !matches!(self.hash.scheme(), SecretScheme::Hmac { .. }) {
            return refused("a session's token is hashed with the store's key, and not otherwise");
        }
        if self.node.is_some() && matches!(self.owner, SessionOwner::Node(_)) {
            return refused("a node's own session is from no other node");
        }
        Ok(())
    }

    /// Its owner exists, and so does the node from which it was begun.
    fn check_beside(&self, state: &State) -> Result<()> {
        self.parties().try_for_each(|party| match party {
            SessionOwner::User(user) => state.users().require(user).map(|_| ()),
            SessionOwner::Node(node) => state.nodes().require(node).map(|_| ()),
        })
    }
}

/// Has the audit trail say whose session it is.
fn beside(decision: Decision, owner: SessionOwner) -> Decision {
    match owner {
        SessionOwner::User(user) => decision.beside(EntityKind::User, Some(user)),
        SessionOwner::Node(node) => decision.beside(EntityKind::Node, Some(node)),
    }
}

pub(crate) fn decide(
    state: &State,
    command: &SessionCommand,
    context: &Context<'_>,
) -> Result<Decision> {
    let sessions = state.sessions();
    match command {
        SessionCommand::Begin { id, hash, session } => {
            sessions.check_fresh(*id)?;
            let session = Session {
                id: *id,
                owner: session.owner,
                node: session.node,
                hash: hash.clone(),
                client: session.client.clone(),
                created_at: context.now,
                expires_at: session.expires_at,
                last_seen: context.now,
            };
            session.check_beside(state)?;
            check_end(session.expires_at, context.now)?;
            let owner = session.owner;
            let decision = Decision::put(session);
            Ok(beside(decision.noting(SessionCommand::BEGIN, EntityKind::Session, id), owner))
        }
        SessionCommand::Touch { id, expires_at } => {
            let old = sessions.require(*id)?;
            if expired(Some(old.expires_at), context.now) {
                return Err(Error::not_found(EntityKind::Session, id).with("expired", true));
            }
            let expires_at = expires_at.unwrap_or(old.expires_at);
            check_end(expires_at, context.now)?;
            let recent = context.now.since(old.last_seen) < TOUCH_INTERVAL;
            if recent && expires_at == old.expires_at {
                return Ok(Decision::unchanged(Reply::Session(old.clone())));
            }
            let last_seen = context.now;
            Ok(Decision::put(Session { expires_at, last_seen, ..Session::clone(old) }))
        }
        SessionCommand::End { id } => {
            let owner = sessions.require(*id)?.owner;
            let decision = Decision::delete(EntityId::Session(*id));
            Ok(beside(decision.noting(SessionCommand::END, EntityKind::Session, id), owner))
        }
        SessionCommand::EndAll { owner, part } => {
            let (all, action) = (sessions.of_owner(*owner), SessionCommand::END);
            Ok(delete_each::<Session>(state, all, *part, EntityId::Session, action))
        }
        SessionCommand::Sweep { part } => {
            Ok(sweep(&sessions.index.by_expiry, context.now, *part, EntityId::Session))
        }
    }
}

fn check_end(expires_at: Timestamp, now: Timestamp) -> Result<()> {
    if expired(Some(expires_at), now) {
        return Err(Error::invalid("a session that ends at once is none; end it instead")
            .about(EntityKind::Session)
            .with("expires_at", expires_at));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::{NodeCommand, Part};
    use crate::domain::{NewSession, NodeId, SecretHash};
    use crate::error::ErrorKind;
    use crate::state::testing::*;

    fn begin(world: &mut World, owner: SessionOwner, seconds: u64) -> SessionId {
        begin_from(world, owner, None, seconds).unwrap()
    }

    fn begin_from(
        world: &mut World,
        owner: SessionOwner,
        node: Option<NodeId>,
        seconds: u64,
    ) -> Result<SessionId> {
        let id = SessionId::from_bytes(world.id());
        let expires_at = world.now.saturating_add(Duration::from_secs(seconds));
        let session = NewSession { owner, node, client: None, expires_at };
        let hash = SecretHash::hmac([1; 4], [2; 32]);
        world.run(SessionCommand::Begin { id, hash, session })?;
        Ok(id)
    }

    #[test]
    fn sweeping_removes_exactly_the_expired() {
        let mut world = World::new();
        let alice = world.user("alice");
        let short = begin(&mut world, SessionOwner::User(alice.id), 10);
        let long = begin(&mut world, SessionOwner::User(alice.id), 20);
        world.advance(Duration::from_secs(10));
        let touch = SessionCommand::Touch { id: short, expires_at: None };
        assert_eq!(*world.run(touch).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(
            world.run(SessionCommand::Sweep { part: Part::WHOLE }).unwrap(),
            Reply::Count(1)
        );
        assert!(world.state.sessions().get(short).is_none());
        assert!(world.state.sessions().get(long).is_some());
    }

    #[test]
    fn a_node_takes_its_sessions_along() {
        let mut world = World::new();
        let alice = world.user("alice");
        let node = world.register(alice.id, 1).unwrap();
        begin(&mut world, SessionOwner::Node(node.id), 10);
        world.run(NodeCommand::Delete { id: node.id }).unwrap();
        assert!(world.state.sessions().is_empty());
    }

    #[test]
    fn a_session_from_a_node_goes_with_either() {
        let mut world = World::new();
        let alice = world.user("alice").id;
        let node = world.register(alice, 1).unwrap().id;
        let (of_user, of_node) = (SessionOwner::User(alice), SessionOwner::Node(node));
        let own = begin(&mut world, of_node, 10);
        let both = begin_from(&mut world, of_user, Some(node), 10).unwrap();
        let stranger = begin_from(&mut world, of_user, Some(NodeId::from_bytes([9; 16])), 10);
        assert_eq!(*stranger.unwrap_err().kind(), ErrorKind::NotFound);
        let nested = begin_from(&mut world, of_node, Some(node), 10).unwrap_err();
        assert_eq!(*nested.kind(), ErrorKind::InvalidArgument);
        let of = |world: &World, owner| world.state.sessions().of_owner(owner).collect::<Vec<_>>();
        assert_eq!((of(&world, of_user), of(&world, of_node)), (vec![both], vec![own, both]));
        let mut other = world.clone();
        other.run(NodeCommand::Delete { id: node }).unwrap();
        assert!(other.state.sessions().is_empty() && of(&other, of_user).is_empty());
        let end_all = |owner| SessionCommand::EndAll { owner, part: Part::WHOLE };
        assert_eq!(world.run(end_all(of_user)).unwrap(), Reply::Count(1));
        assert_eq!(of(&world, of_node), [own]);
        assert_eq!(world.run(end_all(of_user)).unwrap(), Reply::Count(0));
    }
}
