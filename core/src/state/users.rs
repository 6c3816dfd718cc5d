//! Users: names, identities, and what goes with a user.

use std::sync::Arc;

use super::decision::{
    Changes, Context, Decision, Draft, Handle, Note, Reply, check_fresh, check_revision,
};
use super::listing::{Listing, behind};
use super::part::Scales;
use super::{Change, Map, State};
use crate::command::{ApiKeyCommand, Image, NodeCommand, Part, PreAuthKeyCommand, UserCommand};
use crate::domain::{
    Identity, NewUser, OidcProfile, Page, PageRequest, Revision, SessionOwner, User, UserFilter,
    UserId, UserName, UserPatch,
};
use crate::error::{Entity, Error, ErrorKind, Result};

/// All users.
#[derive(Clone, Default, Debug)]
pub struct Users {
    by_id: Map<UserId, Arc<User>>,
    /// Local users only.
    by_name: Map<UserName, UserId>,
    /// OIDC users only; keyed by the identity.
    by_identity: Map<Identity, UserId>,
}

impl Users {
    /// The user with this id.
    #[must_use]
    pub fn get(&self, id: UserId) -> Option<&Arc<User>> {
        self.by_id.get(&id)
    }

    /// The local user with this name.
    #[must_use]
    pub fn by_name(&self, name: &UserName) -> Option<&Arc<User>> {
        self.by_name.get(name).and_then(|id| self.by_id.get(id))
    }

    /// The user whom this provider knows as this subject.
    #[must_use]
    pub fn by_identity(&self, identity: &Identity) -> Option<&Arc<User>> {
        self.by_identity.get(identity).and_then(|id| self.by_id.get(id))
    }

    /// All users by id, which is the order of creation.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<User>> {
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

    /// A page of users, by id.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing.
    pub fn list(&self, filter: &UserFilter, page: &PageRequest) -> Result<Page<Arc<User>>> {
        let listing = Listing::new(Entity::User, filter);
        let start: Option<UserId> = listing.start(page)?;
        let matching = self.by_id.range(behind(start.as_ref())).map(|(_, user)| user).filter(
            |user| {
                filter.name.as_ref().is_none_or(|name| user.name == *name)
                    && filter.email.as_ref().is_none_or(|email| user.email.as_ref() == Some(email))
                    && filter.provider.as_ref().is_none_or(|wanted| {
                        matches!(&user.identity, Identity::Oidc { provider, .. } if provider == wanted)
                    })
            },
        );
        Ok(listing.take(page, matching.cloned(), |user| user.id))
    }

    pub(super) fn put(&mut self, user: Arc<User>) -> bool {
        let old = self.by_id.get(&user.id).cloned();
        if let Some(old) = &old
            && (old.name != user.name || old.identity != user.identity)
        {
            self.unindex(old);
        }
        match &user.identity {
            Identity::Local {} => {
                self.by_name.insert(user.name.clone(), user.id);
            }
            identity @ Identity::Oidc { .. } => {
                self.by_identity.insert(identity.clone(), user.id);
            }
            Identity::PreAuth {} => {}
        }
        self.by_id.insert(user.id, user);
        old.is_some()
    }

    pub(super) fn remove(&mut self, id: UserId) {
        if let Some(old) = self.by_id.remove(&id) {
            self.unindex(&old);
        }
    }

    fn unindex(&mut self, user: &User) {
        match &user.identity {
            Identity::Local {} => self.by_name.remove(&user.name),
            identity @ Identity::Oidc { .. } => self.by_identity.remove(identity),
            Identity::PreAuth {} => None,
        };
    }

    /// Refuses a user that breaks a uniqueness rule beside the others.
    pub(super) fn check_unique(&self, user: &User) -> Result<()> {
        let (holder, constraint) = match &user.identity {
            Identity::Local {} => (self.by_name.get(&user.name), "name"),
            identity @ Identity::Oidc { .. } => (self.by_identity.get(identity), "identity"),
            Identity::PreAuth {} => return Ok(()),
        };
        match holder {
            Some(holder) if *holder != user.id => {
                Err(Error::already_exists(Entity::User, constraint)
                    .with("name", &user.name)
                    .with("held_by", holder))
            }
            _ => Ok(()),
        }
    }
}

impl State {
    pub(super) fn decide_user(
        &self,
        command: &UserCommand,
        context: &Context<'_>,
    ) -> Result<Decision> {
        match command {
            UserCommand::Create { id, user } => self.create_user(*id, user, context),
            UserCommand::Update { id, patch, expected } => {
                self.update_user(*id, patch, *expected, context)
            }
            UserCommand::UpsertOidc { id, profile } => self.upsert_oidc(*id, profile, context),
            UserCommand::Delete { id, cascade, part } => self.delete_user(*id, *cascade, *part),
        }
    }

    /// The user, or `NotFound`.
    pub(super) fn user(&self, id: UserId) -> Result<&Arc<User>> {
        self.users.get(id).ok_or_else(|| Error::not_found(Entity::User, id))
    }

    fn create_user(&self, id: UserId, new: &NewUser, context: &Context<'_>) -> Result<Decision> {
        check_fresh(Entity::User, id, self.users.get(id).is_some())?;
        let user = Arc::new(User {
            id,
            name: new.name.clone(),
            display_name: new.display_name.clone(),
            email: new.email.clone(),
            identity: new.identity.clone(),
            picture_url: new.picture_url.clone(),
            created_at: context.now,
            updated_at: context.now,
            revision: Revision::FIRST,
        });
        self.users.check_unique(&user)?;
        Ok(put_user(user, UserCommand::CREATE))
    }

    fn update_user(
        &self,
        id: UserId,
        patch: &UserPatch,
        expected: Option<Revision>,
        context: &Context<'_>,
    ) -> Result<Decision> {
        let old = self.user(id)?;
        check_revision(Entity::User, id, old.revision, expected)?;
        let mut user = User::clone(old);
        let mut changed = patch.name.apply(&mut user.name);
        changed |= patch.display_name.apply(&mut user.display_name);
        changed |= patch.email.apply(&mut user.email);
        changed |= patch.picture_url.apply(&mut user.picture_url);
        if !changed {
            return Ok(Decision::unchanged(Reply::User(old.clone())));
        }
        self.users.check_unique(&user)?;
        user.revision = old.revision.next();
        user.updated_at = context.now;
        Ok(put_user(user.into(), UserCommand::UPDATE))
    }

    fn upsert_oidc(
        &self,
        id: UserId,
        profile: &OidcProfile,
        context: &Context<'_>,
    ) -> Result<Decision> {
        let identity =
            Identity::Oidc { provider: profile.provider.clone(), subject: profile.subject.clone() };
        let Some(old) = self.users.by_identity(&identity) else {
            let new = NewUser {
                name: profile.name.clone(),
                display_name: profile.display_name.clone(),
                email: profile.email.clone(),
                identity,
                picture_url: profile.picture_url.clone(),
            };
            return self.create_user(id, &new, context);
        };
        let user = User {
            name: profile.name.clone(),
            display_name: profile.display_name.clone(),
            email: profile.email.clone(),
            picture_url: profile.picture_url.clone(),
            ..User::clone(old)
        };
        if user == **old {
            return Ok(Decision::unchanged(Reply::User(old.clone())));
        }
        let user = User { revision: old.revision.next(), updated_at: context.now, ..user };
        Ok(put_user(user.into(), UserCommand::UPDATE))
    }

    /// Whatever admits nodes goes before them, so that none is added while parts of this remain.
    fn delete_user(&self, id: UserId, cascade: bool, part: Part) -> Result<Decision> {
        self.user(id)?;
        if !cascade {
            self.check_owns_nothing(id)?;
        }
        let preauth_keys = self.preauth_keys.of_user(id).map(Handle::PreAuthKey);
        let api_keys = self.api_keys.of_user(id).map(Handle::ApiKey);
        let sessions = self.sessions.of_owner(SessionOwner::User(id)).map(Handle::Session);
        let nodes = self.nodes.of_user(id).map(Handle::Node);
        let user = std::iter::once(Handle::User(id));
        let mut draft = Draft::of(self);
        let mut scales = Scales::of(part);
        let mut notes = smallvec::SmallVec::new();
        let mut ended = None;
        for handle in preauth_keys.chain(api_keys).chain(sessions).chain(nodes).chain(user) {
            if scales.are_full() {
                ended = Some(None);
                break;
            }
            let note = match handle {
                Handle::Node(node) => {
                    draft.delete_node(node);
                    Some(Note::new(NodeCommand::DELETE, Entity::Node, node))
                }
                other => {
                    draft.delete(other);
                    note_of_deletion(other)
                }
            };
            scales.weigh(&draft);
            if let Some(note) = note {
                scales.line();
                notes.push(note);
            }
        }
        let mut decision = draft.finish(Reply::Done.of_part(ended));
        decision.audit = notes;
        Ok(decision)
    }

    fn check_owns_nothing(&self, id: UserId) -> Result<()> {
        let nodes = self.nodes.of_user(id).count();
        let keys = self.preauth_keys.of_user(id).count() + self.api_keys.of_user(id).count();
        if nodes == 0 && keys == 0 {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Restricted,
            "still owns nodes or keys; delete those first or ask for the cascade",
        )
        .about(Entity::User)
        .with("id", id)
        .with("nodes", nodes)
        .with("keys", keys))
    }
}

/// What the audit trail says of what goes with a user.
fn note_of_deletion(handle: Handle) -> Option<Note> {
    match handle {
        Handle::PreAuthKey(id) => {
            Some(Note::new(PreAuthKeyCommand::DELETE, Entity::PreAuthKey, id))
        }
        Handle::ApiKey(id) => Some(Note::new(ApiKeyCommand::DELETE, Entity::ApiKey, id)),
        Handle::User(id) => Some(Note::new(UserCommand::DELETE, Entity::User, id)),
        Handle::Node(_)
        | Handle::Presence(_)
        | Handle::Route(_)
        | Handle::Policy(_)
        | Handle::DnsRecord(_)
        | Handle::Session(_)
        | Handle::Setting(_) => None,
    }
}

fn put_user(user: Arc<User>, action: &'static str) -> Decision {
    let mut changes = Changes::new();
    changes.push(Change::Put(Image::User(user.clone())));
    let id = user.id;
    Decision::changed(changes, Reply::User(user)).noting(action, Entity::User, id)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
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
            name: crate::domain::Change::Set("bob".parse().unwrap()),
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
            picture_url: None,
        };
        let id = UserId::from_bytes(world.id());
        world.run(UserCommand::UpsertOidc { id, profile: profile("alice") }).unwrap();
        let other = UserId::from_bytes(world.id());
        let reply =
            world.run(UserCommand::UpsertOidc { id: other, profile: profile("alice2") }).unwrap();
        let Reply::User(user) = reply else { panic!() };
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
