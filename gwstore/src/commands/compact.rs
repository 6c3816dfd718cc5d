//! `gwstore compact`.

use ghostwire_store::config::Config;

use crate::failure::Outcome;
use crate::output::{Shell, bytes};
use crate::session::compact;

/// Gives free pages of the store's file back to the disk.
pub(super) async fn run(config: &Config, shell: &mut Shell<'_>) -> Outcome {
    let compacted = compact(config).await?;
    if shell.json {
        return shell.object(&compacted);
    }
    shell.pairs(&[("before", bytes(compacted.before)), ("after", bytes(compacted.after))])?;
    shell.say(if compacted.after < compacted.before {
        "Compacted."
    } else {
        "Compacted. There was nothing to give back."
    })
}
