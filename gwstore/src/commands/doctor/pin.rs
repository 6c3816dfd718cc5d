//! Checks of the pin: its place, and what it says of the store.

use ghostwire_store::Opener;
use ghostwire_store::config::{BackendChoice, Config, DEFAULT_ENVIRONMENT, PinMode, ZqliteOptions};
use ghostwire_store::keys::crypto::pin::FilePin;

use super::{Checkup, Finding};
use crate::failure::Outcome;
use crate::session::store_exists;

const CHECK: &str = "pin";

pub(super) async fn check(config: &Config, checkup: &mut Checkup<'_, '_>) -> Outcome {
    let BackendChoice::Zqlite(options) = &config.backend else { return Ok(()) };
    let is_development = config.environment == DEFAULT_ENVIRONMENT;
    match options.pin {
        PinMode::Off if is_development => Ok(()),
        PinMode::Off => checkup.add(Finding::warn(
            CHECK,
            "there is none: an older copy of the store that is put back is not noticed",
            "set zqlite.pin to \"commit\", and zqlite.pin_file to a file on another device",
        )),
        _ if !store_exists(config) => Ok(()),
        _ => {
            let finding = match misplaced(options) {
                Some(finding) => finding,
                None => compare(config, options.pin_same_device && !is_development).await,
            };
            checkup.add(finding)
        }
    }
}

/// Why opening the store to write it refuses the pin's file.
fn misplaced(options: &ZqliteOptions) -> Option<Finding> {
    let pin = options.pin_file.as_ref().filter(|_| !options.pin_same_device)?;
    match FilePin::shares_device(pin, &options.path) {
        Ok(Some(true)) => Some(Finding::fail(
            CHECK,
            format!("{} lies on the store's own device", pin.display()),
            "put it on another device, or set zqlite.pin_same_device: then it notices accidents, and \
             nothing else",
        )),
        Ok(_) => None,
        Err(error) => Some(Finding::fail(
            CHECK,
            error.to_string(),
            "no control plane opens the store like this: mount the pin's device, or correct \
             zqlite.pin_file",
        )),
    }
}

/// What `gwstore pin verify` says.
async fn compare(config: &Config, may_share_device: bool) -> Finding {
    let advice = "no control plane opens the store like this";
    let report = match Opener::new(config).create(false).compare_with_pin().await {
        Ok(report) => report,
        Err(error) => return Finding::error(CHECK, &error, advice),
    };
    if let Some(refusal) = &report.refusal {
        return Finding::error(CHECK, refusal, "`gwstore pin verify` says more");
    }
    if report.pin.is_none() {
        return Finding::warn(
            CHECK,
            "it has no mark yet: an older copy of the store that is put back is not noticed",
            "`gwstore pin init` makes it, and so does the next opening to write",
        );
    }
    if may_share_device {
        return Finding::warn(
            CHECK,
            format!(
                "{}, but it may lie on the store's own device, and then is put back with it",
                report.verdict
            ),
            "put it on another device, and leave zqlite.pin_same_device out",
        );
    }
    Finding::ok(CHECK, format!("{}; it is moved with each commit", report.verdict))
}
