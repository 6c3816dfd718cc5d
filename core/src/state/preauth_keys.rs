//! Pre-auth keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::api_keys::{NEVER, check_room, ended_before, living};
use super::collection::{Collection, Index, update_set};
use super::decision::{Context, Decision, EntityId, Reply};
use super::hashes::check_found_by_hash;
use super::listing::owned;
use super::part::delete_each;
use super::registration::refused;
use super::unique::UniqueIndex;
use super::{Set, State};
use crate::command::PreAuthKeyCommand;
use crate::domain::{
    KeyFilter, KeyPrefix, Page, PageRequest, PreAuthKey, PreAuthKeyId, Revision, SecretHash,
    Timestamp, UserId, expired,
};
use crate::entity::{Rules, dates};
use crate::error::{EntityKind, Error, Result};

/// All pre-auth keys.
pub type PreAuthKeys = Collection<PreAuthKey, PreAuthKeyIndex>;

#[derive(Clone, Default, Debug)]
pub struct PreAuthKeyIndex {
    by_prefix: UniqueIndex<PreAuthKeyId>,
    /// Only keys without a prefix, which can be found by nothing else.
    by_hash: UniqueIndex<PreAuthKeyId>,
    by_user: Set<(UserId, PreAuthKeyId)>,
    /// Those that end, by when.
    by_end: Set<(Timestamp, PreAuthKeyId)>,
    /// Those of users that were not used up, by when they end: who can admit a node at a moment stands behind
    /// it.
    by_user_and_end: Set<(UserId, Timestamp, PreAuthKeyId)>,
}

impl Index<PreAuthKey> for PreAuthKeyIndex {
    fn update(
        &mut self,
        id: PreAuthKeyId,
        old: Option<&PreAuthKey>,
        new: Option<&Arc<PreAuthKey>>,
    ) {
        fn prefix(key: &PreAuthKey) -> Option<&KeyPrefix> {
            key.prefix.as_ref()
        }
        fn hash(key: &PreAuthKey) -> Option<&SecretHash> {
            key.prefix.is_none().then_some(&key.hash)
        }
        let of = |key: &PreAuthKey| Some((key.user?, key.id));
        let new = new.map(AsRef::as_ref);
        self.by_prefix.update(id, old.and_then(prefix), new.and_then(prefix));
        self.by_hash.update(id, old.and_then(hash), new.and_then(hash));
        let end = |key: &PreAuthKey| Some((key.ends_at()?, key.id));
        let lives = |key: &PreAuthKey| {
            let is_left = key.reusable || key.used_at.is_none();
            let user = key.user.filter(|_| is_left)?;
            Some((user, key.ends_at().unwrap_or(NEVER), key.id))
        };
        update_set(&mut self.by_user, old.and_then(of), new.and_then(of));
        update_set(&mut self.by_end, old.and_then(end), new.and_then(end));
        update_set(&mut self.by_user_and_end, old.and_then(lives), new.and_then(lives));
    }
}

impl PreAuthKeys {
    /// The key with this public part.
    #[must_use]
    pub fn by_prefix(&self, prefix: &KeyPrefix) -> Option<&Arc<PreAuthKey>> {
        let held = |id| self.get(id).filter(|key| key.prefix.as_ref() == Some(prefix));
        self.index.by_prefix.find(prefix, held)
    }

    /// The key without a public part that has this hash.
    #[must_use]
    pub fn by_hash(&self, hash: &SecretHash) -> Option<&Arc<PreAuthKey>> {
        let held = |id| self.get(id).filter(|key| key.prefix.is_none() && key.hash == *hash);
        self.index.by_hash.find(hash, held)
    }

    /// The ids of a user's keys, in the order of creation.
    pub fn of_user(&self, user: UserId) -> impl Iterator<Item = PreAuthKeyId> + '_ {
        self.index.by_user.range(owned(user, None)).map(|(_, id)| *id)
    }

    /// A page of keys, by id.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing.
    pub fn list(&self, filter: &KeyFilter, page: &PageRequest) -> Result<Page<Arc<PreAuthKey>>> {
        let matches = |key: &PreAuthKey| {
            filter.active_at.is_none_or(|(wanted, now)| key.is_usable(now) == wanted)
        };
        match filter.user {
            Some(user) => self.page_of((user, &self.index.by_user), filter, page, matches),
            None => self.page(filter, page, matches),
        }
    }
}

impl Rules for PreAuthKey {
    dates! { events: created_at, revoked_at, used_at; ends: expires_at }

    fn check(&self) -> Result<()> {
        check_found_by_hash(&self.hash, self.prefix.as_ref())
            .map_err(|error| error.about(EntityKind::PreAuthKey).with("id", self.id))
    }

    /// Its nodes have an owner that exists, or tags; nobody else's key is found by the same.
    fn check_beside(&self, state: &State) -> Result<()> {
        match self.user {
            Some(user) => state.users().require(user).map(|_| ())?,
            None if self.tags.is_empty() => {
                let message = "needs a user or at least one tag for the nodes it admits";
                return Err(Error::invalid(message)
                    .about(EntityKind::PreAuthKey)
                    .with("id", self.id));
            }
            None => {}
        }
        let keys = state.preauth_keys();
        let (holder, constraint) = match &self.prefix {
            Some(prefix) => (keys.by_prefix(prefix), "prefix"),
            None => (keys.by_hash(&self.hash), "hash"),
        };
        match holder {
            Some(holder) if holder.id != self.id => {
                Err(Error::already_exists(EntityKind::PreAuthKey, constraint)
                    .with("id", self.id)
                    .with("held_by", holder.id))
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

pub(crate) fn decide(
    state: &State,
    command: &PreAuthKeyCommand,
    context: &Context<'_>,
) -> Result<Decision> {
    let keys = state.preauth_keys();
    match command {
        PreAuthKeyCommand::Create { id, prefix, hash, key } => {
            keys.check_fresh(*id)?;
            let key = PreAuthKey {
                id: *id,
                prefix: Some(prefix.clone()),
                hash: hash.clone(),
                user: key.user,
                tags: key.tags.clone(),
                reusable: key.reusable,
                ephemeral: key.ephemeral,
                used_at: None,
                created_at: context.now,
                expires_at: key.expires_at,
                revoked_at: None,
                revision: Revision::FIRST,
            };
            key.check_beside(state)?;
            if let (Some(user), Some(limit)) =
                (key.user, state.settings().network().max_preauth_keys_per_user)
            {
                let live = living(&keys.index.by_user_and_end, user, context.now);
                check_room(EntityKind::PreAuthKey, user, live, limit)?;
            }
            let user = key.user;
            let decision =
                Decision::put(key).noting(PreAuthKeyCommand::CREATE, EntityKind::PreAuthKey, id);
            Ok(decision.beside(EntityKind::User, user))
        }
        PreAuthKeyCommand::Revoke { id } => {
            let old = keys.require(*id)?;
            if old.revoked_at.is_some() {
                return Err(Error::not_found(EntityKind::PreAuthKey, id).with("revoked", true));
            }
            let key = PreAuthKey {
                revoked_at: Some(context.now),
                revision: old.revision.next(),
                ..PreAuthKey::clone(old)
            };
            let user = key.user;
            let decision =
                Decision::put(key).noting(PreAuthKeyCommand::REVOKE, EntityKind::PreAuthKey, id);
            Ok(decision.beside(EntityKind::User, user))
        }
        PreAuthKeyCommand::Rehash { id, from, to } => {
            let old = keys.require(*id)?;
            if old.hash != *from {
                return Ok(Decision::unchanged(Reply::PreAuthKey(old.clone())));
            }
            let key = PreAuthKey {
                hash: to.clone(),
                revision: old.revision.next(),
                ..PreAuthKey::clone(old)
            };
            key.check_beside(state)?;
            Ok(Decision::put(key))
        }
        PreAuthKeyCommand::Delete { id } => {
            let user = keys.require(*id)?.user;
            let decision = Decision::delete(EntityId::PreAuthKey(*id));
            let decision = decision.noting(PreAuthKeyCommand::DELETE, EntityKind::PreAuthKey, id);
            Ok(decision.beside(EntityKind::User, user))
        }
        PreAuthKeyCommand::SweepExpired { before, part } => {
            let ended = || ended_before(&keys.index.by_end, *before, context.now);
            // All nodes have to be looked at, but not if nothing ended.
            let shown: BTreeSet<_> = match ended().next() {
                Some(_) => shown_again(state, context.now).collect(),
                None => BTreeSet::new(),
            };
            let (ids, action) =
                (ended().filter(|id| !shown.contains(id)), PreAuthKeyCommand::DELETE);
            Ok(delete_each::<PreAuthKey>(state, ids, *part, EntityId::PreAuthKey, action))
        }
    }
}

/// The keys with which machines may repeat their registration, though they admit nobody any more.
fn shown_again(state: &State, now: Timestamp) -> impl Iterator<Item = PreAuthKeyId> + '_ {
    let nodes = state.nodes().iter().filter(move |node| !expired(node.expires_at, now));
    nodes.filter_map(|node| node.preauth_key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::command::{NodeCommand, Part};
    use crate::domain::NewPreAuthKey;
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
    fn a_key_that_a_machine_may_show_again_is_not_swept() {
        let mut world = World::new();
        let alice = world.user("alice");
        let keys = [world.preauth_key(alice.id, true), world.preauth_key(alice.id, true)];
        let node = world.register_with(keys[0].id, 1).unwrap();
        for key in &keys {
            world.run(PreAuthKeyCommand::Revoke { id: key.id }).unwrap();
        }
        world.now = world.now.saturating_add(std::time::Duration::from_secs(60));
        let sweep = PreAuthKeyCommand::SweepExpired { before: world.now, part: Part::WHOLE };
        assert_eq!(world.run(sweep.clone()).unwrap(), Reply::Count(1));
        assert!(world.state.preauth_keys().get(keys[0].id).is_some());
        let (nodes, at, part) = (vec![node.id], world.now, Part::WHOLE);
        world.run(NodeCommand::Expire { nodes, at, part }).unwrap();
        assert_eq!(world.run(sweep).unwrap(), Reply::Count(1), "its node key has expired");
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
