//! The keys of a store that another process has open: that one changes them.

use std::time::Duration;

use ghostwire_store::admin::Client;
use ghostwire_store::admin::protocol::KeysRequest;
use ghostwire_store::config::Config;
use ghostwire_store::keys::Keys;
use ghostwire_store::keys::crypto::keyring::Keyring;
use ghostwire_store::{Result, info::Resealed};

use crate::actor::actor;
use crate::failure::Outcome;
use crate::live::{self, Found};
use crate::output::Shell;

/// Has this done by whoever has the store open, if somebody has; with `wait` also until everything is sealed
/// under the newest key. Gives what the keyring then is.
pub(super) async fn change(
    config: &Config,
    keys: &Keys<'_>,
    (request, wait): (KeysRequest, bool),
    shell: &mut Shell<'_>,
) -> Outcome<Option<Keyring>> {
    let Found::Served(client) = live::find(config, shell).await? else { return Ok(None) };
    client.clone().acting_as(actor()).keys(request).await?;
    if wait {
        until_resealed(&client).await?;
    }
    Ok(Some(keys.open().await?))
}

/// Waits until whoever has the store open, if somebody has, has sealed everything anew.
pub(super) async fn reseal(config: &Config, shell: &mut Shell<'_>) -> Outcome<Option<Resealed>> {
    let Found::Served(client) = live::find(config, shell).await? else { return Ok(None) };
    until_resealed(&client).await?;
    Ok(client.info().await?.resealed)
}

/// By which keys whoever has the store open signs, if somebody has it open.
pub(super) async fn signer(config: &Config, shell: &mut Shell<'_>) -> Outcome<Option<String>> {
    let Found::Served(client) = live::find(config, shell).await? else { return Ok(None) };
    Ok(client.info().await?.signer)
}

/// An open store seals anew by itself.
async fn until_resealed(client: &Client) -> Result<()> {
    const PAUSE: Duration = Duration::from_millis(100);
    while client.info().await?.resealed.as_ref().is_some_and(Resealed::is_under_way) {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
