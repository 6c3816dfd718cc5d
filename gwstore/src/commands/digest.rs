//! `gwstore digest`.

use ghostwire_store::Result;
use ghostwire_store::config::Config;
use ghostwire_store_core::digest::Digests;

use crate::failure::Outcome;
use crate::live::{self, Found};
use crate::output::Shell;
use crate::session::Reading;

/// The digests of what is stored, computed from the files and not from anybody's memory.
pub(super) async fn run(config: &Config, shell: &mut Shell<'_>) -> Outcome {
    let digests = of(config, shell).await?;
    if shell.json { shell.object(&digests) } else { print(&digests, shell) }
}

pub(super) async fn of(config: &Config, shell: &mut Shell<'_>) -> Result<Digests> {
    if let Found::Served(client) = live::find(config, shell).await? {
        return client.digests().await;
    }
    let reading = Reading::open(config, shell).await?;
    let digests = reading.store.digests().await;
    reading.close().await?;
    digests
}

/// The digests, one a line.
pub(super) fn print(digests: &Digests, shell: &mut Shell<'_>) -> Outcome {
    shell.pairs(&[
        ("state", digests.state.to_string()),
        ("metrics", digests.metrics.to_string()),
        ("audit", digests.audit.to_string()),
    ])
}
