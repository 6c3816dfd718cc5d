//! API keys.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::collection::{Collection, Index, update_set};
use super::decision::{Context, Decision, EntityId, Reply};
use super::hashes::check_found_by_hash;
use super::listing::owned;
use super::part::delete_each;
use super::unique::UniqueIndex;
use super::{Set, State};
use crate::command::ApiKeyCommand;
use crate::domain::{
    ActorName, ApiKey, ApiKeyId, Id, KeyFilter, KeyPrefix, Page, PageRequest, Revision, Timestamp,
    UserId,
};
use crate::entity::{Rules, dates};
use crate::error::{EntityKind, Error, ErrorKind, Result};

/// Uses are recorded at most this often.
pub(super) const TOUCH_INTERVAL: Duration = Duration::from_secs(60);

/// All API keys.
pub type ApiKeys = Collection<ApiKey, ApiKeyIndex>;

#[derive(Clone, Default, Debug)]
pub struct ApiKeyIndex {
    by_prefix: UniqueIndex<ApiKeyId>,
    by_user: Set<(UserId, ApiKeyId)>,
    /// Those that end, by when.
    by_end: Set<(Timestamp, ApiKeyId)>,
    /// Those of users, by when they end, [`NEVER`] included: who lives at a moment stands behind it.
    by_user_and_end: Set<(UserId, Timestamp, ApiKeyId)>,
}

/// The end of what has none, in an index; nothing expires as late as that.
pub(super) const NEVER: Timestamp = Timestamp::MAX;

impl Index<ApiKey> for ApiKeyIndex {
    fn update(&mut self, id: ApiKeyId, old: Option<&ApiKey>, new: Option<&Arc<ApiKey>>) {
        self.by_prefix.update(id, old.map(|key| &key.prefix), new.map(|key| &key.prefix));
        let of = |key: &ApiKey| Some((key.user?, key.id));
        let end = |key: &ApiKey| Some((key.ends_at()?, key.id));
        let lives = |key: &ApiKey| Some((key.user?, key.ends_at().unwrap_or(NEVER), key.id));
        let new = new.map(AsRef::as_ref);
        update_set(&mut self.by_user, old.and_then(of), new.and_then(of));
        update_set(&mut self.by_end, old.and_then(end), new.and_then(end));
        update_set(&mut self.by_user_and_end, old.and_then(lives), new.and_then(lives));
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

    fn check(&self) -> Result<()> {
        check_found_by_hash(&self.hash, Some(&self.prefix))
            .map_err(|error| error.about(EntityKind::ApiKey).with("id", self.id))
    }

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
                permissions: key.permissions.clone(),
                created_by: named(&context.actor.name),
                created_at: context.now,
                expires_at: key.expires_at,
                revoked_at: None,
                last_used_at: None,
                revision: Revision::FIRST,
            };
            key.check_beside(state)?;
            if let (Some(user), Some(limit)) =
                (key.user, state.settings().network().max_api_keys_per_user)
            {
                let live = living(&keys.index.by_user_and_end, user, context.now);
                check_room(EntityKind::ApiKey, user, live, limit)?;
            }
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
        ApiKeyCommand::SweepExpired { before, part } => {
            let ids = ended_before(&keys.index.by_end, *before, context.now);
            let action = ApiKeyCommand::DELETE;
            Ok(delete_each::<ApiKey>(state, ids, *part, EntityId::ApiKey, action))
        }
    }
}

/// Whom to name as the maker of something: nobody, if nobody was named.
fn named(actor: &ActorName) -> Option<ActorName> {
    (*actor != ActorName::system()).then(|| actor.clone())
}

/// The keys of a user that end after a moment, in an index by user and end.
pub(super) fn living<I: Id + Copy + Ord>(
    by_user_and_end: &Set<(UserId, Timestamp, I)>,
    user: UserId,
    now: Timestamp,
) -> impl Iterator<Item = I> + '_ {
    // An end is a moment at which nothing lives any more.
    let ids = |byte| I::from_bytes([byte; 16]);
    let behind = Bound::Excluded((user, now, ids(u8::MAX)));
    let all = (behind, Bound::Included((user, NEVER, ids(u8::MAX))));
    by_user_and_end.range(all).map(|(_, _, id)| *id)
}

/// Refuses another key of a user who has as many live ones as the network's settings allow. Looks at no more
/// of them than that.
pub(super) fn check_room<I>(
    kind: EntityKind,
    user: UserId,
    live: impl Iterator<Item = I>,
    limit: u32,
) -> Result<()> {
    let room = usize::try_from(limit).unwrap_or(usize::MAX);
    let live = live.take(room).count();
    if live < room {
        return Ok(());
    }
    let message =
        "its user has as many live keys as the network's settings allow; revoke or delete one";
    Err(Error::new(ErrorKind::Exhausted, message)
        .about(kind)
        .with("user", user)
        .with("live", live)
        .with("limit", limit))
}

/// The keys that ended before a moment, the first one first; none that is yet to end.
pub(super) fn ended_before<I: Copy + Ord>(
    by_end: &Set<(Timestamp, I)>,
    before: Timestamp,
    now: Timestamp,
) -> impl Iterator<Item = I> + '_ {
    let ended = by_end.iter().take_while(move |(at, _)| *at < before && *at <= now);
    ended.map(|(_, id)| *id)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::command::{Part, SettingCommand};
    use crate::domain::{NetworkSettings, NewApiKey, SecretHash, SettingDocument};
    use crate::state::testing::*;

    fn create(world: &mut World, prefix: &str) -> Result<ApiKeyId> {
        create_as(world, prefix, NewApiKey::default())
    }

    fn create_as(world: &mut World, prefix: &str, key: NewApiKey) -> Result<ApiKeyId> {
        let id = ApiKeyId::from_bytes(world.id());
        let hash = SecretHash::hmac([1; 4], [2; 32]);
        let prefix = prefix.parse().unwrap();
        world.run(ApiKeyCommand::Create { id, prefix, hash, key })?;
        Ok(id)
    }

    #[test]
    fn a_user_has_so_many_live_keys_at_most() {
        let mut world = World::new();
        let alice = world.user("alice").id;
        let limit = |limit| {
            let network = NetworkSettings {
                max_api_keys_per_user: Some(limit),
                ..NetworkSettings::default()
            };
            SettingCommand::Put { document: SettingDocument::Network(network), expected: None }
        };
        let of = |user, expires_at| NewApiKey { user, expires_at, ..NewApiKey::default() };
        let second = Duration::from_secs(1);
        let soon = Some(world.now.saturating_add(second));
        world.run(limit(2)).unwrap();
        let first = create_as(&mut world, "a", of(Some(alice), None)).unwrap();
        create_as(&mut world, "b", of(Some(alice), soon)).unwrap();
        let full = |world: &mut World| {
            let error = create_as(world, "c", of(Some(alice), None)).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Exhausted);
        };
        full(&mut world);
        // Nobody's keys have no limit.
        create_as(&mut world, "d", of(None, None)).unwrap();
        world.advance(second);
        create_as(&mut world, "e", of(Some(alice), None)).unwrap();
        full(&mut world);
        world.run(ApiKeyCommand::Revoke { id: first }).unwrap();
        create_as(&mut world, "f", of(Some(alice), None)).unwrap();
        world.run(limit(0)).unwrap();
        full(&mut world);
    }

    #[test]
    fn what_ended_before_a_moment_is_swept() {
        let mut world = World::new();
        let start = world.now;
        let at = |seconds| start.saturating_add(Duration::from_secs(seconds));
        let ending = |end| NewApiKey { expires_at: Some(at(end)), ..NewApiKey::default() };
        let early = create_as(&mut world, "a", ending(10)).unwrap();
        let late = create_as(&mut world, "b", ending(20)).unwrap();
        let revoked = create_as(&mut world, "c", ending(90)).unwrap();
        let live = create(&mut world, "d").unwrap();
        world.advance(Duration::from_secs(15));
        world.run(ApiKeyCommand::Revoke { id: revoked }).unwrap();
        world.advance(Duration::from_secs(4));
        let mut sweep = |before| {
            let sweep = ApiKeyCommand::SweepExpired { before: at(before), part: Part::WHOLE };
            let Reply::Count(count) = world.run(sweep).unwrap() else { panic!() };
            (count, world.state.api_keys().iter().map(|key| key.id).collect::<Vec<_>>())
        };
        assert_eq!(sweep(10), (0, vec![early, late, revoked, live]));
        assert_eq!(sweep(11), (1, vec![late, revoked, live]));
        // What is yet to expire stays, however late the moment is.
        assert_eq!(sweep(1_000), (1, vec![late, live]));
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
