//! `auth::oidc` and `auth::device_flow`: what the server remembers while somebody is at the identity
//! provider, or a device waits for somebody to approve it.

use ghostwire_store::domain::{NewSignIn, SignInPayload, Text};

use super::{Duration, Result, Store};

const PURPOSE: &str = "oidc";

/// The state goes along with the browser; what it stands for stays here.
pub(super) async fn begin(store: &dyn Store, state: &str, payload: &str) -> Result<()> {
    let expires_at = store.clock().now()?.saturating_add(Duration::from_secs(600));
    let (purpose, payload) = (PURPOSE.parse()?, SignInPayload::new(payload)?);
    store.sign_ins().begin(state, NewSignIn { purpose, payload, expires_at }).await?;
    Ok(())
}

/// The browser is back, at whichever server. It is given out once.
pub(super) async fn complete(store: &dyn Store, state: &str) -> Result<SignInPayload> {
    Ok(store.sign_ins().take(&PURPOSE.parse()?, state).await?.payload.clone())
}

const PENDING: &str = "pending";

fn device() -> Result<Text<64>> {
    "device".parse()
}

/// A device that has no browser gets a code, and asks with it until somebody has approved it.
pub(super) async fn begin_device(store: &dyn Store, code: &str) -> Result<()> {
    let expires_at = store.clock().now()?.saturating_add(Duration::from_secs(600));
    let (purpose, payload) = (device()?, SignInPayload::new(PENDING)?);
    store.sign_ins().begin(code, NewSignIn { purpose, payload, expires_at }).await?;
    Ok(())
}

/// Somebody approves it; who, the device learns when it asks next. Of two who do, one is refused.
pub(super) async fn approve_device(store: &dyn Store, code: &str, user: &str) -> Result<()> {
    let (pending, approved) = (SignInPayload::new(PENDING)?, SignInPayload::new(user)?);
    store.sign_ins().replace(&device()?, code, &pending, approved).await?;
    Ok(())
}

/// The device asks: who approved it, if anybody has. That is given out once.
pub(super) async fn poll_device(store: &dyn Store, code: &str) -> Result<Option<String>> {
    let purpose = device()?;
    if store.sign_ins().peek(&purpose, code).await?.payload.expose() == PENDING {
        return Ok(None);
    }
    let taken = store.sign_ins().take(&purpose, code).await?;
    Ok(Some(taken.payload.expose().to_owned()))
}
