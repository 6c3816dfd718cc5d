//! `operations::ApiKeyOperations`, `PreAuthKeyOperations` and `auth::session`.

use ghostwire_store::domain::{
    ApiKey, NewApiKey, NewPreAuthKey, NewSession, PreAuthKey, Secret, SessionOwner, UserId,
};

use super::{Arc, Duration, Result, Store};

/// `ApiKeyOperations::create`. The text of the key is shown once.
pub(super) async fn create_api_key(
    store: &dyn Store,
    user: UserId,
    description: &str,
) -> Result<(Arc<ApiKey>, Secret)> {
    let description = Some(description.parse()?);
    store
        .api_keys()
        .create(NewApiKey { user: Some(user), description, ..NewApiKey::default() })
        .await
}

/// `PreAuthKeyOperations::create`.
pub(super) async fn create_preauth_key(
    store: &dyn Store,
    user: UserId,
    reusable: bool,
) -> Result<(Arc<PreAuthKey>, Secret)> {
    let new = NewPreAuthKey { user: Some(user), reusable, ..NewPreAuthKey::default() };
    store.preauth_keys().create(new).await
}

/// `insert_session`. The token is the store's to make.
pub(super) async fn sign_in(
    store: &dyn Store,
    user: UserId,
    for_how_long: Duration,
) -> Result<Secret> {
    let expires_at = store.clock().now()?.saturating_add(for_how_long);
    let owner = SessionOwner::User(user);
    Ok(store.sessions().begin(NewSession { owner, node: None, client: None, expires_at }).await?.1)
}

/// `coordinator.validate_session`, with `update_session_last_used` in it.
pub(super) async fn validate_session(store: &dyn Store, token: &str) -> Result<SessionOwner> {
    Ok(store.sessions().authenticate(token).await?.owner)
}

/// `revoke_user_sessions`.
pub(super) async fn revoke_sessions(store: &dyn Store, user: UserId) -> Result<u64> {
    store.sessions().end_all(SessionOwner::User(user)).await
}

/// `cleanup_expired_keys`, `delete_expired_sessions` and the states of sign-ins, from a timer.
pub(super) async fn sweep(store: &dyn Store) -> Result<u64> {
    let now = store.clock().now()?;
    let keys = store.api_keys().sweep_expired(now).await?
        + store.preauth_keys().sweep_expired(now).await?;
    Ok(keys + store.sessions().sweep().await? + store.sign_ins().sweep().await?)
}
