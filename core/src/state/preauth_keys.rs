//! Pre-auth keys.

use std::sync::Arc;

use super::decision::{Changes, Context, Decision, Handle, Reply, check_fresh};
use super::listing::{Listing, behind, owned};
use super::registration::refused;
use super::unique::UniqueIndex;
use super::{Change, Map, Set, State};
use crate::command::{Image, PreAuthKeyCommand};
use crate::domain::{
    KeyFilter, KeyPrefix, NewPreAuthKey, Page, PageRequest, PreAuthKey, PreAuthKeyId, Revision,
    SecretHash, Timestamp, UserId, expired,
};
use crate::error::{Entity, Error, Result};

/// All pre-auth keys.
#[derive(Clone, Default, Debug)]
pub struct PreAuthKeys {
    by_id: Map<PreAuthKeyId, Arc<PreAuthKey>>,
    by_prefix: UniqueIndex<PreAuthKeyId>,
    /// Only keys without a prefix, which can be found by nothing else.
    by_hash: UniqueIndex<PreAuthKeyId>,
    by_user: Set<(UserId, PreAuthKeyId)>,
}

impl PreAuthKeys {
    /// The key with this id.
    #[must_use]
    pub fn get(&self, id: PreAuthKeyId) -> Option<&Arc<PreAuthKey>> {
        self.by_id.get(&id)
    }

    /// The key with this public part.
    #[must_use]
    pub fn by_prefix(&self, prefix: &KeyPrefix) -> Option<&Arc<PreAuthKey>> {
        let held = |id| self.by_id.get(&id).filter(|key| key.prefix.as_ref() == Some(prefix));
        self.by_prefix.find(prefix, held)
    }

    /// The key without a public part that has this hash.
    #[must_use]
    pub fn by_hash(&self, hash: &SecretHash) -> Option<&Arc<PreAuthKey>> {
        let held = |id| self.by_id.get(&id).filter(|key| key.prefix.is_none() && key.hash == *hash);
        self.by_hash.find(hash, held)
    }

    /// The ids of a user's keys, in the order of creation.
    pub fn of_user(&self, user: UserId) -> impl Iterator<Item = PreAuthKeyId> + '_ {
        self.by_user.range(owned(user, None)).map(|(_, id)| *id)
    }

    /// All keys, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<PreAuthKey>> {
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
    pub fn list(&self, filter: &KeyFilter, page: &PageRequest) -> Result<Page<Arc<PreAuthKey>>> {
        let listing = Listing::new(Entity::PreAuthKey, filter);
        let start: Option<PreAuthKeyId> = listing.start(page)?;
        let candidates: Box<dyn Iterator<Item = &Arc<PreAuthKey>>> = match filter.user {
            Some(user) => {
                let ids = self.by_user.range(owned(user, start));
                Box::new(ids.filter_map(|(_, id)| self.by_id.get(id)))
            }
            None => Box::new(self.by_id.range(behind(start.as_ref())).map(|(_, key)| key)),
        };
        let matching = candidates.filter(|key| {
            filter.active_at.is_none_or(|(wanted, now)| key.is_usable(now) == wanted)
        });
        Ok(listing.take(page, matching.cloned(), |key| key.id))
    }

    pub(super) fn put(&mut self, key: Arc<PreAuthKey>) -> bool {
        let old = self.by_id.insert(key.id, key.clone());
        if let Some(old) = &old {
            if (&old.prefix, &old.hash, old.user) == (&key.prefix, &key.hash, key.user) {
                return true;
            }
            self.unindex(old);
        }
        match &key.prefix {
            Some(prefix) => self.by_prefix.insert(prefix, key.id),
            None => self.by_hash.insert(&key.hash, key.id),
        }
        if let Some(user) = key.user {
            self.by_user.insert((user, key.id));
        }
        old.is_some()
    }

    pub(super) fn remove(&mut self, id: PreAuthKeyId) {
        if let Some(old) = self.by_id.remove(&id) {
            self.unindex(&old);
        }
    }

    fn unindex(&mut self, old: &PreAuthKey) {
        match &old.prefix {
            Some(prefix) => self.by_prefix.remove(prefix, old.id),
            None => self.by_hash.remove(&old.hash, old.id),
        }
        if let Some(user) = old.user {
            self.by_user.remove(&(user, old.id));
        }
    }

    pub(super) fn check_unique(&self, key: &PreAuthKey) -> Result<()> {
        let holder = match &key.prefix {
            Some(prefix) => self.by_prefix(prefix).map(|holder| (holder.id, "prefix")),
            None => self.by_hash(&key.hash).map(|holder| (holder.id, "hash")),
        };
        match holder {
            Some((holder, constraint)) if holder != key.id => {
                Err(Error::already_exists(Entity::PreAuthKey, constraint)
                    .with("id", key.id)
                    .with("held_by", holder))
            }
            _ => Ok(()),
        }
    }
}

/// Says why a key may not admit a node, if it may not.
pub(super) fn check_usable(key: &PreAuthKey, now: Timestamp) -> Result<()> {
    if key.revoked_at.is_some() {
        Err(refused(key.id, "was revoked"))
    } else if expired(key.expires_at, now) {
        Err(refused(key.id, "has expired"))
    } else if !key.is_usable(now) {
        Err(refused(key.id, "admits one node and was used already"))
    } else {
        Ok(())
    }
}

impl State {
    pub(super) fn preauth_key(&self, id: PreAuthKeyId) -> Result<&Arc<PreAuthKey>> {
        self.preauth_keys.get(id).ok_or_else(|| Error::not_found(Entity::PreAuthKey, id))
    }

    pub(super) fn decide_preauth_key(
        &self,
        command: &PreAuthKeyCommand,
        context: &Context<'_>,
    ) -> Result<Decision> {
        match command {
            PreAuthKeyCommand::Create { id, prefix, hash, key } => {
                self.create_preauth_key(*id, prefix, hash, key, context)
            }
            PreAuthKeyCommand::Revoke { id } => {
                let old = self.preauth_key(*id)?;
                if old.revoked_at.is_some() {
                    return Err(Error::not_found(Entity::PreAuthKey, id).with("revoked", true));
                }
                let key = PreAuthKey {
                    revoked_at: Some(context.now),
                    revision: old.revision.next(),
                    ..PreAuthKey::clone(old)
                };
                Ok(put(key).noting(PreAuthKeyCommand::REVOKE, Entity::PreAuthKey, id))
            }
            PreAuthKeyCommand::Rehash { id, from, to } => {
                let old = self.preauth_key(*id)?;
                if old.hash != *from {
                    return Ok(Decision::unchanged(Reply::PreAuthKey(old.clone())));
                }
                let key = PreAuthKey {
                    hash: to.clone(),
                    revision: old.revision.next(),
                    ..PreAuthKey::clone(old)
                };
                self.preauth_keys.check_unique(&key)?;
                Ok(put(key))
            }
            PreAuthKeyCommand::Delete { id } => {
                self.preauth_key(*id)?;
                let mut changes = Changes::new();
                changes.push(Change::Delete(Handle::PreAuthKey(*id)));
                Ok(Decision::changed(changes, Reply::Done).noting(
                    PreAuthKeyCommand::DELETE,
                    Entity::PreAuthKey,
                    id,
                ))
            }
        }
    }

    fn create_preauth_key(
        &self,
        id: PreAuthKeyId,
        prefix: &KeyPrefix,
        hash: &SecretHash,
        new: &NewPreAuthKey,
        context: &Context<'_>,
    ) -> Result<Decision> {
        check_fresh(Entity::PreAuthKey, id, self.preauth_keys.get(id).is_some())?;
        let key = PreAuthKey {
            id,
            prefix: Some(prefix.clone()),
            hash: hash.clone(),
            user: new.user,
            tags: new.tags.clone(),
            reusable: new.reusable,
            ephemeral: new.ephemeral,
            used_at: None,
            created_at: context.now,
            expires_at: new.expires_at,
            revoked_at: None,
            revision: Revision::FIRST,
        };
        self.check_preauth_owner(&key)?;
        self.preauth_keys.check_unique(&key)?;
        Ok(put(key).noting(PreAuthKeyCommand::CREATE, Entity::PreAuthKey, id))
    }

    /// A key's nodes need an owner that exists, or tags.
    pub(super) fn check_preauth_owner(&self, key: &PreAuthKey) -> Result<()> {
        match key.user {
            Some(user) => self.user(user).map(|_| ()),
            None if key.tags.is_empty() => {
                Err(Error::invalid("needs a user or at least one tag for the nodes it admits")
                    .about(Entity::PreAuthKey)
                    .with("id", key.id))
            }
            None => Ok(()),
        }
    }
}

fn put(key: PreAuthKey) -> Decision {
    let key = Arc::new(key);
    let mut changes = Changes::new();
    changes.push(Change::Put(Image::PreAuthKey(key.clone())));
    Decision::changed(changes, Reply::PreAuthKey(key))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::state::testing::*;

    #[test]
    fn revoking_twice_is_not_found_the_second_time() {
        let mut world = World::new();
        let alice = world.user("alice");
        let key = world.preauth_key(alice.id, true);
        world.run(PreAuthKeyCommand::Revoke { id: key.id }).unwrap();
        let error = world.run(PreAuthKeyCommand::Revoke { id: key.id }).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_key_needs_a_user_or_tags() {
        let mut world = World::new();
        let create = |world: &mut World, key| {
            let id = PreAuthKeyId::from_bytes(world.id());
            let prefix = format!("p{}", world.state.preauth_keys().len()).parse().unwrap();
            let hash = SecretHash::hmac([1; 4], [2; 32]);
            world.run(PreAuthKeyCommand::Create { id, prefix, hash, key })
        };
        let error = create(&mut world, NewPreAuthKey::default()).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
        let tagged = NewPreAuthKey { tags: tags(&["tag:server"]), ..NewPreAuthKey::default() };
        create(&mut world, tagged).unwrap();
    }

    #[test]
    fn a_key_expires_at_its_moment_not_after_it() {
        let mut world = World::new();
        let alice = world.user("alice");
        let mut key = PreAuthKey::clone(&world.preauth_key(alice.id, true));
        key.expires_at = Some(world.now);
        let error = check_usable(&key, world.now).unwrap_err();
        assert!(error.to_string().contains("expired"));
        let before = world.now.saturating_sub(std::time::Duration::from_micros(1));
        assert!(check_usable(&key, before).is_ok());
    }
}
