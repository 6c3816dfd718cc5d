//! Checks of what seals the store.

use ghostwire_store::config::{BackendKind, Config};

use super::{Checkup, Finding};
use crate::failure::Outcome;

const CHECK: &str = "sealing";

/// Says of a plain store what that means. Whether the keyring opens is the next check.
pub(super) async fn check(config: &Config, checkup: &mut Checkup<'_, '_>) -> Outcome {
    if config.backend.kind() != BackendKind::Zqlite {
        return Ok(());
    }
    if !config.is_sealed() {
        let found = "zqlite.sealed is false: whoever has the file reads and alters it";
        let advice = "`gwstore seal` seals it, once zqlite.sealed = false is left out";
        return checkup.add(Finding::warn(CHECK, found, advice));
    }
    check_keyring(config, checkup).await
}

#[cfg(feature = "zqlite")]
async fn check_keyring(config: &Config, checkup: &mut Checkup<'_, '_>) -> Outcome {
    use ghostwire_store::config::DEFAULT_ENVIRONMENT;
    use ghostwire_store::keys::Keys;

    use crate::session::store_exists;

    let Some(keys) = Keys::of(config) else { return Ok(()) };
    let place = match keys.place() {
        Ok(place) => place,
        // Neither `init` nor anything else goes on without it.
        Err(error) => {
            let advice = "without it nothing of the store can be read";
            return checkup.add(Finding::error(CHECK, &error, advice));
        }
    };
    if !store_exists(config) && keys.is_absent().unwrap_or(false) {
        if !keys.root_is_beside_store()
            && let Err(error) = place.read()
        {
            let advice =
                "`gwstore keys identity new FILE` makes one; or restore it, or correct its place";
            return checkup.add(Finding::fail(CHECK, error, advice));
        }
        let advice = "if there was none yet, `gwstore init` makes both; otherwise restore both";
        let found = format!("{} is not there, nor is the store", keys.path().display());
        return checkup.add(Finding::warn(CHECK, found, advice));
    }
    checkup.add(match keys.open().await {
        Err(error) => Finding::error(CHECK, &error, "without it nothing of the store can be read"),
        Ok(keyring) => {
            let found =
                format!("{} opens, generation {}", keys.path().display(), keyring.generation());
            if keys.root_is_beside_store() && config.environment == DEFAULT_ENVIRONMENT {
                Finding::ok(
                    CHECK,
                    format!("{found}; its root secret lies beside the store, for development"),
                )
            } else {
                Finding::ok(CHECK, found)
            }
        }
    })
}

#[cfg(not(feature = "zqlite"))]
async fn check_keyring(_: &Config, _: &mut Checkup<'_, '_>) -> Outcome {
    Ok(())
}
