//! API keys.

use std::sync::Arc;
use std::time::Duration;

use super::collection::{Collection, Index, update_set};
use super::decision::{Context, Decision, EntityId, Reply};
use super::listing::owned;
use super::unique::UniqueIndex;
use super::{Set, State};
use crate::command::ApiKeyCommand;
use crate::domain::{ApiKey, ApiKeyId, KeyFilter, KeyPrefix, Page, PageRequest, Revision, UserId};
use crate::entity::{Rules, dates};
use crate::error::{EntityKind, Error, Result};

/// Uses are recorded at most this often.
pub(super) const TOUCH_INTERVAL: Duration = Duration::from_secs(60);

/// All API keys.
pub type ApiKeys = Collection<ApiKey, ApiKeyIndex>;

#[derive(Clone, Default, Debug)]
pub struct ApiKeyIndex {
    by_prefix: UniqueIndex<ApiKeyId>,
    by_user: Set<(UserId, ApiKeyId)>,
}

impl Index<ApiKey> for ApiKeyIndex {
    fn update(&mut self, id: ApiKeyId, old: Option<&ApiKey>, new: Option<&Arc<ApiKey>>) {
        self.by_prefix.update(id, old.map(|key| &key.prefix), new.map(|key| &key.prefix));
        let of = |key: &ApiKey| Some((key.user?, key.id));
        update_set(&mut self.by_user, old.and_then(of), new.and_then(|key| of(key)));
    }
}

impl ApiKeys {
    /// The key with this public part.
    #[must_use]
    pub fn by_prefix(&self, prefix: &KeyPrefix) -> Option<&Arc<ApiKey>> {
        self.index.by_prefix.find(prefix, |id| self.get(id).filter(|key| key.prefix == *prefix))
    }

    /// The ids of a user's keys, in the order of creation.
    pub fn of_user(&self, user: UserId) -> impl Iterator<Item = ApiKeyId> + '_ {
        self.index.by_user.range(owned(user, None)).map(|(_, id)| *id)
    }

    /// A page of keys, by id.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing.
    pub fn list(&self, filter: &KeyFilter, page: &PageRequest) -> Result<Page<Arc<ApiKey>>> {
        let matches = |key: &ApiKey| {
            filter.active_at.is_none_or(|(wanted, now)| key.is_active(now) == wanted)
        };
        match filter.user {
            Some(user) => self.page_of((user, &self.index.by_user), filter, page, matches),
            None => self.page(filter, page, matches),
        }
    }
}

impl Rules for ApiKey {
    dates! { events: created_at, revoked_at, last_used_at; ends: expires_at }

    /// Its owner exists, and nobody else's key has its public part.
    fn check_beside(&self, state: &State) -> Result<()> {
        if let Some(user) = self.user {
            state.users().require(user)?;
        }
        match state.api_keys().by_prefix(&self.prefix) {
            Some(holder) if holder.id != self.id => {
                Err(Error::already_exists(EntityKind::ApiKey, "prefix")
                    .with("prefix", &self.prefix)
                    .with("held_by", holder.id))
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn decide(
    state: &State,
    command: &ApiKeyCommand,
    context: &Context<'_>,
) -> Result<Decision> {
    let keys = state.api_keys();
    match command {
        ApiKeyCommand::Create { id, prefix, hash, key } => {
            keys.check_fresh(*id)?;
            let key = ApiKey {
                id: *id,
                prefix: prefix.clone(),
                hash: hash.clone(),
                user: key.user,
                description: key.description.clone(),
                created_at: context.now,
                expires_at: key.expires_at,
                revoked_at: None,
                last_used_at: None,
                revision: Revision::FIRST,
            };
            key.check_beside(state)?;
            let user = key.user;
            let decision = Decision::put(key).noting(ApiKeyCommand::CREATE, EntityKind::ApiKey, id);
            Ok(decision.beside(EntityKind::User, user))
        }
        ApiKeyCommand::Revoke { id } => {
            let old = keys.require(*id)?;
            if old.revoked_at.is_some() {
                return Err(Error::not_found(EntityKind::ApiKey, id).with("revoked", true));
            }
            let key = ApiKey {
                revoked_at: Some(context.now),
                revision: old.revision.next(),
                ..ApiKey::clone(old)
            };
            let user = key.user;
            let decision = Decision::put(key).noting(ApiKeyCommand::REVOKE, EntityKind::ApiKey, id);
            Ok(decision.beside(EntityKind::User, user))
        }
        ApiKeyCommand::Touch { id } => {
            let old = keys.require(*id)?;
            let recent =
                old.last_used_at.is_some_and(|last| context.now.since(last) < TOUCH_INTERVAL);
            if recent {
                return Ok(Decision::unchanged(Reply::ApiKey(old.clone())));
            }
            // A use is no edit: the revision stays, so that it does not disturb an
            // administrator's conditional update.
            Ok(Decision::put(ApiKey { last_used_at: Some(context.now), ..ApiKey::clone(old) }))
        }
        ApiKeyCommand::Rehash { id, from, to } => {
            let old = keys.require(*id)?;
            if old.hash != *from {
                return Ok(Decision::unchanged(Reply::ApiKey(old.clone())));
            }
            let revision = old.revision.next();
            Ok(Decision::put(ApiKey { hash: to.clone(), revision, ..ApiKey::clone(old) }))
        }
        ApiKeyCommand::Delete { id } => {
            let user = keys.require(*id)?.user;
            let decision = Decision::delete(EntityId::ApiKey(*id));
            let decision = decision.noting(ApiKeyCommand::DELETE, EntityKind::ApiKey, id);
            Ok(decision.beside(EntityKind::User, user))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::domain::{NewApiKey, SecretHash};
    use crate::error::ErrorKind;
    use crate::state::testing::*;

    fn create(world: &mut World, prefix: &str) -> Result<ApiKeyId> {
        let id = ApiKeyId::from_bytes(world.id());
        let hash = SecretHash::hmac([1; 4], [2; 32]);
        let prefix = prefix.parse().unwrap();
        world.run(ApiKeyCommand::Create { id, prefix, hash, key: NewApiKey::default() })?;
        Ok(id)
    }

    #[test]
    fn a_prefix_is_unique_until_its_key_is_deleted() {
        let mut world = World::new();
        let id = create(&mut world, "abc").unwrap();
        let error = create(&mut world, "abc").unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::AlreadyExists { constraint: "prefix" });
        world.run(ApiKeyCommand::Delete { id }).unwrap();
        create(&mut world, "abc").unwrap();
    }

    #[test]
    fn a_revoked_key_stays_listed_and_is_inactive() {
        let mut world = World::new();
        let id = create(&mut world, "abc").unwrap();
        world.run(ApiKeyCommand::Revoke { id }).unwrap();
        assert!(!world.state.api_keys().get(id).unwrap().is_active(world.now));
        let error = world.run(ApiKeyCommand::Revoke { id }).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn uses_are_recorded_once_a_minute_and_are_no_edit() {
        let mut world = World::new();
        let id = create(&mut world, "abc").unwrap();
        let revision = world.state.api_keys().get(id).unwrap().revision;
        let start = world.now;
        world.run(ApiKeyCommand::Touch { id }).unwrap();
        world.advance(Duration::from_secs(59));
        world.run(ApiKeyCommand::Touch { id }).unwrap();
        let key = world.state.api_keys().get(id).unwrap();
        assert_eq!((key.last_used_at, key.revision), (Some(start), revision));
    }

    #[test]
    fn a_rehash_loses_against_a_newer_hash() {
        let mut world = World::new();
        let id = create(&mut world, "abc").unwrap();
        let stale = SecretHash::hmac([9; 4], [9; 32]);
        let to = SecretHash::hmac([8; 4], [8; 32]);
        world.run(ApiKeyCommand::Rehash { id, from: stale, to: to.clone() }).unwrap();
        assert_ne!(world.state.api_keys().get(id).unwrap().hash, to);
    }
}
