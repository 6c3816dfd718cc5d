//! API keys.

use std::sync::Arc;
use std::time::Duration;

use super::decision::{Changes, Context, Decision, Handle, Reply, check_fresh};
use super::listing::{Listing, behind, owned};
use super::unique::UniqueIndex;
use super::{Change, Map, Set, State};
use crate::command::{ApiKeyCommand, Image};
use crate::domain::{ApiKey, ApiKeyId, KeyFilter, KeyPrefix, Page, PageRequest, Revision, UserId};
use crate::error::{Entity, Error, Result};

/// Uses are recorded at most this often.
pub(super) const TOUCH_INTERVAL: Duration = Duration::from_secs(60);

/// All API keys.
#[derive(Clone, Default, Debug)]
pub struct ApiKeys {
    by_id: Map<ApiKeyId, Arc<ApiKey>>,
    by_prefix: UniqueIndex<ApiKeyId>,
    by_user: Set<(UserId, ApiKeyId)>,
}

impl ApiKeys {
    /// The key with this id.
    #[must_use]
    pub fn get(&self, id: ApiKeyId) -> Option<&Arc<ApiKey>> {
        self.by_id.get(&id)
    }

    /// The key with this public part.
    #[must_use]
    pub fn by_prefix(&self, prefix: &KeyPrefix) -> Option<&Arc<ApiKey>> {
        self.by_prefix.find(prefix, |id| self.by_id.get(&id).filter(|key| key.prefix == *prefix))
    }

    /// The ids of a user's keys, in the order of creation.
    pub fn of_user(&self, user: UserId) -> impl Iterator<Item = ApiKeyId> + '_ {
        self.by_user.range(owned(user, None)).map(|(_, id)| *id)
    }

    /// All keys, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ApiKey>> {
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

    /// A page of keys, by id.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing.
    pub fn list(&self, filter: &KeyFilter, page: &PageRequest) -> Result<Page<Arc<ApiKey>>> {
        let listing = Listing::new(Entity::ApiKey, filter);
        let start: Option<ApiKeyId> = listing.start(page)?;
        let candidates: Box<dyn Iterator<Item = &Arc<ApiKey>>> = match filter.user {
            Some(user) => {
                let ids = self.by_user.range(owned(user, start));
                Box::new(ids.filter_map(|(_, id)| self.by_id.get(id)))
            }
            None => Box::new(self.by_id.range(behind(start.as_ref())).map(|(_, key)| key)),
        };
        let matching = candidates.filter(|key| {
            filter.active_at.is_none_or(|(wanted, now)| key.is_active(now) == wanted)
        });
        Ok(listing.take(page, matching.cloned(), |key| key.id))
    }

    pub(super) fn put(&mut self, key: Arc<ApiKey>) -> bool {
        let old = self.by_id.insert(key.id, key.clone());
        if let Some(old) = &old
            && (&old.prefix, old.user) != (&key.prefix, key.user)
        {
            self.unindex(old);
        }
        self.by_prefix.insert(&key.prefix, key.id);
        if let Some(user) = key.user {
            self.by_user.insert((user, key.id));
        }
        old.is_some()
    }

    pub(super) fn remove(&mut self, id: ApiKeyId) {
        if let Some(old) = self.by_id.remove(&id) {
            self.unindex(&old);
        }
    }

    fn unindex(&mut self, old: &ApiKey) {
        self.by_prefix.remove(&old.prefix, old.id);
        if let Some(user) = old.user {
            self.by_user.remove(&(user, old.id));
        }
    }

    pub(super) fn check_unique(&self, key: &ApiKey) -> Result<()> {
        match self.by_prefix(&key.prefix) {
            Some(holder) if holder.id != key.id => {
                Err(Error::already_exists(Entity::ApiKey, "prefix")
                    .with("prefix", &key.prefix)
                    .with("held_by", holder.id))
            }
            _ => Ok(()),
        }
    }
}

impl State {
    fn api_key(&self, id: ApiKeyId) -> Result<&Arc<ApiKey>> {
        self.api_keys.get(id).ok_or_else(|| Error::not_found(Entity::ApiKey, id))
    }

    pub(super) fn decide_api_key(
        &self,
        command: &ApiKeyCommand,
        context: &Context<'_>,
    ) -> Result<Decision> {
        match command {
            ApiKeyCommand::Create { id, prefix, hash, key } => {
                check_fresh(Entity::ApiKey, id, self.api_keys.get(*id).is_some())?;
                if let Some(user) = key.user {
                    self.user(user)?;
                }
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
                self.api_keys.check_unique(&key)?;
                Ok(put(key).noting(ApiKeyCommand::CREATE, Entity::ApiKey, id))
            }
            ApiKeyCommand::Revoke { id } => {
                let old = self.api_key(*id)?;
                if old.revoked_at.is_some() {
                    return Err(Error::not_found(Entity::ApiKey, id).with("revoked", true));
                }
                let key = ApiKey {
                    revoked_at: Some(context.now),
                    revision: old.revision.next(),
                    ..ApiKey::clone(old)
                };
                Ok(put(key).noting(ApiKeyCommand::REVOKE, Entity::ApiKey, id))
            }
            ApiKeyCommand::Touch { id } => {
                let old = self.api_key(*id)?;
                let recent =
                    old.last_used_at.is_some_and(|last| context.now.since(last) < TOUCH_INTERVAL);
                if recent {
                    return Ok(Decision::unchanged(Reply::ApiKey(old.clone())));
                }
                // A use is no edit: the revision stays, so that it does not disturb an
                // administrator's conditional update.
                Ok(put(ApiKey { last_used_at: Some(context.now), ..ApiKey::clone(old) }))
            }
            ApiKeyCommand::Rehash { id, from, to } => {
                let old = self.api_key(*id)?;
                if old.hash != *from {
                    return Ok(Decision::unchanged(Reply::ApiKey(old.clone())));
                }
                Ok(put(ApiKey {
                    hash: to.clone(),
                    revision: old.revision.next(),
                    ..ApiKey::clone(old)
                }))
            }
            ApiKeyCommand::Delete { id } => {
                self.api_key(*id)?;
                let mut changes = Changes::new();
                changes.push(Change::Delete(Handle::ApiKey(*id)));
                Ok(Decision::changed(changes, Reply::Done).noting(
                    ApiKeyCommand::DELETE,
                    Entity::ApiKey,
                    id,
                ))
            }
        }
    }
}

fn put(key: ApiKey) -> Decision {
    let key = Arc::new(key);
    let mut changes = Changes::new();
    changes.push(Change::Put(Image::ApiKey(key.clone())));
    Decision::changed(changes, Reply::ApiKey(key))
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
