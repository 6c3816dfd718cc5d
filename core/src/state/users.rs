//! Users: names, identities, and what goes with a user.

use std::sync::Arc;

use smallvec::SmallVec;

use super::api_keys::TOUCH_INTERVAL;
use super::collection::{Collection, Index, update_map, update_set};
use super::decision::{Context, Decision, Draft, EntityId, Note, Reply, check_revision};
use super::part::Scales;
use super::{Map, Set, State, nodes};
use crate::command::{ApiKeyCommand, NodeCommand, Part, PreAuthKeyCommand, UserCommand};
use crate::domain::{
    Identity, JsonObject, LinkBy, NewUser, OidcProfile, Page, PageRequest, Revision, SessionOwner,
    Timestamp, User, UserFilter, UserId, UserName, UserPatch, UserRole,
};
use crate::entity::{Rules, dates};
use crate::error::{EntityKind, Error, ErrorKind, Result};

/// All users.
pub type Users = Collection<User, UserIndex>;

#[derive(Clone, Default, Debug)]
pub struct UserIndex {
    /// Local users only.
    by_name: Map<UserName, UserId>,
    /// OIDC users only, by the canonical identity. A store of an older release may have several users
    /// whose issuer is written in several ways; the first of them counts, in whatever order they came.
    by_identity: Set<(Identity, UserId)>,
}

impl Index<User> for UserIndex {
    fn update(&mut self, id: UserId, old: Option<&User>, new: Option<&Arc<User>>) {
        let new = new.map(AsRef::as_ref);
        update_map(&mut self.by_name, old.and_then(local_name), new.and_then(local_name), id);
        update_set(&mut self.by_identity, old.and_then(identity), new.and_then(identity));
    }
}

/// Names of users who come from elsewhere need not be unique.
fn local_name(user: &User) -> Option<UserName> {
    matches!(user.identity, Identity::Local {}).then(|| user.name.clone())
}

fn identity(user: &User) -> Option<(Identity, UserId)> {
    matches!(user.identity, Identity::Oidc { .. }).then(|| (user.identity.canonical(), user.id))
}

impl UserIndex {
    fn holder(&self, identity: &Identity) -> Option<UserId> {
        let first = (identity.canonical(), UserId::from_bytes([0; 16]));
        let (found, id) = self.by_identity.range(first.clone()..).next()?;
        (*found == first.0).then_some(*id)
    }
}

impl Users {
    /// The local user with this name.
    #[must_use]
    pub fn by_name(&self, name: &UserName) -> Option<&Arc<User>> {
        self.index.by_name.get(name).and_then(|id| self.get(*id))
    }

    /// The user whom this provider knows as this subject.
    #[must_use]
    pub fn by_identity(&self, identity: &Identity) -> Option<&Arc<User>> {
        self.index.holder(identity).and_then(|id| self.get(id))
    }

    /// A page of users, by id. Takes time in proportion to all users, also for those of a group:
    /// whoever wants the members of many groups reads all users once.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing.
    pub fn list(&self, filter: &UserFilter, page: &PageRequest) -> Result<Page<Arc<User>>> {
        self.page(filter, page, |user| {
            filter.name.as_ref().is_none_or(|name| user.name == *name)
                && filter.email.as_ref().is_none_or(|email| user.email.as_ref() == Some(email))
                && filter.provider.as_ref().is_none_or(|wanted| {
                    matches!(&user.identity, Identity::Oidc { provider, .. } if provider.canonical() == *wanted)
                })
                && filter.group.as_ref().is_none_or(|group| user.groups.contains(group))
                && filter.role.is_none_or(|role| user.role == role)
        })
    }
}

impl Rules for User {
    dates! { events: created_at, updated_at, last_sign_in_at; ends: }

    fn check(&self) -> Result<()> {
        if self.metadata.is_some() && self.metadata_revision.is_none() {
            let message = "metadata have a revision, counted from 1";
            return Err(Error::invalid(message).about(EntityKind::User).with("id", self.id));
        }
        Ok(())
    }

    /// Local names are unique, and so are identities.
    fn check_beside(&self, state: &State) -> Result<()> {
        let index = &state.users().index;
        let (holder, constraint) = match &self.identity {
            Identity::Local {} => (index.by_name.get(&self.name).copied(), "name"),
            identity @ Identity::Oidc { .. } => (index.holder(identity), "identity"),
            Identity::PreAuth {} => return Ok(()),
        };
        match holder {
            Some(holder) if holder != self.id => {
                Err(Error::already_exists(EntityKind::User, constraint)
                    .with("name", &self.name)
                    .with("held_by", holder))
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn decide(
    state: &State,
    command: &UserCommand,
    context: &Context<'_>,
) -> Result<Decision> {
    match command {
        UserCommand::Create { id, user } => create(state, *id, user, context),
        UserCommand::Update { id, patch, expected } => {
            update(state, *id, patch, *expected, context)
        }
        UserCommand::UpsertOidc { id, profile, link } => {
            upsert_oidc(state, *id, profile, *link, context)
        }
        UserCommand::SignIn { id } => Ok(sign_in(state.users().require(*id)?, context.now)),
        UserCommand::SetMetadata { id, metadata, expected } => {
            set_metadata(state, *id, metadata.as_ref(), *expected)
        }
        UserCommand::Delete { id, cascade, part } => delete(state, *id, *cascade, *part, context),
    }
}

fn create(state: &State, id: UserId, new: &NewUser, context: &Context<'_>) -> Result<Decision> {
    put_new(state, new.clone().created(id, context.now))
}

fn put_new(state: &State, user: User) -> Result<Decision> {
    let id = user.id;
    state.users().check_fresh(id)?;
    user.check_beside(state)?;
    Ok(Decision::put(user).noting(UserCommand::CREATE, EntityKind::User, id))
}

fn update(
    state: &State,
    id: UserId,
    patch: &UserPatch,
    expected: Option<Revision>,
    context: &Context<'_>,
) -> Result<Decision> {
    let old = state.users().require(id)?;
    check_revision(EntityKind::User, id, old.revision, expected)?;
    let mut user = User::clone(old);
    let mut changed = patch.name.apply(&mut user.name);
    changed |= patch.display_name.apply(&mut user.display_name);
    changed |= patch.email.apply(&mut user.email);
    changed |= patch.identity.apply(&mut user.identity);
    changed |= patch.picture_url.apply(&mut user.picture_url);
    changed |= patch.role.apply(&mut user.role);
    let has_other_groups = patch.groups.apply(&mut user.groups);
    if has_other_groups && matches!(user.identity, Identity::Oidc { .. }) {
        let message = "signs in through a provider, whose word the groups are; change them there";
        return Err(Error::new(ErrorKind::Restricted, message)
            .about(EntityKind::User)
            .with("id", id));
    }
    changed |= has_other_groups;
    if !changed {
        return Ok(Decision::unchanged(Reply::User(old.clone())));
    }
    if user.identity != old.identity {
        user.identity = user.identity.canonical();
    }
    user.check_beside(state)?;
    user.revision = old.revision.next();
    user.updated_at = context.now;
    Ok(Decision::put(user).noting(UserCommand::UPDATE, EntityKind::User, id))
}

fn upsert_oidc(
    state: &State,
    id: UserId,
    profile: &OidcProfile,
    link: LinkBy,
    context: &Context<'_>,
) -> Result<Decision> {
    let identity =
        Identity::Oidc { provider: profile.provider.clone(), subject: profile.subject.clone() }
            .canonical();
    let known = state.users().by_identity(&identity).or_else(|| linked(state, profile, link));
    let Some(old) = known else {
        let new = NewUser {
            name: profile.name.clone(),
            display_name: profile.display_name.clone(),
            email: profile.email.clone(),
            identity,
            picture_url: profile.picture_url.clone(),
            role: UserRole::Member,
        };
        let user = new.created(id, context.now);
        let (groups, last_sign_in_at) = (profile.groups.clone(), Some(context.now));
        return put_new(state, User { groups, last_sign_in_at, ..user });
    };
    let user = User {
        name: profile.name.clone(),
        display_name: profile.display_name.clone(),
        email: profile.email.clone(),
        identity,
        picture_url: profile.picture_url.clone(),
        groups: profile.groups.clone(),
        ..User::clone(old)
    };
    if user == **old {
        return Ok(sign_in(old, context.now));
    }
    let user = User {
        revision: old.revision.next(),
        updated_at: context.now,
        last_sign_in_at: Some(context.now),
        ..user
    };
    Ok(Decision::put(user).noting(UserCommand::UPDATE, EntityKind::User, old.id))
}

/// The only local user with the address that the provider vouches for. It is looked for once in the life
/// of a user, so no index is kept for it.
fn linked<'s>(state: &'s State, profile: &OidcProfile, link: LinkBy) -> Option<&'s Arc<User>> {
    if link != LinkBy::VerifiedEmail || !profile.email_verified {
        return None;
    }
    let email = profile.email.as_ref()?;
    let is_meant = |user: &&Arc<User>| {
        user.identity == Identity::Local {} && user.email.as_ref() == Some(email)
    };
    let mut found = state.users().iter().filter(is_meant);
    let first = found.next();
    first.filter(|_| found.next().is_none())
}

/// Records a sign-in, if that is due. It is no edit: the revision stays, so that it does not disturb an
/// administrator's conditional update.
fn sign_in(old: &Arc<User>, now: Timestamp) -> Decision {
    if old.last_sign_in_at.is_some_and(|last| now.since(last) < TOUCH_INTERVAL) {
        return Decision::unchanged(Reply::User(old.clone()));
    }
    Decision::put(User { last_sign_in_at: Some(now), ..User::clone(old) })
}

/// Metadata are a document of their own: programs that keep notes there, and administrators who edit
/// the user, do not disturb each other.
fn set_metadata(
    state: &State,
    id: UserId,
    metadata: Option<&JsonObject>,
    expected: Option<Revision>,
) -> Result<Decision> {
    let old = state.users().require(id)?;
    if expected.is_some() && old.metadata_revision != expected {
        let found = old.metadata_revision.map_or(0, Revision::get);
        return Err(Error::new(ErrorKind::Conflict, "its metadata have another revision")
            .about(EntityKind::User)
            .with("id", id)
            .with("metadata_revision", found));
    }
    if old.metadata.as_ref() == metadata {
        return Ok(Decision::unchanged(Reply::User(old.clone())));
    }
    let revision = old.metadata_revision.map_or(Revision::FIRST, Revision::next);
    let user =
        User { metadata: metadata.cloned(), metadata_revision: Some(revision), ..User::clone(old) };
    Ok(Decision::put(user).noting(UserCommand::SET_METADATA, EntityKind::User, id))
}

/// Whatever admits nodes goes before them, so that none is added while parts of this remain.
fn delete(
    state: &State,
    id: UserId,
    cascade: bool,
    part: Part,
    context: &Context<'_>,
) -> Result<Decision> {
    state.users().require(id)?;
    if !cascade {
        check_owns_nothing(state, id)?;
    }
    let preauth_keys = state.preauth_keys().of_user(id).map(EntityId::PreAuthKey);
    let api_keys = state.api_keys().of_user(id).map(EntityId::ApiKey);
    let sessions = state.sessions().of_owner(SessionOwner::User(id)).map(EntityId::Session);
    let nodes = state.nodes().of_user(id).map(EntityId::Node);
    let user = std::iter::once(EntityId::User(id));
    let mut draft = Draft::of(state);
    let mut scales = Scales::of(part);
    let mut notes = SmallVec::new();
    let mut ended = None;
    for handle in preauth_keys.chain(api_keys).chain(sessions).chain(nodes).chain(user) {
        if scales.are_full() {
            ended = Some(None);
            break;
        }
        match handle {
            EntityId::Node(node) => nodes::delete(&mut draft, node, context.now),
            other => draft.delete(other),
        }
        scales.weigh(&draft);
        if let Some(note) = note_of_deletion(handle) {
            scales.line();
            notes.push(note);
        }
    }
    let mut decision = draft.finish(Reply::Done.of_part(ended));
    decision.audit = notes;
    Ok(decision)
}

fn check_owns_nothing(state: &State, id: UserId) -> Result<()> {
    let nodes = state.nodes().of_user(id).count();
    let keys = state.preauth_keys().of_user(id).count() + state.api_keys().of_user(id).count();
    if nodes == 0 && keys == 0 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Restricted,
        "still owns nodes or keys; delete those first or ask for the cascade",
    )
    .about(EntityKind::User)
    .with("id", id)
    .with("nodes", nodes)
    .with("keys", keys))
}

/// What the audit trail says of what goes with a user, and of the user; sessions just end.
fn note_of_deletion(handle: EntityId) -> Option<Note> {
    match handle {
        EntityId::Node(id) => Some(Note::new(NodeCommand::DELETE, EntityKind::Node, id)),
        EntityId::PreAuthKey(id) => {
            Some(Note::new(PreAuthKeyCommand::DELETE, EntityKind::PreAuthKey, id))
        }
        EntityId::ApiKey(id) => Some(Note::new(ApiKeyCommand::DELETE, EntityKind::ApiKey, id)),
        EntityId::User(id) => Some(Note::new(UserCommand::DELETE, EntityKind::User, id)),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::GroupSet;
    use crate::state::testing::*;

    fn create(world: &mut World, name: &str) -> Result<Arc<User>> {
        let id = world.id();
        let user = NewUser::local(name.parse()?);
        world.run(UserCommand::Create { id: UserId::from_bytes(id), user }).map(|reply| match reply
        {
            Reply::User(user) => user,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_name_is_unique_among_local_users_and_byte_exact() {
        let mut world = World::new();
        create(&mut world, "alice").unwrap();
        let error = create(&mut world, "alice").unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::AlreadyExists { constraint: "name" });
        create(&mut world, "Alice").unwrap();
    }

    #[test]
    fn a_freed_name_can_be_taken_again() {
        let mut world = World::new();
        let alice = create(&mut world, "alice").unwrap();
        let patch = UserPatch {
            name: crate::domain::Update::Set("bob".parse().unwrap()),
            ..UserPatch::default()
        };
        world.run(UserCommand::Update { id: alice.id, patch, expected: None }).unwrap();
        create(&mut world, "alice").unwrap();
        assert!(create(&mut world, "bob").is_err());
    }

    #[test]
    fn an_oidc_identity_is_unique_while_its_name_is_not() {
        let mut world = World::new();
        create(&mut world, "alice").unwrap();
        let profile = |name: &str| OidcProfile {
            provider: "https://id.example".parse().unwrap(),
            subject: "42".parse().unwrap(),
            name: name.parse().unwrap(),
            display_name: None,
            email: None,
            email_verified: false,
            picture_url: None,
            groups: GroupSet::empty(),
        };
        let mut sign_in = |name: &str| {
            let (id, link) = (UserId::from_bytes(world.id()), LinkBy::Nothing);
            let upsert = UserCommand::UpsertOidc { id, profile: profile(name), link };
            let Reply::User(user) = world.run(upsert).unwrap() else { panic!() };
            user
        };
        let id = sign_in("alice").id;
        let user = sign_in("alice2");
        assert_eq!((user.id, user.name.as_str()), (id, "alice2"));
        assert_eq!(world.state.users().len(), 2);
    }

    #[test]
    fn a_stale_revision_is_a_conflict_and_changes_nothing() {
        let mut world = World::new();
        let alice = create(&mut world, "alice").unwrap();
        let patch = UserPatch {
            display_name: crate::domain::Patch::Set("A".parse().unwrap()),
            ..UserPatch::default()
        };
        let update =
            |patch| UserCommand::Update { id: alice.id, patch, expected: Some(alice.revision) };
        world.run(update(patch.clone())).unwrap();
        let clear = UserPatch { display_name: crate::domain::Patch::Clear, ..UserPatch::default() };
        assert_eq!(*world.run(update(clear)).unwrap_err().kind(), ErrorKind::Conflict);
        let user = world.state.users().get(alice.id).unwrap();
        assert_eq!(user.display_name.as_ref().unwrap().as_str(), "A");
    }

    #[test]
    fn groups_are_edited_where_no_provider_says_them() {
        let mut world = World::new();
        let alice = create(&mut world, "alice").unwrap();
        let groups = |names: &[&str]| {
            crate::domain::Update::Set(
                GroupSet::new(names.iter().map(|name| name.parse().unwrap())).unwrap(),
            )
        };
        let update = |patch| UserCommand::Update { id: alice.id, patch, expected: None };
        let staff = UserPatch { groups: groups(&["staff"]), ..UserPatch::default() };
        let Reply::User(user) = world.run(update(staff.clone())).unwrap() else { panic!() };
        assert_eq!((user.groups.len(), user.revision), (1, alice.revision.next()));
        let identity = crate::domain::Update::Set(Identity::Oidc {
            provider: "https://id.example".parse().unwrap(),
            subject: "42".parse().unwrap(),
        });
        world.run(update(UserPatch { identity, ..UserPatch::default() })).unwrap();
        let other = UserPatch { groups: groups(&["admins"]), ..UserPatch::default() };
        assert_eq!(*world.run(update(other)).unwrap_err().kind(), ErrorKind::Restricted);
        // What changes nothing is no word against the provider's.
        world.run(update(staff)).unwrap();
    }

    #[test]
    fn a_sign_in_is_recorded_once_a_minute_and_is_no_edit() {
        let mut world = World::new();
        let alice = create(&mut world, "alice").unwrap();
        let start = world.now;
        world.run(UserCommand::SignIn { id: alice.id }).unwrap();
        world.advance(Duration::from_secs(59));
        world.run(UserCommand::SignIn { id: alice.id }).unwrap();
        let recorded = |world: &World| {
            let user = world.state.users().get(alice.id).unwrap();
            assert_eq!((user.revision, user.updated_at), (alice.revision, alice.updated_at));
            user.last_sign_in_at
        };
        assert_eq!(recorded(&world), Some(start));
        world.advance(Duration::from_secs(1));
        world.run(UserCommand::SignIn { id: alice.id }).unwrap();
        assert_eq!(recorded(&world), Some(world.now));
    }

    #[test]
    fn metadata_count_their_own_changes_also_when_cleared() {
        let mut world = World::new();
        let alice = create(&mut world, "alice").unwrap();
        let notes = |text: &str| Some(JsonObject::new(text).unwrap());
        let set = |metadata, expected: Option<u64>| UserCommand::SetMetadata {
            id: alice.id,
            metadata,
            expected: expected.map(|number| Revision::new(number).unwrap()),
        };
        let conflict = world.run(set(notes("{}"), Some(1))).unwrap_err();
        assert_eq!(*conflict.kind(), ErrorKind::Conflict);
        for (metadata, expected, counted) in [
            (None, None, None),
            (notes("{}"), None, Some(1)),
            (notes("{}"), Some(1), Some(1)),
            (None, Some(1), Some(2)),
            (notes("{}"), None, Some(3)),
        ] {
            let Reply::User(user) = world.run(set(metadata.clone(), expected)).unwrap() else {
                panic!()
            };
            assert_eq!((&user.metadata, user.revision), (&metadata, alice.revision));
            assert_eq!(user.metadata_revision.map(Revision::get), counted);
        }
    }

    #[test]
    fn deleting_needs_a_cascade_while_the_user_owns_nodes() {
        let mut world = World::new();
        let alice = create(&mut world, "alice").unwrap();
        let node = world.register(alice.id, 1).unwrap();
        let delete = |cascade| UserCommand::Delete { id: alice.id, cascade, part: Part::WHOLE };
        assert_eq!(*world.run(delete(false)).unwrap_err().kind(), ErrorKind::Restricted);
        world.run(delete(true)).unwrap();
        assert!(world.state.nodes().get(node.id).is_none());
        assert_eq!(*world.run(delete(true)).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
