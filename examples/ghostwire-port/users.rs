//! `operations::UserOperations`.

use ghostwire_store::domain::{
    GroupSet, NewUser, OidcProfile, Update, User, UserId, UserPatch, UserRole,
};
use ghostwire_store::{Error, ErrorKind};

use super::{Arc, Result, Store};

/// `create`.
pub(super) async fn create(
    store: &dyn Store,
    name: &str,
    email: Option<&str>,
) -> Result<Arc<User>> {
    let email = email.map(str::parse).transpose()?;
    store.users().create(NewUser { email, ..NewUser::local(name.parse()?) }).await
}

/// `get_by_identifier`: an id or a name.
pub(super) async fn find(store: &dyn Store, identifier: &str) -> Result<Arc<User>> {
    let found = match identifier.parse::<UserId>() {
        Ok(id) => store.users().get(id).await?,
        Err(_) => store.users().get_by_name(&identifier.parse()?).await?,
    };
    let missing = || Error::new(ErrorKind::NotFound, "no such user").with("user", identifier);
    found.ok_or_else(missing)
}

/// `list_all`, by name. A snapshot is sorted where it is shown.
pub(super) fn list_all(store: &dyn Store) -> Vec<Arc<User>> {
    let mut users: Vec<_> = store.view().users().iter().cloned().collect();
    users.sort_by(|a, b| a.name.cmp(&b.name));
    users
}

/// `update_last_seen`, at a sign-in that no provider tells of.
pub(super) async fn signed_in(store: &dyn Store, user: UserId) -> Result<()> {
    store.users().record_sign_in(user).await?;
    Ok(())
}

/// `role` and `metadata`.
pub(super) async fn describe(
    store: &dyn Store,
    user: UserId,
    role: UserRole,
    metadata: &str,
) -> Result<Arc<User>> {
    let patch = UserPatch { role: Update::Set(role), ..UserPatch::default() };
    store.users().update(user, patch, None).await?;
    store.users().set_metadata(user, Some(metadata.parse()?), None).await
}

/// `delete`, with all that the user owns.
pub(super) async fn delete(store: &dyn Store, identifier: &str) -> Result<()> {
    let user = find(store, identifier).await?;
    store.users().delete(user.id, true).await
}

/// `coordinator.upsert_user_from_oidc`. The issuer is part of who somebody is.
pub(super) async fn upsert_from_oidc(
    store: &dyn Store,
    issuer: &str,
    subject: &str,
    name: &str,
) -> Result<Arc<User>> {
    let profile = OidcProfile {
        provider: issuer.parse()?,
        subject: subject.parse()?,
        // What does not show is left out.
        name: ghostwire_store::domain::UserName::from_outside(name)?,
        display_name: None,
        email: None,
        email_verified: false,
        picture_url: None,
        groups: GroupSet::empty(),
    };
    store.users().upsert_oidc(profile).await
}
