//! Users.

use std::sync::Arc;

use async_trait::async_trait;

use super::expect_reply;
use crate::command::UserCommand;
use crate::domain::{
    Identity, NewUser, OidcProfile, Page, PageRequest, Revision, User, UserFilter, UserId,
    UserName, UserPatch,
};
use crate::error::Result;
use crate::store::StoreHandle;

/// People and service accounts.
#[async_trait]
pub trait UserRepository: Send + Sync {
    /// Creates a user.
    ///
    /// # Errors
    /// `AlreadyExists` (`name` for a local user, `identity` for one of a provider).
    async fn create(&self, user: NewUser) -> Result<Arc<User>>;

    /// The user with this id.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get(&self, id: UserId) -> Result<Option<Arc<User>>>;

    /// The local user with this name, byte-exact.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get_by_name(&self, name: &UserName) -> Result<Option<Arc<User>>>;

    /// The user of this identity.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get_by_identity(&self, identity: &Identity) -> Result<Option<Arc<User>>>;

    /// A page of users, by id.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing.
    async fn list(&self, filter: &UserFilter, page: &PageRequest) -> Result<Page<Arc<User>>>;

    /// Changes a user; with `expected`, only if that is still its revision.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`, `AlreadyExists`.
    async fn update(
        &self,
        id: UserId,
        patch: UserPatch,
        expected: Option<Revision>,
    ) -> Result<Arc<User>>;

    /// A sign-in through a provider: creates the user or brings it up to date.
    ///
    /// # Errors
    /// Those of any write.
    async fn upsert_oidc(&self, profile: OidcProfile) -> Result<Arc<User>>;

    /// Removes a user with its sessions; with `cascade`, also its nodes and keys. Beyond what one
    /// commit holds it goes on in the next, the user last; should that fail, repeat the call.
    ///
    /// # Errors
    /// `NotFound`; `Restricted` if it owns nodes or keys and `cascade` is not given.
    async fn delete(&self, id: UserId, cascade: bool) -> Result<()>;
}

#[async_trait]
impl UserRepository for StoreHandle {
    async fn create(&self, user: NewUser) -> Result<Arc<User>> {
        let id = self.new_id("users.create", UserId::time_ordered)?;
        let reply = self.run("users.create", UserCommand::Create { id, user }).await?;
        expect_reply!(reply, User)
    }

    async fn get(&self, id: UserId) -> Result<Option<Arc<User>>> {
        Ok(self.open_view("users.get")?.users().get(id).cloned())
    }

    async fn get_by_name(&self, name: &UserName) -> Result<Option<Arc<User>>> {
        Ok(self.open_view("users.get_by_name")?.users().by_name(name).cloned())
    }

    async fn get_by_identity(&self, identity: &Identity) -> Result<Option<Arc<User>>> {
        Ok(self.open_view("users.get_by_identity")?.users().by_identity(identity).cloned())
    }

    async fn list(&self, filter: &UserFilter, page: &PageRequest) -> Result<Page<Arc<User>>> {
        let view = self.open_view("users.list")?;
        view.users().list(filter, page).map_err(|error| error.during("users.list"))
    }

    async fn update(
        &self,
        id: UserId,
        patch: UserPatch,
        expected: Option<Revision>,
    ) -> Result<Arc<User>> {
        let command = UserCommand::Update { id, patch, expected };
        expect_reply!(self.run("users.update", command).await?, User)
    }

    async fn upsert_oidc(&self, profile: OidcProfile) -> Result<Arc<User>> {
        let id = self.new_id("users.upsert_oidc", UserId::time_ordered)?;
        let command = UserCommand::UpsertOidc { id, profile };
        expect_reply!(self.run("users.upsert_oidc", command).await?, User)
    }

    async fn delete(&self, id: UserId, cascade: bool) -> Result<()> {
        let make = |part| UserCommand::Delete { id, cascade, part }.into();
        self.run_in_parts("users.delete", make, |_| Ok(())).await
    }
}
