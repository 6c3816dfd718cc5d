//! Sign-in sessions.

use std::sync::Arc;

use super::api_keys::TOUCH_INTERVAL;
use super::decision::{Changes, Context, Decision, Handle, Reply, check_fresh};
use super::listing::{Listing, behind, owned};
use super::{Change, Map, Set, State};
use crate::command::{Image, SessionCommand};
use crate::domain::{Page, PageRequest, Session, SessionId, SessionOwner, Timestamp, expired};
use crate::error::{Entity, Error, Result};

/// All sessions.
#[derive(Clone, Default, Debug)]
pub struct Sessions {
    by_id: Map<SessionId, Arc<Session>>,
    by_owner: Set<(SessionOwner, SessionId)>,
    by_expiry: Set<(Timestamp, SessionId)>,
}

impl Sessions {
    /// The session with this id, also if it has expired but was not swept yet.
    #[must_use]
    pub fn get(&self, id: SessionId) -> Option<&Arc<Session>> {
        self.by_id.get(&id)
    }

    /// The ids of an owner's sessions, in the order of their beginning.
    pub fn of_owner(&self, owner: SessionOwner) -> impl Iterator<Item = SessionId> + '_ {
        self.by_owner.range(owned(owner, None)).map(|(_, id)| *id)
    }

    /// All sessions, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Session>> {
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

    /// A page of sessions, by id; of one owner, if given.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing.
    pub fn list(
        &self,
        owner: Option<SessionOwner>,
        page: &PageRequest,
    ) -> Result<Page<Arc<Session>>> {
        let listing = Listing::new(Entity::Session, &owner);
        let start: Option<SessionId> = listing.start(page)?;
        let matching: Box<dyn Iterator<Item = &Arc<Session>>> = match owner {
            Some(owner) => {
                let ids = self.by_owner.range(owned(owner, start));
                Box::new(ids.filter_map(|(_, id)| self.by_id.get(id)))
            }
            None => Box::new(self.by_id.range(behind(start.as_ref())).map(|(_, session)| session)),
        };
        Ok(listing.take(page, matching.cloned(), |session| session.id))
    }

    pub(super) fn put(&mut self, session: Arc<Session>) -> bool {
        let old = self.by_id.insert(session.id, session.clone());
        if let Some(old) = &old {
            self.unindex(old);
        }
        self.by_owner.insert((session.owner, session.id));
        self.by_expiry.insert((session.expires_at, session.id));
        old.is_some()
    }

    pub(super) fn remove(&mut self, id: SessionId) {
        if let Some(old) = self.by_id.remove(&id) {
            self.unindex(&old);
        }
    }

    fn unindex(&mut self, old: &Session) {
        self.by_owner.remove(&(old.owner, old.id));
        self.by_expiry.remove(&(old.expires_at, old.id));
    }
}

impl State {
    pub(super) fn check_session_owner(&self, owner: SessionOwner) -> Result<()> {
        match owner {
            SessionOwner::User(user) => self.user(user).map(|_| ()),
            SessionOwner::Node(node) => self.node(node).map(|_| ()),
        }
    }

    pub(super) fn decide_session(
        &self,
        command: &SessionCommand,
        context: &Context<'_>,
    ) -> Result<Decision> {
        let session =
            |id| self.sessions.get(id).ok_or_else(|| Error::not_found(Entity::Session, id));
        match command {
            SessionCommand::Begin { id, hash, session } => {
                check_fresh(Entity::Session, id, self.sessions.get(*id).is_some())?;
                self.check_session_owner(session.owner)?;
                check_end(session.expires_at, context.now)?;
                Ok(put(Session {
                    id: *id,
                    owner: session.owner,
                    hash: hash.clone(),
                    client: session.client.clone(),
                    created_at: context.now,
                    expires_at: session.expires_at,
                    last_seen: context.now,
                })
                .noting(SessionCommand::BEGIN, Entity::Session, id))
            }
            SessionCommand::Touch { id, expires_at } => {
                let old = session(*id)?;
                if expired(Some(old.expires_at), context.now) {
                    return Err(Error::not_found(Entity::Session, id).with("expired", true));
                }
                let expires_at = expires_at.unwrap_or(old.expires_at);
                check_end(expires_at, context.now)?;
                let recent = context.now.since(old.last_seen) < TOUCH_INTERVAL;
                if recent && expires_at == old.expires_at {
                    return Ok(Decision::unchanged(Reply::Session(old.clone())));
                }
                Ok(put(Session { expires_at, last_seen: context.now, ..Session::clone(old) }))
            }
            SessionCommand::End { id } => {
                session(*id)?;
                let mut changes = Changes::new();
                changes.push(Change::Delete(Handle::Session(*id)));
                Ok(Decision::changed(changes, Reply::Done).noting(
                    SessionCommand::END,
                    Entity::Session,
                    id,
                ))
            }
            SessionCommand::Sweep { part } => {
                let mut expired = self
                    .sessions
                    .by_expiry
                    .iter()
                    .take_while(|(at, _)| expired(Some(*at), context.now))
                    .map(|(_, id)| Change::Delete(Handle::Session(*id)));
                let changes: Changes = expired.by_ref().take(part.deletions()).collect();
                let ended = expired.next().map(|_| None);
                let count = changes.len() as u64;
                Ok(Decision::changed(changes, Reply::Count(count).of_part(ended)))
            }
        }
    }
}

fn check_end(expires_at: Timestamp, now: Timestamp) -> Result<()> {
    if expired(Some(expires_at), now) {
        return Err(Error::invalid("a session that ends at once is none; end it instead")
            .about(Entity::Session)
            .with("expires_at", expires_at));
    }
    Ok(())
}

fn put(session: Session) -> Decision {
    let session = Arc::new(session);
    let mut changes = Changes::new();
    changes.push(Change::Put(Image::Session(session.clone())));
    Decision::changed(changes, Reply::Session(session))
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
