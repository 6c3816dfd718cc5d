//! Sign-in sessions.

use std::sync::Arc;

use super::api_keys::TOUCH_INTERVAL;
use super::collection::{Collection, Index, update_set};
use super::decision::{Changes, Context, Decision, EntityId, Reply, StateChange};
use super::listing::owned;
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
    by_owner: Set<(SessionOwner, SessionId)>,
    by_expiry: Set<(Timestamp, SessionId)>,
}

impl Index<Session> for SessionIndex {
    fn update(&mut self, id: SessionId, old: Option<&Session>, new: Option<&Arc<Session>>) {
        let owners = |session: &Session| (session.owner, id);
        let ends = |session: &Session| (session.expires_at, id);
        let new = new.map(AsRef::as_ref);
        update_set(&mut self.by_owner, old.map(owners), new.map(owners));
        update_set(&mut self.by_expiry, old.map(ends), new.map(ends));
    }
}

impl Sessions {
    /// The ids of an owner's sessions, in the order of their beginning.
    pub fn of_owner(&self, owner: SessionOwner) -> impl Iterator<Item = SessionId> + '_ {
        self.index.by_owner.range(owned(owner, None)).map(|(_, id)| *id)
    }

    /// A page of sessions, by id; of one owner, if given.
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
        // No store makes one, and anybody can: it proves nothing but who made it up.
        if self.hash.scheme() == SecretScheme::Bcrypt {
            let message = "a session's token is hashed with the store's key, not with bcrypt";
            return Err(Error::invalid(message).about(EntityKind::Session).with("id", self.id));
        }
        Ok(())
    }

    /// Its owner exists.
    fn check_beside(&self, state: &State) -> Result<()> {
        match self.owner {
            SessionOwner::User(user) => state.users().require(user).map(|_| ()),
            SessionOwner::Node(node) => state.nodes().require(node).map(|_| ()),
        }
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
        SessionCommand::Sweep { part } => {
            let by_expiry = sessions.index.by_expiry.iter();
            let mut expired = by_expiry
                .take_while(|(at, _)| expired(Some(*at), context.now))
                .map(|(_, id)| StateChange::Delete(EntityId::Session(*id)));
            let changes: Changes = expired.by_ref().take(part.deletions()).collect();
            let ended = expired.next().map(|_| None);
            let count = changes.len() as u64;
            Ok(Decision::changed(changes, Reply::Count(count).of_part(ended)))
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
    use crate::domain::{NewSession, SecretHash};
    use crate::error::ErrorKind;
    use crate::state::testing::*;

    fn begin(world: &mut World, owner: SessionOwner, seconds: u64) -> SessionId {
        let id = SessionId::from_bytes(world.id());
        let expires_at = world.now.saturating_add(Duration::from_secs(seconds));
        let session = NewSession { owner, client: None, expires_at };
        let hash = SecretHash::hmac([1; 4], [2; 32]);
        world.run(SessionCommand::Begin { id, hash, session }).unwrap();
        id
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
}
