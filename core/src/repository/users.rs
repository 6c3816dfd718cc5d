//! Users.

use std::sync::Arc;

use async_trait::async_trait;

use super::expect_reply;
use crate::command::UserCommand;
use crate::domain::{
    Identity, JsonObject, LinkBy, NewUser, OidcProfile, Page, PageRequest, Revision, User,
    UserFilter, UserId, UserName, UserPatch,
};
use crate::error::Result;
use crate::handle::StoreHandle;

/// Users: people and service accounts that own nodes and sign in.
///
/// ```
/// # ghostwire_store_memory::example(async |store| {
/// use ghostwire_store::ErrorKind;
/// use ghostwire_store::domain::{Limit, NewUser, PageRequest, Patch, UserFilter, UserPatch};
///
/// let alice = store.users().create(NewUser::local("alice".parse()?)).await?;
/// let taken = store.users().create(NewUser::local("alice".parse()?)).await;
/// assert!(matches!(taken.unwrap_err().kind(), ErrorKind::AlreadyExists { .. }));
///
/// // Only if nobody changed her meanwhile.
/// let email = Patch::Set("alice@example.com".parse()?);
/// let patch = UserPatch { email, ..UserPatch::default() };
/// let alice = store.users().update(alice.id, patch, Some(alice.revision)).await?;
///
/// let first = PageRequest::first(Limit::MAX);
/// let page = store.users().list(&UserFilter::default(), &first).await?;
/// assert_eq!(page.items, [alice.clone()]);
///
/// store.users().delete(alice.id, false).await?;
/// assert_eq!(store.users().get(alice.id).await?, None);
/// # Ok(()) }).unwrap();
/// ```
#[async_trait]
pub trait UserRepository: Send + Sync {
    /// Creates a user.
    ///
    /// # Behavior
    /// - A name is unique among local users only; users of a provider may share it.
    /// - E-mail addresses are not unique.
    ///
    /// # Errors
    /// `AlreadyExists` (`name` for a local user, `identity` for one of a provider); those of any
    /// write.
    async fn create(&self, user: NewUser) -> Result<Arc<User>>;

    /// The user with this id; `None` if there is none.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get(&self, id: UserId) -> Result<Option<Arc<User>>>;

    /// The local user with this name, byte for byte; `None` if there is none.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get_by_name(&self, name: &UserName) -> Result<Option<Arc<User>>>;

    /// The user of this identity; `None` if there is none. Only an identity of a provider names one
    /// user.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get_by_identity(&self, identity: &Identity) -> Result<Option<Arc<User>>>;

    /// A page of users, in the order of their ids, which is that of their creation.
    ///
    /// # Behavior
    /// - Takes time in proportion to all users, whatever the filter. Whoever needs the members of many
    ///   groups reads all users once, from [`Store::view`](crate::store::Store::view).
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing; `Unavailable` after the store was closed.
    async fn list(&self, filter: &UserFilter, page: &PageRequest) -> Result<Page<Arc<User>>>;

    /// Changes a user.
    ///
    /// # Behavior
    /// - With `expected`, only if that is still the user's revision.
    /// - If nothing would change, nothing is written, and revision and `updated_at` stay.
    /// - A local user can be given an identity of a provider, and keeps all it owns.
    /// - Groups of a user of a provider are the provider's word; of others they can be changed.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for another revision; `AlreadyExists` (`name`, `identity`); `Restricted` for
    /// other groups of a user of a provider; those of any write.
    async fn update(
        &self,
        id: UserId,
        patch: UserPatch,
        expected: Option<Revision>,
    ) -> Result<Arc<User>>;

    /// A sign-in through a provider: creates the user or brings it up to date.
    ///
    /// # Behavior
    /// - (provider, subject) names the user; everything else may have changed.
    /// - The provider is the authority: what the profile leaves out is cleared, groups included. UserRole and
    ///   metadata are not the provider's, and stay; a new user is a member.
    /// - The sign-in is recorded as by [`record_sign_in`](UserRepository::record_sign_in).
    ///
    /// # Errors
    /// Those of any write.
    async fn upsert_oidc(&self, profile: OidcProfile) -> Result<Arc<User>>;

    /// As [`upsert_oidc`](Self::upsert_oidc), but the first sign-in of a person becomes that of the local
    /// user who is the same by `link`, if there is one.
    ///
    /// # Behavior
    /// - Without a match it makes a user, and so it does if several local users match.
    ///
    /// # Errors
    /// Those of any write.
    async fn upsert_oidc_linking(&self, profile: OidcProfile, link: LinkBy) -> Result<Arc<User>>;

    /// Records that the user signed in, in `last_sign_in_at`.
    ///
    /// # Behavior
    /// - At most once a minute: sooner after the last one, nothing is written.
    /// - It is no change of the user: revision and `updated_at` stay. It leaves no line in the audit trail.
    ///
    /// # Errors
    /// `NotFound`; those of any write.
    async fn record_sign_in(&self, id: UserId) -> Result<Arc<User>>;

    /// Replaces the user's metadata, or with `None` clears them.
    ///
    /// # Behavior
    /// - With `expected`, only if that is still their revision, which is not the user's. That they were
    ///   never set can be required in a transaction
    ///   ([`Precondition::UserMetadataRevision`](crate::command::Precondition::UserMetadataRevision)).
    /// - If nothing would change, nothing is written. Otherwise `metadata_revision` counts on, also when
    ///   they are cleared; the user's revision and `updated_at` stay.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for another revision; those of any write.
    async fn set_metadata(
        &self,
        id: UserId,
        metadata: Option<JsonObject>,
        expected: Option<Revision>,
    ) -> Result<Arc<User>>;

    /// Removes a user and its sessions; with `cascade` also its nodes (with their routes and
    /// sessions), pre-auth keys and API keys.
    ///
    /// # Behavior
    /// - Beyond what one commit holds it goes on in the next one: keys first, then nodes, the user
    ///   last. If that fails on the way, repeat the call.
    ///
    /// # Errors
    /// `NotFound`, also the second time; `Restricted` without `cascade` while the user owns nodes or
    /// keys, revoked ones included; those of any write.
    async fn delete(&self, id: UserId, cascade: bool) -> Result<()>;
}

#[async_trait]
impl UserRepository for StoreHandle {
    async fn create(&self, user: NewUser) -> Result<Arc<User>> {
        let id = self.new_id(UserCommand::CREATE, UserId::time_ordered)?;
        let reply = self.run(UserCommand::Create { id, user }).await?;
        expect_reply!(reply, User)
    }

    async fn get(&self, id: UserId) -> Result<Option<Arc<User>>> {
        Ok(self.open_view("user.get")?.users().get(id).cloned())
    }

    async fn get_by_name(&self, name: &UserName) -> Result<Option<Arc<User>>> {
        Ok(self.open_view("user.get_by_name")?.users().by_name(name).cloned())
    }

    async fn get_by_identity(&self, identity: &Identity) -> Result<Option<Arc<User>>> {
        Ok(self.open_view("user.get_by_identity")?.users().by_identity(identity).cloned())
    }

    async fn list(&self, filter: &UserFilter, page: &PageRequest) -> Result<Page<Arc<User>>> {
        let view = self.open_view("user.list")?;
        view.users().list(filter, page).map_err(|error| error.during("user.list"))
    }

    async fn update(
        &self,
        id: UserId,
        patch: UserPatch,
        expected: Option<Revision>,
    ) -> Result<Arc<User>> {
        let command = UserCommand::Update { id, patch, expected };
        expect_reply!(self.run(command).await?, User)
    }

    async fn upsert_oidc(&self, profile: OidcProfile) -> Result<Arc<User>> {
        self.upsert_oidc_linking(profile, LinkBy::Nothing).await
    }

    async fn upsert_oidc_linking(&self, profile: OidcProfile, link: LinkBy) -> Result<Arc<User>> {
        let id = self.new_id(UserCommand::UPSERT_OIDC, UserId::time_ordered)?;
        let command = UserCommand::UpsertOidc { id, profile, link };
        expect_reply!(self.run(command).await?, User)
    }

    async fn record_sign_in(&self, id: UserId) -> Result<Arc<User>> {
        expect_reply!(self.run(UserCommand::SignIn { id }).await?, User)
    }

    async fn set_metadata(
        &self,
        id: UserId,
        metadata: Option<JsonObject>,
        expected: Option<Revision>,
    ) -> Result<Arc<User>> {
        let command = UserCommand::SetMetadata { id, metadata, expected };
        expect_reply!(self.run(command).await?, User)
    }

    async fn delete(&self, id: UserId, cascade: bool) -> Result<()> {
        let make = |part| UserCommand::Delete { id, cascade, part }.into();
        self.run_in_parts(make, |_| Ok(())).await
    }
}
